"""What a verified report of CPU hardware says of the confidential virtual machine that asked for it.

**Not proven** by any such report: where the machine stands, what its guest runs beyond the launch measurement, which
GPU is beside it, and that nobody sits on its memory bus (physical interposers) or has taken keys out of a broken
generation of processors. ``product``, ``tcb`` and the flags are exposed so that a policy can refuse such generations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor

__all__ = ["SEAL", "Revocation", "TeeKind", "VerifiedTee"]

# Public for the modules of this package alone: `snp` and `tdx` verify, and nobody else may make the result.
SEAL: Final = object()

TeeKind = Literal["sev-snp", "tdx"]
Revocation = Literal["good", "absent", "stale"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTee:
    """A hardware report, signed under ``anchor``. Made by ``verify_snp`` and ``verify_td_quote`` only.

    Attributes:
        kind: whose report it is.
        anchor: whose key vouches; its platform is what evidence under this report is called.
        not_after: the earliest end among its certificates. Lists and Intel's word have ends of their own.
        report_data: 64 bytes that the guest chose.
        measurement: of the machine's initial contents, 48 bytes. SEV-SNP: the launch digest. TDX: MRTD.
        product: the processor generation, such as ``Genoa``; empty for TDX.
        tcb: security version numbers of the firmware as the report states and the certificates confirm.
        tcb_status: what the vendor says of them. SEV-SNP: ``matches``, since AMD publishes no list. TDX: Intel's word.
        advisories: numbers of the vendor's advisories that apply; empty for SEV-SNP.
        revocation: ``good`` if a current list names none of the certificates; ``absent`` or ``stale`` if there was no
            list, or none of that time. A revoked certificate raises instead.
        smt: whether hyper-threads are on, by the signed report; ``None`` where it does not say.
        alias_check: whether firmware found no aliased memory since the last reset (AMD-SB-3015, BadRAM); ``None``
            where the report is of a version that does not say.
        vmpl: the privilege level that asked, 0 the highest; ``None`` where there is no such thing.

    The seal is a guard against mistakes, not against hostile code.
    """

    kind: TeeKind
    anchor: Anchor
    not_after: datetime
    report_data: bytes
    measurement: bytes
    product: str
    tcb: str
    tcb_status: str
    advisories: tuple[str, ...]
    revocation: Revocation
    smt: bool | None
    alias_check: bool | None
    vmpl: int | None
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not SEAL:
            raise TypeError("VerifiedTee is made by verify_snp and verify_td_quote only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedTee cannot be pickled")
