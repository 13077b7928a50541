"""Owners' signed files, as the product looks at them: in a directory, replaced in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.verifier import anchors as anchor_documents
from weighbridge.verifier.baseline_watch import BaselineKeeper
from weighbridge.verifier.conformance.steps import octets
from weighbridge.verifier.policy_watch import PolicyWatch
from weighbridge.verifier.reference_watch import ReferenceWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.conformance.steps import File, Owners, Start
    from weighbridge.verifier.store import Store

__all__ = ["put", "watch"]


@final
@dataclass(frozen=True, slots=True)
class _Kept:
    """A policy that others use as well: whoever closes it only stops using it."""

    prepared: Prepared

    def decide(self, document: PolicyInput) -> Decision:
        return self.prepared.decide(document)

    def close(self) -> None:
        """It is closed with all others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See :meth:`close`."""


def put(directory: Path, file: File) -> Path:
    """Have ``file`` in ``directory``, in one step."""
    staging = directory / ".staging"
    _ = staging.write_bytes(octets(file.content))
    return staging.replace(directory / file.name)


def watch(
    step: Start,
    owners: Owners,
    *,
    directory: Path,
    store: Store,
    archive: Archive,
    models: Mapping[bytes, Manifest],
    load: Callable[[PolicySet], Prepared],
) -> ReferenceWatch:
    """What looks at the files of ``owners``, which are put into ``directory``; not opened yet.

    Raises:
        MalformedEvidence: the operator's own documents are malformed.
    """
    anchors = anchor_documents.load(octets(owners.anchors))
    nothing = Reference({}, {}, {})
    files = tuple((file.name, octets(file.content)) for file in step.policy)
    policies = PolicyWatch(
        [put(directory, file) for file in owners.policies],
        own=policy_set.recorded(files, reference=nothing) if files else None,
        anchors=anchors,
        store=store,
        load=lambda policy: _Kept(load(policy)),
        report=_say_nothing,
    )
    return ReferenceWatch(
        [put(directory, file) for file in owners.sets],
        own=Reference.recorded(octets(step.reference)),
        anchors=anchors,
        store=store,
        policies=policies,
        manifests=models,
        report=_say_nothing,
        baselines=BaselineKeeper(anchors=anchors, store=store, archive=archive) if owners.baselines else None,
    )


def _say_nothing(line: str) -> None:
    """What an operator would be told; what comes of it is told by the steps."""
    del line
