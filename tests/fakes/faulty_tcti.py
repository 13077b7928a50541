"""The TSS's end of a connection, where anything can go wrong at any command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from weighbridge.attester.tpm.tcti import ChannelTcti
from weighbridge.attester.tpm.transport import Channel
from weighbridge.proto.tpm.wire import u16, u32

HEADER = 10


def rc(code: int) -> bytes:
    """A response that is nothing but its code."""
    return u16(0x8001) + u32(HEADER) + u32(code)


@dataclass
class Faults:
    """What goes wrong, for every connection that it carries.

    ``at`` is the number of the command, from 0, and ``code`` the kind that is counted, all by default. From there on
    ``times`` of them are hit. ``instead`` makes the answer of the true one, which the TPM gives unless ``unsent``;
    ``hang`` swallows the command, so that no answer comes; ``cut`` breaks the connection after the command.
    """

    instead: Callable[[bytes], bytes] | None = None
    unsent: bool = False
    hang: bool = False
    cut: bool = False
    at: int = 0
    code: int | None = None
    times: int = 1
    armed: bool = False
    seen: list[int] = field(default_factory=list)
    hits: int = 0

    def carry(self, channel: Channel) -> ChannelTcti:
        """To be given to `Tpm.open`."""
        return FaultyTcti(channel, self)

    def arm(self) -> None:
        """From the next command on."""
        self.seen.clear()
        self.hits, self.armed = 0, True

    def due(self, command: bytes) -> bool:
        """Whether this command is one to be hit."""
        code = int.from_bytes(command[6:HEADER])
        if not self.armed or self.code not in {None, code}:
            return False
        self.seen.append(code)
        hit = len(self.seen) > self.at and self.hits < self.times
        self.hits += hit
        return hit


class FaultyTcti(ChannelTcti):
    def __init__(self, channel: Channel, faults: Faults) -> None:
        super().__init__(channel)
        self._faults = faults
        self._hit = False

    def send(self, command: bytes) -> None:
        faults = self._faults
        self._hit = faults.due(command)
        if self._hit and (faults.hang or faults.unsent):
            return
        super().send(command)
        if self._hit and faults.cut:
            self.channel.close()

    def answer(self) -> bytes:
        faults = self._faults
        if not self._hit or faults.instead is None:
            return super().answer()
        return faults.instead(b"" if faults.unsent else super().answer())
