"""What a command has found out, and the inputs that several commands share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from weighbridge.policy import policy_set
from weighbridge.policy.authoring.sources import collect
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cose, limits
from weighbridge.proto.baseline import SET_TYP as BASELINE_SET_TYP
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence, PolicyDenied
from weighbridge.proto.host_set import SET_TYP as HOST_SET_TYP
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.options import UsageFault
from weighbridge.proto.policy_bundle import SignedPolicyBundle, is_signed
from weighbridge.verifier import anchors, host_set, reference_set
from weighbridge.verifier.files import PosixFiles, fault, install, standard_input

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from weighbridge.policy.authoring.sources import Sources
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.policy.values.host_sets import HostSet
    from weighbridge.policy.values.owner_sets import OwnerSet
    from weighbridge.proto import strict
    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = [
    "SHIPPED",
    "Outcome",
    "load_anchors",
    "load_document",
    "load_policy",
    "manifest_of",
    "no_state",
    "policy_named",
    "read",
    "read_manifest",
    "read_reference",
    "sources_named",
    "taken_for",
    "usage",
    "with_sets",
    "write",
]


# Names the anchors shipped with the package among documents; a file of this name is ./shipped.
SHIPPED: Final = "shipped"
_SET_HINT: Final = "name a set that `weighbridge model sign`, `weighbridge reference learn` or `sign` wrote"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's result.

    Attributes:
        text: for people; ends with a newline.
        document: for programs; has a ``schema``.
        status: 0 only for success.
        error: a refusal in spite of which there is a result; it is told as one that was raised.
    """

    text: str
    document: strict.JsonObject
    status: ExitCode = ExitCode.AFFIRMED
    error: WeighbridgeError | None = None


def read(path: str | Path, *, limit: int) -> bytes:
    """The bytes of a file, or of standard input for ``-``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``TOO_LARGE``.
    """
    try:
        if str(path) == "-":
            data = standard_input().read(limit + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            (error.strerror or type(error).__name__).lower(),
            where=str(path),
            hint="name a file in it" if isinstance(error, IsADirectoryError) else "",
        ) from error
    if len(data) > limit:
        raise MalformedEvidence(Code.TOO_LARGE, "file is too large", where=str(path), expected=f"<= {limit} bytes")
    return data


@contextlib.contextmanager
def taken_for(path: str | Path, *, what: str, hint: str) -> Generator[None]:
    """Have a refusal of the file ``path`` name it, and say that it is not ``what``; ``hint`` says where one is had.

    Raises:
        MalformedEvidence: the one that was raised inside, with its code.
    """
    try:
        yield
    except MalformedEvidence as error:
        raise error.in_file(path, what=what, hint=hint) from error


def read_manifest(path: str | Path) -> Manifest:
    """The manifest in the file ``path``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :func:`manifest_of`, or ``TOO_LARGE``.
    """
    return manifest_of(read(path, limit=limits.MANIFEST_JSON_MAX), path)


def manifest_of(data: bytes, path: str | Path) -> Manifest:
    """The manifest that ``data`` is, which was read from the file ``path``.

    Raises:
        MalformedEvidence: as :meth:`Manifest.from_json`, naming the file.
    """
    with taken_for(path, what="a manifest", hint="name a file that `weighbridge-attester measure -o` wrote"):
        return Manifest.from_json(data)


def write(path: Path, data: bytes, *, doing: str) -> None:
    """Put ``data`` at ``path``, whole or not at all.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
    """
    try:
        install(PosixFiles(), data, path, staging=path.with_name(f".{path.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, path, doing) from error


def no_state(directory: Path) -> EnvironmentFault:
    """The fault of a directory that is not a verifier's."""
    return EnvironmentFault(
        Code.FILE_UNREADABLE,
        "no verifier's state here",
        where=str(directory),
        hint="name a directory that `weighbridge init` made, or make one: weighbridge init STATE --origin NAME",
    )


def load_anchors(paths: Sequence[str]) -> TrustAnchors:
    """The anchors of all named documents together, or the default ones when none is named.

    ``shipped`` names the default ones, to be believed beside others. The same key may stand in several documents, for
    the same purpose, on the same platform; it is then believed as the first of them says. Of an attestation key, which
    may be pinned for several times, each pin counts.

    Raises:
        MalformedEvidence: a document is none, or two of them name one key for one purpose on two platforms, or for two
            tenants.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    if not paths:
        return anchors.default()
    documents = [anchors.default() if path == SHIPPED else load_document(path) for path in paths]
    merged = {
        (anchor.purpose, anchor.spki, anchor.platform, anchor.tenant, anchor.pinned_for): anchor
        for document in reversed(documents)
        for anchor in reversed(document.anchors)
    }
    return anchors.TrustAnchors(tuple(reversed(merged.values())), documents[0].note)


def load_document(path: str | Path) -> TrustAnchors:
    """The anchors in the file ``path``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :func:`weighbridge.verifier.anchors.load`, naming the file, or ``TOO_LARGE``.
    """
    data = read(path, limit=limits.JSON_MAX)
    with taken_for(path, what="an anchors document", hint="`weighbridge anchors import` makes one of certificates"):
        return anchors.load(data)


def read_reference(path: str) -> Reference:
    """The reference values in the file ``path``."""
    data = read(path, limit=limits.JSON_MAX)
    with taken_for(path, what="reference values", hint="docs/protocol.md §9.1 says what is in them"):
        return Reference.parse(data)


def with_sets(reference: Reference, paths: Sequence[str], trusted: TrustAnchors) -> Reference:
    """``reference`` with the signed sets in ``paths`` beside it. Whether a set is the newest, nothing here can tell.

    Raises:
        WeighbridgeError: a set is not verified.
    """
    models: list[OwnerSet] = []
    hosts: list[HostSet] = []
    for path in paths:
        data = read(path, limit=limits.HOST_SET_MAX + 1)
        with taken_for(path, what="a signed set", hint=_SET_HINT):
            typ = cose.claimed_typ(data, limit=limits.HOST_SET_MAX, what="signed set")
        if typ == HOST_SET_TYP:
            hosts.append(host_set.verify(data, anchors=trusted).values)
        elif typ == BASELINE_SET_TYP:
            raise MalformedEvidence(
                Code.COSE_HEADER,
                "it is a set of baselines, by which only `weighbridge serve` judges",
                where=path,
                hint="leave it out: what is recorded is judged by the baselines that its records name",
            )
        else:
            models.append(reference_set.verify(data, anchors=trusted).values)
    return reference.with_sets(models).with_hosts(hosts)


def usage(message: str, *, command: str) -> NoReturn:
    """Refuse arguments of which each alone is right.

    Raises:
        UsageFault: always.
    """
    raise UsageFault(message, hint=f"`weighbridge {command} --help` shows the arguments")


def load_policy(names: Sequence[str], reference: Reference) -> PolicySet:
    """A shipped policy by its name, or an author's: a directory, or modules and data by their paths.

    Raises:
        PolicyDenied: ``POLICY_INVALID``; also for a signed bundle, whose signature nothing here verifies.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    if len(names) == 1 and (name := policy_set.shipped_name(names[0])) is not None:
        return policy_set.shipped(name, reference=reference)
    if _is_bundle(names):
        raise PolicyDenied(
            Code.POLICY_INVALID,
            "it is a signed policy bundle, not a policy's files",
            where=names[0],
            hint="`weighbridge serve` takes it as --policy-bundle; `weighbridge policy bundle show` prints its files",
        )
    try:
        return sources_named(names).policy(reference)
    except EnvironmentFault as error:
        raise _nowhere(error) from error


def policy_named(names: Sequence[str], reference: Reference) -> PolicySet:
    """As :func:`load_policy`, and what a signed bundle has in it. Its signature is *not* verified.

    For what decides nothing: an author's tools, and an operator's who was handed a bundle.

    Raises:
        MalformedEvidence: the bundle is malformed.
        PolicyDenied: ``POLICY_INVALID``.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    if not _is_bundle(names):
        return load_policy(names, reference)
    data = read(names[0], limit=limits.POLICY_BUNDLE_MAX)
    with taken_for(names[0], what="a policy bundle", hint="name a file that `weighbridge policy bundle sign` wrote"):
        claimed = SignedPolicyBundle.parse(data).claimed
    return policy_set.authored(claimed.files, reference=reference)


def sources_named(names: Sequence[str]) -> Sources:
    """An author's files, where ``names`` are not one shipped policy's name.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: there is no policy.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    try:
        return collect(Path(name) for name in names)
    except EnvironmentFault as error:
        raise _nowhere(error) from error


def _nowhere(error: EnvironmentFault) -> EnvironmentFault:
    hint = f"name a policy's directory, its files, or one of: {', '.join(policy_set.SHIPPED)}"
    return EnvironmentFault(error.code, error.message, where=error.where, hint=hint)


def _is_bundle(names: Sequence[str]) -> bool:
    """Whether the one that is named is a file that begins as a signed policy bundle does."""
    if len(names) != 1 or not Path(names[0]).is_file():
        return False
    try:
        with Path(names[0]).open("rb") as file:
            return is_signed(file.read(16))
    except OSError:
        # Whoever reads it says so.
        return False
