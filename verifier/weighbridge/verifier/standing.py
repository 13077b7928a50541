"""How a session stands: whether its gate is open at a time, until when, and else why not. Pure: no clock, no state.

The rule, once. A gate is open at ``t`` exactly when all of these hold:

1. the session has not ended;
2. a fresh window of it was affirmed, and no later fresh window was judged otherwise;
3. ``t`` is before the expiry of that window's result: one and a half periods and 2 s after its receipt, at most 120 s,
   or less where the policy says so (``docs/protocol.md`` §8);
4. ``t`` is not before its receipt, but for what a clock may be slewed.

A held window changes nothing, unless it ends the session. What is not checked here: that the row is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.told import GateState, Told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.verifier.affirmed import Affirmed

__all__ = ["Shut", "Standing", "ended", "shut_by"]

# As SystemClock's tolerance: further back, the clock is wrong.
_SLEW_NS: Final = 1_000_000_000
_WORDS: Final = {
    SessionState.CLOSED: "the session was closed in good order",
    SessionState.FAILED: "the session has failed",
    SessionState.INTERRUPTED: "the session was interrupted: its host, or one of its GPUs, has another one",
}


@dataclass(frozen=True, slots=True)
class Shut:
    """Why a gate is shut since the last fresh window, or since the session ended.

    Attributes:
        code: stable; one of ours, or one that a policy's author chose.
        message: one line for people, from whoever refused.
        seq: the window that says so, where one does.
    """

    code: str
    message: str
    seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is kept of a session for whoever relies on it.

    Attributes:
        session: 16 bytes.
        tenant: whose it is.
        state: where the session stands.
        affirmed: the last affirmed, fresh window, unless a later fresh one was judged otherwise.
        shut: why none is, where something says so.
    """

    session: bytes
    tenant: str
    state: SessionState
    affirmed: Affirmed | None
    shut: Shut | None

    def at(self, at_ns: int) -> Told:
        """How the session stands at ``at_ns``, nanoseconds since 1970, by the verifier's clock."""
        if self.state.final:
            return _shut(GateState.ENDED, at_ns, self.shut or ended(self.state))
        if self.shut is not None:
            return _shut(GateState.CLOSED, at_ns, self.shut)
        if self.affirmed is None:
            return _shut(
                GateState.WAITING,
                at_ns,
                Shut(Code.RESULT_ABSENT, "no fresh window of the session was affirmed yet", None),
            )
        seq, expires_ns = self.affirmed.claims.seq, self.affirmed.expires_ns
        if at_ns >= expires_ns:
            message = "the last affirmed window has expired: no fresh good one has come since"
            return _shut(GateState.CLOSED, at_ns, Shut(Code.TOKEN_EXPIRED, message, seq))
        if at_ns < self.affirmed.received_ns - _SLEW_NS:
            message = "the verifier's clock has stepped back behind the last affirmed window"
            return _shut(GateState.CLOSED, at_ns, Shut(Code.CLOCK_STEPPED, message, seq))
        return Told(state=GateState.OPEN, at_ns=at_ns, expires_ns=expires_ns, code=None, reason="", seq=seq)


def ended(state: SessionState) -> Shut:
    """Why the gate of a session is shut that has come to the final ``state``, where no window says so."""
    code = Code.SESSION_FAILED if state is SessionState.FAILED else Code.SESSION_STATE
    return Shut(code.value, _WORDS[state], None)


def shut_by(denials: Iterable[tuple[str, str]], *, seq: int | None) -> Shut:
    """Why the gate is shut since window ``seq``: the first of what was found, each with its code and its words."""
    code, message = next(iter(denials), (Code.POLICY_DENIED.value, "the policy does not allow the window"))
    return Shut(code, message, seq)


def _shut(state: GateState, at_ns: int, shut: Shut) -> Told:
    return Told(state=state, at_ns=at_ns, expires_ns=None, code=str(shut.code), reason=shut.message, seq=shut.seq)
