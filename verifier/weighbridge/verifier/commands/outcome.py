"""What a command has found out, and the inputs that several commands share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.policy import policy_set
from weighbridge.policy.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence
from weighbridge.verifier import anchors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto import strict
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["Outcome", "load_anchors", "load_policy", "read", "read_reference"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's result.

    Attributes:
        text: for people; ends with a newline.
        document: for programs; has a ``schema``.
        status: 0 only for success.
    """

    text: str
    document: strict.JsonObject
    status: ExitCode = ExitCode.AFFIRMED


def read(path: str | Path, *, limit: int) -> bytes:
    """The bytes of a file, or of standard input for ``-``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``TOO_LARGE``.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, (error.strerror or type(error).__name__).lower(), where=str(path)
        ) from error
    if len(data) > limit:
        raise MalformedEvidence(Code.TOO_LARGE, "file is too large", where=str(path), expected=f"<= {limit} bytes")
    return data


def load_anchors(paths: Sequence[str]) -> TrustAnchors:
    """The anchors of all named documents together, or the default ones when none is named."""
    if not paths:
        return anchors.default()
    documents = [anchors.load(read(path, limit=limits.JSON_MAX)) for path in paths]
    return documents[0].with_anchors(anchor for document in documents[1:] for anchor in document.anchors)


def read_reference(path: str) -> Reference:
    """The reference values in the file ``path``."""
    return Reference.parse(read(path, limit=limits.JSON_MAX))


def load_policy(names: Sequence[str], reference: Reference) -> PolicySet:
    """A shipped policy by its name, or an author's modules by their paths.

    Raises:
        PolicyDenied: ``POLICY_INVALID``.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    match names:
        case ["production" | "insecure_development" as name]:
            return policy_set.shipped(name, reference=reference)
        case _:
            pass
    return policy_set.load([Path(name) for name in names], reference=reference)
