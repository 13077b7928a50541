"""From a request to an answer: which of its route's sessions is open, and what upstream, client and log are told.

An answer says why, by a stable code. A request is let through to one session: that which the headers name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code
from weighbridge.verifier.clock import moment
from weighbridge.verifier.gate.holder import Grant, Holder, Shut, Trust
from weighbridge.verifier.gate.routing import Router
from weighbridge.verifier.gate.token_keys import TokenKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.gate.configuration import GateFile
    from weighbridge.verifier.gate.instant import Clocks
    from weighbridge.verifier.gate.token_keys import KeyChange
    from weighbridge.verifier.gate.verifiers import Verifiers

__all__ = ["HEADER_PREFIX", "Answer", "Gate", "NoRoute", "header_key"]

HEADER_PREFIX: Final = "x-weighbridge-"
"""Headers that are the gate's alone: a client's are taken away."""
_SCHEMA: Final = "weighbridge/gate/v1"
_REASON_MAX: Final = 500


def header_key(name: str) -> str:
    """By which ``name`` is compared with the gate's headers: CGI, WSGI and their like take ``_`` for ``-``."""
    return name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class NoRoute:
    """No route covers the request."""

    code: str = Code.GATE_ROUTE
    reason: str = "no route of the gate covers the request"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to one request. ``found``: why."""

    found: Grant | Shut | NoRoute

    @property
    def allowed(self) -> bool:
        """Whether the request is let through."""
        return isinstance(self.found, Grant)

    @property
    def code(self) -> str | None:
        """Why it is not; ``None`` if it is."""
        return None if isinstance(self.found, Grant) else str(self.found.code)

    @property
    def headers(self) -> dict[str, str]:
        """What is added to a request that is let through, in lower case; of any other, nothing."""
        if not isinstance(self.found, Grant):
            return {}
        token = self.found.token
        return {
            f"{HEADER_PREFIX}result": token.identifier,
            f"{HEADER_PREFIX}model": token.model.hex(),
            f"{HEADER_PREFIX}session": self.found.expected.name,
            f"{HEADER_PREFIX}status": token.status,
        }

    @property
    def challenge(self) -> str:
        """The ``www-authenticate`` header of a refusal (RFC 9110 §11.6.1): the code in lower case."""
        return f'Attestation error="{"".join(c for c in (self.code or "").lower() if c.isalnum() or c in "._-")}"'

    @property
    def refusal_headers(self) -> dict[str, str]:
        """The headers of a refusal, beside its status 403."""
        return {"content-type": "application/json", "cache-control": "no-store", "www-authenticate": self.challenge}

    @property
    def document(self) -> strict.JsonObject:
        """All that is told, for programs: the body of a refusal, and what a proxy may write into its log."""
        head: strict.JsonObject = {"schema": _SCHEMA, "open": self.allowed}
        if isinstance(self.found, NoRoute):
            return {**head, "code": self.found.code, "reason": self.found.reason}
        expected = self.found.expected
        session = None if expected.session is None else expected.session.hex()
        about: strict.JsonObject = {"name": expected.name, "session": session, "tenant": expected.tenant}
        if isinstance(self.found, Shut):
            reason = self.found.reason[:_REASON_MAX]
            return {**head, "code": str(self.found.code), "reason": reason, **about, "model": expected.model.hex()}
        token = self.found.token
        return {
            **head,
            **about,
            "model": token.model.hex(),
            "result": token.identifier,
            "status": token.status,
            "seq": token.seq,
            "cnf": token.cnf.hex(),
            "expires": strict.time_encode(moment(self.found.wall_ns)),
        }

    @property
    def body(self) -> bytes:
        """The body of a refusal: one line of JSON."""
        return strict.json_encode(self.document) + b"\n"


@final
class Gate:
    """The gate of one relying party: its file as it is in force, and what was heard of its sessions.

    Args:
        file: the gate's file.
        verifiers: whose tokens are believed.
        clocks: the time.
    """

    __slots__ = ("_clocks", "_keys", "_turn", "file", "holder", "router")

    def __init__(self, file: GateFile, verifiers: Verifiers, clocks: Clocks) -> None:
        self._keys = TokenKeys(verifiers)
        self._clocks = clocks
        self._turn = count()
        self.file, self.holder, self.router = file, self._holder(file), Router(file)

    def take(self, file: GateFile, verifiers: Verifiers) -> None:
        """Put ``file`` and ``verifiers`` in force.

        What was heard of sessions that are the same in it is kept, if the verifiers are the very same; that a session
        has ended, or a window does not open, in any case. Keys that the verifier has named stay with the verifiers.
        """
        if verifiers is not self._keys.given:
            self._keys = TokenKeys(verifiers)
        holder = self._holder(file)
        holder.renewed(self.holder)
        self.file, self.holder, self.router = file, holder, Router(file)

    @property
    def asks_for_keys(self) -> bool:
        """Whether the verifier is asked for its keys for tokens."""
        return self._keys.given.asks

    def learn(self, jwks: bytes) -> KeyChange:
        """Believe the keys of ``jwks`` from now on, as far as the identities endorse them, and no others.

        Args:
            jwks: untrusted; what the verifier names as its keys now.

        Raises:
            MalformedEvidence: as :meth:`.TokenKeys.learn`; what was believed still is.
            NotAuthentic: as that.
        """
        change = self._keys.learn(jwks, self._clocks.now().wall)
        if change.any:
            self.holder.believe(self._keys.verifiers)
        return change

    @property
    def clocks(self) -> Clocks:
        """The time."""
        return self._clocks

    def check(self, sessions: Sequence[bytes]) -> Answer:
        """Whether a request whose route leads to any of ``sessions`` is let through, and to which.

        Those that are open take turns. Where none is, the first says why.
        """
        if not sessions:
            return Answer(NoRoute())
        now = self._clocks.now()
        found = [self.holder.at(session, now) for session in sessions]
        opened = [one for one in found if isinstance(one, Grant)]
        return Answer(opened[next(self._turn) % len(opened)] if opened else found[0])

    def _holder(self, file: GateFile) -> Holder:
        trust = Trust(verifiers=self._keys.verifiers, audience=file.audience, accept=file.accept)
        return Holder(trust, (one.expected() for one in file.sessions))

    def standing(self) -> strict.JsonObject:
        """How all sessions stand, for whoever runs the gate."""
        now = self._clocks.now()
        told = [Answer(self.holder.at(session, now)).document for session in self.holder.expected]
        return {"schema": "weighbridge/gate-standing/v1", "sessions": list(told)}
