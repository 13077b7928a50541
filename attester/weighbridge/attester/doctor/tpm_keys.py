"""The keys by which a TPM is believed: its endorsement certificates, what a cloud left in it, the attestation key.

That a certificate's chain ends at a maker's root is the verifier's to say; nothing is verified here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509

from weighbridge.attester.doctor.findings import Finding, fail, ok, skip, warn
from weighbridge.attester.doctor.host import printable
from weighbridge.attester.spool_files import read_session
from weighbridge.attester.tpm.nv import trim_certificate
from weighbridge.attester.tpm.options import AZURE_AK_HANDLE, AkChoice
from weighbridge.proto import cose, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import EnvironmentFault
from weighbridge.proto.terms import TERMS_TYP, Terms
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.doctor.host import Host
    from weighbridge.attester.doctor.tpm_commands import TpmAsked

__all__ = ["AK", "EK", "KIND", "examine_ak", "examine_ek", "examine_kind"]

EK, KIND, AK = "tpm.ek", "tpm.kind", "tpm.ak"

_NV_FIRST: Final = 0x01000000
# TCG EK Credential Profile v2.5 rev. 2 §2.2.1.4: where the certificates of the default templates are.
_EK_INDICES: Final = {
    0x01C00002: "L-1, RSA-2048",
    0x01C0000A: "L-2, P-256",
    0x01C00012: "H-1, RSA-2048",
    0x01C00014: "H-2, P-256",
    0x01C00016: "H-3, P-384",
    0x01C00018: "H-4, P-521",
    0x01C0001A: "H-5, SM2",
    0x01C0001C: "H-6, RSA-3072",
    0x01C0001E: "H-7, RSA-4096",
}
_USED: Final = frozenset(template.certificate_index for template in ENDORSEMENT_KEYS)
# go-tpm-tools: certificates of Google's attestation keys, RSA and ECC, and the templates of these keys.
_GOOGLE: Final = (0x01C10000, 0x01C10002)
# Azure: the report by which the paravisor and the hardware name the vTPM's attestation key.
_AZURE: Final = 0x01400001
_HCL_MAGIC: Final = b"HCLA"
# Header, hardware report, then sizes and the report's type (u32, little-endian).
_HCL_TYPE: Final = slice(32 + 1184 + 8, 32 + 1184 + 12)
_HCL_TYPES: Final = {2: "SEV-SNP", 4: "TDX"}
_VENDORS: Final = {"Google": "Google Compute Engine", "Microsoft Corporation": "Microsoft Azure or Hyper-V"}


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What is at an index: a description, or what is wrong with it."""

    index: int
    text: str
    usable: bool


def examine_ek(tpm: TpmAsked) -> Finding:
    """The endorsement certificates: which there are, and whether they can be read."""
    present = [index for index in tpm.handles(_NV_FIRST) if index in _EK_INDICES]
    if not present:
        return warn(
            EK,
            "no endorsement certificate at any index of the profile",
            "On a cloud the key is believed in another way. Elsewhere, ask the maker for the certificate, or pin the "
            "attestation key at the verifier and start with --pinned-ak.",
        )
    certificates = [_certificate(tpm, index) for index in present]
    found = "; ".join(certificate.text for certificate in certificates)
    if any(certificate.usable for certificate in certificates):
        bad = [certificate for certificate in certificates if not certificate.usable and certificate.index in _USED]
        return warn(EK, found, "The certificate that cannot be read is passed over.") if bad else ok(EK, found)
    return warn(
        EK,
        found,
        "The attester uses the P-384 key of template H-3 or the RSA-2048 key of L-1. Pin the attestation key at the "
        "verifier and start with --pinned-ak.",
    )


def _certificate(tpm: TpmAsked, index: int) -> _Certificate:
    where = f"{index:#010x} ({_EK_INDICES[index]})"
    try:
        data = tpm.nv_read(index)
        certificate = x509.load_der_x509_certificate(trim_certificate(data))
        # Some makers' names are in no order that the parser takes: it says so when they are asked for.
        issuer = printable(certificate.issuer.rfc4514_string())
        ends = certificate.not_valid_after_utc
    except EnvironmentFault as error:
        return _Certificate(index, f"{where}: {error.message}", usable=False)
    except (ValueError, x509.InvalidVersion) as error:
        return _Certificate(
            index, f"{where}: not a certificate that can be read: {printable(str(error))}", usable=False
        )
    return _Certificate(index, f"{where}: by {issuer}, until {ends:%Y-%m-%d}", usable=index in _USED)


def examine_kind(host: Host, tpm: TpmAsked) -> Finding:
    """Which of the three ways of believing the AK this host offers. What its firmware calls itself is no proof."""
    indices = tpm.handles(_NV_FIRST)
    vendor = host.text("sys/class/dmi/id/sys_vendor") or ""
    called = f"; the firmware says {vendor}" if vendor else ""
    if _AZURE in indices:
        report = tpm.nv_read(_AZURE)
        if report.startswith(_HCL_MAGIC):
            tee = _HCL_TYPES.get(int.from_bytes(report[_HCL_TYPE], "little"), "a TEE of unknown type")
            found = f"Azure confidential VM on {tee}: a hardware report names the attestation key (vtpm-report)"
            return _by(host, AkChoice("handle", AZURE_AK_HANDLE), found)
        return warn(
            KIND, f"something else than an HCL report at {_AZURE:#010x}{called}", "Is this a confidential VM of Azure?"
        )
    if certified := [index for index in _GOOGLE if index in indices]:
        names = ", ".join(f"{index:#010x}" for index in certified)
        found = f"Google Compute Engine: attestation key certificates at {names} (ak-certificate)"
        return _by(host, AkChoice("gce"), found)
    if vendor in _VENDORS:
        return warn(
            KIND,
            f"no certificate or report of an attestation key{called}",
            f"On {_VENDORS[vendor]}, choose a confidential (Azure) or shielded (Google) virtual machine.",
        )
    return ok(KIND, f"no cloud's: the endorsement certificate is what counts (ek-credential){called}")


def _by(host: Host, ak: AkChoice, found: str) -> Finding:
    if host.ak == ak:
        return ok(KIND, found)
    return warn(KIND, f"{found}, and another one is used", f"Give --ak {_option(ak)}, here and to run.")


def _option(ak: AkChoice) -> str:
    return ak.kind if ak.handle is None else f"{ak.kind}:{ak.handle:#010x}"


def examine_ak(host: Host) -> Finding:
    """The attestation key, made the way `run` makes it; and whether the sessions that wait had the same one."""
    if host.ak.kind == "srk":
        return skip(AK, "a key below the storage root key is made, and kept in a file, by the first run")
    try:
        tpm = host.open_tpm(host.tpm, host.ak)
    except ImportError as error:
        return fail(
            AK,
            f"not made: {error.name or 'tpm2_pytss'} cannot be loaded: {printable(str(error))}",
            "pip install 'weighbridge[attester]'; it needs libtss2-dev and a compiler.",
        )
    try:
        area = tpm.attestation_key()
    finally:
        tpm.close()
    key = tpm_public.parse(area)
    name = key.name.hex()
    found = f"{_option(host.ak)}: {name[:20]}…"
    before = [] if host.state is None else _keys_of_sessions(host.state)
    if not before:
        return ok(AK, found)
    if sha256(key.spki()) not in before:
        return warn(
            AK,
            f"{found}, and it is not the one of the undelivered sessions in {host.state}",
            "The TPM was cleared or replaced, or the state comes from another host. A verifier takes this host for a "
            "new one.",
        )
    return ok(AK, f"{found}, as in the undelivered sessions of the state directory")


def _keys_of_sessions(state: Path) -> list[bytes]:
    """The thumbprints of the AKs of the sessions whose spools are still there. Their terms were verified on arrival."""
    try:
        files = [path / "session" for path in sorted((state / "spool").iterdir()) if (path / "session").exists()]
        signed = [read_session(file)[1] for file in files]
    except OSError:
        return []
    return [
        Terms.parse(cose.parse(terms, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms").payload).ak
        for terms in signed
    ]
