"""What is judged by while a verifier serves: the relying party's values, owners' sets and collateral as they change.

Sets of models, of hosts and of baselines are told apart by what their signature says they are.

Before each window the files of the sets are looked at (a ``stat`` each); one that has changed is read and verified, and
the window is judged by what it says. A file is expected to be replaced in one step, by a rename.

The store of collateral is looked at alike: what it holds then is what windows are judged by, and what records name.

A new file that cannot be taken is reported, and the set before it stays in force until its own end. Failing never
makes anything more permissive: of a set that its owner signed, but whose statements cannot be verified, the revocations
count; and where this machine is at fault (the store, the policy engine), nothing is judged until it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.owner_sets import OwnerSet
from weighbridge.proto import cose, limits, strict
from weighbridge.proto.baseline import SET_TYP as BASELINE_SET_TYP
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied, WeighbridgeError
from weighbridge.proto.host_set import SET_TYP as HOST_SET_TYP
from weighbridge.verifier import host_set
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.baseline_set import VerifiedBaselineSet
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.published import Published
from weighbridge.verifier.reference_set import authenticate, verify_statements
from weighbridge.verifier.watched import NOT_THERE, Fingerprint, look, read
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from weighbridge.policy.values.baselines import NamedBaseline
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.baseline_watch import BaselineKeeper
    from weighbridge.verifier.collateral.store import CollateralStore
    from weighbridge.verifier.owner_signature import Line, SignedByOwner
    from weighbridge.verifier.policy_watch import PoliciesInForce, PolicyWatch
    from weighbridge.verifier.store import Store

__all__ = ["ReferenceWatch"]


@dataclass(slots=True)
class _Watched:
    """One file: how it looked when it was last read, the set taken from it, and the revocations of one that was not.

    ``line`` is that of the sets in it: it does not change.
    """

    fingerprint: Fingerprint = NOT_THERE
    line: Line | None = None
    taken: OwnerSet | HostSet | VerifiedBaselineSet | None = None
    revoked: OwnerSet | None = None


@final
class ReferenceWatch:
    """Makes the appraiser by which to judge, and makes it anew when a set's file has changed. Used from one thread.

    Args:
        paths: files of signed sets, each of another line: of a models' owner, of a class of an owner's hosts, or of an
            owner's baselines.
        own: the relying party's own reference values.
        anchors: whose keys are believed: ``model-owner``, ``statement-issuer`` and ``host-owner``.
        store: where the newest set of each line is remembered.
        policies: what to judge by them; looked at alike.
        manifests: the declared models' manifests, by digest.
        report: called with a line for the operator.
        collateral: what makers of hardware publish; ``None`` where there is no store.
        baselines: takes sets of baselines; ``None`` where none are taken.
    """

    def __init__(  # noqa: PLR0913 - what is judged by, each from elsewhere
        self,
        paths: Sequence[Path],
        *,
        own: Reference,
        anchors: TrustAnchors,
        store: Store,
        policies: PolicyWatch,
        manifests: Mapping[bytes, Manifest],
        report: Callable[[str], None],
        collateral: CollateralStore | None = None,
        baselines: BaselineKeeper | None = None,
    ) -> None:
        self._baselines = baselines
        self._collateral = collateral
        self._published = self._judged = Published.nothing()
        self._files: dict[Path, _Watched] = {path: _Watched() for path in paths}
        self._own = own
        self._anchors = anchors
        self._store = store
        self._policies = policies
        self._manifests = manifests
        self._report = report
        self._prepared: PoliciesInForce | None = None
        self._reference: Reference | None = None
        self._asked = False
        self._unfinished = False

    def open(self, at: datetime) -> Appraiser:
        """The appraiser to begin with. Every set and every policy must be good.

        Raises:
            WeighbridgeError: a file cannot be read or verified, or is older than one seen before.
        """
        self._published = self._look_up(at)
        for path, file in self._files.items():
            file.fingerprint, data = read(path, limit=limits.HOST_SET_MAX)
            self._take(path, data, file, at)
        values = self._values()
        return self._made(values, self._policies.open(values, at))

    def ask(self) -> None:
        """Have all files read again before the next window, changed or not. May be called from any thread."""
        self._asked = True

    def renew(self, at: datetime) -> Appraiser | None:
        """The appraiser by which to judge from now on; ``None`` where nothing has changed.

        Raises:
            EnvironmentFault: a store or the policy engine is at fault; the next call tries again.
        """
        self._published = self._look_up(at)
        anew = self._published is not self._judged
        asked, self._asked = self._asked, False
        changed = {path: now for path, file in self._files.items() if (now := look(path)) != file.fingerprint or asked}
        if not changed and not self._unfinished and not anew and not asked and not self._policies.moved():
            return None
        # Whatever is raised below, the next call does not take what was read by then for what is judged by.
        self._unfinished = True
        try:
            for path, fingerprint in changed.items():
                self._files[path].fingerprint = fingerprint
                self._retake(path, self._files[path], at)
            values = self._values()
            policies = self._policies.renew(values, at, asked=asked)
            other = anew or values != self._reference or policies is not self._prepared
            appraiser = self._made(values, policies) if other else None
        except EnvironmentFault:
            self._asked = True
            raise
        except PolicyDenied as error:
            # Its modules were good before: an engine that has no time or no memory says this, too.
            raise EnvironmentFault(
                Code.POLICY_CRASHED,
                f"the policy does not load with the reference values in force: {error}",
                where=error.where,
                hint="nothing is judged until it does: this machine is busy, or the sets are too large for its engine",
            ) from error
        self._unfinished = False
        return appraiser

    def _look_up(self, at: datetime) -> Published:
        """What is published as the store has it for ``at``: the same object while that is the same."""
        if self._collateral is None:
            return self._published
        found = self._collateral.snapshot(at)
        if found is self._published.collateral:
            return self._published
        self._report(f"collateral: {counted(len(found.items), 'piece')}")
        return Published(found, self._anchors, before=self._published)

    def close(self) -> None:
        """End the policy engines' processes."""
        self._policies.close()

    def _retake(self, path: Path, file: _Watched, at: datetime) -> None:
        """Take the set that is in ``path`` now, or say why not: then what was taken before stays."""
        try:
            file.fingerprint, data = read(path, limit=limits.HOST_SET_MAX)
        except EnvironmentFault as error:
            self._warn(path, error)
            return
        try:
            self._take(path, data, file, at)
        except EnvironmentFault:
            raise
        except WeighbridgeError as error:
            self._warn(path, error)

    def _warn(self, path: Path, error: WeighbridgeError) -> None:
        self._report(f"weighbridge: warning: {path} is not taken, and what it held before stays in force: {error}")
        if error.hint:
            self._report(f"hint: {error.hint}")

    def _take(self, path: Path, data: bytes, file: _Watched, at: datetime) -> None:
        try:
            typ = cose.claimed_typ(data, limit=limits.HOST_SET_MAX, what="signed set")
        except MalformedEvidence as error:
            hint = "name a set that `weighbridge model sign`, `weighbridge reference learn` or `sign` wrote"
            raise error.in_file(path, what="a signed set", hint=hint) from error
        if typ == HOST_SET_TYP:
            self._take_host(path, data, file, at)
        elif typ == BASELINE_SET_TYP and self._baselines is not None:
            self._take_baselines(path, data, file, self._baselines, at)
        else:
            self._take_models(path, data, file, at)

    def _take_models(self, path: Path, data: bytes, file: _Watched, at: datetime) -> None:
        authentic = authenticate(data, anchors=self._anchors)
        self._see(path, file, authentic, at)
        # From here on its owner's word is known: what it takes back is gone, whatever is wrong with the rest.
        file.revoked = authentic.revocations()
        file.taken = taken = verify_statements(authentic, anchors=self._anchors).values
        file.revoked = None
        says = f"{counted(len(taken.models), 'model')}, {len(taken.revoked)} revoked"
        self._tell(authentic, taken, says, at, "its models are refused")

    def _take_host(self, path: Path, data: bytes, file: _Watched, at: datetime) -> None:
        verified = host_set.verify(data, anchors=self._anchors)
        self._see(path, file, verified, at)
        file.taken = taken = verified.values
        says = f"{counted(len(taken.pcrs), 'register')}, {counted(len(taken.files), 'file')}"
        self._tell(verified, taken, says, at, "no host matches it")

    def _take_baselines(self, path: Path, data: bytes, file: _Watched, keeper: BaselineKeeper, at: datetime) -> None:
        verified = keeper.verify(data)
        self._check_line(path, file, verified.line)
        others = [item.taken for other, item in self._files.items() if other != path]
        keeper.take(verified, [item for item in others if isinstance(item, VerifiedBaselineSet)], at=at)
        file.line, file.taken = verified.line, verified
        says = counted(len(verified.content.profiles), "profile")
        self._tell(verified, verified.named, says, at, "no GPU is compared with it")

    def _see(self, path: Path, file: _Watched, signed: SignedByOwner, at: datetime) -> None:
        """Require that ``signed`` may take its place in this file and in its line."""
        self._check_line(path, file, signed.line)
        with self._store.transaction() as tx:
            tx.owners.see(signed, at_ns=nanoseconds(at))
        file.line = signed.line

    def _tell(
        self, signed: SignedByOwner, taken: OwnerSet | HostSet | NamedBaseline, says: str, at: datetime, invalid: str
    ) -> None:
        self._report(
            f"{signed.line}, number {taken.number}: {says}, valid {strict.time_encode(taken.not_before)} to "
            f"{strict.time_encode(taken.not_after)}" + ("" if taken.valid(at) else f"; NOT VALID NOW: {invalid}")
        )

    def _check_line(self, path: Path, file: _Watched, line: Line) -> None:
        if file.line is not None and file.line != line:
            raise PolicyDenied(
                Code.REFERENCE_ROLLBACK,
                "another set has taken the place of the one that was here",
                where=str(path),
                expected=str(file.line),
                got=str(line),
                hint="give each owner's set a file of its own: --models, --hosts, --baseline",
            )
        for other, known in self._files.items():
            if other != path and known.line == line:
                raise MalformedEvidence(
                    Code.DUPLICATE_KEY,
                    f"two files hold a {line}",
                    where=str(path),
                    got=str(other),
                    hint="a set replaces all earlier ones of its owner: name the newest only",
                )

    def _values(self) -> Reference:
        taken = [item for file in self._files.values() for item in (file.taken, file.revoked) if item is not None]
        hosts = [item for item in taken if isinstance(item, HostSet)]
        values = self._own.with_sets(item for item in taken if isinstance(item, OwnerSet)).with_hosts(hosts)
        values = values.with_baselines(item.named for item in taken if isinstance(item, VerifiedBaselineSet))
        if (size := len(values.to_json())) > limits.REFERENCE_MAX:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE,
                "the reference values are too large together",
                where=", ".join(map(str, self._files)) or "reference",
                expected=f"<= {limits.REFERENCE_MAX} bytes",
                got=size,
                hint="name fewer sets, or let another verifier judge by some of them",
            )
        return values

    def _made(self, values: Reference, policies: PoliciesInForce) -> Appraiser:
        self._prepared, self._reference, self._judged = policies, values, self._published
        baselines = Baselines(
            file.taken for file in self._files.values() if isinstance(file.taken, VerifiedBaselineSet)
        )
        return Appraiser(policies, values, self._manifests, self._published, policies.files(), baselines)
