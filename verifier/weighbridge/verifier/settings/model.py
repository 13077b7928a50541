"""Every key of the configuration: its type, its default, its meaning.

Values are checked here each for itself and against each other; whether what they name is there and good,
:mod:`.checking` finds out.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from weighbridge.verifier.commands.engines import DEFAULT, EngineChoice
from weighbridge.verifier.service_limits import PEER, REMEMBERED, TENANT, TOTAL, Limits
from weighbridge.verifier.settings.kinds import (
    NUMBER,
    SECONDS,
    About,
    Listen,
    PathOf,
    Paths,
    Place,
    Relative,
    Texts,
    as_tuple,
    checked_engine,
    many_files,
    number,
    one_file,
    public_url,
    seconds,
    some_anchors,
    storage_url,
    store_url,
)
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT

__all__ = [
    "Channel",
    "Http",
    "Judging",
    "Ledger",
    "LimitsSection",
    "Metrics",
    "RelyingPartiesFile",
    "Serve",
    "Settings",
    "ShareSection",
    "Store",
    "Tenant",
    "default_of",
]

_WORKERS_MAX: Final = 256
_TENANTS_MAX: Final = 256
_DAYS_MAX: Final = 36_525


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Serve(_Section):
    """The process: where its state is, where attesters and relying parties reach it."""

    state: Annotated[PathOf | None, one_file("STATE"), Field(description="the verifier's directory; needed")] = None
    listen: Annotated[
        Listen,
        About("HOST:PORT", "--listen"),
        Field(description="where attesters and relying parties reach it over gRPC; port 0 takes any free one"),
    ] = Place("127.0.0.1", 0)
    workers: Annotated[
        int, About("number", "--workers"), Field(ge=1, le=_WORKERS_MAX, description="processes that judge, on one port")
    ] = 1
    fingerprints: Annotated[
        int,
        About("number", "--fingerprints"),
        Field(ge=1, le=2**53 - 1, description="of GPUs' samples, remembered so that a recording shows"),
    ] = FINGERPRINTS_KEPT
    remembered: Annotated[
        int,
        About("number"),
        Field(ge=1, le=2**53 - 1, description="sessions in a process's memory; more are restored as they come"),
    ] = REMEMBERED
    port_file: Annotated[
        PathOf | None, one_file("--port-file"), Field(description="the port is written here once it listens")
    ] = None


class Judging(_Section):
    """By what sessions are judged: for the one tenant, or for all that do not say it themselves."""

    requirements: Annotated[
        PathOf | None,
        one_file("--requirements"),
        Field(description="what is demanded of every session; names the tenant"),
    ] = None
    policy: Annotated[
        Texts,
        About("list of names or paths", "--policy", Relative.POLICY),
        Field(description="a policy that comes with Weighbridge, or Rego files, for tenants without a bundle"),
    ] = ()
    policy_bundles: Annotated[
        Paths, many_files("--policy-bundle"), Field(description="signed policies; looked at again before each window")
    ] = ()
    foreign: Annotated[
        Texts,
        About("list of PROFILE:FILE", "--foreign", Relative.FOREIGN),
        Field(description="policies written for other verifiers, which must consent as well"),
    ] = ()
    foreign_v0: Annotated[
        Texts,
        About("list of PROFILE:FILE", "--foreign-v0", Relative.FOREIGN),
        Field(description="the same, in the Rego of before OPA 1.0"),
    ] = ()
    foreign_values: Annotated[
        PathOf | None, one_file("--foreign-values"), Field(description="a JSON object: their reference values")
    ] = None
    engine: Annotated[
        Annotated[EngineChoice, BeforeValidator(checked_engine)],
        About("text", "--engine", Relative.ENGINE),
        Field(description="what evaluates policies: regorus, opa-go:DIR, opa, opa:PROGRAM, cross:ENGINE,ENGINE"),
    ] = DEFAULT
    reference: Annotated[PathOf | None, one_file("--reference"), Field(description="reference values; needed")] = None
    sets: Annotated[
        Paths,
        many_files("--models, --hosts, --baseline"),
        Field(description="signed sets of models, hosts, baselines; looked at again before each window"),
    ] = ()
    manifests: Annotated[
        Paths, many_files("--manifest"), Field(description="declared manifests: refusals name file and tensor")
    ] = ()
    collateral: Annotated[
        PathOf | None, one_file("--collateral"), Field(description="directory: what makers of hardware publish")
    ] = None
    attester_ca: Annotated[
        PathOf | None,
        one_file(),
        Field(
            description="PEM: only hosts with a certificate that these authorities issued directly attest for the "
            "tenant, and for no other; without: those that STATE's authority admitted"
        ),
    ] = None
    any_admitted_host: Annotated[
        bool,
        About("true or false"),
        Field(
            description="of several tenants, one without `attester_ca` has to say this: any host that STATE's "
            "authority admitted may attest for it, whosever host that is"
        ),
    ] = False
    anchors: Annotated[
        Annotated[Texts, BeforeValidator(some_anchors)],
        About("list of paths", "--anchors", Relative.ANCHORS),
        Field(description="roots, keys of owners and issuers; `shipped`: those shipped"),
    ] = ("shipped",)

    @model_validator(mode="after")
    def _check_attesters(self) -> Self:
        if self.any_admitted_host and self.attester_ca is not None:
            raise ValueError("any_admitted_host beside attester_ca, whose hosts alone attest")
        return self


class Tenant(Judging):
    """One tenant of several. What it does not say is as in ``[judging]``, but for its requirements."""


class RelyingPartiesFile(_Section):
    """Who may ask how sessions stand."""

    file: Annotated[
        PathOf | None, one_file("--relying-parties"), Field(description="the list (docs/results.md); without: nobody")
    ] = None
    listen: Annotated[
        Listen | None,
        About("HOST:PORT"),
        Field(description="where those are served over gRPC that have a token and no certificate; without: nowhere"),
    ] = None
    ca: Annotated[
        PathOf | None,
        one_file("--relying-party-ca"),
        Field(description="PEM: authorities of their certificates, beside the one of STATE"),
    ] = None


class Channel(_Section):
    """The channel's own certificate, where it is not that of ``STATE/tls``."""

    certificate: Annotated[PathOf | None, one_file(), Field(description="PEM: the server's chain")] = None
    key: Annotated[PathOf | None, one_file(), Field(description="PEM: its private key, for nobody else to read")] = None


class Store(_Section):
    """Where sessions are kept."""

    url: Annotated[
        Annotated[str, BeforeValidator(store_url)] | None,
        About("URL"),
        Field(description="postgresql://USER@HOST/NAME, no password in it; without: STATE/sessions.sqlite"),
    ] = None
    keep_ended_days: Annotated[
        int,
        NUMBER,
        Field(
            ge=0,
            le=_DAYS_MAX,
            description="for which windows and challenges of a session stay listed after its end; 0: for ever",
        ),
    ] = 30

    @property
    def kept(self) -> timedelta | None:
        """How long these rows are kept of a session that has ended; ``None``: for ever."""
        return timedelta(days=self.keep_ended_days) if self.keep_ended_days else None


class Ledger(_Section):
    """Where the ledger and what was received are kept."""

    storage: Annotated[
        Annotated[str, BeforeValidator(storage_url)] | None,
        About("URL"),
        Field(description="s3://BUCKET/PREFIX; without: STATE/ledger and STATE/content"),
    ] = None


class ShareSection(_Section):
    """What each peer (`peer_limits`), each tenant (`tenant_limits`), and all together (`total_limits`) may have."""

    streams: Annotated[int | None, NUMBER, number("attesters' streams")] = None
    sessions: Annotated[int | None, NUMBER, number("sessions under way")] = None
    openings_per_minute: Annotated[int | None, NUMBER, number("openings of enrolments")] = None
    windows_per_second: Annotated[int | None, NUMBER, number("windows, and any other requests")] = None
    bytes_in_flight: Annotated[int | None, NUMBER, number("bytes of requests that are not answered yet")] = None
    calls: Annotated[int | None, NUMBER, number("calls and watches of relying parties")] = None


class LimitsSection(_Section):
    """What holds for every stream, connection and call."""

    credit: Annotated[int | None, NUMBER, number("windows under way on one stream")] = None
    patience: Annotated[
        float | None, SECONDS, seconds("a window waits, for its rate or its turn, before it is refused")
    ] = None
    enrolment: Annotated[float | None, SECONDS, seconds("within which a stream has a session")] = None
    idle_periods: Annotated[int | None, NUMBER, number("periods of a session after which a silent stream ends")] = None
    stream_age: Annotated[float | None, SECONDS, seconds("after which a stream ends, to be resumed")] = None
    drain: Annotated[float | None, SECONDS, seconds("that answers under way are waited for at the end")] = None
    handshake: Annotated[float | None, SECONDS, seconds("within which TLS and HTTP/2 have begun")] = None
    connections: Annotated[int | None, NUMBER, number("open connections, from whomever")] = None
    keepalive: Annotated[float | None, SECONDS, seconds("of silence after which a connection is asked")] = None
    keepalive_timeout: Annotated[float | None, SECONDS, seconds("within which it answers that")] = None
    connection_idle: Annotated[float | None, SECONDS, seconds("after which a connection without streams ends")] = None
    metadata_bytes: Annotated[int | None, NUMBER, number("bytes of one call's headers")] = None


class Http(_Section):
    """Keys, discovery, introspection and health over HTTP."""

    listen: Annotated[Listen | None, About("HOST:PORT"), Field(description="without: there is none")] = None
    plain: Annotated[
        bool, About("true or false"), Field(description="no TLS: a proxy before it has it, and nobody else gets here")
    ] = False
    url: Annotated[
        Annotated[str, BeforeValidator(public_url)] | None,
        About("URL"),
        Field(description="under which others reach it, for what discovery names; without: as `listen` says"),
    ] = None


class Metrics(_Section):
    """Figures for Prometheus."""

    listen: Annotated[
        Listen | None,
        About("HOST:PORT"),
        Field(description="plain HTTP, for the monitoring alone; worker K of several has port + K. Without: none"),
    ] = None


class Settings(_Section):
    """All of it."""

    serve: Serve = Serve()
    judging: Judging = Judging()
    tenants: Annotated[tuple[Tenant, ...], BeforeValidator(as_tuple), Field(max_length=_TENANTS_MAX)] = ()
    relying_parties: RelyingPartiesFile = RelyingPartiesFile()
    channel: Channel = Channel()
    store: Store = Store()
    ledger: Ledger = Ledger()
    limits: LimitsSection = LimitsSection()
    peer_limits: ShareSection = ShareSection()
    tenant_limits: ShareSection = ShareSection()
    total_limits: ShareSection = ShareSection()
    http: Http = Http()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.channel.certificate is None) != (self.channel.key is None):
            raise ValueError("channel: certificate and key belong together")
        if self.tenants and self.judging.requirements is not None:
            raise ValueError("judging.requirements: which tenant's? each of [[tenants]] has its own")
        if (
            self.serve.workers > 1
            and self.metrics.listen is not None
            and not 0 < self.metrics.listen.port <= 2**16 - self.serve.workers
        ):
            raise ValueError("metrics.listen: every worker has a port of its own, from this one on")
        for name, place in (("http.listen", self.http.listen), ("relying_parties.listen", self.relying_parties.listen)):
            if self.serve.workers > 1 and place is not None and place.port == 0:
                raise ValueError(f"{name}: several workers listen on one port, which must be named")
        try:
            self.service_limits()
        except ValueError as error:
            raise ValueError(f"limits: {error}") from error
        return self

    def service_limits(self) -> Limits:
        """What peers and tenants may have of one process that serves: of each worker.

        Raises:
            ValueError: one may have more than all.
        """
        written = replace(
            Limits(),
            **_said(self.limits),
            peer=replace(PEER, **_said(self.peer_limits)),
            tenant=replace(TENANT, **_said(self.tenant_limits)),
            total=replace(TOTAL, **_said(self.total_limits)),
        )
        return written.of_one(self.serve.workers)

    def judged(self) -> tuple[Judging, ...]:
        """By what is judged, for each tenant."""
        if not self.tenants:
            return (self.judging,)
        return tuple(_over(self.judging, tenant) for tenant in self.tenants)


def default_of(section: str, key: str) -> object:
    """The value of a key that nobody says."""
    limits = {"limits": Limits(), "peer_limits": PEER, "tenant_limits": TENANT, "total_limits": TOTAL}
    if section in limits:
        return getattr(limits[section], key)
    return getattr(getattr(Settings(), section), key)


def _said(section: BaseModel) -> dict[str, Any]:
    """The keys that somebody says."""
    return {name: value for name in section.model_fields_set if (value := getattr(section, name)) is not None}


def _over(common: Judging, own: Tenant) -> Tenant:
    """What the tenant says, and what is said for all where it says nothing."""
    values: dict[str, Any] = {
        name: getattr(own if name in own.model_fields_set else common, name) for name in Judging.model_fields
    }
    return Tenant.model_construct(own.model_fields_set | common.model_fields_set, **values)
