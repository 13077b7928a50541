"""The few commands by which the doctor asks a TPM. None changes it: no key is made, no PCR is extended.

TPM 2.0 Library, Part 3, revision 1.59. Answers are of this machine and not signed; they are parsed all the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.tpm import faults
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.tpm.attest import ClockInfo
from weighbridge.proto.tpm.constants import Hierarchy
from weighbridge.proto.tpm.wire import WireReader, sized, u16, u32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from weighbridge.attester.tpm.transport import Channel

__all__ = ["NvIndex", "TpmAsked"]

_TAG_NO_SESSIONS: Final = 0x8001
_TAG_SESSIONS: Final = 0x8002
_HEADER: Final = 10

_CC_NV_READ: Final = 0x14E
_CC_NV_READ_PUBLIC: Final = 0x169
_CC_GET_CAPABILITY: Final = 0x17A
_CC_PCR_READ: Final = 0x17E
_CC_READ_CLOCK: Final = 0x181

_CAP_HANDLES: Final = 1
_CAP_PCRS: Final = 5
_CAP_TPM_PROPERTIES: Final = 6
_CAP_COUNT_MAX: Final = 64
_PAGES_MAX: Final = 16
_BANKS_MAX: Final = 16

# Part 2 §7.4: the password "session", here with the empty password.
_RS_PW: Final = 0x40000009
_PASSWORD: Final = u32(_RS_PW) + sized(b"") + b"\0" + sized(b"")
_NV_CHUNK: Final = 512
_NV_MAX: Final = 16 * 1024
_NV_PUBLIC_MAX: Final = 128
_DIGEST_MAX: Final = 64
# TPMA_NV, Part 2 §13.4.
_NV_AUTHREAD: Final = 1 << 18

# No answer of 4 KiB holds a longer list.
_LIST_MAX: Final = 1024
# From 20 ms doubling: more than the patience.
_DELAYS: Final = tuple(0.02 * 2**n for n in range(8))
_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class NvIndex:
    """What the TPM says of an NV index. ``size`` is in bytes."""

    index: int
    attributes: int
    size: int


@final
class TpmAsked:
    """A TPM to which questions are put. A context manager; not for several threads.

    Every method raises :class:`EnvironmentFault`: as :func:`weighbridge.attester.tpm.faults.fault` for what the TPM
    refuses, ``TPM_FAILED`` for an answer that is none.
    """

    __slots__ = ("_channel", "_sleep")

    def __init__(self, channel: Channel, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._channel = channel
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def properties(self, first: int, count: int) -> dict[int, int]:
        """The properties of the TPM, TPM_PT (Part 2 §6.13), from ``first`` on, at most ``count`` of them."""
        with faults.well_formed("get properties"):
            reader = self._capability(_CAP_TPM_PROPERTIES, first, count)
            found = {reader.u32(): reader.u32() for _ in range(_bounded(reader.u32()))}
            reader.end()
        return {key: value for key, value in found.items() if first <= key < first + count}

    def handles(self, first: int) -> tuple[int, ...]:
        """The handles in use of the kind of ``first``, from it on, ascending."""
        found: list[int] = []
        for _ in range(_PAGES_MAX):
            with faults.well_formed("get handles"):
                reader = self._capability(_CAP_HANDLES, found[-1] + 1 if found else first, _CAP_COUNT_MAX)
                page = [reader.u32() for _ in range(_bounded(reader.u32()))]
                reader.end()
            found += [handle for handle in page if handle >> 24 == first >> 24]
            if len(page) < _CAP_COUNT_MAX or page[-1] != found[-1]:
                break
        return tuple(found)

    def banks(self) -> dict[int, tuple[int, ...]]:
        """The PCRs that are allocated, by the identifier of the bank's hash."""
        with faults.well_formed("get banks"):
            reader = self._capability(_CAP_PCRS, 0, _BANKS_MAX)
            banks = _selection(reader)
            reader.end()
        return {algorithm: indices for algorithm, indices in banks.items() if indices}

    def clock(self) -> ClockInfo:
        """Clock, counts and whether the clock is safe."""
        with faults.well_formed("read clock"):
            reader = self._ask("read clock", _CC_READ_CLOCK)
            reader.u64()  # since power came, not the clock
            clock, reset_count, restart_count, safe = reader.u64(), reader.u32(), reader.u32(), reader.u8()
            reader.end()
        return ClockInfo(clock=clock, reset_count=reset_count, restart_count=restart_count, safe=safe == 1)

    def pcr(self, algorithm: int, indices: Iterable[int]) -> dict[int, bytes]:
        """The values of at most eight PCRs of one bank; fewer where the TPM does not give them all."""
        bits = sum(1 << index for index in indices)
        selection = u32(1) + u16(algorithm) + b"\x03" + bits.to_bytes(3, "little")
        with faults.well_formed("read PCRs"):
            reader = self._ask("read PCRs", _CC_PCR_READ, selection)
            reader.u32()  # the update counter
            given = _selection(reader).get(algorithm, ())
            values = [reader.sized(_DIGEST_MAX) for _ in range(_bounded(reader.u32()))]
            reader.end()
        return dict(zip(given, values, strict=False))

    def nv_public(self, index: int) -> NvIndex:
        """The public area of an NV index (TPMS_NV_PUBLIC, Part 2 §13.5)."""
        with faults.well_formed("read public area of NV index"):
            reader = self._ask("read public area of NV index", _CC_NV_READ_PUBLIC, handles=(index,))
            area = WireReader(reader.sized(_NV_PUBLIC_MAX), "TPMS_NV_PUBLIC")
            area.u32()  # the index
            area.u16()  # its name's algorithm
            attributes = area.u32()
            area.sized(_DIGEST_MAX)  # its policy
            size = area.u16()
            area.end()
        return NvIndex(index, attributes, size)

    def nv_read(self, index: int) -> bytes:
        """The content of an NV index, with the empty password of the index or of the owner; at most 16 KiB of it."""
        public = self.nv_public(index)
        authority = index if public.attributes & _NV_AUTHREAD else Hierarchy.OWNER
        data = b""
        while len(data) < min(public.size, _NV_MAX):
            wanted = u16(min(_NV_CHUNK, public.size - len(data))) + u16(len(data))
            with faults.well_formed("read NV index"):
                reader = self._ask("read NV index", _CC_NV_READ, wanted, handles=(authority, index), session=_PASSWORD)
                chunk = reader.sized(_NV_CHUNK)
            if not chunk:
                break
            data += chunk
        return data

    def _capability(self, capability: int, first: int, count: int) -> WireReader:
        reader = self._ask("get capability", _CC_GET_CAPABILITY, u32(capability) + u32(first) + u32(count))
        reader.u8()  # whether there is more
        named = reader.u32()
        if named != capability:
            raise MalformedEvidence(
                Code.TPM_STRUCTURE, "another capability than was asked for", expected=capability, got=named
            )
        return reader

    def _ask(
        self, action: str, command: int, parameters: bytes = b"", *, handles: tuple[int, ...] = (), session: bytes = b""
    ) -> WireReader:
        """The parameters of the answer to a command with these handles, an optional session and these parameters."""
        body = (
            b"".join(u32(handle) for handle in handles) + (u32(len(session)) + session if session else b"") + parameters
        )
        tag = _TAG_SESSIONS if session else _TAG_NO_SESSIONS
        reader = WireReader(self._exchange(action, u16(tag) + u32(_HEADER + len(body)) + u32(command) + body), action)
        # With a session the parameters have their length before them, and the session's part behind.
        return WireReader(reader.take(reader.u32()), action) if session else reader

    def _exchange(self, action: str, message: bytes) -> bytes:
        """The answer's body; the command is sent again while the TPM asks for patience."""
        waited = 0.0
        for delay in _DELAYS:
            self._channel.transmit(message)
            answer = self._channel.receive()
            if len(answer) < _HEADER or int.from_bytes(answer[2:6]) != len(answer):
                raise MalformedEvidence(Code.TPM_STRUCTURE, "not a TPM's response", got=answer[:_HEADER])
            rc = int.from_bytes(answer[6:_HEADER])
            if not rc:
                return answer[_HEADER:]
            if waited >= min(faults.patience(rc), _PATIENCE):
                raise faults.fault(rc, action)
            self._sleep(delay)
            waited += delay
        raise EnvironmentFault(Code.TPM_BUSY, f"{action}: TPM keeps asking for patience", hint="Try later.")


def _selection(reader: WireReader) -> dict[int, tuple[int, ...]]:
    """TPML_PCR_SELECTION (Part 2 §10.9.7)."""
    banks: dict[int, tuple[int, ...]] = {}
    for _ in range(_bounded(reader.u32())):
        algorithm = reader.u16()
        bits = int.from_bytes(reader.take(reader.u8()), "little")
        banks[algorithm] = tuple(index for index in range(bits.bit_length()) if bits >> index & 1)
    return banks


def _bounded(count: int) -> int:
    if count > _LIST_MAX:
        raise MalformedEvidence(Code.TPM_STRUCTURE, "list is too long", expected=f"<= {_LIST_MAX}", got=count)
    return count
