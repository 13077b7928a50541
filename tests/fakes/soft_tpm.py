"""The red team's software TPM, with the seed and the authority that tests share; others keep theirs secret."""

from __future__ import annotations

from typing import Literal

from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.redteam import soft_authority, soft_tpm
from weighbridge.redteam.soft_authority import EK_USAGE as EK_USAGE
from weighbridge.redteam.soft_authority import EMULATED as EMULATED
from weighbridge.redteam.soft_authority import NOT_AFTER as NOT_AFTER
from weighbridge.redteam.soft_authority import derive_key as derive_key
from weighbridge.redteam.soft_authority import point as point
from weighbridge.redteam.soft_authority import tpmt_signature as tpmt_signature
from weighbridge.verifier.anchors import TrustAnchors


class SoftAuthority(soft_authority.SoftAuthority):
    """One that every test can make again."""

    def __init__(self, seed: str = "authority") -> None:
        super().__init__(seed, name=seed)

    def anchors(self, platform: str = EMULATED, *, source: str = "a test") -> TrustAnchors:
        return super().anchors(platform, source=source)


class SoftTpm(soft_tpm.SoftTpm):
    """One that every test can make again."""

    def __init__(
        self,
        seed: str = "tpm",
        *,
        authority: soft_authority.SoftAuthority | None = None,
        ek: Literal["H-3", "L-1"] = "H-3",
        ak: soft_tpm.AkKind = "P-256",
        srk: bool = False,
        banks: tuple[HashAlgorithm, ...] = (HashAlgorithm.SHA256, HashAlgorithm.SHA384),
    ) -> None:
        super().__init__(seed, authority=authority or SoftAuthority(), ek=ek, ak=ak, srk=srk, banks=banks)
