"""Documents of a ledger's log, its witnesses and its monitors, by keys of our own."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weighbridge.proto import cosignature, merkle, note, strict, tlog
from weighbridge.verifier.ledger.committed_head import MARK_SIZE, CommittedHead
from weighbridge.verifier.ledger.heads import ForkEvidence

WITNESS: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
ORIGIN: Final = "ledger.example/windows"
"""The log of the documents below."""
_LOG: Final = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
NOTE_KEY: Final = note.NoteKey(ORIGIN, _LOG.public_key().public_bytes_raw())


def signed_checkpoint(size: int = 3) -> bytes:
    """A checkpoint of our log."""
    text = tlog.Checkpoint(ORIGIN, size, bytes([size]) * 32).encode()
    return note.sign(text, key=NOTE_KEY, signer=_LOG.sign)


def cosigned() -> bytes:
    """A witness's line under a checkpoint."""
    key = cosignature.WitnessKey("witness.example/w1", WITNESS.public_key().public_bytes_raw())
    return cosignature.sign(b"ledger.example/windows\n3\nAAAA\n", key=key, time=1_679_315_147, signer=WITNESS.sign)


def witness_key() -> bytes:
    """A witness's verifier key."""
    key = cosignature.WitnessKey("witness.example/w1", WITNESS.public_key().public_bytes_raw())
    return key.vkey.encode()


def fork() -> bytes:
    """Two heads of one size, as they would be shown."""
    first, second = signed_checkpoint(3), signed_checkpoint(4)
    return ForkEvidence(first, second, (bytes(32),), bytes(32)).encode()


def head() -> bytes:
    """What a bucket's one committed object holds."""
    return CommittedHead(signed_checkpoint(), {"tile/0/000.p/3": bytes(96)}, bytes(MARK_SIZE)).encode()


def watched() -> list[bytes]:
    """What a monitor remembers of a log of three entries."""
    document: strict.JsonObject = {
        "schema": "weighbridge/ledger-monitor/v1",
        "key": NOTE_KEY.vkey,
        "checkpoint": note.sign(
            tlog.Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT).encode(), key=NOTE_KEY, signer=_LOG.sign
        ).decode(),
        "tree": [],
        "grew_ns": 0,
        "stalled": False,
        "latest_ns": 0,
        "policies": [],
        "sessions": [],
        "ended": [],
    }
    return [strict.json_encode(document) + b"\n"]
