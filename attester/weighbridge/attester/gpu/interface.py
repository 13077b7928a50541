"""What a source of GPU evidence can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.cc_state import CcState
    from weighbridge.proto.spdm.evidence import GpuEvidence

__all__ = ["GpuSource"]


class GpuSource(Protocol):
    """The GPUs of this host. Calls may block for as long as a device takes to sign (NVML: up to 30 s)."""

    def identities(self) -> tuple[bytes, ...]:
        """Each device's identity: SHA-256 of the SubjectPublicKeyInfo in its BROM certificate, 32 bytes, ascending.

        Constant for the life of the source.

        Raises:
            EnvironmentFault: a device cannot be reached.
        """
        ...

    def attest(self, nonce: bytes) -> Sequence[GpuEvidence]:
        """A fresh report of every device over ``nonce`` (32 bytes), each with its chain; verbatim, in any order.

        All or nothing: a source never leaves out a device that does not answer.

        Raises:
            EnvironmentFault: a device did not answer.
            ValueError: ``nonce`` has not 32 bytes.
        """
        ...

    def cc_state(self) -> CcState | None:
        """What the host's driver says of confidential computing now; ``None`` where it says nothing.

        No device signs it. It is read for every window, since it is the host's word for that window.

        Raises:
            EnvironmentFault: the driver did not answer, or not to be understood.
        """
        ...

    def close(self) -> None:
        """Let go of the devices. No other call may follow."""
        ...
