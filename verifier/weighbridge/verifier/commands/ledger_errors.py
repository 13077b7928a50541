"""What to do where a ledger's command refuses something: one hint a code, where whoever refused it knew no better."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.ledger.published import told_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXITS", "KEY_HINT", "TILES_HINT", "WITNESS_KEY_HINT", "advised", "hinted"]

_Error = TypeVar("_Error", bound=WeighbridgeError)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

KEY_HINT: Final = (
    "--key is the public key that `weighbridge init` printed as `ledger key`, or STATE/anchors.json, which has it: ask "
    "the ledger's operator for it"
)
WITNESS_KEY_HINT: Final = (
    "--witness is the key that `weighbridge ledger witness-key` printed as `vkey`, or the anchors document that it "
    "wrote: ask the witness for it"
)
TILES_HINT: Final = "files of the ledger were altered or damaged: `weighbridge ledger audit` says which"
EXITS: Final = (
    "3 a file or key is malformed, 4 a signature or cosignature is missing or not by the key that you name, 6 what "
    "would decide is not there, 7 the ledger, or a proof from it, contradicts what was signed, 8 a file cannot be "
    "read or written."
)
"""What every command's exit status means beside 0; of 2, the whole command line's help speaks."""

_DAMAGED: Final = "it is not what it was taken for, or was damaged: have it again from whoever wrote it"
_HINTS: Final = {
    Code.LEDGER_SIGNATURE: "is --key this ledger's? `weighbridge init` printed it, STATE/anchors.json has it; if it "
    "is, somebody else signed this, or it was altered",
    Code.LEDGER_ORIGIN: "it is of another ledger that has the same key: name the key as that ledger calls it, or "
    "another file",
    Code.LEDGER_PROOF: "it is the proof of another entry, or one of the two was altered",
    Code.LEDGER_INCONSISTENT: "files of the ledger were altered, damaged or left out: keep these, and ask its operator",
    Code.LEDGER_MALFORMED: _DAMAGED,
    Code.LEDGER_ROLLBACK: "the ledger was put back to an earlier state, or this is an old copy: ask for the newest one",
    Code.LEDGER_FORK: "keep both heads: whoever has the ledger's key can see it in them",
    Code.LEDGER_WITNESS: "ask the ledger's operator for what that witness cosigned (`weighbridge ledger cosign` "
    "publishes it, and `prove --cosigned` proves under it)",
    Code.CHAIN_EXPIRED: "the anchors document says from when until when this witness is believed: ask for its new key",
    Code.EVIDENCE_ABSENT: "ask again when the ledger has grown; entries are counted from 0",
    Code.KEY_MALFORMED: "a key is spelled name+keyid+base64: copy it whole",
    Code.KEY_UNSUPPORTED: "ledgers and witnesses have Ed25519 keys",
    Code.FIELD_RANGE: "compare it with where it was copied from",
}
_DECODING: Final = frozenset(
    {
        Code.TOO_LARGE, Code.TOO_DEEP, Code.TRUNCATED, Code.TRAILING_BYTES, Code.NOT_CBOR, Code.NOT_DETERMINISTIC,
        Code.NOT_JSON, Code.DUPLICATE_KEY, Code.NOT_HEX, Code.NOT_BASE64, Code.NOT_A_NUMBER, Code.NOT_UTF8,
        Code.FIELD_MISSING, Code.FIELD_UNKNOWN, Code.FIELD_TYPE, Code.VERSION_UNSUPPORTED, Code.COSE_HEADER,
    }
)  # fmt: skip


def advised(error: _Error) -> _Error:
    """The same refusal, with a hint."""
    return told_of(error, "", hint=_HINTS.get(error.code, _DAMAGED if error.code in _DECODING else ""))


def hinted(run: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A command each of whose refusals has a hint.

    Raises:
        WeighbridgeError: what ``run`` raises.
    """

    @functools.wraps(run)
    def advising(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return run(*args, **kwargs)
        except WeighbridgeError as error:
            raise advised(error) from error

    return advising
