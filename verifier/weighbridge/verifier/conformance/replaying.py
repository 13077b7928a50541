"""How this project's verifier judges a case: the product's own code, over stores of its own, told what time it is.

Nothing here decides anything. The clock shows the time of the step, and :class:`Told` gives the verifier what it would
draw, so that evidence that was once sealed under a challenge answers that challenge again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, assert_never, cast, final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from weighbridge.policy import policy_set
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.spot import SpotPool
from weighbridge.verifier import anchors as anchor_documents
from weighbridge.verifier import baseline_set
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.challenge import Chance
from weighbridge.verifier.clearing import clear
from weighbridge.verifier.conformance import proofs
from weighbridge.verifier.conformance.owned import put, watch
from weighbridge.verifier.conformance.result import Result, accepted, enrolled, of_answer, of_error
from weighbridge.verifier.conformance.steps import (
    Case,
    Clear,
    Close,
    Open,
    Pool,
    Prove,
    Put,
    Refresh,
    Resume,
    Start,
    Step,
    Watch,
    Window,
    digits,
    moment_of,
    octets,
)
from weighbridge.verifier.conformance.watching import look
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger.content import ContentStore
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.published import Published
from weighbridge.verifier.requirements import Requirements
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicyFiles, PolicySet
    from weighbridge.verifier.conformance.steps import Issue, Keys, Owners
    from weighbridge.verifier.ledger.watched import Watched
    from weighbridge.verifier.reference_watch import ReferenceWatch

__all__ = ["ORIGIN", "Engines", "Replay", "Told"]

ORIGIN = "ledger.example/test"


@final
class Engines:
    """Policies that are loaded once for all cases: loading one starts a process."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[bytes, bytes], Prepared] = {}

    def load(self, policy: PolicySet) -> Prepared:
        """``policy``, ready to decide."""
        key = policy.digest, policy.reference_digest
        if key not in self._prepared:
            self._prepared[key] = RegorusEngine().load(policy, spares=0)
        return self._prepared[key]

    def close(self) -> None:
        """Stop all of them."""
        for prepared in self._prepared.values():
            prepared.close()


@final
class Told(Chance):
    """What is handed out in one step, in the order in which it is drawn, and the root that stands in challenges."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._left: list[bytes] = []

    def tell(self, issue: Issue | None) -> None:
        """What the next step hands out; nothing is left of the one before."""
        given = () if issue is None else (issue.session, issue.random, issue.secret)
        self._left = [digits(text) for text in given if text is not None]

    def token(self, size: int) -> bytes:
        """The next of them.

        Raises:
            RuntimeError: the case does not say what this verifier draws here.
        """
        if not self._left or len(self._left[0]) != size:
            raise RuntimeError(f"the step does not say what the verifier draws: {size} bytes")
        return self._left.pop(0)

    def dated(self, root: bytes) -> bytes:
        """The case's root, whatever the ledger's is: what verdicts say may change, and evidence may not."""
        del root
        return self._root


@final
class _Time:
    """The time of the step."""

    def __init__(self) -> None:
        self.at = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@dataclass(frozen=True, slots=True)
class _State:
    """What a verifier keeps, on a disk."""

    directory: Path
    ledger: Ledger
    store: Store
    leadership: FileLeadership
    keys: VerifierKeys

    @classmethod
    def make(cls, directory: Path, keys: Keys) -> Self:
        directory.mkdir()
        own = _keys(keys, directory)
        return cls(
            directory,
            Ledger.create(directory / "ledger", origin=ORIGIN, key=own.ledger),
            Store.create_or_open(directory / "sessions.sqlite"),
            FileLeadership(directory / "turns"),
            own,
        )

    @property
    def archive(self) -> Archive:
        return Archive(ContentStore(self.directory / "content"), self.ledger, self.leadership)

    def close(self) -> None:
        self.store.close()
        self.ledger.close()
        self.leadership.close()


@final
class Replay:
    """One case, judged in the directory ``directory``, which is empty. Use with ``with``."""

    def __init__(self, directory: Path, engines: Engines) -> None:
        self._directory = directory
        self._engines = engines
        self._clock = _Time()
        self._states: dict[int, _State] = {}
        self._verifiers: dict[int, tuple[Verifier, Told]] = {}
        # Where the owners' files are that each of them looks at.
        self._owned: dict[int, Path] = {}
        # What a monitor has seen of the log that the case shows.
        self._watched: Watched | None = None

    def __enter__(self) -> Self:
        """Nothing is open yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all stores."""
        with contextlib.ExitStack() as stack:
            for state in self._states.values():
                stack.callback(state.close)

    def run(self, case: Case) -> list[Result]:
        """What comes of each step of ``case``."""
        return [self.take(step) for step in case.steps]

    def take(self, step: Step) -> Result:
        """What comes of ``step``."""
        try:
            return self._take(step)
        except WeighbridgeError as error:
            return of_error(error)

    def _take(self, step: Step) -> Result:
        match step:
            case Start():
                self._start(step)
            case Put():
                _ = put(self._owned[step.verifier], step.file)
            case Refresh():
                self._clock.at = moment_of(step.at)
                self._verifiers[step.verifier][0].refresh()
            case Pool():
                with self._states[step.state].store.transaction() as tx:
                    _ = tx.spots.add(SpotPool.from_json(octets(step.pool)))
            case Clear():
                state = self._states[step.state]
                at = moment_of(step.at)
                _ = clear(state.archive, state.store, step.kind, digits(step.identity), reason=step.reason, at=at)
            case Open() | Prove() | Window() | Resume() | Close():
                return self._session(step)
            case Watch():
                self._watched = look(step, self._watched, self._directory)
            case _:
                return proofs.take(step, self._engines.load)
        return accepted()

    def _session(self, step: Open | Prove | Window | Resume | Close) -> Result:
        verifier, told = self._verifiers[step.verifier]
        self._clock.at, peer = moment_of(step.at), digits(step.peer)
        told.tell(None if isinstance(step, Close) else step.issue)
        match step:
            case Open():
                _ = verifier.open(octets(step.opening), peer=peer)
            case Prove():
                _ = verifier.prove(octets(step.proof), peer=peer)
                return enrolled()
            case Window():
                return of_answer(verifier.window(digits(step.session), octets(step.window), peer=peer))
            case Resume():
                _ = verifier.resume(digits(step.session), peer=peer)
            case Close():
                _ = verifier.close(digits(step.session), peer=peer)
            case _:
                assert_never(step)
        return accepted()

    def _start(self, step: Start) -> None:
        self._clock.at = moment_of(step.at)
        state = self._states.get(step.state)
        if state is None:
            state = self._states[step.state] = _State.make(self._directory / f"state-{step.state}", step.keys)
        told = Told(digits(step.root))
        models = [Manifest.unpack(octets(model)) for model in step.models]
        manifests = {model.digest: model for model in models}
        if step.owners is None:
            renewal, appraiser = None, self._appraiser(step, state, manifests)
        else:
            renewal = self._watch(step, step.owners, state, manifests)
            appraiser = renewal.open(self._clock.at)
        verifier = Verifier(
            requirements=Requirements.parse(octets(step.requirements)),
            anchors=anchor_documents.load(octets(step.anchors)),
            appraiser=appraiser,
            keys=state.keys,
            archive=state.archive,
            store=state.store,
            clock=self._clock,
            issuer=ORIGIN,
            chance=told,
        )
        if renewal is not None:
            verifier.follow(renewal)
        self._verifiers[step.verifier] = verifier, told

    def _watch(self, step: Start, owners: Owners, state: _State, manifests: Mapping[bytes, Manifest]) -> ReferenceWatch:
        directory = self._owned[step.verifier] = self._directory / f"owned-{step.verifier}"
        directory.mkdir(exist_ok=True)
        return watch(
            step,
            owners,
            directory=directory,
            store=state.store,
            archive=state.archive,
            models=manifests,
            load=self._engines.load,
        )

    def _appraiser(self, step: Start, state: _State, manifests: Mapping[bytes, Manifest]) -> Appraiser:
        anchors = anchor_documents.load(octets(step.anchors))
        reference = Reference.recorded(octets(step.reference))
        policy = policy_set.recorded(_files(step), reference=reference)
        sets = [octets(data) for data in step.baselines]
        for data in sets:
            state.archive.keep_baseline(data)
        files: Mapping[bytes, PolicyFiles] = {policy.digest: policy.files}
        publishers = anchor_documents.load(octets(step.publishers))
        return Appraiser(
            self._engines.load(policy),
            reference,
            manifests,
            Published(Collateral.parse(octets(step.collateral)), publishers),
            files,
            baselines=Baselines(baseline_set.verify(data, anchors=anchors) for data in sets),
        )


def _files(step: Start) -> PolicyFiles:
    return tuple((file.name, octets(file.content)) for file in step.policy)


def _keys(keys: Keys, directory: Path) -> VerifierKeys:
    signing = load_der_private_key(octets(keys.signing), password=None)
    ledger = load_der_private_key(octets(keys.ledger), password=None)
    return VerifierKeys(
        cast("ec.EllipticCurvePrivateKey", signing), cast("Ed25519PrivateKey", ledger), directory / "tokens"
    )
