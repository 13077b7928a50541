"""A connection to a TPM through the TSS that is made anew after it broke, and waits for a TPM that asks for patience.

Commands are given inside :meth:`Connection.call`, which sends again what the TPM asks for again, for a bounded time,
and turns its errors into faults of this machine. After an error that did not come from the TPM the connection is
dropped, and made by the next call: whatever was loaded is then gone, and its owner is told. Nothing is sent twice of
which it is not known whether it was carried out: that call fails.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.attester.tpm import faults
from weighbridge.proto.errors import Code, EnvironmentFault

# As in `tcti`: before it is loaded.
os.environ.setdefault("TSS2_LOG", "all+NONE")

import tpm2_pytss as tss

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from weighbridge.attester.tpm.tcti import ChannelTcti
    from weighbridge.attester.tpm.transport import Channel

__all__ = ["Connection", "number"]

_T = TypeVar("_T")

# Between attempts, on top of the TSS's own five: doubling, up to a second; for how long in all, the response says.
_FIRST_DELAY: Final = 0.02
_DELAY_MAX: Final = 1.0
_HANDLES_MAX: Final = 254
_LEFTOVERS: Final = (0x80000000, 0x02000000, 0x03000000)  # transient objects, loaded and saved sessions


class Connection:
    """A connection to a TPM, made when it is first needed and again after it broke. Calls are serialised.

    Args:
        connect: makes the connection to the TPM.
        carry: makes the TSS's end of it.
        lost: told when everything that was loaded is gone.
        make_room: releases what is not in use at the moment; whether there was anything.
    """

    def __init__(
        self,
        connect: Callable[[], Channel],
        carry: Callable[[Channel], ChannelTcti],
        *,
        lost: Callable[[], None],
        make_room: Callable[[], bool],
    ) -> None:
        self._connect = connect
        self._carry = carry
        self._lost = lost
        self._make_room = make_room
        self._lock = threading.RLock()
        self._tcti: ChannelTcti | None = None
        self._context: tss.ESAPI | None = None
        # What broke the connection while something was let go of: it must not hide what went wrong before.
        self._broken_by = 0
        self._swept = False
        self._closed = False

    def call(self, action: str, operation: Callable[[], _T]) -> _T:
        """Do ``operation``, all of it again while the TPM asks for patience.

        Args:
            action: what it is, for messages.
            operation: gives commands; releases what it loads for itself, also when it fails.

        Raises:
            EnvironmentFault: ``TPM_ABSENT``, ``TPM_BUSY``, ``TPM_RESET`` or ``TPM_FAILED``.
            RuntimeError: the connection was closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the TPM was closed")
            started, delay, room_made = time.monotonic(), _FIRST_DELAY, False
            while True:
                try:
                    self._ready()
                    return operation()
                except tss.TSS2_Exception as error:
                    rc = number(error.rc)
                    if faults.is_full(rc) and not room_made and self._make_room():
                        room_made = True
                        continue
                    if time.monotonic() - started + delay > faults.patience(rc):
                        raise self._translate(rc, action) from error
                time.sleep(delay)
                delay = min(2 * delay, _DELAY_MAX)

    def close(self, release: Callable[[], None]) -> None:
        """``release`` what is loaded, then let the TPM go. Again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._context is not None:
                    release()
                self._disconnect()

    def startup(self) -> None:
        """``TPM2_Startup`` after an emulator's reset. Real machines' firmware does it.

        Raises:
            EnvironmentFault: a TPM code.
            RuntimeError: this is no emulator.
        """
        with self._lock:
            self.call("startup", self._startup)
            self._lost()

    def handles(self, first: int) -> frozenset[int]:
        """The handles in use of the kind of ``first``, from it on."""
        _, data = self._esapi.get_capability(tss.TPM2_CAP.HANDLES, first, _HANDLES_MAX)
        self._expect(data, tss.TPM2_CAP.HANDLES)
        return frozenset(number(handle) for handle in data.data.handles)

    # -- below: inside a call -----------------------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._broken_by:
            self._disconnect()
            self._lost()
        if self._context is None:
            channel = self._connect()
            try:
                self._tcti = self._carry(channel)
                self._context = tss.ESAPI(self._tcti)
            except BaseException:
                channel.close()
                raise
            # Nobody else can be using an emulator: whatever is loaded was left behind by a client that died.
            self._swept = not channel.emulated
        if not self._swept:
            for first in _LEFTOVERS:
                for handle in self.handles(first):
                    self._esapi.flush_context(self._esapi.tr_from_tpmpublic(handle))
            self._swept = True

    def _disconnect(self) -> None:
        context, tcti = self._context, self._tcti
        self._context = self._tcti = None
        self._broken_by = 0
        if context is not None:
            context.close()
        if tcti is not None:
            tcti.channel.close()

    def _translate(self, rc: int, action: str) -> EnvironmentFault:
        kept = None if self._tcti is None else self._tcti.fault
        fault = kept or faults.fault(
            self._broken_by if rc == faults.RC_BAD_SEQUENCE and self._broken_by else rc, action
        )
        if kept is not None or faults.is_broken(rc):
            self._disconnect()
            self._lost()
        elif fault.code is Code.TPM_RESET:
            self._lost()
        return fault

    def _startup(self) -> None:
        if self._tcti is not None:
            self._tcti.channel.startup()

    @contextmanager
    def _letting_go(self) -> Generator[None]:
        try:
            yield
        except tss.TSS2_Exception as error:
            rc = number(error.rc)
            if faults.is_broken(rc) and rc != faults.RC_BAD_SEQUENCE:
                self._broken_by = rc

    @property
    def _esapi(self) -> tss.ESAPI:
        if self._context is None:
            raise RuntimeError("commands are given inside `call`")
        return self._context

    @staticmethod
    def _expect(data: tss.TPMS_CAPABILITY_DATA, capability: tss.TPM2_CAP) -> None:
        if number(data.capability) != number(capability):
            raise EnvironmentFault(
                Code.TPM_FAILED,
                "TPM answers another question",
                expected=f"capability {number(capability)}",
                got=number(data.capability),
                hint="Is there a TPM 2.0 at the other end? If so, update its firmware.",
            )


def number(value: int) -> int:
    """Whichever of the TSS's own kinds of integer ``value`` is, as a plain one: theirs are shown as names."""
    return int(value)  # lenient: a number already
