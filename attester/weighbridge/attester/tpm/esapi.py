"""The commands that we give to a TPM, with plain bytes in and out, through the TSS's ESAPI.

With :mod:`~weighbridge.attester.tpm.connection` and :mod:`~weighbridge.attester.tpm.tcti` the only module that imports
tpm2-pytss.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.tpm import faults
from weighbridge.attester.tpm.connection import Connection, number
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm import signature as signatures
from weighbridge.proto.tpm.attest import ClockInfo
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy
from weighbridge.proto.tpm.wire import sized, u16, u32

# As in `tcti`: before it is loaded.
os.environ.setdefault("TSS2_LOG", "all+NONE")

import tpm2_pytss as tss

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from weighbridge.proto.tpm.pcr import PcrSelection

__all__ = ["Esapi", "Loaded"]

_NV_CHUNK: Final = 512
# The largest that we read, a paravisor's report, has 2,600 bytes.
_NV_MAX: Final = 16 * 1024
_HIERARCHIES: Final = {
    Hierarchy.OWNER: tss.ESYS_TR.OWNER,
    Hierarchy.ENDORSEMENT: tss.ESYS_TR.ENDORSEMENT,
    Hierarchy.NULL: tss.ESYS_TR.NULL,
}
# The key's own fixed scheme is used: the command names none.
_KEYS_OWN_SCHEME: Final = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)


@final
@dataclass(frozen=True, slots=True)
class Loaded:
    """A key in the TPM: the TSS's handle of it, and its TPMT_PUBLIC. ``transient`` ones take a slot until released.

    ``qualified_name`` is what the TPM says of a persistent one; empty for those of which we know it.
    """

    handle: tss.ESYS_TR
    public: bytes
    transient: bool = True
    qualified_name: bytes = b""


@final
class Esapi(Connection):
    """The commands that we give; each inside :meth:`Connection.call`."""

    # -- objects ------------------------------------------------------------------------------------------------------

    def create_primary(self, hierarchy: Hierarchy, template: bytes) -> Loaded:
        """The primary key that ``template``, a TPMT_PUBLIC, makes; the same until the hierarchy's seed changes."""
        public = _public(template)
        handle, created, *_ = self._esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), public, _HIERARCHIES[hierarchy])
        return Loaded(handle, created.publicArea.marshal())

    def create(self, parent: Loaded, template: bytes) -> tuple[bytes, bytes]:
        """A new key below ``parent``: its TPMT_PUBLIC, and its private part, which only that parent can read."""
        private, public, *_ = self._esapi.create(parent.handle, tss.TPM2B_SENSITIVE_CREATE(), _public(template))
        return public.publicArea.marshal(), bytes(private)

    def load(self, parent: Loaded, public: bytes, private: bytes) -> Loaded:
        """What :meth:`create` made."""
        return Loaded(self._esapi.load(parent.handle, tss.TPM2B_PRIVATE(private), _public(public)), public)

    def persistent(self, handle: int) -> Loaded:
        """The key at a persistent handle; while it is used it takes a slot too."""
        resource = self._esapi.tr_from_tpmpublic(handle)
        try:
            public, _, qualified_name = self._esapi.read_public(resource)
        except BaseException:
            with self._letting_go():
                self._esapi.tr_close(resource)
            raise
        return Loaded(resource, public.publicArea.marshal(), transient=False, qualified_name=bytes(qualified_name))

    def release(self, loaded: Loaded) -> None:
        """Free the slot; that it is gone already, or the whole TPM is, must not hide what went wrong before."""
        with self._letting_go():
            if loaded.transient:
                self._esapi.flush_context(loaded.handle)
            else:
                self._esapi.tr_close(loaded.handle)

    @contextmanager
    def using(self, loaded: Loaded) -> Generator[Loaded]:
        """``loaded``, released in the end."""
        try:
            yield loaded
        finally:
            self.release(loaded)

    def nv_read(self, index: int) -> bytes:
        """What an NV index holds.

        Raises:
            EnvironmentFault: ``TPM_FAILED`` if it is larger than anything that we look for.
        """
        resource = self._esapi.tr_from_tpmpublic(index)
        try:
            public, _ = self._esapi.nv_read_public(resource)
            size, attributes = number(public.nvPublic.dataSize), number(public.nvPublic.attributes)
            if size > _NV_MAX:
                raise EnvironmentFault(
                    Code.TPM_FAILED,
                    f"NV index {index:#x} is too large",
                    expected=f"<= {_NV_MAX} bytes",
                    got=f"{size} bytes",
                    hint="Something else is stored there than this platform's firmware puts there.",
                )
            # Azure's report is read by the owner only; certificates by anybody.
            by = resource if attributes & tss.TPMA_NV.AUTHREAD else tss.ESYS_TR.OWNER
            chunks = (
                self._esapi.nv_read(resource, min(_NV_CHUNK, size - offset), offset, by)
                for offset in range(0, size, _NV_CHUNK)
            )
            return b"".join(bytes(chunk) for chunk in chunks)
        finally:
            with self._letting_go():
                self._esapi.tr_close(resource)

    # -- use of keys --------------------------------------------------------------------------------------------------

    def activate_credential(
        self, ak: Loaded, ek: Loaded, credential: tuple[bytes, bytes], *, policy: HashAlgorithm | None
    ) -> bytes:
        """The secret in ``credential``: contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.

        Args:
            ak: the key it was made for.
            ek: the key that opens it.
            credential: untrusted.
            policy: where the EK wants PolicyA of its profile, PolicySecret of the endorsement hierarchy: its
                ``nameAlg``; else ``None``, and it takes the (empty) password.

        Raises:
            EnvironmentFault: ``TPM_FAILED`` for a credential that is too large.
        """
        try:
            blob, secret = tss.TPM2B_ID_OBJECT(credential[0]), tss.TPM2B_ENCRYPTED_SECRET(credential[1])
        except (ValueError, IndexError) as error:
            raise EnvironmentFault(
                Code.TPM_FAILED, "credential is too large for a TPM", hint="Is the verifier answering this attester?"
            ) from error
        with self._policy_session(policy) as session:
            if policy is not None:
                self._esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, expiration=0)
            return bytes(
                self._esapi.activate_credential(
                    ak.handle, ek.handle, blob, secret, session1=tss.ESYS_TR.PASSWORD, session2=session
                )
            )

    def certify(self, key: Loaded, ak: Loaded, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE, of ``key`` by ``ak``."""
        attest, signature = self._esapi.certify(key.handle, ak.handle, qualifying_data, _KEYS_OWN_SCHEME)
        return bytes(attest), signature.marshal()

    def quote(self, ak: Loaded, selection: PcrSelection, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE, over ``selection`` by ``ak``."""
        attest, signature = self._esapi.quote(ak.handle, _selection(selection), qualifying_data, _KEYS_OWN_SCHEME)
        return bytes(attest), signature.marshal()

    def sign(self, key: Loaded, data: bytes, *, pcrs: PcrSelection) -> bytes:
        """ECDSA signature, r || s, over the SHA-256 of ``data`` by a P-256 key that is under the policy of ``pcrs``."""
        with self._policy_session(HashAlgorithm.SHA256) as session:
            self._esapi.policy_pcr(session, b"", _selection(pcrs))
            signature = self._esapi.sign(key.handle, sha256(data), _KEYS_OWN_SCHEME, None, session1=session)
        with faults.well_formed("sign"):
            return signatures.parse(signature.marshal()).raw_p256()

    @contextmanager
    def _policy_session(self, algorithm: HashAlgorithm | None) -> Generator[tss.ESYS_TR]:
        """A policy session for one command, which ends it; flushed if it does not. The password without a policy."""
        if algorithm is None:
            yield tss.ESYS_TR.PASSWORD
            return
        none = tss.ESYS_TR.NONE
        session = self._esapi.start_auth_session(none, none, tss.TPM2_SE.POLICY, None, tss.TPM2_ALG(number(algorithm)))
        try:
            # The TSS would keep it alive after its use, until no slot is left.
            self._esapi.trsess_set_attributes(session, 0, tss.TPMA_SESSION.CONTINUESESSION)
            yield session
        except BaseException:
            with self._letting_go():
                self._esapi.flush_context(session)
            raise

    # -- PCRs and clock -----------------------------------------------------------------------------------------------

    def active_banks(self) -> tuple[int, ...]:
        """The hash identifiers of the PCR banks that are allocated, perhaps not all of them ours."""
        _, data = self._esapi.get_capability(tss.TPM2_CAP.PCRS, 0, 16)
        self._expect(data, tss.TPM2_CAP.PCRS)
        return tuple(number(bank.hash) for bank in data.data.assignedPCR if any(bytes(bank.pcrSelect)))

    def read_pcrs(self, selection: PcrSelection) -> tuple[int, tuple[bytes, ...]]:
        """The update counter, and the values of at most eight PCRs; fewer if the bank is not active."""
        counter, _, digests = self._esapi.pcr_read(_selection(selection))
        return number(counter), tuple(bytes(digest) for digest in digests)

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """Extend ``pcr`` by a digest for each bank."""
        values = u32(len(digests)) + b"".join(u16(algorithm) + digest for algorithm, digest in sorted(digests.items()))
        listed, _ = tss.TPML_DIGEST_VALUES.unmarshal(values)
        self._esapi.pcr_extend(tss.ESYS_TR(pcr), listed)

    def read_clock(self) -> ClockInfo:
        """Clock and counts; not signed."""
        info = self._esapi.read_clock().clockInfo
        return ClockInfo(
            clock=number(info.clock),
            reset_count=number(info.resetCount),
            restart_count=number(info.restartCount),
            safe=bool(info.safe),
        )


def _public(template: bytes) -> tss.TPM2B_PUBLIC:
    value, _ = tss.TPM2B_PUBLIC.unmarshal(sized(template))
    return value


def _selection(selection: PcrSelection) -> tss.TPML_PCR_SELECTION:
    value, _ = tss.TPML_PCR_SELECTION.unmarshal(selection.encode())
    return value
