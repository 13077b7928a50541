"""What an operator says of this host's TPM. Nothing of the TSS is loaded here: every verb reads its options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, cast, final

from weighbridge.proto import strict

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AZURE_AK_HANDLE", "AkChoice", "TpmOptions", "parse_handle"]

AkKind = Literal["endorsement", "srk", "handle", "gce"]

# Where Azure's paravisor keeps the AK that its report names.
AZURE_AK_HANDLE: Final = 0x81000003
# TPM 2.0 Part 2 §7.2: persistent objects.
_HANDLE: Final = re.compile("0x(81[0-9a-f]{6})")


def parse_handle(text: str) -> int:
    """A persistent handle, such as ``0x81000003``.

    Raises:
        ValueError: it is none.
    """
    match = _HANDLE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a persistent handle from 0x81000000 to 0x81ffffff, not {text!r}")
    return int.from_bytes(strict.hex_decode(match[1], what="handle", size=4))


@final
@dataclass(frozen=True, slots=True)
class AkChoice:
    """Which attestation key: a ``kind``, and for ``handle`` the persistent handle."""

    kind: AkKind = "endorsement"
    handle: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``endorsement``, ``srk``, ``gce`` or ``handle:0x81…``.

        Raises:
            ValueError: for anything else.
        """
        if text.startswith("handle:"):
            return cls("handle", parse_handle(text.removeprefix("handle:")))
        if text not in ("endorsement", "srk", "gce"):
            raise ValueError(f"must be endorsement, srk, gce or handle:0x81000003, not {text!r}")
        return cls(cast("AkKind", text))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TpmOptions:
    """The keys of a TPM, and what its platform gives out beside it.

    Attributes:
        ak: the attestation key.
        ek_handle: where the endorsement key is kept, if not where its profile says.
        key_file: where an AK below the storage root key is kept: needed for ``srk``.
        certificates: DER, of the platform: on SEV-SNP the VCEK's and its issuers', else intermediates that the TPM
            does not store, the leaf's issuer first.
        td_quote: on TDX the quote over the paravisor's report.
    """

    ak: AkChoice = AkChoice()
    ek_handle: int | None = None
    key_file: Path | None = None
    certificates: tuple[bytes, ...] = ()
    td_quote: bytes | None = None

    def __post_init__(self) -> None:
        if self.ak.kind == "srk" and self.key_file is None:
            raise ValueError("an attestation key below the storage root key needs a file")
