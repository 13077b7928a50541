"""Proves whose attestation key it is: the chain from a device's leaf certificate to a device root.

The procedure of :func:`verify_chain`, leaf first:

1. between 3 and ``limits.GPU_CHAIN_CERTS_MAX`` certificates, each well-formed;
2. the chain ends at an anchor of purpose ``nvidia-device-root``: signatures, validity, authorities, algorithms, as in
   :func:`weighbridge.verifier.certs.verify_chain`;
3. names: the leaf is ``<arch> <stepping> <processor> FMC LF``, its issuer ``<same> BROM``, and that one's issuer a
   provisioner of the same architecture, so that a GPU's chain is not presented one certificate short or for another;
4. the architecture is one of a kind that is accepted: an NVSwitch has the same root and the same kind of names, and is
   no GPU unless the caller says that switches are welcome;
5. leaf and BROM keys are P-384, and the leaf may sign but certify nothing;
6. the leaf's firmware digest is read, and the device's PDI.

The PDI is the number by which devices name each other over NVLink. A device's own is in the serial number of its BROM
certificate's subject, after one byte (seen on GH100, GB100 and LS_10; a switch's report repeats it): so it is
NVIDIA's provisioner who says which device has it, not the device.

Left to the caller: revocation, which device is expected, what the key signed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, Literal, NoReturn, TypeVar, final
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.gpu.fwid import certified_fwid

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = [
    "ARCHITECTURES",
    "GPUS",
    "GPUS_AND_SWITCHES",
    "ChainCache",
    "Kind",
    "VerifiedGpuChain",
    "check_architecture",
    "verify_chain",
    "without_number",
]

Kind = Literal["gpu", "switch"]
Value = TypeVar("Value")
# The digests of certificates, and the anchors by which they are believed.
_Key = tuple[tuple[bytes, ...], tuple["Anchor", ...]]
# Architectures whose reports were seen and verified; anything else is rejected by absence. An H200 is a GH100, a B200 a
# GB100: that is what their certificates say.
ARCHITECTURES: Final[dict[str, Kind]] = {"GH100": "gpu", "GB100": "gpu", "LS_10": "switch"}
GPUS: Final[frozenset[Kind]] = frozenset({"gpu"})
GPUS_AND_SWITCHES: Final[frozenset[Kind]] = frozenset({"gpu", "switch"})
_CERTS_MIN: Final = 3
# A leaf and its BROM are one device's; everything above is shared by thousands.
_OWN: Final = 2
_PDI: Final = re.compile(r"[0-9A-F]{2}([0-9A-F]{16})")
_LEAF: Final = re.compile(r"((?P<arch>[A-Z]{2}_?[0-9]{2,3}) [A-Z][0-9]{2} [A-Z]{3}) FMC LF")
_WHAT: Final = "gpu.chain"
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class VerifiedGpuChain:
    """A device's attestation key, proven to come from a device root. Made by :func:`verify_chain` only.

    The seal guards against mistakes, not against hostile code in the same process.

    Attributes:
        key: the attestation key, P-384.
        kind: ``gpu`` or ``switch``, by the architecture.
        identity: SHA-256 of the BROM certificate's SubjectPublicKeyInfo; constant for the life of the chip.
        platform: the anchor's: ``nvidia`` or ``insecure-emulated``.
        architecture: such as ``GH100``, from the certificates.
        model: such as ``GH100 A01 GSP BROM``.
        fwid: digest of the firmware that derived the key, or ``None`` when the leaf names none.
        pdi: the number by which NVLink peers name the device, 8 bytes in the certificate's order, or ``None`` where
            the BROM's certificate has no serial number of that shape. It identifies the device as a serial number does.
        certificates: the chain, leaf first, as it came: with or without the root's own certificate.
        anchor: the root that vouches for it.
        chain_digest: SHA-256 of the concatenated DER.
        not_before: the latest beginning of validity in the chain, anchor included.
        not_after: the earliest end.
    """

    seal: object = field(repr=False)
    key: ec.EllipticCurvePublicKey
    kind: Kind
    identity: bytes
    platform: str
    architecture: str
    model: str
    fwid: bytes | None
    pdi: bytes | None
    certificates: tuple[x509.Certificate, ...]
    anchor: Anchor
    chain_digest: bytes
    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        """Refuse to be built by anything but the verification."""
        if self.seal is not _SEAL:
            raise TypeError("a VerifiedGpuChain is made by verify_chain")

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a verified object does not come back from bytes."""
        raise TypeError("a VerifiedGpuChain is made by verify_chain")


def verify_chain(
    chain: Sequence[bytes], anchors: TrustAnchors, *, at: datetime, accept: frozenset[Kind] = GPUS
) -> VerifiedGpuChain:
    """The attestation key of a device, by the procedure in the module's docstring.

    Args:
        chain: DER certificates, leaf first; untrusted.
        anchors: those of purpose ``nvidia-device-root`` are used; without one nothing is trusted.
        at: aware; the time at which validity is judged.
        accept: the kinds of device that are welcome.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_UNSUPPORTED``, ``TOO_LARGE``.
        NotAuthentic: ``CHAIN_LENGTH``, ``CHAIN_BROKEN``, ``CHAIN_EXPIRED``, ``CHAIN_UNTRUSTED``; ``GPU_CHAIN`` for
            names or keys that are not a device's; ``GPU_ARCH`` for an architecture that is unknown or of a kind that
            is not accepted.
    """
    # 1.
    _check_length(chain)
    parsed = _load(chain)
    # 2.
    anchor = certs.verify_chain(parsed, anchors.select("nvidia-device-root"), at=at, what=_WHAT)
    return _device(chain, parsed, anchor, accept)


def without_number(name: x509.Name) -> str:
    """A certificate's name as RFC 4514 writes it, without a serial number: in a chip's that is the PDI."""
    kept = (rdn for rdn in name.rdns if not rdn.get_attributes_for_oid(NameOID.SERIAL_NUMBER))
    return x509.Name(kept).rfc4514_string()


def check_architecture(chain: VerifiedGpuChain, declared: str) -> None:
    """Require the architecture that was declared: a genuine device of another generation is not the one promised.

    Raises:
        NotAuthentic: ``GPU_ARCH``.
    """
    if chain.architecture != declared:
        raise NotAuthentic(
            Code.GPU_ARCH,
            "the device is not of the declared architecture",
            where="gpu.chain",
            expected=declared,
            got=chain.architecture,
        )


@dataclass(frozen=True, slots=True)
class _Tail:
    """What is above a device's own two certificates in a chain that verified, and until when that holds."""

    certificates: tuple[x509.Certificate, ...]
    anchor: Anchor
    not_before: datetime
    not_after: datetime


@final
class ChainCache:
    """Remembers chains that verified, so that a device's does not cost five signature checks in every window.

    Also remembers what is above a device's own two certificates: for another device of the same provisioner two
    signatures are left to check. The keys are the certificates' digests together with the anchors; an entry is used
    only within the validity of everything in it, so that only the *work* is saved and no answer changes. Failures are
    not remembered. Safe to share between threads.

    Beside the ``capacity`` chains used last, all are found that somebody holds: those of open sessions, however many
    there are.
    """

    def __init__(self, capacity: int = 256) -> None:
        if capacity < 1:
            raise ValueError("capacity must be positive")
        self._held: WeakValueDictionary[_Key, VerifiedGpuChain] = WeakValueDictionary()
        self._chains: _Recent[VerifiedGpuChain] = _Recent(capacity)
        self._tails: _Recent[_Tail] = _Recent(capacity)

    def verify_chain(
        self, chain: Sequence[bytes], anchors: TrustAnchors, *, at: datetime, accept: frozenset[Kind] = GPUS
    ) -> VerifiedGpuChain:
        """As :func:`verify_chain`."""
        # The very certificates and the very anchors: nothing is taken for the same that is not.
        selected = anchors.select("nvidia-device-root")
        key = _digests(chain), selected
        known = self._held.get(key)
        if known is not None and known.not_before <= at <= known.not_after:
            _check_kind(known.architecture, accept)
            self._chains.put(key, known)
            return known
        verified = self._verify(chain, selected, at, accept)
        self._held[key] = verified
        self._chains.put(key, verified)
        return verified

    def _verify(
        self, chain: Sequence[bytes], anchors: tuple[Anchor, ...], at: datetime, accept: frozenset[Kind]
    ) -> VerifiedGpuChain:
        _check_length(chain)
        key = _digests(chain[_OWN:]), anchors
        tail = self._tails.get(key)
        if tail is not None and tail.not_before <= at <= tail.not_after:
            parsed = [*_load(chain[:_OWN]), *tail.certificates]
            certs.verify_head(parsed, len(tail.certificates), at=at, what=_WHAT)
            return _device(chain, parsed, tail.anchor, accept)
        parsed = _load(chain)
        anchor = certs.verify_chain(parsed, anchors, at=at, what=_WHAT)
        above = tuple(parsed[_OWN:])
        self._tails.put(key, _Tail(above, anchor, *_validity(above, anchor)))
        return _device(chain, parsed, anchor, accept)


class _Recent(Generic[Value]):
    """The entries used last, at most ``capacity``."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, value: Value) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)


def _digests(chain: Sequence[bytes]) -> tuple[bytes, ...]:
    """What tells certificates apart, and takes less room than they do."""
    return tuple(map(sha256, chain))


def _check_length(chain: Sequence[bytes]) -> None:
    if not _CERTS_MIN <= len(chain) <= limits.GPU_CHAIN_CERTS_MAX:
        raise NotAuthentic(
            Code.CHAIN_LENGTH,
            "wrong number of certificates",
            where=_WHAT,
            expected=f"{_CERTS_MIN}..{limits.GPU_CHAIN_CERTS_MAX}",
            got=len(chain),
        )


def _load(chain: Sequence[bytes]) -> list[x509.Certificate]:
    return [certs.load_certificate(der, f"{_WHAT}[{number}]") for number, der in enumerate(chain)]


def _device(
    chain: Sequence[bytes], parsed: Sequence[x509.Certificate], anchor: Anchor, accept: frozenset[Kind]
) -> VerifiedGpuChain:
    """Steps 3 to 6, once the signatures are verified."""
    leaf, brom, provisioner = parsed[:_CERTS_MIN]
    # 3.
    architecture, model = _check_names(leaf, brom, provisioner)
    # 4.
    kind = _check_kind(architecture, accept)
    # 5.
    key = _p384(leaf, f"{_WHAT}[0]")
    _p384(brom, f"{_WHAT}[1]")
    _check_leaf(leaf, f"{_WHAT}[0]")
    not_before, not_after = _validity(parsed, anchor)
    return VerifiedGpuChain(
        seal=_SEAL,
        key=key,
        kind=kind,
        identity=sha256(certs.spki_der(brom)),
        platform=anchor.platform,
        architecture=architecture,
        model=model,
        # 6.
        fwid=certified_fwid(leaf, where=f"{_WHAT}[0]"),
        pdi=_pdi(brom),
        # What was parsed to be looked at stays in the object for good: names and extensions, ten times the certificate.
        certificates=(*map(x509.load_der_x509_certificate, chain[:_OWN]), *parsed[_OWN:]),
        anchor=anchor,
        chain_digest=sha256(b"".join(chain)),
        not_before=not_before,
        not_after=not_after,
    )


def _check_kind(architecture: str, accept: frozenset[Kind]) -> Kind:
    kind = ARCHITECTURES.get(architecture)
    if kind is None or kind not in accept:
        what = "of an unknown architecture" if kind is None else f"a {kind}, not what was asked for"
        raise NotAuthentic(
            Code.GPU_ARCH,
            f"the device is {what}",
            where=_WHAT,
            expected=" or ".join(sorted(name for name, kind in ARCHITECTURES.items() if kind in accept)),
            got=architecture,
        )
    return kind


def _validity(certificates: Sequence[x509.Certificate], anchor: Anchor) -> tuple[datetime, datetime]:
    """The latest beginning and the earliest end, anchor included."""
    return (
        max([anchor.not_before, *(item.not_valid_before_utc for item in certificates)]),
        min([anchor.not_after, *(item.not_valid_after_utc for item in certificates)]),
    )


def _pdi(brom: x509.Certificate) -> bytes | None:
    found = brom.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    match = _PDI.fullmatch(str(found[0].value)) if len(found) == 1 else None
    return None if match is None else strict.hex_decode(match[1].lower(), what="PDI")


def _check_names(leaf: x509.Certificate, brom: x509.Certificate, provisioner: x509.Certificate) -> tuple[str, str]:
    """Architecture and model, once the three names agree."""
    name = _common_name(leaf, "gpu.chain[0]")
    match = _LEAF.fullmatch(name)
    if match is None:
        raise NotAuthentic(
            Code.GPU_CHAIN,
            "the first certificate is not that of a GPU's attestation key",
            where="gpu.chain[0]",
            expected="<architecture> <stepping> <processor> FMC LF",
            got=name,
        )
    model = _common_name(brom, "gpu.chain[1]")
    if model != f"{match[1]} BROM":
        raise NotAuthentic(
            Code.GPU_CHAIN,
            "not the BROM of the leaf's device",
            where="gpu.chain[1]",
            expected=f"{match[1]} BROM",
            got=model,
        )
    authority = _common_name(provisioner, "gpu.chain[2]")
    if match["arch"] not in authority.split() or "Provisioner" not in authority.split():
        raise NotAuthentic(
            Code.GPU_CHAIN,
            "not a provisioner of the leaf's architecture",
            where="gpu.chain[2]",
            expected=f"… {match['arch']} Provisioner …",
            got=authority,
        )
    return match["arch"], model


def _common_name(certificate: x509.Certificate, where: str) -> str:
    try:
        return certs.common_name(certificate.subject, where)
    except MalformedEvidence as error:
        raise NotAuthentic(Code.GPU_CHAIN, error.message, where=where, got=error.got) from error


def _p384(certificate: x509.Certificate, where: str) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise NotAuthentic(
            Code.GPU_CHAIN, "key is not P-384", where=where, clause="SPDM 1.1, TPM_ALG_ECDSA_ECC_NIST_P384"
        )
    return key


def _check_leaf(leaf: x509.Certificate, where: str) -> None:
    extensions = {extension.oid: extension.value for extension in leaf.extensions}
    usage = extensions.get(x509.KeyUsage.oid)
    constraints = extensions.get(x509.BasicConstraints.oid)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise NotAuthentic(Code.GPU_CHAIN, "the attestation key may not sign, or may certify", where=where)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise NotAuthentic(Code.GPU_CHAIN, "the attestation key is an authority", where=where)
