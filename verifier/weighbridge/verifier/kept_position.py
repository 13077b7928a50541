"""Where a session's chain stands, as the verifier keeps it for itself: so that nobody replays a week of windows.

Kept is what no single window says: what telemetry carries from window to window, how many windows were held, which
spot check is owed. All that devices have signed stays in the ledger's records and is verified anew
(:meth:`.Restorer.leap`): a :class:`KeptPosition` only names the windows (:class:`Sources`).

It is bound to the session, to the ledger's entry of the last window before it, and to the form in which it is written:
of another version, or of other classes, it is not read. Nothing but restoring uses it: audits, bundles and replays by
other policies begin at the first window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, cast

from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.plain import Form, form_of
from weighbridge.verifier.telemetry import kept
from weighbridge.verifier.telemetry.state import TelemetryState

if TYPE_CHECKING:
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Position

__all__ = ["KEPT_EVERY", "KeptPosition", "Sources", "decode", "keep", "prepare"]

KEPT_EVERY: Final = 16
"""Windows of a session from one position that is kept to the next: more than these nobody replays."""
# Raised whenever the appraisal would make another state of the same windows; other classes are found out by themselves.
_VERSION: Final = 1
_WHAT: Final = "position"
# What is larger is not kept, and costs no time to write: a session that samples at a kilohertz is replayed whole.
_KEPT_MAX: Final = 1024 * 1024
_INTEGERS_MAX: Final = 128 * 1024
_GREW_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The ledger's entries of those windows of a session that its position is made of, beside its enrolment.

    Attributes:
        last: the last window; ``None`` before the first.
        reports: the last window that had GPU reports; ``None`` before there is one.
        grew: those that brought log records, manifests, or entries of the kernel's list, ascending.
    """

    last: int | None = None
    reports: int | None = None
    grew: tuple[int, ...] = ()

    def after(self, window: VerifiedWindow, *, index: int, before: Position) -> Sources:
        """With ``window``, which was verified at ``before`` and is entry ``index``."""
        listed = 0 if before.runtime is None else before.runtime.count
        grew = (
            len(window.log.records) > len(before.log.records)
            or bool(window.manifests)
            or (0 if window.runtime is None else window.runtime.count) > listed
        )
        return Sources(
            last=index,
            reports=self.reports if window.gpus is None else index,
            # One more than may be kept is enough to know that it is not.
            grew=(*self.grew, index) if grew and len(self.grew) <= _GREW_MAX else self.grew,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPosition:
    """A position as it is kept. What a store says: nothing in it is verified.

    Attributes:
        session: whose, 16 bytes.
        seq: the window that it waits for.
        window: H of the last one, 32 bytes.
        sources: which windows it is made of.
        held: as :class:`.Position` has it, and the next three.
        held_since_ns: nanoseconds since 1970.
        spot_seq: a window's number.
        spot_owed: whether one is.
        telemetry: without its profiles.
        profiles: their digests, by GPU.
    """

    session: bytes
    seq: int
    window: bytes
    sources: Sources
    held: int
    held_since_ns: int | None
    spot_seq: int | None
    spot_owed: bool
    telemetry: TelemetryState
    profiles: Mapping[bytes, bytes]


def prepare() -> None:
    """Work out the form, once in a process: 90 ms that nobody's turn is to take."""
    _ = _form_digest()


def keep(session: bytes, position: Position, sources: Sources) -> bytes | None:
    """``position`` as it is kept; ``None`` where none is due, or it is too large."""
    if position.window is None or not _is_due(session, position.seq):
        return None
    if kept.integers(position.telemetry) > _INTEGERS_MAX or len(sources.grew) > _GREW_MAX:
        return None
    made = KeptPosition(
        session=session,
        seq=position.seq,
        window=position.window,
        sources=sources,
        held=position.held,
        held_since_ns=position.held_since_ns,
        spot_seq=position.spot_seq,
        spot_owed=position.spot_owed,
        telemetry=kept.without_profiles(position.telemetry),
        profiles=kept.profiles_of(position.telemetry),
    )
    data = _form_digest() + cbor.encode(_form().write(made))
    return data if len(data) <= _KEPT_MAX else None


def decode(data: bytes) -> KeptPosition:
    """Read what :func:`keep` has made.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED`` for another form than this program's; a decoding code.
    """
    form = _form_digest()
    if not data.startswith(form):
        raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "another version has kept this position", where=_WHAT)
    return cast("KeptPosition", _form().read(cbor.decode(data[len(form) :], limit=_KEPT_MAX, what=_WHAT)))


def _is_due(session: bytes, seq: int) -> bool:
    """Whether a position is kept before window ``seq``: not of all sessions at once, which may have begun together."""
    return (seq + session[0]) % KEPT_EVERY == 0


@cache
def _form() -> Form:
    return form_of(KeptPosition, kept.NAMES)


# Stands before the CBOR: which version writes, and in which form.
@cache
def _form_digest() -> bytes:
    return sha256(f"{_VERSION} {_form().spelled}".encode())
