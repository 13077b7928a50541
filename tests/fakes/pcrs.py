"""Registers of a TPM, extended for real; faults on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size
from weighbridge.proto.tpm.pcr import PcrSelection


class PowerFailure(BaseException):
    """The process ends here: nothing after it runs, not even an `except Exception`."""


class FakePcrs:
    """24 registers in each bank. `before` and `after` are raised at the next extension: before or after it happens."""

    def __init__(self, banks: Sequence[HashAlgorithm] = (HashAlgorithm.SHA256, HashAlgorithm.SHA384)) -> None:
        self.banks = tuple(banks)
        self.before: BaseException | None = None
        self.after: BaseException | None = None
        self.unreadable = False
        self.reset()

    def reset(self) -> None:
        self.values = {(bank, pcr): bytes(digest_size(bank)) for bank in self.banks for pcr in range(24)}

    def active_banks(self) -> Sequence[HashAlgorithm]:
        return self.banks

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        before, self.before = self.before, None
        if before is not None:
            raise before
        assert set(digests) == set(self.banks)
        for bank, value in digests.items():
            self.values[bank, pcr] = digest(bank, self.values[bank, pcr], value)
        after, self.after = self.after, None
        if after is not None:
            raise after

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        if self.unreadable:
            raise tpm_failure()
        (bank,) = selection.banks
        return {pcr: self.values[HashAlgorithm(bank.algorithm), pcr] for pcr in bank.indices}


def tpm_failure() -> EnvironmentFault:
    return EnvironmentFault(Code.TPM_FAILED, "made to fail")
