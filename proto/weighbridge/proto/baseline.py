"""A baseline set: the profiles that an owner accepts for its GPUs, from when until when. Parsed, not verified.

A COSE_Sign1 (:mod:`.cose`) of type :data:`SET_TYP` over canonical JSON (:mod:`.profile`). A set replaces every earlier
one of its owner and name: ``number`` grows with each, so that an old one cannot be brought back. Byte layout:
``docs/baseline.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name
from weighbridge.proto.profile import (
    Bound,
    CalibrationRun,
    Checked,
    Deviation,
    Explained,
    Gross,
    Profile,
    Reported,
    Term,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SET_TYP",
    "BaselineSet",
    "Bound",
    "CalibrationRun",
    "Checked",
    "Deviation",
    "Explained",
    "Gross",
    "Profile",
    "Reported",
    "SignedBaselineSet",
    "Term",
]

SET_TYP: Final = "application/vnd.weighbridge.baseline-set+cose"
_TYPE: Final = "weighbridge/v1/baseline-set"
_NUMBER_MAX: Final = 2**53 - 1
_TIME_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSet:
    """A well-formed baseline set. Says nothing of truth.

    Times are nanoseconds since 1970; ``not_after_ns`` is inclusive. ``profiles`` ascend by their digest, at least one.
    Several may be of one device: their scopes differ.
    """

    owner: str
    name: str
    number: int
    issued_ns: int
    not_before_ns: int
    not_after_ns: int
    profiles: tuple[Profile, ...]
    note: str = ""

    def encode(self) -> bytes:
        """The payload's bytes."""
        return strict.json_encode(
            {
                "type": _TYPE,
                "owner": self.owner,
                "name": self.name,
                "number": self.number,
                "issued_ns": self.issued_ns,
                "not_before_ns": self.not_before_ns,
                "not_after_ns": self.not_after_ns,
                "profiles": [profile.document() for profile in self.profiles],
                "note": self.note,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` of a consistent set would not have written.
        """
        what = "baseline set"
        fields = cbor.read_map(
            whole(strict.json_decode(data, what=what, limit=limits.BASELINE_SET_MAX), what), where=what
        )
        if (got := fields.text("type")) != _TYPE:
            raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "unknown version", where=what, expected=_TYPE, got=got)
        owner, name = fields.text("owner"), fields.text("name")
        check_name(owner, where=fields.path("owner"))
        check_name(name, where=fields.path("name"))
        number = fields.integer("number", low=1, high=_NUMBER_MAX)
        issued_ns, not_before_ns, not_after_ns = (
            fields.uint(key, limit=_TIME_MAX) for key in ("issued_ns", "not_before_ns", "not_after_ns")
        )
        if not_before_ns > not_after_ns:
            raise MalformedEvidence(Code.FIELD_RANGE, "ends before it begins", where=fields.path("not_after_ns"))
        rows = fields.array("profiles", limit=limits.BASELINE_SET_PROFILES_MAX)
        note = fields.text("note")
        if note:
            check_name(note, where=fields.path("note"))
        fields.end()
        profiles = tuple(Profile.of_document(row, where=f"{what}.profiles[{index}]") for index, row in enumerate(rows))
        _check_profiles(profiles, f"{what}.profiles")
        found = cls(
            owner=owner,
            name=name,
            number=number,
            issued_ns=issued_ns,
            not_before_ns=not_before_ns,
            not_after_ns=not_after_ns,
            profiles=profiles,
            note=note,
        )
        if found.encode() != data:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "not the one spelling of its values", where=what)
        return found

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The signed set: the file that is handed out.

        Args:
            kid: SHA-256 of the signer's SubjectPublicKeyInfo, 32 bytes.
            signer: as for :func:`.cose.sign`; the key stays with the caller.

        Raises:
            MalformedEvidence: the set contradicts itself, or is too large to be read back.
        """
        payload = self.encode()
        type(self).parse(payload)
        signed = cose.sign(payload, kid=kid, typ=SET_TYP, signer=signer)
        SignedBaselineSet.parse(signed)
        return signed


@dataclass(frozen=True, slots=True)
class SignedBaselineSet:
    """A baseline set with its signature, which is not checked. ``digest`` is the SHA-256 of the file."""

    message: cose.CoseSign1
    claimed: BaselineSet
    digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the file.

        Raises:
            MalformedEvidence: ``COSE_HEADER``, or as :meth:`BaselineSet.parse`.
        """
        message = cose.parse(data, typ=SET_TYP, limit=limits.BASELINE_SET_MAX, what="baseline set")
        return cls(message, BaselineSet.parse(message.payload), sha256(data))


def _check_profiles(profiles: tuple[Profile, ...], where: str) -> None:
    digests = [profile.digest for profile in profiles]
    if not digests:
        raise MalformedEvidence(Code.FIELD_RANGE, "no profile is in it", where=where)
    if digests != sorted(set(digests)):
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "profiles are not distinct and ascending", where=where)
    placed = {(profile.device, profile.channel, profile.scope) for profile in profiles}
    if len(placed) != len(profiles):
        # Which of the two judges would be anybody's guess.
        raise MalformedEvidence(Code.DUPLICATE_KEY, "two profiles of one device and scope", where=where)
