"""A TPM in software that signs for real, and lies on demand.

:class:`SoftTpm` has the methods of :class:`weighbridge.attester.tpm.interface.TpmDevice`. Its keys, Names, policies and
signatures are right, under a certification authority of its own, so that honest evidence verifies; a :class:`Forgery`
replaces any one field of an attestation *before* it is signed, so that a refusal is for that field and not for a broken
signature. Keys and ECDSA signatures are functions of the seed: the same calls give the same bytes.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from weighbridge.attester.tpm.interface import EndorsementKey
from weighbridge.proto.digest import sha256
from weighbridge.proto.endorsement import EkEndorsement
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.attest import ClockInfo
from weighbridge.proto.tpm.constants import (
    TPM_ALG_AES,
    TPM_ALG_CFB,
    TPM_ALG_NULL,
    TPM_GENERATED,
    AttestType,
    Curve,
    HashAlgorithm,
    Hierarchy,
    KeyType,
    Scheme,
    digest,
    digest_size,
)
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.names import object_name, qualified_name_of_child, qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrSelection, pcr_digest, policy_pcr
from weighbridge.proto.tpm.templates import (
    ATTESTATION_KEY_ATTRIBUTES,
    ENDORSEMENT_KEYS,
    EndorsementTemplate,
    attestation_key_template,
    telemetry_key_template,
)
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.redteam.soft_authority import HASHES, SoftAuthority, derive_key, point, rsa_key, tpmt_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.proto.endorsement import Endorsement

__all__ = ["HONEST", "AkKind", "Forger", "Forgery", "SoftTpm"]

_T = TypeVar("_T")

AkKind = Literal["P-256", "P-384", "RSA-2048"]
# Restricted decryption, fixed to its TPM: a storage root key's attributes (TCG Provisioning Guidance 1.0 §7.5.1).
_STORAGE_KEY: Final = 0x00030472
_PCRS: Final = 24


@dataclass(frozen=True, slots=True)
class Forgery:
    """What an attestation shall say instead of the truth; ``None`` leaves the truth. All of it is signed.

    ``kind`` is the structure tag and ``body`` the attested part behind it. ``selection`` is what is *signed* as
    selected; ``values`` what is sent beside it. ``tail`` is appended to the attestation, ``signer`` signs in the AK's
    place.
    """

    magic: int | None = None
    kind: int | None = None
    qualified_signer: bytes | None = None
    extra_data: bytes | None = None
    clock: int | None = None
    reset_count: int | None = None
    restart_count: int | None = None
    safe: int | None = None
    firmware: int | None = None
    selection: PcrSelection | None = None
    digest: bytes | None = None
    name: bytes | None = None
    qualified_name: bytes | None = None
    body: bytes | None = None
    tail: bytes = b""
    values: tuple[bytes, ...] | None = None
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None


HONEST: Final = Forgery()


class SoftTpm:
    """A TPM in software. ``forgery`` applies to every quote and certification until it is set back to ``HONEST``.

    ``clock`` advances by ``tick`` milliseconds with every look at it.
    """

    def __init__(
        self,
        seed: str,
        *,
        authority: SoftAuthority,
        ek: Literal["H-3", "L-1"] = "H-3",
        ak: AkKind = "P-256",
        srk: bool = False,
        banks: tuple[HashAlgorithm, ...] = (HashAlgorithm.SHA256, HashAlgorithm.SHA384),
    ) -> None:
        self.authority = authority
        self.seed = seed
        self.banks = banks
        self.template: EndorsementTemplate = next(each for each in ENDORSEMENT_KEYS if each.name == ek)
        self.ek_key = (
            derive_key(f"{seed}/ek", ec.SECP384R1())
            if self.template.key_type is KeyType.ECC
            else rsa.generate_private_key(65537, 2048)
        )
        self.ak_kind: AkKind = ak
        self.ak_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            rsa_key(f"{seed}/ak")
            if ak == "RSA-2048"
            else derive_key(f"{seed}/ak", ec.SECP384R1() if ak == "P-384" else ec.SECP256R1())
        )
        # Where the AK is made: below a storage key of the owner's, or a primary of the endorsement hierarchy.
        self.srk_key = derive_key(f"{seed}/srk") if srk else None
        self.certificate = self.authority.certify_ek(self.ek_key.public_key())
        self.forgery = HONEST
        self.clock = 1_000
        self.tick = 10
        self.reset_count = 1
        self.restart_count = 0
        self.safe = True
        self.firmware = 0x2019_1023_0016_3636
        self.closed = False
        self._clear()

    # -- what happens to the machine ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power lost and back: PCRs and the NULL hierarchy are new, the clock is behind and not safe."""
        self.reset_count += 1
        self.restart_count = 0
        self.clock = max(0, self.clock - 4096)
        self.safe = False
        self._clear()

    def _clear(self) -> None:
        self.pcrs = {bank: [bytes(digest_size(bank))] * _PCRS for bank in self.banks}
        self.telemetry_key: ec.EllipticCurvePrivateKey | None = None
        self.telemetry_public = b""
        self.boot: PcrSelection | None = None

    # -- TpmDevice ----------------------------------------------------------------------------------------------------

    def endorsement_key(self) -> EndorsementKey:
        """See :meth:`TpmDevice.endorsement_key`."""
        return EndorsementKey(self.ek_public, self.certificate, self.authority.intermediates)

    @property
    def ek_public(self) -> bytes:
        """The TPMT_PUBLIC of the endorsement key."""
        key = self.ek_key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return self.template.parameters() + point(key)
        return self.template.parameters() + sized(key.public_key().public_numbers().n.to_bytes(256))

    def endorsement(self) -> Endorsement | None:
        """See :meth:`TpmDevice.endorsement`."""
        ek = self.endorsement_key()
        return EkEndorsement(public=ek.public, certificate=ek.certificate, intermediates=ek.intermediates)

    def attestation_parent(self) -> bytes | None:
        """See :meth:`TpmDevice.attestation_parent`."""
        if self.srk_key is None:
            return None
        head = u16(KeyType.ECC) + u16(HashAlgorithm.SHA256) + u32(_STORAGE_KEY) + sized(b"")
        symmetric = u16(TPM_ALG_AES) + u16(128) + u16(TPM_ALG_CFB)
        return head + symmetric + u16(TPM_ALG_NULL) + u16(Curve.NIST_P256) + u16(TPM_ALG_NULL) + point(self.srk_key)

    def attestation_key(self) -> bytes:
        """See :meth:`TpmDevice.attestation_key`."""
        key = self.ak_key
        if isinstance(key, rsa.RSAPrivateKey):
            modulus = key.public_key().public_numbers().n.to_bytes(256)
            scheme = u16(TPM_ALG_NULL) + u16(Scheme.RSASSA) + u16(HashAlgorithm.SHA256) + u16(2048) + u32(0)
            head = u16(KeyType.RSA) + u16(HashAlgorithm.SHA256) + u32(ATTESTATION_KEY_ATTRIBUTES) + sized(b"")
            return head + scheme + sized(modulus)
        if self.ak_kind == "P-384":
            head = u16(KeyType.ECC) + u16(HashAlgorithm.SHA256) + u32(ATTESTATION_KEY_ATTRIBUTES) + sized(b"")
            scheme = u16(TPM_ALG_NULL) + u16(Scheme.ECDSA) + u16(HashAlgorithm.SHA384)
            return head + scheme + u16(Curve.NIST_P384) + u16(TPM_ALG_NULL) + point(key)
        return attestation_key_template()[:-4] + point(key)

    @property
    def ak_hash(self) -> HashAlgorithm:
        """The hash of the AK's scheme, by which a quote's values are digested."""
        return HashAlgorithm.SHA384 if self.ak_kind == "P-384" else HashAlgorithm.SHA256

    @property
    def ak_qualified_name(self) -> bytes:
        """What attestations name as their signer."""
        name = object_name(HashAlgorithm.SHA256, self.attestation_key())
        parent = self.attestation_parent()
        if parent is None:
            return qualified_name_of_primary(Hierarchy.ENDORSEMENT, name)
        above = qualified_name_of_primary(Hierarchy.OWNER, object_name(HashAlgorithm.SHA256, parent))
        return qualified_name_of_child(above, name)

    def activate_credential(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """See :meth:`TpmDevice.activate_credential`."""
        algorithm = self.template.name_algorithm
        size = digest_size(algorithm)
        name = object_name(HashAlgorithm.SHA256, self.attestation_key())
        try:
            seed = self._seed(encrypted_secret)
        except ValueError as error:
            raise EnvironmentFault(Code.TPM_FAILED, "cannot recover the seed") from error
        outer, identity = id_object[2 : 2 + size], id_object[2 + size :]
        integrity = _kdfa(algorithm, seed, b"INTEGRITY", b"", 8 * size)
        if not hmac.compare_digest(_hmac(algorithm, integrity, identity + name), outer):
            raise EnvironmentFault(Code.TPM_FAILED, "credential was not made for this TPM and this attestation key")
        storage = _kdfa(algorithm, seed, b"STORAGE", name, self.template.symmetric.bits)
        decryptor = Cipher(algorithms.AES(storage), CFB(bytes(16))).decryptor()
        return (decryptor.update(identity) + decryptor.finalize())[2:]

    def create_telemetry_key(self, *, unique: bytes, boot: PcrSelection) -> bytes:
        """See :meth:`TpmDevice.create_telemetry_key`."""
        policy = policy_pcr(boot, self.read_pcrs(boot), algorithm=HashAlgorithm.SHA256)
        template = telemetry_key_template(auth_policy=policy, unique=unique)
        self.telemetry_key = derive_key(f"{self.seed}/null/{self.reset_count}/{template.hex()}")
        self.telemetry_public = template[: -(4 + len(unique))] + point(self.telemetry_key)
        self.boot = boot
        return self.telemetry_public

    def certify_telemetry_key(self, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """See :meth:`TpmDevice.certify_telemetry_key`."""
        if self.telemetry_key is None:
            raise EnvironmentFault(Code.TPM_RESET, "there is no telemetry key")
        return self.certify(self.telemetry_public, qualifying_data)

    def certify(self, public: bytes, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """Certify any public area, as if it were a loaded primary of the NULL hierarchy."""
        name = object_name(HashAlgorithm.SHA256, public)
        forgery = self.forgery
        body = sized(_or(forgery.name, name))
        body += sized(_or(forgery.qualified_name, qualified_name_of_primary(Hierarchy.NULL, name)))
        return self._attest(AttestType.CERTIFY, body, qualifying_data)

    def sign(self, data: bytes) -> bytes:
        """See :meth:`TpmDevice.sign`."""
        if self.telemetry_key is None or self.boot is None:
            raise EnvironmentFault(Code.TPM_RESET, "there is no telemetry key")
        policy = policy_pcr(self.boot, self.read_pcrs(self.boot), algorithm=HashAlgorithm.SHA256)
        if policy not in self.telemetry_public:
            raise EnvironmentFault(Code.TPM_FAILED, "boot PCRs changed since the telemetry key was made")
        r, s = _ecdsa(self.telemetry_key, data)
        return r.to_bytes(32) + s.to_bytes(32)

    def active_banks(self) -> tuple[HashAlgorithm, ...]:
        """See :meth:`TpmDevice.active_banks`."""
        return self.banks

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """See :meth:`TpmDevice.extend`."""
        if set(digests) != set(self.banks) or any(len(value) != digest_size(bank) for bank, value in digests.items()):
            raise ValueError("one digest for each active bank")
        for bank, value in digests.items():
            self.pcrs[bank][pcr] = digest(bank, self.pcrs[bank][pcr], value)

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        """See :meth:`TpmDevice.read_pcrs`."""
        (bank,) = selection.banks
        values = self.pcrs[HashAlgorithm(bank.algorithm)]
        return {index: values[index] for index in bank.indices}

    def read_clock(self) -> ClockInfo:
        """See :meth:`TpmDevice.read_clock`."""
        self.clock += self.tick
        return ClockInfo(self.clock, self.reset_count, self.restart_count, self.safe)

    def quote(self, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """See :meth:`TpmDevice.quote`."""
        signed = self.forgery.selection or selection
        values = _or(self.forgery.values, self._values(signed))
        body = signed.encode() + sized(_or(self.forgery.digest, pcr_digest(self.ak_hash, values)))
        attest, signature = self._attest(AttestType.QUOTE, body, qualifying_data)
        return QuoteEvidence(attest=attest, signature=signature, pcr_values=values)

    def close(self) -> None:
        """See :meth:`TpmDevice.close`."""
        self.closed = True

    # -- for forgers --------------------------------------------------------------------------------------------------

    def forging(self, **fields: object) -> Forger:
        """Within ``with``, every attestation bears ``fields`` of :class:`Forgery` instead of the truth."""
        return Forger(self, replace(HONEST, **fields))  # type: ignore[arg-type] # a test names fields that exist

    def public_with(self, public: bytes, attributes: int) -> bytes:
        """A public area with other attributes."""
        return public[:4] + u32(attributes) + public[8:]

    def _values(self, selection: PcrSelection) -> tuple[bytes, ...]:
        known = set(self.banks)
        return tuple(
            self.pcrs[HashAlgorithm(bank.algorithm)][index] if bank.algorithm in known else bytes(20)
            for bank in selection.banks
            for index in bank.indices
        )

    def _attest(self, kind: int, body: bytes, qualifying_data: bytes) -> tuple[bytes, bytes]:
        forgery, now = self.forgery, self.read_clock()
        # Outside the endorsement hierarchy a TPM adds a constant of the key to its counts and firmware (Part 1 §36.7).
        hidden = int.from_bytes(sha256(self.ak_qualified_name)[:3]) if self.srk_key is not None else 0
        raw = b"".join(
            (
                u32(_or(forgery.magic, TPM_GENERATED)),
                u16(_or(forgery.kind, kind)),
                sized(_or(forgery.qualified_signer, self.ak_qualified_name)),
                sized(_or(forgery.extra_data, qualifying_data)),
                _or(forgery.clock, now.clock).to_bytes(8),
                u32(_or(forgery.reset_count, now.reset_count + hidden)),
                u32(_or(forgery.restart_count, now.restart_count + hidden)),
                bytes([_or(forgery.safe, 1 if now.safe else 0)]),
                _or(forgery.firmware, self.firmware + hidden).to_bytes(8),
                _or(forgery.body, body),
                forgery.tail,
            )
        )
        return raw, tpmt_signature(forgery.signer or self.ak_key, raw)

    def _seed(self, encrypted_secret: bytes) -> bytes:
        key, algorithm = self.ek_key, self.template.name_algorithm
        if isinstance(key, rsa.RSAPrivateKey):
            chosen = HASHES[algorithm]
            return key.decrypt(encrypted_secret, padding.OAEP(padding.MGF1(chosen), chosen, b"IDENTITY\0"))
        size = Curve.NIST_P384.size
        x, y = encrypted_secret[2 : 2 + size], encrypted_secret[4 + size :]
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP384R1())
        shared = key.exchange(ec.ECDH(), numbers.public_key())
        ours = key.public_key().public_numbers().x.to_bytes(size)
        return digest(algorithm, u32(1), shared, b"IDENTITY\0", x, ours)


class Forger:
    """Sets a TPM's forgery for the length of a ``with``."""

    def __init__(self, tpm: SoftTpm, forgery: Forgery) -> None:
        self._tpm, self._forgery, self._before = tpm, forgery, HONEST

    def __enter__(self) -> SoftTpm:
        self._before, self._tpm.forgery = self._tpm.forgery, self._forgery
        return self._tpm

    def __exit__(self, *_: object) -> None:
        self._tpm.forgery = self._before


def _ecdsa(key: ec.EllipticCurvePrivateKey, data: bytes) -> tuple[int, int]:
    return decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))


def _or(forged: _T | None, truth: _T) -> _T:
    return truth if forged is None else forged


def _hmac(algorithm: HashAlgorithm, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, algorithm.name.lower())


def _kdfa(algorithm: HashAlgorithm, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    return _hmac(algorithm, key, u32(1) + label + b"\0" + context + u32(bits))[: bits // 8]


if TYPE_CHECKING:
    _: TpmDevice = SoftTpm("", authority=SoftAuthority("", name=""))
