"""The TSS's end of a connection of ours: libtss2's own would wait for ever, and tell of no error but its number."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault

# libtss2 prints its own account of every error; ours says what to do. It reads this once, when it is loaded: here, or
# in `esapi`, whichever comes first.
os.environ.setdefault("TSS2_LOG", "all+NONE")

from tpm2_pytss.TCTI import PyTCTI

if TYPE_CHECKING:
    from collections.abc import Generator

    from weighbridge.attester.tpm.transport import Channel

__all__ = ["ChannelTcti"]

_HEADER: Final = 10


class ChannelTcti(PyTCTI):
    """Carries the TSS's commands over our own connection, and keeps what went wrong: C would make it a number.

    Whoever injects faults overrides :meth:`send` and :meth:`answer`.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel
        self.fault: EnvironmentFault | None = None

    def send(self, command: bytes) -> None:
        """Send one command."""
        self.channel.transmit(command)

    def answer(self) -> bytes:
        """The response to it."""
        return self.channel.receive()

    def do_transmit(self, command: bytes) -> None:
        """See :class:`PyTCTI`."""
        with self._kept():
            self.send(command)

    def do_receive(self, timeout: int) -> bytes:
        """See :class:`PyTCTI`."""
        del timeout  # the TSS waits for ever; the channel does not
        with self._kept():
            data = self.answer()
            # libtss2 3.2 reads on behind the end of an answer that is too short: it finds the command, or zeros.
            if len(data) < _HEADER or len(data) != int.from_bytes(data[2:6]):
                raise EnvironmentFault(
                    Code.TPM_FAILED,
                    "TPM's answer is cut off",
                    got=data[:_HEADER],
                    hint="Is there a TPM 2.0 at the other end? If so, update its firmware.",
                )
            return data

    @contextmanager
    def _kept(self) -> Generator[None]:
        try:
            yield
        except EnvironmentFault as error:
            self.fault = error
            raise
