"""Where attacks are played: a deployment, and hosts that it lets in. All that is opened there is closed again here."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, cast, final

from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.client import GrpcTransport, Timeouts
from weighbridge.attester.enrolling import Identity, Prover
from weighbridge.attester.keys import ChannelKey, ensure_keys, load_channel
from weighbridge.attester.offload import Inline
from weighbridge.attester.refusal import Throttled, VerdictNotice
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.redteam.attack import Harmed, NotShown
from weighbridge.redteam.rogue import ForgetfulLog, Rogue
from weighbridge.verifier import pki

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from weighbridge.attester.client import Answer, Line
    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.attester.trust import TrustedVerifiers
    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.proto.enrolment import Opening
    from weighbridge.redteam.attack import Seen
    from weighbridge.redteam.kit import Kit
    from weighbridge.verifier.result.trusted import TrustedKeys

__all__ = ["Channels", "Door", "Field", "Given", "Guest", "Issued", "RelyingParty", "Target"]

_TIMEOUTS: Final = Timeouts(connect=5.0, answer=20.0)
# A verifier that has had enough openings of one peer takes the next one within a minute.
_PATIENCE_S: Final = 70.0
# On a machine that stops for seconds a window may come too late, and is held: the next one is fresh again.
_HELD_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RelyingParty:
    """The port for relying parties without a certificate, and two that its operator has let in for this.

    Attributes:
        address: ``HOST:PORT``; the host is named in the verifier's certificate.
        token: bearer token of one that may ask about the target's tenant, for its audience. A secret.
        stranger: bearer token of one that may not. A secret.
    """

    address: str
    token: str = field(repr=False)
    stranger: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Door:
    """A gate as Envoy asks it, and a request that it is to let through to the red team's hosts.

    Attributes:
        address: ``HOST:PORT`` of its external authorization, plain.
        host: as a client of Envoy names it.
        path: without a query.
    """

    address: str
    host: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A deployment, and what its attesters and relying parties know of it.

    Attributes:
        address: ``HOST:PORT``; the host is named in its certificate.
        authority: PEM: who certifies its TLS key.
        trusted: its identity keys, as attesters believe them.
        tokens: the same, as relying parties believe them.
        tenant: of the sessions that are opened.
        audience: whom their tokens are for.
        gpus: how many a host is to have.
        log_pcr: the register that it wants the measurement log in.
        relying_party: its port for relying parties with tokens, where attacks are played there.
        gate: a gate that it tells, where attacks are played there.
    """

    address: str
    authority: bytes
    trusted: TrustedVerifiers
    tokens: TrustedKeys
    tenant: str
    audience: str
    gpus: int
    log_pcr: int
    relying_party: RelyingParty | None = None
    gate: Door | None = None


class Channels(Protocol):
    """Channel keys that the deployment admits."""

    def take(self) -> ChannelKey:
        """One for a host; another one each time, as far as there are others."""
        ...


@final
class Given:
    """Those of attesters that an operator has admitted, in turn.

    Raises:
        ValueError: fewer than two: half of the attacks take somebody else.
    """

    def __init__(self, keys: Sequence[ChannelKey]) -> None:
        if len({key.peer for key in keys}) < 2:  # noqa: PLR2004 - a host, and somebody else
            raise ValueError("two attesters with keys of their own at least")
        self._keys, self._next = tuple(keys), 0

    def take(self) -> ChannelKey:
        """See :meth:`Channels.take`."""
        self._next += 1
        return self._keys[self._next % len(self._keys)]


@final
class Issued:
    """New ones each time, by the authority in a verifier's own state directory; kept in ``scratch`` until then."""

    def __init__(self, authority: Path, scratch: Path) -> None:
        self._authority, self._scratch = authority, scratch

    def take(self) -> ChannelKey:
        """See :meth:`Channels.take`.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``: there is no authority.
        """
        directory = self._scratch / secrets.token_hex(8)
        ensure_keys(directory, names=["redteam.invalid"], at=datetime.now(UTC))
        try:
            issued = pki.issue_client(self._authority, (directory / "channel.csr").read_bytes(), at=datetime.now(UTC))
        except OSError as error:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE,
                "no channel authority here",
                where=str(self._authority),
                hint="name the verifier's own state directory, or give two admitted attesters: --attester DIR",
            ) from error
        (directory / "channel.pem").write_bytes(issued.public_bytes(Encoding.PEM))
        return load_channel(directory)


@dataclass(slots=True)
class Guest:
    """A host of ours with a session there. ``token`` is the newest that was issued for it."""

    rogue: Rogue
    channel: ChannelKey
    cnf: bytes
    token: str | None = None
    failed: bool = False

    async def honest(self) -> Answer:
        """A window as it should be."""
        answer = await self.rogue.window()
        self.token = answer.token or self.token
        return answer

    async def settle(self, count: int) -> None:
        """``count`` windows that must be affirmed.

        Raises:
            NotShown: one was refused.
        """
        affirmed = 0
        for _ in range(count + _HELD_MAX if count else 0):
            try:
                verdict = VerdictNotice.parse((await self.honest()).verdict)
            except WeighbridgeError as error:
                raise NotShown("an honest window", str(error), error.code.value) from error
            affirmed += verdict.outcome == "affirmed"
            if affirmed == count:
                return
            if verdict.outcome == "denied":
                self.failed = True
                first = verdict.denials[0]
                raise NotShown("an honest window", f"{first.code}: {first.text}", first.code)
        if affirmed < count:
            raise NotShown("an honest window", f"{affirmed} of {count} windows were affirmed in time")

    def issued(self) -> str:
        """The newest token that was issued for it.

        Raises:
            NotShown: there is none.
        """
        if self.token is None:
            raise NotShown("an honest window", "it was affirmed, and no token came with it")
        return self.token

    async def unharmed(self, seen: Seen | None = None) -> None:
        """Go on as if nothing had been; ``seen`` is what was answered to the attack, where it was this host's own.

        Raises:
            Harmed: what somebody else did is held against this host.
        """
        try:
            await self.settle(1)
        except NotShown as error:
            before = "" if seen is None else f" (the attack had been answered: {seen.message})"
            raise Harmed(f"the honest host is refused afterwards: {error.message}{before}") from error


@dataclass
class Field:
    """One deployment and what is played there. ``sessions`` and ``failed`` are what it will remember of us."""

    target: Target
    kit: Kit
    channels: Channels
    sessions: list[bytes] = field(default_factory=list[bytes])
    failed: list[bytes] = field(default_factory=list[bytes])
    openings: int = 0
    windows: int = 0
    _guests: list[Guest] = field(default_factory=list[Guest])
    _lines: list[Line] = field(default_factory=list["Line"])

    @asynccontextmanager
    async def cleared(self) -> AsyncGenerator[None]:
        """On leaving, every session and line that was opened within is closed, in good order where that goes."""
        try:
            yield
        finally:
            for guest in self._guests:
                try:
                    await guest.rogue.line.close_session(guest.rogue.session)
                except WeighbridgeError as error:
                    guest.failed |= error.code is Code.SESSION_FAILED
                self.windows += guest.rogue.judged
                if guest.failed:
                    self.failed.append(guest.rogue.terms.terms.ak)
            for line in self._lines:
                await line.disconnect()
            self._guests.clear()
            self._lines.clear()

    async def line(self, channel: ChannelKey) -> Line:
        """A line to the deployment.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE`` or ``PEER_REFUSED``.
        """
        target = self.target
        transport = GrpcTransport(target.address, authority=target.authority, channel=channel, timeouts=_TIMEOUTS)
        line = await transport.connect()
        self._lines.append(line)
        return line

    def identity(self, channel: ChannelKey, cnf: bytes) -> Identity:
        """Who a host says that it is."""
        target = self.target
        return Identity(
            tenant=target.tenant,
            audience=target.audience,
            cnf=cnf,
            peer=channel.peer,
            model=self.kit.manifest.digest,
        )

    def opening(self, channel: ChannelKey, tpm: TpmDevice) -> Opening:
        """What a host with ``tpm`` opens a session by that names ``channel`` as its own."""
        identity = self.identity(channel, sha256(secrets.token_bytes(32)))
        log = cast("MeasurementLog", ForgetfulLog(tpm, self.target.log_pcr))
        return Prover(tpm, None, log, Inline(), ()).opening(identity)

    async def guest(self, *, settled: int = 1) -> Guest:
        """A host with a session, of which ``settled`` windows were affirmed.

        Args:
            settled: how many.

        Raises:
            NotShown: it is not let in.
            EnvironmentFault: ``PEER_UNREACHABLE``.
        """
        try:
            guest = await self._enrolled(self.channels.take(), None)
        except WeighbridgeError as error:
            if error.code is Code.PEER_UNREACHABLE:
                raise
            raise NotShown("enrolment", str(error), error.code.value) from error
        await guest.settle(settled)
        return guest

    async def enrol_again(self, guest: Guest) -> Guest:
        """A new session on the devices of ``guest``, over its channel.

        Raises:
            WeighbridgeError: what it is refused with.
        """
        return await self._enrolled(guest.channel, guest)

    async def _enrolled(self, channel: ChannelKey, like: Guest | None) -> Guest:
        line = await self.line(channel)
        tpm: TpmDevice
        gpus: GpuSource
        if like is None:
            tpm, gpus = self.kit.tpm(), self.kit.gpus(self.target.gpus)
            log = ForgetfulLog(tpm, self.target.log_pcr)
            log.load(self.kit.manifest)
        else:
            tpm, gpus, log = like.rogue.tpm, like.rogue.gpus, like.rogue.log
        # No inference server stands behind it: nobody has this serving key.
        cnf = sha256(secrets.token_bytes(32))

        async def opened() -> Rogue:
            self.openings += 1
            return await Rogue.open(
                line,
                self.identity(channel, cnf),
                tpm=tpm,
                gpus=gpus,
                log=log,
                trusted=self.target.trusted,
                model=self.kit.model,
            )

        rogue = await _let_in(opened)
        guest = Guest(rogue, channel, cnf)
        self._guests.append(guest)
        self.sessions.append(rogue.session)
        return guest


async def _let_in(opened: Callable[[], Awaitable[Rogue]]) -> Rogue:
    """What is opened, as soon as the verifier takes one more."""
    clock = asyncio.get_running_loop().time
    until = clock() + _PATIENCE_S
    while True:
        try:
            return await opened()
        except Throttled as throttled:
            pause = throttled.retry_after_ns / 1e9
            if clock() + pause > until:
                raise
        await asyncio.sleep(pause)
