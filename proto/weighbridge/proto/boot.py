"""The logs of a boot as one message carries them: firmware's, systemd's, and what is new of the kernel's own.

A message holds the deterministic CBOR array ``[firmware, userspace, runtime]``: byte strings, or null where the host
has no such log. They are three files of Linux, byte for byte::

    firmware    /sys/kernel/security/tpm0/binary_bios_measurements          at enrolment
    userspace   /run/log/systemd/tpm2-measure.log                           at enrolment
    runtime     /sys/kernel/security/ima/binary_runtime_measurements        at enrolment, then what was appended to it

An empty byte string says that the log is there and has nothing new. Nothing here is signed, and nothing is looked into:
what the logs lead to is compared with a quote (:mod:`weighbridge.proto.eventlog`), by who relies on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, final

from weighbridge.proto import cbor, limits

__all__ = ["BootLogs"]

_NAMES: Final = ("firmware", "userspace", "runtime")
_LIMITS: Final = (limits.BOOT_LOG_MAX, limits.BOOT_LOG_MAX, limits.RUNTIME_LOG_MAX)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BootLogs:
    """Three logs as their host shows them, each unread; ``None`` where it has none, ``b""`` for nothing new."""

    firmware: bytes | None = None
    userspace: bytes | None = None
    runtime: bytes | None = None

    def encode(self) -> bytes:
        """The bytes that a message carries.

        Raises:
            ValueError: for logs that no parser would take, alone (:data:`limits.BOOT_LOG_MAX`,
                :data:`limits.RUNTIME_LOG_MAX`) or together (:data:`limits.EVIDENCE_MAX`).
        """
        parts = (self.firmware, self.userspace, self.runtime)
        for name, part, limit in zip(_NAMES, parts, _LIMITS, strict=True):
            if part is not None and len(part) > limit:
                raise ValueError(f"the {name} log has {len(part)} bytes; one message takes {limit}")
        data = cbor.encode(parts)
        if len(data) > limits.EVIDENCE_MAX:
            raise ValueError(f"the logs have {len(data)} bytes; one message takes {limits.EVIDENCE_MAX}")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The logs that ``data`` carries; what is in them is not looked at.

        Raises:
            MalformedEvidence: ``TOO_LARGE`` or another decoding code.
        """
        value = cbor.decode(data, limit=limits.EVIDENCE_MAX, what="boot")
        parts = cbor.read_array(value, where="boot", limit=len(_NAMES), size=len(_NAMES))
        fields = cbor.Reader(dict(zip(_NAMES, parts, strict=True)), "boot")
        firmware, userspace, runtime = (
            fields.optional_octets(name, limit=limit) for name, limit in zip(_NAMES, _LIMITS, strict=True)
        )
        return cls(firmware=firmware, userspace=userspace, runtime=runtime)
