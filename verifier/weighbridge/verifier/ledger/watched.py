"""What a monitor remembers of a log between two looks at it.

One JSON document, canonical: one spelling is accepted. Nobody needs to trust it beyond its owner's disk, but it is read
as strictly as anything: the note in it is opened under the log's key again, and the tree in it has that note's root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, merkle, note, strict, tlog
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.ledger.chains import POLICIES_MAX, SESSIONS_MAX, Chains, Followed
from weighbridge.verifier.ledger.published import told_of
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.verifier.ledger.locked import LockedFile

__all__ = ["Watched", "load"]

_SCHEMA: Final = "weighbridge/ledger-monitor/v1"
# 140 bytes a session, 60 for one that ended.
_STATE_MAX: Final = 64 * 1024 * 1024
_RANGE_MAX: Final = 63
_NS_MAX: Final = 2**63 - 1
_SESSION_SIZE: Final = 16
_FIELDS: Final = 6
_NOWHERE: Final = "-"
# Whether it was told that nothing comes of a session.
_HEARD: Final = "heard"
_SILENT: Final = "silent"


@dataclass(frozen=True, slots=True)
class Watched:
    """A log as it was seen last.

    Attributes:
        checkpoint: opened under the log's key.
        tree: the whole tree under it, as a compact range: its root is the checkpoint's.
        chains: its sessions.
        grew_ns: when it was first seen in this size, by the clock of whoever watches.
        stalled: whether it was told that it does not grow any more.
    """

    checkpoint: tlog.VerifiedCheckpoint
    tree: merkle.CompactRange
    chains: Chains
    grew_ns: int
    stalled: bool

    def encode(self) -> bytes:
        """The document's bytes."""
        policies = list(self.chains.policies)
        numbers = {digest: str(number) for number, digest in enumerate(policies)}
        document: strict.JsonObject = {
            "schema": _SCHEMA,
            "key": self.checkpoint.key.vkey,
            "checkpoint": self.checkpoint.note.decode(),
            "tree": [item.hex() for item in self.tree.hashes],
            "grew_ns": self.grew_ns,
            "stalled": self.stalled,
            "latest_ns": self.chains.latest_ns,
            "policies": [digest.hex() for digest in policies],
            "sessions": [_session_text(*item, numbers) for item in self.chains.sessions.items()],
            "ended": [f"{session.hex()} {at_ns}" for session, at_ns in self.chains.ended.items()],
        }
        return strict.json_encode(document) + b"\n"

    @classmethod
    def parse(cls, data: bytes, key: note.NoteKey, *, silence_ns: int) -> Watched:
        """What :meth:`encode` wrote of the log of ``key``.

        Raises:
            MalformedEvidence: a decoding code, or ``LEDGER_MALFORMED``: it is not such a document.
            NotAuthentic: ``LEDGER_SIGNATURE``: it is of another log.
            LedgerInconsistent: ``LEDGER_ORIGIN``.
        """
        match strict.json_decode(data, what="state", limit=_STATE_MAX):
            case {
                "schema": "weighbridge/ledger-monitor/v1",
                "key": str(vkey),
                "checkpoint": str(signed),
                "tree": list(tree),
                "grew_ns": int(grew_ns),
                "stalled": bool(stalled),
                "latest_ns": int(latest_ns),
                "policies": list(policies),
                "sessions": list(sessions),
                "ended": list(ended),
            } if (
                len(tree) <= _RANGE_MAX
                and len(policies) <= POLICIES_MAX
                and len(sessions) <= SESSIONS_MAX
                and len(ended) <= SESSIONS_MAX
            ):
                pass
            case _:
                raise _malformed("not what a monitor remembers", expected=_SCHEMA)
        if vkey != key.vkey:
            raise NotAuthentic(
                Code.LEDGER_SIGNATURE, "the state is of another log", where="state.key", expected=key.vkey, got=vkey,
                hint="name another file: each log that is watched has a state of its own",
            )  # fmt: skip
        checkpoint = tlog.open_checkpoint(signed.encode(), key, origin=key.name)
        known = {_digest(item, f"policies[{at}]"): None for at, item in enumerate(policies)}
        followed = dict(_sessions(sessions, tuple(known)))
        gone = dict(_ended(item, f"ended[{at}]") for at, item in enumerate(ended))
        chains = Chains(silence_ns, followed, known, _ns(latest_ns, "latest_ns"), gone)
        compact = _tree(checkpoint, [_digest(item, f"tree[{at}]") for at, item in enumerate(tree)])
        watched = cls(checkpoint, compact, chains, _ns(grew_ns, "grew_ns"), stalled)
        if watched.encode() != data:
            raise _malformed("another spelling of what a monitor remembers")
        return watched


def load(file: LockedFile, key: note.NoteKey, *, silence_ns: int) -> Watched | None:
    """What ``file`` remembers of the log of ``key``; ``None`` before the first time.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        WeighbridgeError: as :meth:`Watched.parse`, naming the file.
    """
    data = file.read(limit=_STATE_MAX)
    if data is None:
        return None
    hint = "keep it to be examined, and begin anew with another file: what it remembered is not known any more"
    try:
        return Watched.parse(data, key, silence_ns=silence_ns)
    except MalformedEvidence as error:
        raise error.in_file(file.path, what="what a monitor remembers", hint=hint) from error
    except WeighbridgeError as error:
        raise told_of(error, file.path, hint=hint) from error


def _tree(checkpoint: tlog.VerifiedCheckpoint, hashes: list[bytes]) -> merkle.CompactRange:
    if len(hashes) != checkpoint.size.bit_count():
        raise _malformed("another tree than the checkpoint's", got=f"{len(hashes)} hashes")
    tree = merkle.CompactRange(checkpoint.size, tuple(hashes))
    if tree.root != checkpoint.root:
        raise _malformed("another tree than the checkpoint's", expected=checkpoint.root, got=tree.root)
    return tree


def _session_text(session: bytes, followed: Followed, numbers: Mapping[bytes, str]) -> str:
    """One string a session: a hundred thousand objects would take JSON readers seconds."""
    policy = numbers.get(followed.policy, _NOWHERE)
    flag = _SILENT if followed.silent else _HEARD
    return f"{session.hex()} {followed.seq} {followed.window.hex()} {policy} {followed.at_ns} {flag}"


def _sessions(items: Sequence[strict.JsonValue], policies: Sequence[bytes]) -> list[tuple[bytes, Followed]]:
    return [_session(item, policies, f"sessions[{at}]") for at, item in enumerate(items)]


def _session(item: strict.JsonValue, policies: Sequence[bytes], where: str) -> tuple[bytes, Followed]:
    parts = item.split(" ") if isinstance(item, str) else []
    if len(parts) != _FIELDS or parts[5] not in {_HEARD, _SILENT}:
        raise _malformed("not a session", where=where)
    policy = NO_DIGEST
    if parts[3] != _NOWHERE:
        number = strict.decimal(parts[3], what=where)
        if number >= len(policies):
            raise _malformed("a policy that is not listed", where=where)
        policy = policies[number]
    return strict.hex_decode(parts[0], what=where, size=_SESSION_SIZE), Followed(
        strict.decimal(parts[1], what=where),
        strict.hex_decode(parts[2], what=where, size=limits.DIGEST_SIZE),
        policy,
        strict.decimal(parts[4], what=where),
        silent=parts[5] == _SILENT,
    )


def _ended(item: strict.JsonValue, where: str) -> tuple[bytes, int]:
    session, space, at_ns = item.partition(" ") if isinstance(item, str) else ("", "", "")
    if not space:
        raise _malformed("not a session", where=where)
    return strict.hex_decode(session, what=where, size=_SESSION_SIZE), strict.decimal(at_ns, what=where)


def _ns(value: int, where: str) -> int:
    if isinstance(value, bool) or not 0 <= value <= _NS_MAX:
        raise _malformed("not a time", where=where)
    return value


def _digest(item: strict.JsonValue, where: str) -> bytes:
    if not isinstance(item, str):
        raise _malformed("not a digest", where=where)
    return strict.hex_decode(item, what=where, size=limits.DIGEST_SIZE)


def _malformed(message: str, *, where: str = "state", expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(Code.LEDGER_MALFORMED, message, where=where, expected=expected, got=got)
