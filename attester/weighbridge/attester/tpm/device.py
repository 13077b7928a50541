"""The TPM of this host: an attestation key and, during a session, a telemetry key.

Slots are scarce: three for objects, three for sessions. The AK and the telemetry key stay loaded while there is room,
the EK only while a credential is activated, a policy session for one command. Where others hold slots, ours are freed
for what is done at the moment, and the keys made again when they are needed. That they are the same is checked: a
primary key is a function of its hierarchy's seed, and the NULL hierarchy's seed ends with a reset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from weighbridge.attester.tpm import faults, keys, pcrs
from weighbridge.attester.tpm.esapi import Esapi, Loaded
from weighbridge.attester.tpm.options import TpmOptions
from weighbridge.attester.tpm.tcti import ChannelTcti
from weighbridge.attester.tpm.transport import connect
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy, ObjectAttributes, digest_size
from weighbridge.proto.tpm.pcr import policy_pcr
from weighbridge.proto.tpm.templates import telemetry_key_template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from weighbridge.attester.tpm.interface import EndorsementKey, RegisterHistory
    from weighbridge.attester.tpm.transport import Channel
    from weighbridge.proto.endorsement import Endorsement
    from weighbridge.proto.tpm.attest import ClockInfo
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.tpm.pcr import PcrSelection
    from weighbridge.proto.tpm.templates import EndorsementTemplate

__all__ = ["Tpm"]


@dataclass(frozen=True, slots=True)
class _Telemetry:
    """The session's key: what makes it, what was made, and, while it is loaded, where."""

    template: bytes
    boot: PcrSelection
    public: bytes
    loaded: Loaded | None


@final
class Tpm:
    """A TPM with its attestation key and, during a session, a telemetry key. Implements :class:`TpmDevice`.

    Made by :meth:`open`; a context manager. One owner at a time for an emulator. Calls are serialised, so threads
    may share it. When the connection breaks the call fails, and the next one finds the TPM again if it is back. After
    ``TPM_RESET`` the AK comes back by itself, the telemetry key does not: its session is over.
    """

    def __init__(
        self, connected: Callable[[], Channel], options: TpmOptions, carry: Callable[[Channel], ChannelTcti]
    ) -> None:
        self._esapi = Esapi(connected, carry, lost=self._forget, make_room=self._make_room)
        self._options = options
        self._ak: Loaded | None = None
        # What the AK was, over every reloading; its parent, where that is known.
        self._ak_public: bytes | None = None
        self._ak_parent: bytes | None = None
        self._telemetry: _Telemetry | None = None
        self._endorsement_key: tuple[EndorsementTemplate, EndorsementKey] | None = None
        self._histories: dict[int, RegisterHistory] = {}

    @classmethod
    def open(
        cls,
        tcti: str,
        options: TpmOptions | None = None,
        *,
        carry: Callable[[Channel], ChannelTcti] = ChannelTcti,
    ) -> Self:
        """The TPM that ``tcti`` names: ``device:/dev/tpmrm0`` or ``swtpm:path=SOCKET``.

        Args:
            tcti: where it is.
            options: which keys; by default those of any TPM.
            carry: the TSS's end of the connection; tests inject faults there.

        Raises:
            EnvironmentFault: ``TPM_ABSENT``, ``TPM_BUSY`` or ``TPM_FAILED``, within seconds.
        """
        tpm = cls(lambda: connect(tcti), options or TpmOptions(), carry)
        try:
            # A device is only known to be a TPM when it has answered.
            tpm.read_clock()
        except BaseException:
            tpm.close()
            raise
        return tpm

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """See :meth:`TpmDevice.close`."""
        self._esapi.close(self._release)

    def startup(self) -> None:
        """``TPM2_Startup`` after an emulator's reset. Real machines' firmware does it.

        Raises:
            RuntimeError: this is no emulator.
        """
        self._esapi.startup()

    def follow(self, pcr: int, history: RegisterHistory) -> None:
        """Have ``history`` say what ``pcr``, which others extend, held while a quote was made."""
        self._histories[pcr] = history

    # -- keys ---------------------------------------------------------------------------------------------------------

    def endorsement_key(self) -> EndorsementKey:
        """See :meth:`TpmDevice.endorsement_key`."""
        return self._esapi.call("endorsement key", lambda: self._found_ek()[1])

    def endorsement(self) -> Endorsement:
        """See :meth:`TpmDevice.endorsement`."""
        return self._esapi.call("endorsement", lambda: keys.make_endorsement(self._esapi, self._options))

    def attestation_key(self) -> bytes:
        """See :meth:`TpmDevice.attestation_key`."""
        return self._esapi.call("attestation key", lambda: self._loaded_ak().public)

    def attestation_parent(self) -> bytes | None:
        """See :meth:`TpmDevice.attestation_parent`."""

        def parent() -> bytes | None:
            self._loaded_ak()
            return self._ak_parent

        return self._esapi.call("attestation key", parent)

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """See :meth:`TpmDevice.activate_credential`."""

        def activate() -> bytes:
            template, _ = self._found_ek()
            # PolicyA of the profile; H-3 also takes the (empty) password.
            password = template.attributes & ObjectAttributes.USER_WITH_AUTH
            ak = self._loaded_ak()
            with keys.loaded_ek(self._esapi, template, self._options) as ek:
                return self._esapi.activate_credential(
                    ak, ek, (id_object, encrypted_secret), policy=None if password else template.name_algorithm
                )

        return self._esapi.call("activate credential", activate)

    def create_telemetry_key(self, *, unique: bytes, boot: PcrSelection) -> bytes:
        """See :meth:`TpmDevice.create_telemetry_key`."""

        def create() -> bytes:
            policy = policy_pcr(boot, pcrs.read(self._esapi, boot), algorithm=HashAlgorithm.SHA256)
            template = telemetry_key_template(auth_policy=policy, unique=unique)
            if self._telemetry is not None and self._telemetry.loaded is not None:
                # Its slot is needed; should making the new one fail, it is made again when it is needed.
                self._esapi.release(self._telemetry.loaded)
                self._telemetry = replace(self._telemetry, loaded=None)
            loaded = self._esapi.create_primary(Hierarchy.NULL, template)
            self._telemetry = _Telemetry(template, boot, loaded.public, loaded)
            return loaded.public

        return self._esapi.call("create telemetry key", create)

    def certify_telemetry_key(self, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`TpmDevice.certify_telemetry_key`."""
        return self._esapi.call(
            "certify",
            lambda: self._esapi.certify(self._session_key()[0], self._loaded_ak(), qualifying_data),
        )

    def sign(self, data: bytes) -> bytes:
        """See :meth:`TpmDevice.sign`."""

        def sign() -> bytes:
            key, boot = self._session_key()
            return self._esapi.sign(key, data, pcrs=boot)

        # Between the check of the policy and its use any PCR may move, even one that the policy does not name.
        moved: EnvironmentFault | None = None
        for _ in pcrs.attempts():
            try:
                return self._esapi.call("sign", sign)
            except EnvironmentFault as error:
                if error.got != f"{faults.RC_PCR_CHANGED:#x}":
                    raise
                moved = error
        raise moved or AssertionError("there are attempts")

    # -- PCRs, clock, quote -------------------------------------------------------------------------------------------

    def active_banks(self) -> tuple[HashAlgorithm, ...]:
        """See :meth:`TpmDevice.active_banks`."""
        return self._esapi.call("banks", lambda: pcrs.active_banks(self._esapi))

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """See :meth:`TpmDevice.extend`."""
        active = self.active_banks()
        if set(digests) != set(active):
            raise ValueError(f"digests must be for {active}, no more and no fewer, not for {tuple(digests)}")
        for algorithm, digest in digests.items():
            if len(digest) != digest_size(algorithm):
                raise ValueError(f"{algorithm.name} digest of {len(digest)} bytes")
        self._esapi.call("extend", lambda: self._esapi.extend(pcr, digests))

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        """See :meth:`TpmDevice.read_pcrs`."""
        return self._esapi.call("read PCRs", lambda: pcrs.read(self._esapi, selection))

    def read_clock(self) -> ClockInfo:
        """See :meth:`TpmDevice.read_clock`."""
        return self._esapi.call("read clock", self._esapi.read_clock)

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """See :meth:`TpmDevice.quote`."""
        return self._esapi.call(
            "quote",
            lambda: pcrs.quote(self._esapi, self._loaded_ak(), selection, qualifying_data, histories=self._histories),
        )

    # -- below: inside a call -----------------------------------------------------------------------------------------

    def _found_ek(self) -> tuple[EndorsementTemplate, EndorsementKey]:
        if self._endorsement_key is None:
            self._endorsement_key = keys.find_endorsement_key(self._esapi, self._options)
        return self._endorsement_key

    def _loaded_ak(self) -> Loaded:
        if self._ak is None:
            loaded, parent = keys.load_ak(self._esapi, self._options)
            if self._ak_public not in (None, loaded.public):
                self._esapi.release(loaded)
                raise EnvironmentFault(
                    Code.TPM_RESET, "the attestation key is another than before", hint="Begin a new session."
                )
            self._ak, self._ak_public, self._ak_parent = loaded, loaded.public, parent
        return self._ak

    def _session_key(self) -> tuple[Loaded, PcrSelection]:
        telemetry = self._telemetry
        if telemetry is not None and telemetry.loaded is None:
            loaded = self._esapi.create_primary(Hierarchy.NULL, telemetry.template)
            if loaded.public == telemetry.public:
                telemetry = self._telemetry = replace(telemetry, loaded=loaded)
            else:
                self._esapi.release(loaded)
                telemetry = self._telemetry = None
        if telemetry is None or telemetry.loaded is None:
            raise EnvironmentFault(
                Code.TPM_RESET,
                "there is no telemetry key: none was made since the TPM's reset",
                hint="Begin a new session.",
            )
        return telemetry.loaded, telemetry.boot

    def _forget(self) -> None:
        """Drop the handles, which are void: the next object loaded may get the same number."""
        self._ak = None
        if self._telemetry is not None:
            self._telemetry = replace(self._telemetry, loaded=None)

    def _make_room(self) -> bool:
        held = [loaded for loaded in self._held() if loaded.transient]
        self._release()
        return bool(held)

    def _release(self) -> None:
        for loaded in self._held():
            self._esapi.release(loaded)
        self._forget()

    def _held(self) -> tuple[Loaded, ...]:
        telemetry = None if self._telemetry is None else self._telemetry.loaded
        return tuple(loaded for loaded in (telemetry, self._ak) if loaded is not None)
