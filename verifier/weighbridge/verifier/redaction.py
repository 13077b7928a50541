"""What a redacted bundle says of a session: its verdicts without what names a device, signed by the verifier.

Permanent identifiers are digests of keys that a GPU, a TPM or a host keeps for life. In their place stand pseudonyms,
``D("pseudonym", salt, tenant, identity)``: the salt is the tenant's, 32 random bytes, so that it alone can say which
device is meant, and others cannot find out by trying. Evidence, records, terms, baselines and collateral name devices,
so none of them is shown. What is said of a verdict is a closed list of fields (:func:`summary`): nothing that a host or
a maker wrote is among them, nor any power.

Each row has the digest of the record that it was made of, which is that of the ledger's leaf: whoever shows the record
later shows whether the row was true. Until then it is the verifier's word.

Not prevented: most records have random bytes of the verifier, so that nobody can guess one and know it by its digest.
That of a window whose verification was refused has none: whoever knows the rest of it can try what he does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.terms import TERMS_TYP, Terms
from weighbridge.verifier.clock import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.verifier.record import Leaf, Record

__all__ = [
    "REDACTION_TYP",
    "SALT_SIZE",
    "Redaction",
    "Row",
    "facts",
    "is_salt",
    "pseudonym",
    "salt_thumbprint",
    "summary",
    "terms_of",
]

REDACTION_TYP: Final = "application/vnd.weighbridge.redaction+cose"
SALT_SIZE: Final = 32
_VERSION: Final = "weighbridge/v1/redaction"
_SCHEMA: Final = "weighbridge/redacted/v1"
_MAX: Final = 64 * 1024 * 1024
_ROWS_MAX: Final = 100_000
_ROW_MAX: Final = 64 * 1024
# Of 32 random bytes fewer are distinct less often than once in 2^100.
_DISTINCT_MIN: Final = 8
_DEVICE_FIELDS: Final = ("verdict", "units", "score", "threshold", "p_ppb", "e_log10_milli")


@dataclass(frozen=True, slots=True)
class Row:
    """One judgement: its place in the ledger, the digest of its record, and what is said of it, canonical JSON."""

    index: int
    record: bytes
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """The content of a signed redaction.

    Attributes:
        session: 16 bytes.
        tenant: whose it is, and whose salt.
        origin: the name of the ledger that has the judgements.
        salt: :func:`salt_thumbprint`.
        issued_ns: since 1970, by the verifier's clock.
        model: digest of the declared manifest, which names no device.
        adapters: likewise, ascending.
        rows: in the ledger's order.
    """

    session: bytes
    tenant: str
    origin: str
    salt: bytes
    issued_ns: int
    model: bytes
    adapters: tuple[bytes, ...]
    rows: tuple[Row, ...]

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The COSE_Sign1 over it, by the verifier's key of thumbprint ``kid``."""
        payload = cbor.encode(
            {
                0: _VERSION,
                1: self.session,
                2: self.tenant,
                3: self.salt,
                4: self.issued_ns,
                5: self.model,
                6: list(self.adapters),
                7: [[row.index, row.record, row.document] for row in self.rows],
                8: self.origin,
            }
        )
        return cose.sign(payload, kid=kid, typ=REDACTION_TYP, signer=signer)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse the payload of a redaction.

        Raises:
            MalformedEvidence: for any bytes that :meth:`sign` would not have signed.
        """
        fields = cbor.read_versioned(payload, version=_VERSION, limit=_MAX, what="redaction")
        redaction = cls(
            session=fields.octets(1, size=16),
            tenant=fields.text(2, limit=64),
            salt=fields.digest(3),
            issued_ns=fields.uint(4),
            model=fields.digest(5),
            adapters=fields.octet_strings(6, count=limits.ADAPTERS_MAX, limit=limits.DIGEST_SIZE),
            rows=tuple(_row(item, number) for number, item in enumerate(fields.array(7, limit=_ROWS_MAX))),
            origin=fields.text(8),
        )
        fields.end()
        return redaction


def pseudonym(salt: bytes, tenant: str, identity: bytes) -> bytes:
    """What a device of ``identity`` is called for ``tenant``: the same under one salt, and unlike under another.

    Args:
        salt: the tenant's, 32 secret random bytes.
        tenant: as terms name it.
        identity: 32 bytes.
    """
    _check(salt)
    return D("pseudonym", salt, tenant, identity)


def salt_thumbprint(salt: bytes, tenant: str) -> bytes:
    """What tells salts apart without giving them away: two bundles that have the same one use the same names."""
    _check(salt)
    return D("pseudonym", salt, tenant, None)


def is_salt(value: bytes) -> bool:
    """Whether ``value`` may be random: of the size, and not a few bytes over and over, which anybody would try."""
    return len(value) == SALT_SIZE and len(set(value)) >= _DISTINCT_MIN


def facts(record: Record | Leaf) -> strict.JsonObject:
    """What a judgement's leaf says as well as its record: no summary may say anything else."""
    return {
        "kind": record.kind,
        "seq": record.seq,
        "received_at": strict.time_encode(moment(record.received_ns)),
    }


def summary(record: Record, *, salt: bytes, tenant: str) -> bytes:
    """What is said of a judgement whose record is withheld: canonical JSON, schema ``weighbridge/redacted/v1``.

    Args:
        record: of the verifier's own, well-formed.
        salt: the tenant's.
        tenant: whose session it is.

    Raises:
        MalformedEvidence: the record holds what no verifier writes.
    """
    said: strict.JsonObject = {"schema": _SCHEMA, **facts(record)}
    if record.kind == "window":
        said |= _of_window(record, salt, tenant)
    elif record.kind == "enrolment":
        said |= _of_enrolment(record, salt, tenant)
    return strict.json_encode(said)


def terms_of(record: Record) -> Terms:
    """The terms in the record of an enrolment. Their signature is not checked.

    Raises:
        MalformedEvidence: there are none, or they are not well-formed.
    """
    message = cose.parse(record.terms or b"", typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms")
    return Terms.parse(message.payload)


def _of_window(record: Record, salt: bytes, tenant: str) -> strict.JsonObject:
    verdict = strict.json_decode(record.verdict, what="verdict")
    if not isinstance(verdict, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "not a verdict", where="verdict")
    physical, platform, policy = (_object(verdict.get(name)) for name in ("physical", "platform", "policy"))
    return {
        "freshness": verdict.get("freshness"),
        "outcome": verdict.get("outcome"),
        "denials": _each(verdict.get("denials"), "code"),
        "telemetry": verdict.get("telemetry"),
        "devices": _of_devices(_objects(physical.get("devices")), salt, tenant),
        "attester_code": _object(verdict.get("attester_code")).get("status"),
        "platform": {name: platform.get(name) for name in ("name", "provenance", "state_held_by")},
        "unchecked": _each(verdict.get("unchecked"), "check"),
        "policy": {name: policy.get(name) for name in ("digest", "engine", "outcome")},
    }


def _of_devices(devices: list[strict.JsonObject], salt: bytes, tenant: str) -> list[strict.JsonValue]:
    """What is said of each, ascending by pseudonym: a verdict's order is that of the identities."""
    said: dict[str, strict.JsonValue] = {}
    for item in devices:
        name = pseudonym(salt, tenant, strict.hex_decode(str(item.get("device")), what="device")).hex()
        said[name] = {"device": name, **{field: item.get(field) for field in _DEVICE_FIELDS}}
    return [said[name] for name in sorted(said)]


def _of_enrolment(record: Record, salt: bytes, tenant: str) -> strict.JsonObject:
    terms = terms_of(record)
    return {
        "devices": [*sorted(pseudonym(salt, tenant, identity).hex() for identity in terms.gpus)],
        "attestation_key": pseudonym(salt, tenant, terms.ak).hex(),
        "evidence": list(terms.evidence),
        "period_ns": terms.period_ns,
        "gpu_every": terms.gpu_every,
        "spot_every": terms.spot_every,
    }


def _check(salt: bytes) -> None:
    if not is_salt(salt):
        raise ValueError(f"a salt has {SALT_SIZE} bytes, random ones")


def _object(value: strict.JsonValue) -> strict.JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: strict.JsonValue) -> list[strict.JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _each(value: strict.JsonValue, name: str) -> list[strict.JsonValue]:
    """What the objects in ``value`` have under ``name``, each once."""
    return [*sorted({str(item.get(name)) for item in _objects(value)})]


def _row(value: cbor.CborValue, number: int) -> Row:
    where = f"redaction[7][{number}]"
    parts = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=3, size=3))), where)
    return Row(parts.uint(0, limit=2**53), parts.digest(1), parts.octets(2, limit=_ROW_MAX))
