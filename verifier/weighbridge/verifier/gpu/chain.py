"""Proves whose attestation key it is: the chain from a GPU's leaf certificate to a device root.

The procedure of :func:`verify_chain`, leaf first:

1. between 3 and ``limits.GPU_CHAIN_CERTS_MAX`` certificates, each well-formed;
2. the chain ends at an anchor of purpose ``nvidia-device-root``: signatures, validity, authorities, algorithms, as in
   :func:`weighbridge.verifier.certs.verify_chain`;
3. names: the leaf is ``<arch> <stepping> <processor> FMC LF``, its issuer ``<same> BROM``, and that one's issuer a
   provisioner of the same architecture, so that a GPU's chain is not presented one certificate short or for another;
4. the architecture is a GPU's: an NVSwitch has the same root and the same kind of names;
5. leaf and BROM keys are P-384, and the leaf may sign but certify nothing;
6. the leaf's firmware digest is read.

Left to the caller: revocation, which device is expected, what the key signed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.gpu.fwid import certified_fwid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["GPU_ARCHITECTURES", "ChainCache", "VerifiedGpuChain", "check_architecture", "verify_chain"]

# Architectures whose reports were seen and verified; anything else is rejected by absence.
GPU_ARCHITECTURES: Final = frozenset({"GH100", "GB100"})
_SWITCH_ARCHITECTURES: Final = frozenset({"LS_10"})
_CERTS_MIN: Final = 3
_LEAF: Final = re.compile(r"((?P<arch>[A-Z]{2}_?[0-9]{2,3}) [A-Z][0-9]{2} [A-Z]{3}) FMC LF")
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedGpuChain:
    """A device's attestation key, proven to come from a device root. Made by :func:`verify_chain` only.

    The seal guards against mistakes, not against hostile code in the same process.

    Attributes:
        key: the attestation key, P-384.
        identity: SHA-256 of the BROM certificate's SubjectPublicKeyInfo; constant for the life of the chip.
        platform: the anchor's: ``nvidia`` or ``insecure-emulated``.
        architecture: such as ``GH100``, from the certificates.
        model: such as ``GH100 A01 GSP BROM``.
        fwid: digest of the firmware that derived the key, or ``None`` when the leaf names none.
        chain_digest: SHA-256 of the concatenated DER.
        not_before: the latest beginning of validity in the chain, anchor included.
        not_after: the earliest end.
    """

    seal: object
    key: ec.EllipticCurvePublicKey
    identity: bytes
    platform: str
    architecture: str
    model: str
    fwid: bytes | None
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


def verify_chain(chain: Sequence[bytes], anchors: TrustAnchors, *, at: datetime) -> VerifiedGpuChain:
    """The attestation key of a GPU, by the procedure in the module's docstring.

    Args:
        chain: DER certificates, leaf first; untrusted.
        anchors: those of purpose ``nvidia-device-root`` are used; without one nothing is trusted.
        at: aware; the time at which validity is judged.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_UNSUPPORTED``, ``TOO_LARGE``.
        NotAuthentic: ``CHAIN_LENGTH``, ``CHAIN_BROKEN``, ``CHAIN_EXPIRED``, ``CHAIN_UNTRUSTED``; ``GPU_CHAIN`` for
            names or keys that are not a GPU's; ``GPU_ARCH`` for a switch or an unknown architecture.
    """
    what = "gpu.chain"
    # 1.
    if not _CERTS_MIN <= len(chain) <= limits.GPU_CHAIN_CERTS_MAX:
        raise NotAuthentic(
            Code.CHAIN_LENGTH,
            "wrong number of certificates",
            where=what,
            expected=f"{_CERTS_MIN}..{limits.GPU_CHAIN_CERTS_MAX}",
            got=len(chain),
        )
    parsed = [certs.load_certificate(der, f"{what}[{number}]") for number, der in enumerate(chain)]
    # 2.
    anchor = certs.verify_chain(parsed, anchors.select("nvidia-device-root"), at=at, what=what)
    leaf, brom, provisioner = parsed[:3]
    # 3.
    architecture, model = _check_names(leaf, brom, provisioner)
    # 4.
    if architecture not in GPU_ARCHITECTURES:
        kind = "an NVSwitch" if architecture in _SWITCH_ARCHITECTURES else "of an unknown architecture"
        raise NotAuthentic(
            Code.GPU_ARCH,
            f"the device is {kind}",
            where=what,
            expected=" or ".join(sorted(GPU_ARCHITECTURES)),
            got=architecture,
        )
    # 5.
    key = _p384(leaf, f"{what}[0]")
    _p384(brom, f"{what}[1]")
    _check_leaf(leaf, f"{what}[0]")
    return VerifiedGpuChain(
        seal=_SEAL,
        key=key,
        identity=sha256(certs.spki_der(brom)),
        platform=anchor.platform,
        architecture=architecture,
        model=model,
        # 6.
        fwid=certified_fwid(leaf, where=f"{what}[0]"),
        chain_digest=sha256(b"".join(chain)),
        not_before=max([anchor.not_before, *(item.not_valid_before_utc for item in parsed)]),
        not_after=min([anchor.not_after, *(item.not_valid_after_utc for item in parsed)]),
    )


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


@final
class ChainCache:
    """Remembers chains that verified, so that a device's does not cost five signature checks in every window.

    The key is the chain's bytes together with the anchors; an entry is used only within the validity of everything
    in the chain, so that only the *work* is saved and no answer changes. Failures are not remembered. Safe to share
    between threads.
    """

    def __init__(self, capacity: int = 256) -> None:
        if capacity < 1:
            raise ValueError("capacity must be positive")
        self._capacity = capacity
        self._entries: OrderedDict[tuple[tuple[bytes, ...], tuple[Anchor, ...]], VerifiedGpuChain] = OrderedDict()
        self._lock = Lock()

    def verify_chain(self, chain: Sequence[bytes], anchors: TrustAnchors, *, at: datetime) -> VerifiedGpuChain:
        """As :func:`verify_chain`."""
        # The very certificates and the very anchors: nothing is taken for the same that is not.
        key = tuple(chain), anchors.select("nvidia-device-root")
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                self._entries.move_to_end(key)
        if known is not None and known.not_before <= at <= known.not_after:
            return known
        verified = verify_chain(chain, anchors, at=at)
        with self._lock:
            self._entries[key] = verified
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        return verified


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
