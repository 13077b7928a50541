"""What a configuration names, looked at before anything is started: is it there, readable, well-formed, does it fit.

Nothing is opened for writing, and nothing of the verifier's state is changed: policies are loaded into an engine of
their own, and ports are bound for a moment. What only a verifier can tell that has served before, such as whether a set
is older than one it has seen, is not looked at; neither are databases and object storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, final

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, WeighbridgeError
from weighbridge.proto.reference_set import SET_TYP
from weighbridge.verifier.bench import keys_of
from weighbridge.verifier.commands.basis import (
    admitting_for_all,
    lacking,
    needed,
    read_authorities,
    read_policy,
    read_requirements,
    require_attesters,
    require_own,
)
from weighbridge.verifier.commands.config_files import (
    UNVERIFIED,
    authorities_in,
    directory,
    pair,
    signed_bundle,
    signed_set,
    writable,
)
from weighbridge.verifier.commands.outcome import load_anchors, no_state, read, read_manifest, read_reference, taken_for
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.ledger.places import Places
from weighbridge.verifier.ledger.s3 import S3Address
from weighbridge.verifier.ports import check_port
from weighbridge.verifier.relying_parties import RelyingParties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cryptography import x509

    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.settings.kinds import Place
    from weighbridge.verifier.settings.model import Judging, Settings

__all__ = ["Finding", "look"]

_T = TypeVar("_T")
Status = Literal["ok", "warn", "fail"]
# Time for an operator to notice, and to renew it.
_SOON = timedelta(days=30)
# Whoever listens on these has the port on every address of the family.
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
# What policies are loaded beside where the reference is not there to be had.
_NO_REFERENCE = Reference({}, {}, {})


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one key.

    Attributes:
        status: ``warn`` where it may be meant.
        key: such as ``judging.requirements``.
        says: what was found, or the refusal.
        error: the refusal.
    """

    status: Status
    key: str
    says: str
    error: WeighbridgeError | None = None


def look(settings: Settings, at: datetime | None = None) -> tuple[Finding, ...]:
    """Look at all that ``settings`` name, in the order in which ``serve`` would."""
    looking = _Looking(settings, at or datetime.now(UTC))
    looking.look()
    return tuple(looking.found)


@final
class _Looking:
    def __init__(self, settings: Settings, at: datetime) -> None:
        self._settings = settings
        self._at = at
        self.found: list[Finding] = []
        self._admitting: set[bytes] = set()
        self._relying: RelyingParties | None = None

    def look(self) -> None:
        self.found += [Finding("fail", error.where, str(error), error) for error in lacking(self._settings)]
        self._state()
        self._channel()
        self._places()
        self._parties()
        tenants: dict[str, str] = {}
        for number, judging in enumerate(self._settings.judged()):
            place = f"tenants.{number}" if self._settings.tenants else "judging"
            tenant = self._judging(judging, place)
            if tenant is not None and tenant in tenants:
                error = MalformedEvidence(
                    Code.DUPLICATE_KEY, "two of the tenants are one", where=f"{place}.requirements", got=tenant
                )
                self.found.append(Finding("fail", f"{place}.requirements", str(error), error))
            tenants[tenant or ""] = place
        self._listed(frozenset(tenants))
        if self._settings.store.url is not None:
            self._warn("store.url", "not asked: `weighbridge store check` does")
        if self._settings.ledger.storage is not None:
            self._warn("ledger.storage", "not asked: serve does, before it listens")

    # -- the verifier itself -------------------------------------------------------------------------------------------

    def _state(self) -> None:
        state = self._settings.serve.state
        if state is None:
            return

        def its() -> str:
            try:
                origin = (state / "origin").read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise no_state(state) from error
            return f"{state}: {origin}, key {VerifierKeys.open(state / 'keys').thumbprint.hex()}"

        self._try("serve.state", its, str)
        storage = self._settings.ledger.storage
        if storage is not None:
            expected = S3Address.parse(storage)
            self._try(
                "ledger.storage", lambda: Places.of(state, expected=expected), lambda _: f"{storage}, as {state} has"
            )
        file = self._settings.serve.port_file
        if file is not None:
            self._try("serve.port_file", lambda: writable(file), lambda _: str(file))

    def _channel(self) -> None:
        state, own = self._settings.serve.state, self._settings.channel
        if own.certificate is not None and own.key is not None:
            certificate, key, place = own.certificate, own.key, "channel.certificate"
        elif state is not None:
            certificate, key, place = (
                state / "tls" / "server.pem",
                state / "tls" / "server-key.pem",
                "serve.state (tls)",
            )
        else:
            return

        def fits() -> x509.Certificate:
            return pair(certificate, key, self._at)

        found = self._try(place, fits, lambda found: f"{certificate}, until {found.not_valid_after_utc:%Y-%m-%d}")
        if found is not None and found.not_valid_after_utc - self._at < _SOON:
            self._warn(place, f"{certificate} ends on {found.not_valid_after_utc:%Y-%m-%d}: renew it before")

    def _places(self) -> None:
        places = {
            "serve.listen": self._settings.serve.listen,
            "relying_parties.listen": self._settings.relying_parties.listen,
            "http.listen": self._settings.http.listen,
            "metrics.listen": self._settings.metrics.listen,
        }
        taken: list[tuple[str, int, str]] = []
        for key, place in places.items():
            if place is None:
                continue
            ports = range(place.port, place.port + (self._settings.serve.workers if key.startswith("metrics") else 1))
            for port in ports if place.port else ():
                for host, number, other in taken:
                    if port == number and _meet(place.host, host):
                        error = MalformedEvidence(Code.DUPLICATE_KEY, f"the port of {other} too", where=key, got=port)
                        self.found.append(Finding("fail", key, str(error), error))
                taken.append((place.host, port, key))
            self._port(key, place, ports)
        http = self._settings.http
        if http.listen is not None and http.plain and not http.listen.is_local:
            self._warn("http.plain", f"without TLS, and others may reach {http.listen}: is there a proxy before it?")

    def _port(self, key: str, place: Place, ports: range) -> None:
        try:
            for port in ports:
                check_port(place.host, port, where=str(place.at(port)))
        except EnvironmentFault as error:
            # A verifier that serves by this very file has it.
            self._warn(key, str(error))
        else:
            self.found.append(Finding("ok", key, str(place)))

    def _parties(self) -> None:
        parties = self._settings.relying_parties
        if parties.file is not None:
            file = parties.file

            def listed() -> RelyingParties:
                data = read(file, limit=limits.REFERENCE_SET_MAX)
                with taken_for(file, what="a list of relying parties", hint="docs/results.md says what is in it"):
                    return RelyingParties.parse(data)

            self._relying = self._try(
                "relying_parties.file",
                listed,
                lambda found: f"{file}: {counted(len(found.relying_parties), 'relying party', 'relying parties')}",
            )
        if parties.ca is not None:
            authority = parties.ca
            self._try("relying_parties.ca", lambda: authorities_in(authority), lambda count: f"{authority}: {count}")

    def _listed(self, judged: frozenset[str]) -> None:
        """Warn of tenants that a relying party may ask of, and that nobody judges here."""
        if self._relying is None or "" in judged:
            return
        for party in self._relying.relying_parties:
            if unjudged := [tenant for tenant in party.tenants if tenant not in judged]:
                self._warn(
                    "relying_parties.file", f"{party.name} may ask of {', '.join(unjudged)}: no requirements name it"
                )

    # -- one tenant ----------------------------------------------------------------------------------------------------

    def _judging(self, judging: Judging, place: str) -> str | None:
        """Look at it all, and return the tenant's name."""
        requirements = None
        if judging.requirements is not None:
            path = judging.requirements
            requirements = self._try(
                f"{place}.requirements", lambda: read_requirements(path), lambda found: f"{path}: tenant {found.tenant}"
            )
        tenant = None if requirements is None else requirements.tenant
        reference = None
        if judging.reference is not None:
            values = str(judging.reference)
            reference = self._try(f"{place}.reference", lambda: read_reference(values), lambda _: values)
        anchors = self._try(
            f"{place}.anchors",
            lambda: load_anchors(judging.anchors),
            lambda found: f"{counted(len(found.anchors), 'anchor')} of {', '.join(judging.anchors)}",
        )
        self._each(f"{place}.manifests", judging.manifests, lambda path: f"{path}: {read_manifest(path).name}")
        self._attesters(judging, place)
        if judging.collateral is not None:
            store = judging.collateral
            self._try(f"{place}.collateral", lambda: directory(store), lambda _: str(store))
        elif requirements and requirements.gpus and reference and "gpu_revocation" not in reference.unchecked:
            self._warn(f"{place}.collateral", "none: neither revocation of GPUs nor makers' manifests will be known")
        self._sets(judging, place, reference, anchors)
        self._policies(judging, place, reference, anchors, tenant)
        return tenant

    def _sets(self, judging: Judging, place: str, reference: Reference | None, anchors: TrustAnchors | None) -> None:
        types: list[str] = []

        def says(path: Path) -> str:
            typ, line = signed_set(path, anchors)
            types.append(typ)
            return f"{path}: {line}"

        self._each(f"{place}.sets", judging.sets, says)
        # What cannot be read may list some.
        if reference is not None and not reference.models and len(types) == len(judging.sets) and SET_TYP not in types:
            self._warn(f"{place}.reference", "no model is accepted: it lists none, and there is no set of models")

    def _attesters(self, judging: Judging, place: str) -> None:
        key, path = f"{place}.attester_ca", judging.attester_ca
        if path is not None:
            self._try(key, lambda: self._own(path, place), lambda count: f"{path}: {count}")
            return
        try:
            require_attesters(judging, self._settings, where=key)
        except MalformedEvidence as error:
            self.found.append(Finding("fail", key, str(error), error))
        else:
            if judging.any_admitted_host:
                self._warn(f"{place}.any_admitted_host", "other tenants' hosts may attest for this one, too")

    def _own(self, path: Path, place: str) -> str:
        """How many authorities there are, of which none is another tenant's."""
        found = read_authorities(path)
        keys = keys_of(found)
        all_ = admitting_for_all(self._settings)
        require_own(keys, all_=all_, others=frozenset(self._admitting), where=f"{place}.attester_ca")
        self._admitting |= keys
        return counted(len(found), "certificate")

    def _policies(
        self,
        judging: Judging,
        place: str,
        reference: Reference | None,
        anchors: TrustAnchors | None,
        tenant: str | None,
    ) -> None:
        engine = self._try(f"{place}.engine", judging.engine.open, lambda _: str(judging.engine))
        beside = reference or _NO_REFERENCE

        def loaded(policy: PolicySet) -> str:
            if engine is not None:
                with engine.load(policy):
                    pass
            return policy.digest.hex() if reference is not None else "loads; its digest is known with the reference"

        if judging.policy:
            named = ", ".join(judging.policy)
            self._try(
                f"{place}.policy",
                lambda: loaded(needed(read_policy(judging, beside))),
                lambda digest: f"{named}: {digest}",
            )
        judges = bool(judging.policy)
        for path in judging.policy_bundles:

            def taken(path: Path = path) -> tuple[str, bool]:
                bundle = signed_bundle(path, anchors)
                if bundle is None:
                    return f"{path}: {UNVERIFIED}", True
                loaded(bundle.policy(beside))
                valid = "" if bundle.valid(self._at) else "; NOT VALID NOW: nothing is judged by it"
                return f"{path}: {bundle.line}, number {bundle.number}{valid}", bundle.line.tenant in {"", tenant}

            bundle = self._try(f"{place}.policy_bundles", taken, lambda found: found[0])
            judges = judges or bundle is None or bundle[1]
        if tenant is not None and not judges:
            error = EnvironmentFault(Code.POLICY_ABSENT, "there is no policy for this tenant", where=place, got=tenant)
            self.found.append(Finding("fail", f"{place}.policy", str(error), error))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _try(self, key: str, call: Callable[[], _T], says: Callable[[_T], str]) -> _T | None:
        """What ``call`` returns; ``None`` where it is refused, which is noted."""
        try:
            found = call()
        except WeighbridgeError as error:
            self.found.append(Finding("fail", key, str(error), error))
            return None
        self.found.append(Finding("ok", key, says(found)))
        return found

    def _each(self, key: str, paths: Iterable[Path], says: Callable[[Path], str]) -> None:
        for path in paths:
            self._try(key, partial(says, path), str)

    def _warn(self, key: str, says: str) -> None:
        self.found.append(Finding("warn", key, says))


def _meet(host: str, other: str) -> bool:
    """Whether one port of both is one."""
    return host == other or ((":" in host) == (":" in other) and not _EVERY_ADDRESS.isdisjoint({host, other}))
