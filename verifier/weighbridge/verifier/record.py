"""Verdict records and the ledger leaves that commit to them. Byte layout: ``docs/protocol.md`` §7.

A record is everything about one judgement that the evidence itself does not say: when it was received, under which
challenge, policy and reference values, and the verdict. A leaf is the commitment to it, below 280 bytes, that enters
the append-only log; record and evidence lie in the content store under the digests that the leaf names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Self, cast, get_args

from weighbridge.policy.engine import Revision
from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spot import SpotExpectation
from weighbridge.verifier.telemetry.history import History

__all__ = ["NO_DIGEST", "ChallengePreimage", "Kind", "Leaf", "Record"]

_RECORD: Final = "weighbridge/v1/record"
_LEAF: Final = "weighbridge/v1/leaf"
# As much as the content store takes: what was recorded can be read back.
_RECORD_MAX: Final = limits.MESSAGE_MAX
Kind = Literal["enrolment", "window", "closing", "junk", "clearing", "baseline"]
_KINDS: Final = frozenset(get_args(Kind))
# Where no policy judged, no digest of one is recorded.
NO_DIGEST: Final = bytes(limits.DIGEST_SIZE)


@dataclass(frozen=True, slots=True)
class ChallengePreimage:
    """What a challenge hashes: the ledger's root when it was issued, and 32 random bytes."""

    ledger_root: bytes
    random: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One judgement. Digests are 32 bytes; ``session`` is 16; ``received_ns`` counts from 1970.

    ``evidence`` is the SHA-256 of the evidence as received (for an enrolment, of the proof); ``opening``,
    ``terms``, ``secret`` (the credential that was activated) and ``requirements`` exist for enrolments only;
    ``verdict`` is the JSON document that was answered; ``spot`` is what the window had to answer, spent by then;
    ``collateral`` is the digest of what makers of hardware had published and the verifier judged by; ``history`` is
    what was remembered of the GPUs beyond the session, ``None`` where nothing was asked for; ``previous`` is the H of
    the window before which the session's chain had reached when this one came, ``None`` before its first one.
    """

    kind: Kind
    session: bytes
    seq: int | None
    received_ns: int
    held: bool
    preimage: ChallengePreimage | None
    opening: bytes | None
    terms: bytes | None
    secret: bytes | None
    window: bytes | None
    evidence: bytes | None
    policy: bytes
    reference: bytes
    requirements: bytes | None
    verdict: bytes
    spot: SpotExpectation | None
    collateral: bytes
    history: History | None
    previous: bytes | None

    @classmethod
    def note(cls, kind: Kind, *, session: bytes, seq: int | None, received_ns: int, verdict: bytes) -> Self:
        """A record that stands for itself: no evidence, challenge or policy belongs to it."""
        return cls(
            kind=kind,
            session=session,
            seq=seq,
            received_ns=received_ns,
            held=False,
            preimage=None,
            opening=None,
            terms=None,
            secret=None,
            window=None,
            evidence=None,
            policy=NO_DIGEST,
            reference=NO_DIGEST,
            requirements=None,
            verdict=verdict,
            spot=None,
            collateral=NO_DIGEST,
            history=None,
            previous=None,
        )

    @property
    def obliges_spot_check(self) -> bool:
        """Whether the recorded verdict demands a spot check in the next window.

        Raises:
            MalformedEvidence: the verdict is not strict JSON.
        """
        verdict = _document(self.verdict)
        items = verdict.get("obligations") if isinstance(verdict, dict) else None
        demanded = items if isinstance(items, list) else []
        return any(isinstance(item, dict) and item.get("kind") == "spot_check" for item in demanded)

    @property
    def revision(self) -> Revision | None:
        """Which signed bundle the policy came in, as the recorded verdict says.

        Raises:
            MalformedEvidence: the verdict is not strict JSON, or names a bundle otherwise than verdicts do.
        """
        verdict = _document(self.verdict)
        policy = verdict.get("policy") if isinstance(verdict, dict) else None
        match policy.get("bundle") if isinstance(policy, dict) else None:
            case None:
                return None
            case {"owner": str(owner), "name": str(name), "number": int(number), "digest": str(digest), **rest}:
                tenant = rest.get("tenant")
                if (tenant is None or isinstance(tenant, str)) and not isinstance(number, bool):
                    return Revision(owner, name, number, digest, tenant)
            case _:
                pass
        raise MalformedEvidence(Code.FIELD_TYPE, "not the name of a policy bundle", where="verdict.policy.bundle")

    def encode(self) -> bytes:
        """The record's bytes."""
        preimage = None if self.preimage is None else [self.preimage.ledger_root, self.preimage.random]
        return cbor.encode(
            {
                0: _RECORD,
                1: self.kind,
                2: self.session,
                3: self.seq,
                4: self.received_ns,
                5: self.held,
                6: preimage,
                7: self.opening,
                8: self.terms,
                9: self.secret,
                10: self.window,
                11: self.evidence,
                12: self.policy,
                13: self.reference,
                14: self.requirements,
                15: self.verdict,
                16: None if self.spot is None else self.spot.to_cbor(),
                17: self.collateral,
                18: None if self.history is None else self.history.to_cbor(),
                19: self.previous,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a record.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_RECORD, limit=_RECORD_MAX, what="record")
        record = cls(
            kind=_kind(fields, 1),
            session=fields.octets(2, size=16),
            seq=_optional_uint(fields, 3),
            received_ns=fields.uint(4),
            held=fields.boolean(5),
            preimage=_preimage(fields),
            opening=fields.optional_octets(7, limit=limits.OPENING_MAX),
            terms=fields.optional_octets(8, limit=limits.TERMS_MAX),
            secret=fields.optional_octets(9, limit=64),
            window=fields.optional_digest(10),
            evidence=fields.optional_digest(11),
            policy=fields.digest(12),
            reference=fields.digest(13),
            requirements=fields.optional_octets(14, limit=limits.TERMS_MAX),
            verdict=fields.octets(15, limit=_RECORD_MAX),
            spot=SpotExpectation.from_cbor(fields.take(16), where="record[16]"),
            collateral=fields.digest(17),
            history=_history(fields),
            previous=fields.optional_digest(19),
        )
        fields.end()
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """The ledger entry: enough to find a judgement, to follow a session's chain, and to detect that either was changed.

    ``record`` is the SHA-256 of the record's bytes, under which the content store has them; the other digests are the
    record's own, so that whoever has the entries alone sees gaps, forks and changes of policy.
    """

    kind: Kind
    session: bytes
    seq: int | None
    received_ns: int
    window: bytes | None
    evidence: bytes | None
    record: bytes
    previous: bytes | None
    collateral: bytes
    policy: bytes

    @classmethod
    def of(cls, record: Record, *, digest: bytes | None = None) -> Self:
        """The leaf that commits to ``record``; ``digest``, if it is known, is the SHA-256 of the record's bytes."""
        return cls(
            kind=record.kind,
            session=record.session,
            seq=record.seq,
            received_ns=record.received_ns,
            window=record.window,
            evidence=record.evidence,
            record=sha256(record.encode()) if digest is None else digest,
            previous=record.previous,
            collateral=record.collateral,
            policy=record.policy,
        )

    def encode(self) -> bytes:
        """The entry's bytes."""
        return cbor.encode(
            {
                0: _LEAF,
                1: self.kind,
                2: self.session,
                3: self.seq,
                4: self.received_ns,
                5: self.window,
                6: self.evidence,
                7: self.record,
                8: self.previous,
                9: self.collateral,
                10: self.policy,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a ledger entry.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_LEAF, limit=limits.LEDGER_ENTRY_MAX, what="leaf")
        leaf = cls(
            kind=_kind(fields, 1),
            session=fields.octets(2, size=16),
            seq=_optional_uint(fields, 3),
            received_ns=fields.uint(4),
            window=fields.optional_digest(5),
            evidence=fields.optional_digest(6),
            record=fields.digest(7),
            previous=fields.optional_digest(8),
            collateral=fields.digest(9),
            policy=fields.digest(10),
        )
        fields.end()
        return leaf


@lru_cache(maxsize=1)
def _document(verdict: bytes) -> strict.JsonValue:
    """What was answered; not to be changed. Whoever judges again asks several times, window after window."""
    return strict.json_decode(verdict, what="verdict")


def _kind(fields: cbor.Reader, key: int) -> Kind:
    kind = fields.text(key)
    if kind not in _KINDS:
        raise MalformedEvidence(Code.FIELD_RANGE, "unknown kind", where=fields.path(key), got=kind)
    return cast("Kind", kind)


def _optional_uint(fields: cbor.Reader, key: int) -> int | None:
    value = fields.take(key)
    if value is None:
        return None
    return cbor.Reader({key: value}, fields.path(key)).uint(key, limit=2**53)


def _preimage(fields: cbor.Reader) -> ChallengePreimage | None:
    parts = fields.optional_array(6, limit=2)
    if parts is None:
        return None
    reader = cbor.Reader(dict(enumerate(parts)), fields.path(6))
    preimage = ChallengePreimage(reader.digest(0), reader.digest(1))
    reader.end()
    return preimage


def _history(fields: cbor.Reader) -> History | None:
    value = fields.take(18)
    return None if value is None else History.from_cbor(value, where=fields.path(18))
