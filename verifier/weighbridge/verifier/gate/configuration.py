"""The gate's file: which sessions it knows, what each must be, and which requests they may answer.

A JSON document, schema ``weighbridge/gates/v1``. It is written by whoever runs the gate, and is what a session's token
is compared with. What is not demanded is written out: ``{"unchecked": "why"}`` in the place of a serving key.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from weighbridge.proto import strict
from weighbridge.verifier.documents import Audience, Document, Tenant, read_document
from weighbridge.verifier.gate.expected import Accept, Expected

__all__ = ["SCHEMA", "GateFile", "Route", "Session", "Unchecked"]

SCHEMA: Final = "weighbridge/gates/v1"
_SESSIONS_MAX: Final = 256
_ROUTES_MAX: Final = 1024
_ANY: Final = "any"
_EACH_MAX: Final = 64

_Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# `*`, or a name as a client sends it, in lower case and without a port. (In these patterns `$` is the very end.)
_Host = Annotated[str, Field(pattern=r"^(?:\*|[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])$")]
# No escapes, no empty and no dotted segments: those could be read in two ways. Nothing that a proxy's file would read.
_Path = Annotated[str, Field(pattern=r"^/(?:[A-Za-z0-9_~@:=,-][A-Za-z0-9._~@:=,-]*/?)*$", max_length=1024)]


class Unchecked(Document):
    """What stands where nothing is compared, and why."""

    unchecked: Annotated[str, Field(min_length=1, max_length=1000)]


class Session(Document):
    """A session that the gate may let requests through to. Digests and the session are hexadecimal.

    ``cnf`` is SHA-256 of the SubjectPublicKeyInfo of the serving key, which the proxy pins its upstream to. The session
    ``any`` is whichever the verifier has of this tenant and model that has this key; a host keeps its key, and has
    another session each time that its attester starts.
    """

    name: _Name
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | Literal["any"]
    tenant: Tenant
    model: _Digest
    adapters: Annotated[tuple[_Digest, ...], Field(max_length=_EACH_MAX)]
    cnf: _Digest | Unchecked

    @property
    def identifier(self) -> bytes:
        """By which a gate is asked: the session, 16 bytes, or what stands for one that is yet to be found."""
        return self.expected().identifier

    @property
    def found_by(self) -> tuple[str, str, str | None]:
        """Tenant, model and serving key: by which a session is found to be the one that is meant."""
        return self.tenant, self.model, self.cnf if isinstance(self.cnf, str) else None

    def expected(self) -> Expected:
        """What its tokens are compared with."""
        return Expected(
            name=self.name,
            session=None if self.session == _ANY else strict.hex_decode(self.session, what="session"),
            tenant=self.tenant,
            model=strict.hex_decode(self.model, what="model"),
            adapters=frozenset(strict.hex_decode(one, what="adapters") for one in self.adapters),
            cnf=strict.hex_decode(self.cnf, what="cnf") if isinstance(self.cnf, str) else None,
        )


class Of(Document):
    """Any session of the file with this tenant and model."""

    tenant: Tenant
    model: _Digest


class Route(Document):
    """Which requests go to which sessions: to any of them that is open.

    ``hosts`` are names without ports, or ``*``; ``path`` covers itself and what lies below it. ``sessions`` are names
    of sessions, or whose they are and of which model.
    """

    name: _Name
    hosts: Annotated[tuple[_Host, ...], Field(min_length=1, max_length=_EACH_MAX)]
    path: _Path
    sessions: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=_SESSIONS_MAX)] | Of


class GateFile(Document):
    """All of it.

    ``audience`` is that of the tokens: what the verifier's operator lets this relying party ask for. ``accept`` is the
    worst status that opens: ``affirming`` or ``warning``; emulated platforms never get better than the latter.
    """

    schema_: Annotated[Literal["weighbridge/gates/v1"], Field(alias="schema")] = SCHEMA
    audience: Audience
    accept: Accept
    sessions: Annotated[tuple[Session, ...], Field(min_length=1, max_length=_SESSIONS_MAX)]
    routes: Annotated[tuple[Route, ...], Field(min_length=1, max_length=_ROUTES_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, listed in (
            ("sessions have the same name", [one.name for one in self.sessions]),
            ("entries are of the same session", [one.session for one in self.sessions if one.session != _ANY]),
            (
                "entries are of any session with the same model and key",
                [one.found_by for one in self.sessions if one.session == _ANY],
            ),
            ("routes have the same name", [one.name for one in self.routes]),
            ("routes cover the same requests", [(host, one.path) for one in self.routes for host in one.hosts]),
        ):
            if len(set(listed)) != len(listed):
                raise ValueError(f"two {what}")
        for route in self.routes:
            if not self.sessions_of(route):
                raise ValueError(f"route {route.name} leads to no session of the file")
            if isinstance(route.sessions, tuple) and len(self.sessions_of(route)) != len(route.sessions):
                raise ValueError(f"route {route.name} names a session that is not in the file, or one twice")
        return self

    def sessions_of(self, route: Route) -> tuple[Session, ...]:
        """The sessions that ``route`` leads to, in the file's order."""
        wanted = route.sessions
        if isinstance(wanted, Of):
            return tuple(one for one in self.sessions if (one.tenant, one.model) == (wanted.tenant, wanted.model))
        return tuple(one for one in self.sessions if one.name in wanted)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the document.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` with the place, ``FIELD_MISSING`` without a schema, or a JSON code.
        """
        return read_document(cls, data, what="gates", schema=SCHEMA)

    def encode(self) -> bytes:
        """The document, canonical: ``parse`` of it gives an equal value."""
        return strict.json_encode(self.model_dump(by_alias=True, mode="json"))
