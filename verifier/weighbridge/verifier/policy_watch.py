"""Which policy judges whose sessions while a verifier serves: signed bundles as they change, one engine for each.

A *place* is a tenant's, or that of all others. In each is one policy: that of the bundle for it, or, for all others,
the one that the verifier was given outright. Every place has an engine of its own, which is one process: it sees its
own rules and data, the relying party's reference values, and the windows of its own sessions.

Before each window the files are looked at; a new good bundle judges from that window on, in every running session. Its
engine is loaded before the one before is let go. One that is not good (signature, tenant, number, checker, engine) is
reported, and the one before stays in force until its own end. A bundle that is not valid at a window's receipt time
judges nothing: nothing is admitted, and nothing is held against the host.

A file is bound to the line of its first bundle, and a line's number only grows (``Transaction.owners``): only a bundle
that loads is remembered, so that one which does not cannot take the way back to the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.engine import Decision, decide_all
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied, WeighbridgeError
from weighbridge.verifier import policy_bundle
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.watched import NOT_THERE, Fingerprint, look, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicyFiles, PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.owner_signature import Line
    from weighbridge.verifier.policy_bundle import VerifiedPolicyBundle
    from weighbridge.verifier.store import Store

__all__ = ["InForce", "PoliciesInForce", "PolicyWatch"]

_OTHERS: Final = ""
"""The place of every tenant that has none of its own."""
_HINT: Final = "name a file that `weighbridge policy bundle sign` wrote"


@final
@dataclass(frozen=True, slots=True)
class InForce:
    """A policy, loaded, and the bundle that it came in."""

    policy: PolicySet
    engine: Prepared
    bundle: VerifiedPolicyBundle | None

    def named(self, decision: Decision) -> Decision:
        """``decision`` of this policy, with the bundle that it came in."""
        return decision if self.bundle is None else replace(decision, revision=self.bundle.revision)


@final
@dataclass(frozen=True, slots=True)
class PoliciesInForce:
    """The policies by which to judge, each for its own tenant's sessions. One of :class:`.Prepared`."""

    places: Mapping[str, InForce]

    def of(self, tenant: str) -> InForce:
        """The policy for the sessions of ``tenant``.

        Raises:
            EnvironmentFault: ``POLICY_ABSENT``.
        """
        found = self.places.get(tenant) or self.places.get(_OTHERS)
        if found is None:
            raise EnvironmentFault(
                Code.POLICY_ABSENT,
                "there is no policy for this tenant",
                where=tenant,
                hint="serve it one: --policy-bundle, or --policy for every tenant that has none of its own",
            )
        return found

    def besides(self, tenant: str) -> tuple[str, ...]:
        """The other tenants for whose sessions alone there is a policy: a name that is misspelt is among them."""
        return tuple(sorted(place for place in self.places if place not in {_OTHERS, tenant}))

    def decide(self, document: PolicyInput) -> Decision:
        """The decision of the policy that is for the document's tenant.

        Raises:
            EnvironmentFault: ``POLICY_ABSENT``, ``POLICY_EXPIRED``: no policy is in force; or as :class:`.Prepared`.
        """
        found = self._valid(document)
        return found.named(found.engine.decide(document))

    def decide_all(self, documents: Sequence[PolicyInput]) -> Sequence[Decision | WeighbridgeError]:
        """See :meth:`.Several.decide_all`: each policy is asked once, about the windows that it is for."""
        made: list[Decision | WeighbridgeError | None] = [None] * len(documents)
        asked: dict[int, tuple[InForce, list[int]]] = {}
        for place, document in enumerate(documents):
            try:
                found = self._valid(document)
            except WeighbridgeError as error:
                made[place] = error
            else:
                asked.setdefault(id(found), (found, []))[1].append(place)
        for found, places in asked.values():
            decided = decide_all(found.engine, [documents[place] for place in places])
            for place, one in zip(places, decided, strict=True):
                made[place] = found.named(one) if isinstance(one, Decision) else one
        return [one for one in made if one is not None]

    def _valid(self, document: PolicyInput) -> InForce:
        """The policy for the document's tenant, which is valid at its receipt time."""
        found = self.of(document.session.tenant)
        if found.bundle is not None:
            _check_valid(found.bundle, moment(strict.decimal(document.received_ns, what="received_ns")))
        return found

    def files(self) -> Mapping[bytes, PolicyFiles]:
        """The files of each policy, by its digest: as records name it."""
        return {found.policy.digest: found.policy.files for found in self.places.values()}

    def close(self) -> None:
        """Nothing: the engines are the watch's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class _Watched:
    """One file: how it looked when it was last read, and the line of the bundles in it, which does not change."""

    fingerprint: Fingerprint = NOT_THERE
    line: Line | None = None


@final
class PolicyWatch:
    """Puts policies in force, and others when a bundle's file has changed. Used from one thread.

    Args:
        paths: files of policy bundles, each for another tenant, one at most for all others.
        own: a policy that was given outright, for all others; its reference values do not count.
        anchors: whose keys are believed: ``policy-author``.
        store: where the newest bundle of each line is remembered.
        load: checks a policy and loads it into an engine of its own.
        report: called with a line for the operator.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        own: PolicySet | None,
        anchors: TrustAnchors,
        store: Store,
        load: Callable[[PolicySet], Prepared],
        report: Callable[[str], None],
    ) -> None:
        self._files: dict[Path, _Watched] = {path: _Watched() for path in paths}
        self._own = own
        self._anchors = anchors
        self._store = store
        self._load = load
        self._report = report
        self._in_force = PoliciesInForce({})

    def open(self, reference: Reference, at: datetime) -> PoliciesInForce:
        """The policies to begin with. Every one must be good.

        Raises:
            WeighbridgeError: a file cannot be read or verified, is older than one that was in force before, does not
                load, or is for a place that another one has.
        """
        places: dict[str, InForce] = {}
        try:
            if self._own is not None:
                places[_OTHERS] = self._loaded(replace(self._own, reference=reference), None)
            for path, file in self._files.items():
                file.fingerprint, data = read(path, limit=limits.POLICY_BUNDLE_MAX)
                bundle = self._verified(path, data)
                places[bundle.line.tenant] = self._taken(path, bundle, reference, at)
        except BaseException:
            _close(places)
            raise
        self._in_force = PoliciesInForce(places)
        return self._in_force

    @property
    def in_force(self) -> PoliciesInForce:
        """The policies by which windows are judged; none before :meth:`open`."""
        return self._in_force

    def moved(self) -> bool:
        """Whether a file looks otherwise than when it was last read. Costs a ``stat`` each."""
        return any(look(path) != file.fingerprint for path, file in self._files.items())

    def renew(self, reference: Reference, at: datetime, *, asked: bool) -> PoliciesInForce:
        """The policies by which to judge from now on; the same object where nothing has changed.

        Args:
            reference: the reference values in force.
            at: the present.
            asked: whether to read all files, changed or not.

        Raises:
            EnvironmentFault: a store or the policy engine is at fault. What was in force before is not touched.
            PolicyDenied: a policy that was in force does not load with these reference values.
        """
        places = self._in_force.places
        made: dict[str, InForce] = {}
        try:
            for path, file in self._files.items():
                if (now := look(path)) != file.fingerprint or asked:
                    file.fingerprint = now
                    found = self._retake(path, reference, at)
                    if found is not None and found.bundle is not None:
                        made[found.bundle.line.tenant] = found
            for place, before in places.items():
                if place not in made and before.policy.reference != reference:
                    made[place] = self._loaded(replace(before.policy, reference=reference), before.bundle)
        except BaseException:
            _close(made)
            raise
        if made:
            self._in_force = PoliciesInForce({**places, **made})
            _close({place: places[place] for place in made if place in places})
        return self._in_force

    def close(self) -> None:
        """End every engine's process."""
        _close(self._in_force.places)

    def _retake(self, path: Path, reference: Reference, at: datetime) -> InForce | None:
        """The bundle that is in ``path`` now, unless it is in force; or say why not, and the one before stays."""
        try:
            self._files[path].fingerprint, data = read(path, limit=limits.POLICY_BUNDLE_MAX)
            bundle = self._verified(path, data)
            before = self._in_force.places.get(bundle.line.tenant)
            if before is not None and before.bundle == bundle and before.policy.reference == reference:
                return None
        except WeighbridgeError as error:
            # An unreadable file, too, changes nothing: whoever replaces it does so in one step.
            self._warn(path, error)
            return None
        try:
            return self._taken(path, bundle, reference, at)
        except EnvironmentFault:
            raise
        except WeighbridgeError as error:
            self._warn(path, error)
            return None

    def _warn(self, path: Path, error: WeighbridgeError) -> None:
        self._report(f"weighbridge: warning: {path} is not taken, and the policy before stays in force: {error}")
        if error.hint:
            self._report(f"hint: {error.hint}")

    def _verified(self, path: Path, data: bytes) -> VerifiedPolicyBundle:
        """The bundle in ``data``, which may take its place in this file."""
        try:
            bundle = policy_bundle.verify(data, anchors=self._anchors)
        except MalformedEvidence as error:
            raise error.in_file(path, what="a policy bundle", hint=_HINT) from error
        line, bound = bundle.line, self._files[path].line
        if bound is not None and bound != line:
            raise PolicyDenied(
                Code.POLICY_ROLLBACK,
                "another policy has taken the place of the one that was here",
                where=str(path),
                expected=str(bound),
                got=str(line),
                hint="give each policy a file of its own, and name it when you start: --policy-bundle",
            )
        for other, known in self._files.items():
            if other != path and known.line is not None and known.line.tenant == line.tenant:
                raise _two(path, line, str(other))
        if self._own is not None and line.tenant == _OTHERS:
            raise _two(path, line, "--policy")
        return bundle

    def _taken(self, path: Path, bundle: VerifiedPolicyBundle, reference: Reference, at: datetime) -> InForce:
        """``bundle``, loaded and remembered."""
        found = self._loaded(bundle.policy(reference), bundle)
        try:
            with self._store.transaction() as tx:
                tx.owners.see(bundle, at_ns=nanoseconds(at))
        except BaseException:
            found.engine.close()
            raise
        self._files[path].line = bundle.line
        self._report(
            f"{bundle.line}, number {bundle.number}: policy {found.policy.digest.hex()}, "
            f"valid {strict.time_encode(bundle.not_before)} to {strict.time_encode(bundle.not_after)}"
            + ("" if bundle.valid(at) else "; NOT VALID NOW: nothing is judged by it")
        )
        return found

    def _loaded(self, policy: PolicySet, bundle: VerifiedPolicyBundle | None) -> InForce:
        return InForce(policy, self._load(policy), bundle)


def _check_valid(bundle: VerifiedPolicyBundle, at: datetime) -> None:
    """Without a policy in force nothing is decided: nothing is admitted, and nobody is to blame but the author."""
    if not bundle.valid(at):
        raise EnvironmentFault(
            Code.POLICY_EXPIRED,
            "the policy is not valid now: nothing is judged",
            where=f"{bundle.line}, number {bundle.number}",
            expected=f"{strict.time_encode(bundle.not_before)}..{strict.time_encode(bundle.not_after)}",
            got=strict.time_encode(at),
            hint="put the author's next bundle in its place; the window may be sent again",
        )


def _two(path: Path, line: Line, other: str) -> MalformedEvidence:
    whose = f"the sessions of {line.tenant}" if line.tenant else "every tenant that has none of its own"
    return MalformedEvidence(
        Code.DUPLICATE_KEY,
        f"two policies for {whose}",
        where=str(path),
        got=other,
        hint="name one: a bundle for one tenant is signed with --tenant",
    )


def _close(places: Mapping[str, InForce]) -> None:
    for found in places.values():
        found.engine.close()
