"""A TPM through the TSS: the one module that imports tpm2-pytss.

Slots are scarce (three transient objects, three sessions): the AK and the telemetry key stay loaded, the EK only
while a credential is activated, and each policy session lives for one command. On close everything is flushed.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar, final

from weighbridge.attester.tpm import faults
from weighbridge.attester.tpm.interface import EndorsementKey
from weighbridge.attester.tpm.nv import split_certificates, trim_certificate
from weighbridge.attester.tpm.transport import SocketChannel, check_device, emulator_path
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm import attest as attests
from weighbridge.proto.tpm import signature as signatures
from weighbridge.proto.tpm.attest import ClockInfo, QuoteInfo
from weighbridge.proto.tpm.constants import HashAlgorithm, ObjectAttributes, digest_size
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection, pcr_digest, policy_pcr
from weighbridge.proto.tpm.templates import (
    ENDORSEMENT_KEYS,
    EndorsementTemplate,
    attestation_key_template,
    telemetry_key_template,
)
from weighbridge.proto.tpm.wire import sized, u16, u32

# libtss2 prints its own account of every error; ours says what to do. It reads this once, when it is loaded.
os.environ.setdefault("TSS2_LOG", "all+NONE")

import tpm2_pytss as tss
from tpm2_pytss.TCTI import PyTCTI

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Self

__all__ = ["Tpm"]

_T = TypeVar("_T")

# Outer retries, on top of the TSS's own five: from 20 ms doubling, 5 s in all.
_DELAYS: Final = tuple(0.02 * 2**n for n in range(8))
# How often PCRs may move under a reader, or under a policy between its check and its use (IMA extends PCR 10).
_TRIES: Final = 8
_READ_MAX: Final = 8
_NV_CHUNK: Final = 512
_NV_FIRST: Final = 0x01C00000
# TCG EK Credential Profile v2.5 rev. 2 §2.2.1.5.2: EK certificate chains.
_CHAIN_INDICES: Final = range(0x01C00100, 0x01C00200)
_HANDLES_MAX: Final = 254
_LEFTOVERS: Final = (0x80000000, 0x02000000, 0x03000000)  # transient objects, loaded and saved sessions


class _EmulatorTcti(PyTCTI):
    """Carries the TSS's commands over our own connection, and keeps what went wrong: C would make it a number."""

    def __init__(self, channel: SocketChannel) -> None:
        super().__init__()
        self._channel = channel
        self.fault: EnvironmentFault | None = None

    def do_transmit(self, command: bytes) -> None:
        try:
            self._channel.transmit(command)
        except EnvironmentFault as error:
            self.fault = error
            raise

    def do_receive(self, timeout: int) -> bytes:
        del timeout  # the TSS waits for ever; the channel does not
        try:
            return self._channel.receive()
        except EnvironmentFault as error:
            self.fault = error
            raise


@final
class Tpm:
    """A TPM with its attestation key and, during a session, a telemetry key. Implements :class:`TpmDevice`.

    Made by :meth:`open`; a context manager. One owner at a time for an emulator. Calls are serialised, so threads
    may share it. After ``TPM_RESET`` the AK comes back by itself, the telemetry key does not: its session is over.
    """

    def __init__(self, esapi: tss.ESAPI, channel: SocketChannel | None, tcti: _EmulatorTcti | None) -> None:
        self._esapi = esapi
        self._channel = channel
        self._tcti = tcti
        self._lock = threading.RLock()
        self._ak: tuple[tss.ESYS_TR, bytes] | None = None
        self._telemetry: tuple[tss.ESYS_TR, PcrSelection] | None = None
        self._endorsement: tuple[EndorsementTemplate, EndorsementKey] | None = None
        self._closed = False

    @classmethod
    def open(cls, tcti: str) -> Self:
        """The TPM that ``tcti`` names: ``device:/dev/tpmrm0`` or ``swtpm:path=SOCKET``.

        Raises:
            EnvironmentFault: ``TPM_ABSENT``, ``TPM_BUSY`` or ``TPM_FAILED``, within seconds.
        """
        path = emulator_path(tcti)
        if path is None:
            check_device(tcti)
        channel = None if path is None else SocketChannel(path)
        adapter = None if channel is None else _EmulatorTcti(channel)
        try:
            tpm = cls(tss.ESAPI(adapter or tcti), channel, adapter)
        except tss.TSS2_Exception as error:
            if channel is not None:
                channel.close()
            raise faults.fault(_number(error.rc), "open") from error
        try:
            if channel is not None:
                # Nobody else can be using it: whatever is loaded was left behind by a client that died.
                tpm._call("flush", tpm._flush_leftovers)
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
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for loaded in (self._telemetry, self._ak):
                if loaded is not None:
                    self._flush(loaded[0])
            self._forget()
            self._esapi.close()
            if self._channel is not None:
                self._channel.close()

    def startup(self) -> None:
        """``TPM2_Startup`` after an emulator's reset. Real machines' firmware does it.

        Raises:
            RuntimeError: this is no emulator.
        """
        with self._lock:
            if self._channel is None:
                raise RuntimeError("only an emulator is started by its client")
            self._channel.startup()
            self._forget()

    # -- keys ---------------------------------------------------------------------------------------------------------

    def endorsement_key(self) -> EndorsementKey:
        """See :meth:`TpmDevice.endorsement_key`."""
        return self._call("endorsement key", lambda: self._endorsement_of()[1])

    def attestation_key(self) -> bytes:
        """See :meth:`TpmDevice.attestation_key`."""
        return self._call("attestation key", lambda: self._loaded_ak()[1])

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """See :meth:`TpmDevice.activate_credential`."""
        try:
            blob, secret = tss.TPM2B_ID_OBJECT(id_object), tss.TPM2B_ENCRYPTED_SECRET(encrypted_secret)
        except (ValueError, IndexError) as error:
            raise EnvironmentFault(Code.TPM_FAILED, "credential is too large for a TPM") from error

        def activate() -> bytes:
            template, _ = self._endorsement_of()
            ak, _ = self._loaded_ak()
            with self._loaded_ek(template) as ek, self._ek_authorisation(template) as session:
                return bytes(
                    self._esapi.activate_credential(
                        ak, ek, blob, secret, session1=tss.ESYS_TR.PASSWORD, session2=session
                    )
                )

        return self._call("activate credential", activate)

    def create_telemetry_key(self, *, unique: bytes, boot: PcrSelection) -> bytes:
        """See :meth:`TpmDevice.create_telemetry_key`."""

        def create() -> bytes:
            if self._telemetry is not None:
                self._flush(self._telemetry[0])
                self._telemetry = None
            policy = policy_pcr(boot, self._read(boot), algorithm=HashAlgorithm.SHA256)
            handle, public = self._create_primary(
                tss.ESYS_TR.NULL, telemetry_key_template(auth_policy=policy, unique=unique)
            )
            self._telemetry = handle, boot
            return public

        return self._call("create telemetry key", create)

    def certify_telemetry_key(self, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`TpmDevice.certify_telemetry_key`."""

        def certify() -> tuple[bytes, bytes]:
            handle, _ = self._session_key()
            ak, _ = self._loaded_ak()
            attest, signature = self._esapi.certify(handle, ak, qualifying_data, _KEYS_OWN_SCHEME)
            return bytes(attest), signature.marshal()

        return self._call("certify", certify)

    def sign(self, data: bytes) -> bytes:
        """See :meth:`TpmDevice.sign`."""
        digest = sha256(data)

        def sign() -> bytes:
            handle, boot = self._session_key()
            with self._policy_session(HashAlgorithm.SHA256) as session:
                self._esapi.policy_pcr(session, b"", _selection(boot))
                signature = self._esapi.sign(handle, digest, _KEYS_OWN_SCHEME, None, session1=session)
            return signatures.parse(signature.marshal()).raw_p256()

        # Between the check of the policy and its use any PCR may move, even one that the policy does not name.
        for _ in range(_TRIES - 1):
            try:
                return self._call("sign", sign)
            except EnvironmentFault as error:
                if error.got != f"{faults.RC_PCR_CHANGED:#x}":
                    raise
        return self._call("sign", sign)

    # -- PCRs, clock, quote -------------------------------------------------------------------------------------------

    def active_banks(self) -> tuple[HashAlgorithm, ...]:
        """See :meth:`TpmDevice.active_banks`."""
        return self._call("banks", self._banks)

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """See :meth:`TpmDevice.extend`."""
        active = self.active_banks()
        if set(digests) != set(active):
            raise ValueError(f"digests must be for {active}, no more and no fewer, not for {tuple(digests)}")
        for algorithm, digest in digests.items():
            if len(digest) != digest_size(algorithm):
                raise ValueError(f"{algorithm.name} digest of {len(digest)} bytes")
        values = u32(len(digests)) + b"".join(u16(algorithm) + digests[algorithm] for algorithm in active)
        listed, _ = tss.TPML_DIGEST_VALUES.unmarshal(values)
        self._call("extend", lambda: self._esapi.pcr_extend(tss.ESYS_TR(pcr), listed))

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        """See :meth:`TpmDevice.read_pcrs`."""
        return self._call("read PCRs", lambda: self._read(selection))

    def read_clock(self) -> ClockInfo:
        """See :meth:`TpmDevice.read_clock`."""

        def read() -> ClockInfo:
            info = self._esapi.read_clock().clockInfo
            return ClockInfo(
                clock=_number(info.clock),
                reset_count=_number(info.resetCount),
                restart_count=_number(info.restartCount),
                safe=bool(info.safe),
            )

        return self._call("read clock", read)

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """See :meth:`TpmDevice.quote`."""

        def quote() -> QuoteEvidence:
            ak, _ = self._loaded_ak()
            # The values are read before and checked against what was signed: the two commands are not one.
            for _ in range(_TRIES):
                values = tuple(self._read(selection).values())
                attest, signature = self._esapi.quote(ak, _selection(selection), qualifying_data, _KEYS_OWN_SCHEME)
                raw = bytes(attest)
                info = attests.parse(raw).attested
                if isinstance(info, QuoteInfo) and info.digest == pcr_digest(HashAlgorithm.SHA256, values):
                    return QuoteEvidence(attest=raw, signature=signature.marshal(), pcr_values=values)
            raise _restless(selection)

        return self._call("quote", quote)

    # -- below: under the lock, inside _call --------------------------------------------------------------------------

    def _call(self, action: str, operation: Callable[[], _T]) -> _T:
        """Do ``operation``, again while the TPM asks for patience; its errors become faults of this machine."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the TPM was closed")
            for delay in (*_DELAYS, None):
                try:
                    return operation()
                except tss.TSS2_Exception as error:
                    rc = _number(error.rc)
                    if delay is None or not faults.is_transient(rc):
                        raise self._translate(rc, action) from error
                    time.sleep(delay)
        raise AssertionError("unreachable")

    def _translate(self, rc: int, action: str) -> EnvironmentFault:
        if self._tcti is not None and self._tcti.fault is not None:
            return self._tcti.fault
        fault = faults.fault(rc, action)
        if fault.code is Code.TPM_RESET:
            self._forget()
        return fault

    def _forget(self) -> None:
        """Drop the handles, which a reset made void: the next object loaded may get the same number."""
        self._ak = self._telemetry = None

    def _session_key(self) -> tuple[tss.ESYS_TR, PcrSelection]:
        if self._telemetry is None:
            raise EnvironmentFault(
                Code.TPM_RESET,
                "there is no telemetry key: none was made since the TPM's reset",
                hint="Begin a new session.",
            )
        return self._telemetry

    def _loaded_ak(self) -> tuple[tss.ESYS_TR, bytes]:
        if self._ak is None:
            self._ak = self._create_primary(tss.ESYS_TR.ENDORSEMENT, attestation_key_template())
        return self._ak

    def _create_primary(self, hierarchy: tss.ESYS_TR, template: bytes) -> tuple[tss.ESYS_TR, bytes]:
        public, _ = tss.TPM2B_PUBLIC.unmarshal(sized(template))
        handle, created, *_ = self._esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), public, hierarchy)
        return handle, created.publicArea.marshal()

    def _endorsement_of(self) -> tuple[EndorsementTemplate, EndorsementKey]:
        if self._endorsement is None:
            present = self._handles(_NV_FIRST)
            template = next((each for each in ENDORSEMENT_KEYS if each.certificate_index in present), None)
            if template is None:
                raise EnvironmentFault(
                    Code.TPM_FAILED,
                    "TPM has no certificate for an endorsement key of a kind that is accepted",
                    expected=" or ".join(f"{each.name} at {each.certificate_index:#x}" for each in ENDORSEMENT_KEYS),
                    hint="Pin the attestation key at the verifier instead, if you know that it is this TPM's.",
                )
            certificate = trim_certificate(self._nv_read(template.certificate_index))
            chain = b"".join(self._nv_read(index) for index in sorted(present) if index in _CHAIN_INDICES)
            with self._loaded_ek(template) as handle:
                public, _, _ = self._esapi.read_public(handle)
            key = EndorsementKey(public.publicArea.marshal(), certificate, split_certificates(chain))
            self._endorsement = template, key
        return self._endorsement

    @contextmanager
    def _loaded_ek(self, template: EndorsementTemplate) -> Generator[tss.ESYS_TR, None, None]:
        """The EK: where vendors keep it if it is the template's, else created, which takes a second or more for RSA."""
        if template.persistent_handle in self._handles(template.persistent_handle):
            handle = self._esapi.tr_from_tpmpublic(template.persistent_handle)
            public, _, _ = self._esapi.read_public(handle)
            if public.publicArea.marshal().startswith(template.parameters()):
                yield handle
                return
        handle, _ = self._create_primary(tss.ESYS_TR.ENDORSEMENT, template.encode())
        try:
            yield handle
        finally:
            self._flush(handle)

    @contextmanager
    def _ek_authorisation(self, template: EndorsementTemplate) -> Generator[tss.ESYS_TR, None, None]:
        """PolicyA of the profile, PolicySecret of the endorsement hierarchy; H-3 also takes the (empty) password."""
        if template.attributes & ObjectAttributes.USER_WITH_AUTH:
            yield tss.ESYS_TR.PASSWORD
            return
        with self._policy_session(template.name_algorithm) as session:
            self._esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, expiration=0)
            yield session

    @contextmanager
    def _policy_session(self, algorithm: HashAlgorithm) -> Generator[tss.ESYS_TR, None, None]:
        """A policy session for one command, which ends it; flushed if that command fails."""
        none = tss.ESYS_TR.NONE
        session = self._esapi.start_auth_session(none, none, tss.TPM2_SE.POLICY, None, tss.TPM2_ALG(_number(algorithm)))
        try:
            # The TSS would keep it alive after its use, until no slot is left.
            self._esapi.trsess_set_attributes(session, 0, tss.TPMA_SESSION.CONTINUESESSION)
            yield session
        except tss.TSS2_Exception:
            self._flush(session)
            raise

    def _flush(self, handle: tss.ESYS_TR) -> None:
        """Flush; that it is gone already, or the whole TPM is, must not hide what went wrong before."""
        with suppress(tss.TSS2_Exception):
            self._esapi.flush_context(handle)

    def _flush_leftovers(self) -> None:
        for first in _LEFTOVERS:
            for handle in self._handles(first):
                self._esapi.flush_context(self._esapi.tr_from_tpmpublic(handle))

    def _handles(self, first: int) -> frozenset[int]:
        """The handles in use of the kind of ``first``, from it on."""
        _, data = self._esapi.get_capability(tss.TPM2_CAP.HANDLES, first, _HANDLES_MAX)
        return frozenset(_number(handle) for handle in data.data.handles)

    def _nv_read(self, index: int) -> bytes:
        handle = self._esapi.tr_from_tpmpublic(index)
        public, _ = self._esapi.nv_read_public(handle)
        size = _number(public.nvPublic.dataSize)
        chunks = (
            self._esapi.nv_read(handle, min(_NV_CHUNK, size - offset), offset) for offset in range(0, size, _NV_CHUNK)
        )
        return b"".join(bytes(chunk) for chunk in chunks)

    def _banks(self) -> tuple[HashAlgorithm, ...]:
        _, data = self._esapi.get_capability(tss.TPM2_CAP.PCRS, 0, 16)
        active = [_number(bank.hash) for bank in data.data.assignedPCR if any(bytes(bank.pcrSelect))]
        unknown = [algorithm for algorithm in active if algorithm not in set(HashAlgorithm)]
        if unknown:
            # Left out it could be extended by anybody; and we cannot hash for it.
            raise EnvironmentFault(
                Code.TPM_FAILED,
                "a PCR bank of an unknown hash is active",
                got=", ".join(f"{algorithm:#06x}" for algorithm in unknown),
                hint="Allocate the SHA-256 and SHA-384 banks only: tpm2_pcrallocate sha256:all+sha384:all.",
            )
        return tuple(sorted(HashAlgorithm(algorithm) for algorithm in active))

    def _read(self, selection: PcrSelection) -> dict[int, bytes]:
        """All values of one moment: the update counter did not move from the first part to the last."""
        if len(selection.banks) != 1:
            raise ValueError("one bank at a time")
        bank = selection.banks[0]
        for _ in range(_TRIES):
            counters: set[int] = set()
            values: dict[int, bytes] = {}
            for start in range(0, len(bank.indices), _READ_MAX):
                part = bank.indices[start : start + _READ_MAX]
                counter, _, digests = self._esapi.pcr_read(_selection(PcrSelection((PcrBank(bank.algorithm, part),))))
                if len(digests) != len(part):
                    raise EnvironmentFault(
                        Code.TPM_FAILED,
                        "TPM does not give these PCRs: is the bank active?",
                        where=str(selection),
                        hint="Allocate it: tpm2_pcrallocate sha256:all+sha384:all, then reboot.",
                    )
                counters.add(_number(counter))
                values.update(zip(part, (bytes(digest) for digest in digests), strict=True))
            if len(counters) == 1:
                return values
        raise _restless(selection)


# The key's own fixed scheme is used: the command names none.
_KEYS_OWN_SCHEME: Final = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)


def _number(value: int) -> int:
    """Whichever of the TSS's own kinds of integer ``value`` is, as a plain one: theirs are shown as names."""
    return int(value)  # lenient: a number already


def _restless(selection: PcrSelection) -> EnvironmentFault:
    return EnvironmentFault(
        Code.TPM_BUSY,
        "PCRs keep changing while they are read",
        where=str(selection),
        hint="Another program extends PCRs without pause: try later, or find it.",
    )


def _selection(selection: PcrSelection) -> tss.TPML_PCR_SELECTION:
    value, _ = tss.TPML_PCR_SELECTION.unmarshal(selection.encode())
    return value
