"""The report of Azure's paravisor (HCL): which keys its TPM has, bound to a hardware report by a hash.

It is read from NV index 0x01400001 of the virtual TPM. Layout, little-endian (Microsoft, "Confidential VM guest
attestation design detail", and the paravisor's published source, openvmm ``igvm_attest::get``)::

    0     "HCLA", u32 version (1 or 2), u32 size of the whole, u32 request type (2), 16 zero bytes
    32    1184 bytes: the SEV-SNP report, or a TDREPORT and zeros
    1216  u32 size of what follows here, u32 version 1, u32 report type (2 SEV-SNP, 4 TDX),
          u32 hash type (1: SHA-256), u32 size of the claims
    1236  the claims: JSON; then zeros to the end of the NV index

The claims are what the hardware report binds, byte for byte; everything else here is unauthenticated framing, and only
tells where things lie. A TDREPORT proves nothing to others: the TD quote that the platform makes of it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee.snp import REPORT_SIZE

__all__ = ["HclReport", "VmConfiguration", "parse"]

_CLAUSE: Final = "Azure HCL report"
_HEADER: Final = 32
_DATA: Final = _HEADER + REPORT_SIZE
_CLAIMS: Final = _DATA + 20
_HEADER_VERSIONS: Final = (1, 2)
_REQUEST_TYPE: Final = 2
_DATA_VERSION: Final = 1
_REPORT_TYPES: Final[dict[int, Literal["sev-snp", "tdx"]]] = {2: "sev-snp", 4: "tdx"}
# 2 and 3 are SHA-384 and SHA-512 in the source; no report that uses them is known.
_SHA256: Final = 1
_AK: Final = "HCLAkPub"
_EXPONENT: Final = 65537
_EXPONENT_BASE64URL: Final = "AQAB"
_MODULUS_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfiguration:
    """What the paravisor says of its guest; each ``None`` where it is silent.

    Attributes:
        secure_boot: whether UEFI Secure Boot is on.
        tpm_persisted: whether the TPM's state outlives the virtual machine, encrypted by the paravisor.
        console_enabled: whether the guest has a console that the host can reach.
        vm_unique_id: a name that the **host** chose; it identifies nothing.
    """

    secure_boot: bool | None
    tpm_persisted: bool | None
    console_enabled: bool | None
    vm_unique_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """A well-formed report. Says nothing of truth: that hardware binds :attr:`claims` is for others to show.

    Attributes:
        kind: whose hardware report belongs to it.
        hardware_report: 1184 bytes. SEV-SNP: the signed report. TDX: a TDREPORT, of no use here.
        claims: JSON, the bytes that are hashed.
        ak_spki: the attestation key, RSA-2048 with exponent 65537, as SubjectPublicKeyInfo in DER. Its attributes are
            not stated.
        configuration: of the virtual machine.
    """

    kind: Literal["sev-snp", "tdx"]
    hardware_report: bytes
    claims: bytes
    ak_spki: bytes
    configuration: VmConfiguration


def parse(data: bytes) -> HclReport:
    """Parse a report as the NV index holds it.

    Args:
        data: untrusted; with or without the zeros behind the claims.

    Raises:
        MalformedEvidence: ``HCL_REPORT`` for anything that is not as the module's docstring says, otherwise a code of
            :func:`~weighbridge.proto.strict.json_decode`, ``NOT_BASE64`` or ``KEY_MALFORMED``.
    """
    if not _CLAIMS < len(data) <= limits.VTPM_REPORT_MAX:
        raise _malformed(
            "wrong size", "", expected=f"{_CLAIMS + 1}..{limits.VTPM_REPORT_MAX} bytes", got=f"{len(data)} bytes"
        )
    kind, end = _frame(data)
    claims = data[_CLAIMS:end]
    document = _object(strict.json_decode(claims, what="hcl.claims"), "")
    return HclReport(
        kind=kind,
        hardware_report=data[_HEADER:_DATA],
        claims=claims,
        ak_spki=_attestation_key(document),
        configuration=_configuration(_object(document.get("vm-configuration"), ".vm-configuration")),
    )


def _frame(data: bytes) -> tuple[Literal["sev-snp", "tdx"], int]:
    """Whose hardware report it is, and where the claims end."""
    if data[:4] != b"HCLA":
        raise _malformed("not a report of the paravisor", "[0]", expected=b"HCLA".hex(), got=data[:4].hex())
    version, size, request, *reserved = strict.unpack("<7I", data[4:_HEADER], what="hcl.header")
    if version not in _HEADER_VERSIONS or request != _REQUEST_TYPE or any(reserved):
        raise _malformed("header is of another version or request", "[4..32]", got=data[4:_HEADER].hex())
    data_size, data_version, report_type, hash_type, claims_size = strict.unpack(
        "<5I", data[_DATA:_CLAIMS], what="hcl.data"
    )
    kind = _REPORT_TYPES.get(report_type)
    if kind is None:
        raise _malformed(
            "hardware report is of no accepted type", "[1224]", expected="2 (SEV-SNP) or 4 (TDX)", got=str(report_type)
        )
    if hash_type != _SHA256:
        raise _malformed("claims are not bound by SHA-256", "[1228]", expected=str(_SHA256), got=str(hash_type))
    end = _CLAIMS + claims_size
    sizes = (data_version, data_size, size)
    if sizes != (_DATA_VERSION, claims_size + _CLAIMS - _DATA, end) or end > len(data):
        raise _malformed("version and sizes do not fit together", "[1216..1236]", got=data[_DATA:_CLAIMS].hex())
    if any(data[end:]):
        raise _malformed("bytes follow the claims", f"[{end}]", got=f"{len(data) - end} bytes, not all zero")
    return kind, end


def _attestation_key(document: strict.JsonObject) -> bytes:
    keys = document.get("keys")
    listed = [_object(key, ".keys") for key in keys] if isinstance(keys, list) else []
    named = [key for key in listed if key.get("kid") == _AK]
    if len(named) != 1:
        raise _malformed(f"must name one {_AK}", ".claims.keys", got=f"{len(named)} of it")
    key, where = named[0], f".claims.keys.{_AK}"
    form = (key.get("kty"), key.get("e"), key.get("key_ops"))
    if form != ("RSA", _EXPONENT_BASE64URL, ["sign"]):
        raise _malformed("not an RSA key for signing, with exponent 65537", where, got=str(form))
    encoded = key.get("n")
    modulus = strict.base64url_decode(encoded, what=f"hcl{where}.n") if isinstance(encoded, str) else b""
    number = int.from_bytes(modulus)
    if len(modulus) != _MODULUS_BYTES or number.bit_length() != _MODULUS_BYTES * 8:
        raise _malformed("not a key of 2048 bits", f"{where}.n", got=f"{number.bit_length()} bits")
    if number % 2 == 0:
        raise MalformedEvidence(Code.KEY_MALFORMED, "an even number is no RSA modulus", where=f"hcl{where}.n")
    public = rsa.RSAPublicNumbers(_EXPONENT, number).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _configuration(fields: strict.JsonObject) -> VmConfiguration:
    name = fields.get("vmUniqueId")
    if not (name is None or (isinstance(name, str) and len(name) <= limits.NAME_MAX)):
        raise _malformed("not a name", ".claims.vm-configuration.vmUniqueId", got=type(name).__name__)
    return VmConfiguration(
        secure_boot=_flag(fields, "secure-boot"),
        tpm_persisted=_flag(fields, "tpm-persisted"),
        console_enabled=_flag(fields, "console-enabled"),
        vm_unique_id=name,
    )


def _flag(fields: strict.JsonObject, name: str) -> bool | None:
    value = fields.get(name)
    if not (value is None or isinstance(value, bool)):
        raise _malformed("neither true nor false", f".claims.vm-configuration.{name}", got=type(value).__name__)
    return value


def _object(value: strict.JsonValue, place: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise _malformed("not a JSON object", f".claims{place}", got=type(value).__name__)
    return value


def _malformed(message: str, place: str, *, expected: str | None = None, got: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.HCL_REPORT,
        message,
        where=f"hcl{place}",
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="Read NV index 0x01400001 of the virtual machine's TPM again, all of it.",
    )
