"""An enrolled software TPM: what most tests of TPM evidence start from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fakes.soft_tpm import SoftTpm
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk, activated
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import verify_ek

AT = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = bytes(range(32))


@dataclass(frozen=True)
class EnrolledTpm:
    """A TPM, its AK as verified, what is quoted, and what the telemetry key is bound to."""

    tpm: SoftTpm
    ak: VerifiedAk
    selection: PcrSelection
    boot: PcrSelection


def enrol(tpm: SoftTpm | None = None) -> EnrolledTpm:
    """Bring ``tpm`` through boot and credential activation."""
    device = tpm or SoftTpm()
    for pcr in (0, 4, 7, 15):
        device.extend(pcr, {HashAlgorithm.SHA256: bytes([pcr]) * 32, HashAlgorithm.SHA384: bytes([pcr]) * 48})
    ek = verify_ek(
        public.parse(device.ek_public),
        device.certificate,
        device.authority.intermediates,
        device.authority.anchors(),
        at=AT,
    )
    ak = public.parse(device.attestation_key())
    credential = make_credential(ek, ak.name, SECRET)
    answer = device.activate_credential(credential.id_object, credential.encrypted_secret)
    return EnrolledTpm(
        tpm=device,
        ak=activated(ek, AttestationKey(ak), secret=SECRET, answer=answer),
        selection=PcrSelection.of(HashAlgorithm.SHA256, [0, 4, 7, 15]),
        boot=PcrSelection.of(HashAlgorithm.SHA256, [0, 4, 7]),
    )
