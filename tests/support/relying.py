"""A gate without a verifier: tokens of a key of ours, clocks that a test sets, and what a verifier would say."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fakes.soft_tpm import derive_key
from weighbridge.proto.digest import sha256
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.gate.checking import Answer, Gate
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.instant import Instant
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.result import Claims, Serialisation, expiry
from weighbridge.verifier.result.issuing import Affirmation, issue_as
from weighbridge.verifier.result_client import Answered
from weighbridge.verifier.told import GateState, Model, Told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.errors import WeighbridgeError

KEY: Final = derive_key("verifier")
STRANGER: Final = derive_key("another verifier")
IDENTITY: Final = Anchor(
    "verifier",
    "verifier",
    "insecure-emulated",
    KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2099, 1, 1, tzinfo=UTC),
    "a test",
)
ANCHORS: Final = TrustAnchors((IDENTITY,))
AUDIENCE: Final = "https://gate.example"
MODEL: Final = sha256(b"model")
CNF: Final = sha256(b"serving key")
A: Final = bytes(range(16))
B: Final = bytes(range(16, 32))
NOON_NS: Final = nanoseconds(datetime(2026, 6, 1, 12, tzinfo=UTC))
SECOND: Final = 10**9
PERIOD_NS: Final = 10 * SECOND
AFFIRMING: Final = {"hardware": 2}
WARNING: Final = {"hardware": 32}


def document(**changes: object) -> dict[str, Any]:
    """A gate's file with two sessions of one model."""
    session: dict[str, Any] = {"tenant": "acme", "model": MODEL.hex(), "adapters": [], "cnf": CNF.hex()}
    return {
        "schema": "weighbridge/gates/v1",
        "audience": AUDIENCE,
        "accept": "affirming",
        "sessions": [{"name": "a", "session": A.hex(), **session}, {"name": "b", "session": B.hex(), **session}],
        "routes": [
            {"name": "first", "hosts": ["a.example"], "path": "/v1", "sessions": ["a"]},
            {"name": "any", "hosts": ["*"], "path": "/", "sessions": {"tenant": "acme", "model": MODEL.hex()}},
        ],
        **changes,
    }


def gate_file(**changes: object) -> GateFile:
    return GateFile.parse(json.dumps(document(**changes)).encode())


@dataclass
class SetClocks:
    """Two clocks, of which a test sets each."""

    wall_ns: int = NOON_NS
    steady_ns: int = 5 * SECOND

    def now(self) -> Instant:
        return Instant(self.wall_ns, self.steady_ns)

    def advance(self, seconds: float) -> None:
        self.wall_ns += round(seconds * SECOND)
        self.steady_ns += round(seconds * SECOND)


def token(
    session: bytes = A,
    seq: int = 3,
    *,
    received_ns: int = NOON_NS,
    key: ec.EllipticCurvePrivateKey = KEY,
    vector: dict[str, int] | None = None,
    serialisation: Serialisation = Serialisation.EAR_04,
    **claims: object,
) -> bytes:
    """A token of the verifier's for a window that was affirmed."""
    said: dict[str, Any] = {
        "issuer": "ledger.example/windows",
        "audience": AUDIENCE,
        "session": session,
        "tenant": "acme",
        "seq": seq,
        "model": MODEL,
        "adapters": (),
        "cnf": CNF,
        "policy": sha256(b"policy"),
        "reference": sha256(b"reference"),
        "nonces": {"tpm0": sha256(b"nonce")},
        "vectors": {"tpm0": vector or AFFIRMING},
        "unchecked": {},
        "ledger_origin": "ledger.example/windows",
        "ledger_index": 42,
        "ledger_leaf": sha256(b"leaf"),
        **claims,
    }
    affirmation = Affirmation(claims=Claims(**said), received=moment(received_ns), period_ns=PERIOD_NS, within=None)
    return issue_as(serialisation, affirmation, key)


def open_until(received_ns: int = NOON_NS, *, seq: int = 3, at_ns: int | None = None, **changes: object) -> Told:
    """What a verifier tells of a window received then."""
    fields: dict[str, Any] = {
        "state": GateState.OPEN,
        "at_ns": received_ns if at_ns is None else at_ns,
        "expires_ns": nanoseconds(expiry(moment(received_ns), PERIOD_NS)),
        "code": None,
        "reason": "",
        "seq": seq,
        **changes,
    }
    return Told(**fields)


def shut(code: str = "QUOTE_NONCE", *, seq: int | None = 4, state: GateState = GateState.CLOSED) -> Told:
    return Told(state=state, at_ns=NOON_NS, expires_ns=None, code=code, reason="for a reason", seq=seq)


@dataclass
class Bench:
    """A gate, its clocks, and what it is told."""

    gate: Gate
    clocks: SetClocks
    verifiers: Verifiers

    @classmethod
    def make(cls, **changes: object) -> Self:
        clocks, verifiers = SetClocks(), Verifiers.of(ANCHORS, None)
        return cls(Gate(gate_file(**changes), verifiers, clocks), clocks, verifiers)

    def hear(self, told: Told, raw: bytes | None = None, session: bytes = A) -> None:
        self.gate.holder.hear(session, told, raw, self.clocks.now())

    def affirm(self, seq: int = 3, session: bytes = A, **changes: object) -> None:
        """The verifier tells, now, of a window that it affirms now."""
        now, fields = self.clocks.wall_ns, dict[str, Any](changes)
        self.hear(open_until(now, seq=seq), token(session, seq, received_ns=now, **fields), session)

    def answer(self, *sessions: bytes) -> Answer:
        return self.gate.check(sessions or (A,))

    def code(self, *sessions: bytes) -> str | None:
        return self.answer(*sessions).code


@dataclass
class ScriptedSource:
    """A verifier whose lines a test writes: each call of ``watch`` takes the next queue."""

    asked: list[tuple[list[bytes], str]] = field(default_factory=list)
    keys: bytes | WeighbridgeError = b'{"keys":[]}'
    key_asks: int = 0
    lines: asyncio.Queue[asyncio.Queue[Answered | WeighbridgeError | None]] = field(default_factory=asyncio.Queue)

    def line(self) -> asyncio.Queue[Answered | WeighbridgeError | None]:
        """The next line."""
        made: asyncio.Queue[Answered | WeighbridgeError | None] = asyncio.Queue()
        self.lines.put_nowait(made)
        return made

    async def watch(self, sessions: Sequence[bytes], *, audience: str) -> AsyncGenerator[Answered | None]:
        self.asked.append((list(sessions), audience))
        async for answered in self._told():
            yield answered

    async def watch_model(self, model: Model, *, audience: str) -> AsyncGenerator[Answered | None]:
        self.asked.append(([model.digest], audience))
        async for answered in self._told():
            yield answered

    async def token_keys(self) -> bytes:
        self.key_asks += 1
        if isinstance(self.keys, bytes):
            return self.keys
        raise self.keys

    async def _told(self) -> AsyncGenerator[Answered | None]:
        line = await self.lines.get()
        while True:
            message = await line.get()
            if message is not None and not isinstance(message, Answered):
                raise message
            yield message
