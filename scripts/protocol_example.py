"""One whole session with published keys: the worked example whose bytes are the vectors of docs/protocol.md.

A host with one GPU enrols, seals one window, and is judged; the verifier records both judgements, signs a checkpoint
and a result token, and the session becomes a bundle. Nothing is drawn by chance: keys and random values are functions
of their names, every ECDSA signature is deterministic (RFC 6979). The bytes are made by the product's own encoders,
except what a TPM, a GPU and their vendors make, which is written out below.

The private keys are known to everybody: every anchor of the example is for the platform ``insecure-emulated``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import cose, merkle, note, tlog
from weighbridge.proto.binding import (
    challenge,
    enrolment_qualifying_data,
    genesis,
    gpu_nonce,
    link,
    window_digest,
)
from weighbridge.proto.cc_state import ENVIRONMENT_SIMULATION, CcState
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.endorsement import EkEndorsement
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.manifest import FileEntry, Manifest, Part, encode_manifests
from weighbridge.proto.measurement_log import AttesterStart, ModelLoad, encode_records, head, make_record, replay
from weighbridge.proto.spdm.evidence import GpuEvidence, encode, gpus_binding
from weighbridge.proto.spdm.opaque import OpaqueType, encode_tlv
from weighbridge.proto.spot import PoolEntry, SpotAnswer, SpotChallenge, SpotExpectation, SpotPool, SpotRange
from weighbridge.proto.telemetry import UNITS, WINDOWS_NS, Channel, EventKind, Source, Telemetry
from weighbridge.proto.telemetry import Event as SensorEvent
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.proto.tpm.constants import (
    TPM_GENERATED,
    AttestType,
    HashAlgorithm,
    Hierarchy,
    Scheme,
    digest,
)
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.names import object_name, qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrSelection, pcr_digest, policy_pcr
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS, attestation_key_template, telemetry_key_template
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.proto.window import WINDOW_TYP, Evidence, Header, Interval, audience_of, seal
from weighbridge.proto.workload import WorkSummary, commit
from weighbridge.verifier.anchors import EMULATED_PLATFORM, Anchor, TrustAnchors
from weighbridge.verifier.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.proto.measurement_log import Event, Record

OPENED: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the enrolment challenge was issued. The proof came a second later, window 0 after 12.5 s."""
ENROLLED: Final = OPENED + timedelta(seconds=1)
RECEIVED: Final = OPENED + timedelta(seconds=12, milliseconds=500)
TENANT: Final = "example-tenant"
AUDIENCE: Final = "gate.example"
ORIGIN: Final = "ledger.example/windows"

CONFIG: Final = b"{}\n"
_TENSORS: Final = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  '
WEIGHTS: Final = len(_TENSORS).to_bytes(8, "little") + _TENSORS + bytes.fromhex("0000803f00000040")
"""A safetensors file with one tensor, ``w`` = [1.0, 2.0]."""

_BANK: Final = HashAlgorithm.SHA256
_PCRS: Final = (0, 7, 15)
_BOOT_PCRS: Final = (0, 7)
_LOG_PCR: Final = 15
_SECOND_NS: Final = 1_000_000_000
_FIRMWARE: Final = 0x0001_0002_0003_0004
_UNTIL: Final = datetime(2049, 12, 31, tzinfo=UTC)
_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
_PREFIX: Final = "weighbridge protocol example: "
_ORDERS: Final = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
}


# -- what would be chance ----------------------------------------------------------------------------------------------


def fixed(name: str, size: int = 32) -> bytes:
    """The example's random value of that name: the first bytes of SHA-256 over the prefix and the name."""
    return sha256((_PREFIX + name).encode())[:size]


def fixed_key(name: str, curve: ec.SECP256R1 | ec.SECP384R1 | None = None) -> ec.EllipticCurvePrivateKey:
    """The example's private key of that name: 1 + (SHA-512(prefix and name) mod (n - 1))."""
    chosen = curve or ec.SECP256R1()
    number = int.from_bytes(hashlib.sha512((_PREFIX + name).encode()).digest())
    return ec.derive_private_key(1 + number % (_ORDERS[chosen.key_size] - 1), chosen)


def es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA P-256 with SHA-256, deterministic; r then s, 64 bytes."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32) + s.to_bytes(32)


def signer(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    """As :func:`es256`, for the encoders that take a function."""
    return lambda data: es256(key, data)


def nanoseconds(at: datetime) -> int:
    """Nanoseconds since 1970."""
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000


VERIFIER_KEY: Final = fixed_key("verifier")
LEDGER_KEY: Final = Ed25519PrivateKey.from_private_bytes(fixed("ledger"))
NOTE_KEY: Final = note.NoteKey(ORIGIN, LEDGER_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
_AK: Final = fixed_key("attestation key")
_EK: Final = fixed_key("endorsement key", ec.SECP384R1())
_TELEMETRY_KEY: Final = fixed_key("telemetry key")
_CNF: Final = cose.thumbprint(fixed_key("serving key").public_key())
_PEER: Final = cose.thumbprint(fixed_key("channel key").public_key())
_TPM_ROOT: Final = fixed_key("TPM vendor")
_GPU_ROOT: Final = fixed_key("GPU vendor", ec.SECP384R1())


# -- certificates ------------------------------------------------------------------------------------------------------


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certify,
        key_cert_sign=certify,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> bytes:
    """A DER certificate; its serial number is a function of its key."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(cose.thumbprint(key)[:8]) >> 1 | 1)
        .not_valid_before(_SINCE)
        .not_valid_after(_UNTIL)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = hashes.SHA384() if by.key_size == ec.SECP384R1().key_size else hashes.SHA256()
    return builder.sign(by, algorithm, ecdsa_deterministic=True).public_bytes(Encoding.DER)


_AUTHORITY: Final[tuple[tuple[x509.ExtensionType, bool], ...]] = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (_usage(certify=True), True),
)


def _ek_certificate() -> bytes:
    usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")])
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    return _certificate(
        _name("example TPM"),
        _EK.public_key(),
        issuer=_name("insecure-emulated example TPM root"),
        by=_TPM_ROOT,
        extensions=[(constraints, True), (usage, False)],
    )


# -- a GPU -------------------------------------------------------------------------------------------------------------


_GPU_LEAF: Final = fixed_key("GPU attestation key", ec.SECP384R1())
_GPU_BROM: Final = fixed_key("GPU BROM", ec.SECP384R1())
_FWID: Final = hashlib.sha384((_PREFIX + "GPU firmware").encode()).digest()


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size]) + content if size < 0x80 else bytes([tag, 0x81, size]) + content  # noqa: PLR2004 - X.690


def gpu_chain() -> tuple[bytes, ...]:
    """Leaf, BROM and provisioner, which the anchor issued."""
    provisioner_key = fixed_key("GPU provisioner", ec.SECP384R1())
    provisioner = _name("insecure-emulated GH100 Provisioner ICA 1")
    brom = _name("GH100 A01 GSP BROM")
    # TCG DICE, Hopper's shape: SEQUENCE {INTEGER 1, boot ROM's key, SEQUENCE {sha384, digest}}.
    digest_of_firmware = _der(0x30, b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02" + _der(0x04, _FWID))
    composite = _der(0x30, b"\x02\x01\x01" + cose.spki(_GPU_BROM.public_key()) + digest_of_firmware)
    firmware = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.23.133.5.4.1"), composite)
    return (
        _certificate(
            _name("GH100 A01 GSP FMC LF"),
            _GPU_LEAF.public_key(),
            issuer=brom,
            by=_GPU_BROM,
            extensions=[(_usage(certify=False), True), (firmware, False)],
        ),
        _certificate(brom, _GPU_BROM.public_key(), issuer=provisioner, by=provisioner_key, extensions=_AUTHORITY),
        _certificate(
            provisioner,
            provisioner_key.public_key(),
            issuer=_name("insecure-emulated example GPU root"),
            by=_GPU_ROOT,
            extensions=_AUTHORITY,
        ),
    )


def gpu_report(nonce: bytes, what: str) -> bytes:
    """A signed report with two measurements and three opaque entries; real devices have 64 and some twenty."""
    record = b""
    for index in (1, 2):
        measurement = hashlib.sha384(f"{_PREFIX}measurement {index}".encode()).digest()
        size = len(measurement)
        record += bytes([index, 1]) + (size + 3).to_bytes(2, "little") + b"\x01" + size.to_bytes(2, "little")
        record += measurement
    entries = encode_tlv(
        [
            (OpaqueType.DRIVER_VERSION, b"580.95.05\0"),
            (OpaqueType.VBIOS_VERSION, bytes.fromhex("007400961a000000")),
            (OpaqueType.FWID, _FWID),
        ]
    )
    request = bytes([0x11, 0xE0, 0x01, 0xFF]) + nonce + b"\x00"
    response = bytes([0x11, 0x60, 0x00, 0x00, 2]) + len(record).to_bytes(3, "little") + record
    signed = request + response + fixed(f"GPU responder nonce, {what}") + len(entries).to_bytes(2, "little") + entries
    algorithm = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
    r, s = decode_dss_signature(_GPU_LEAF.sign(signed, algorithm))
    return signed + r.to_bytes(48) + s.to_bytes(48)


# -- a TPM -------------------------------------------------------------------------------------------------------------


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
    return sized(numbers.x.to_bytes(size)) + sized(numbers.y.to_bytes(size))


AK_PUBLIC: Final = attestation_key_template()[:-4] + _point(_AK)
_EK_PUBLIC: Final = ENDORSEMENT_KEYS[0].parameters() + _point(_EK)


def _attest(kind: AttestType, body: bytes, *, qualifying_data: bytes, clock: int) -> tuple[bytes, bytes]:
    """A TPMS_ATTEST by the AK, and the TPMT_SIGNATURE over it."""
    signer_name = qualified_name_of_primary(Hierarchy.ENDORSEMENT, object_name(_BANK, AK_PUBLIC))
    clock_info = clock.to_bytes(8) + u32(1) + u32(0) + b"\x01"
    raw = u32(TPM_GENERATED) + u16(kind) + sized(signer_name) + sized(qualifying_data)
    raw += clock_info + _FIRMWARE.to_bytes(8) + body
    signature = es256(_AK, raw)
    return raw, u16(Scheme.ECDSA) + u16(_BANK) + sized(signature[:32]) + sized(signature[32:])


def _quote(values: Sequence[bytes], *, qualifying_data: bytes, clock: int) -> QuoteEvidence:
    body = PcrSelection.of(_BANK, _PCRS).encode() + sized(pcr_digest(_BANK, values))
    attest, signature = _attest(AttestType.QUOTE, body, qualifying_data=qualifying_data, clock=clock)
    return QuoteEvidence(attest, signature, tuple(values))


def _credential(secret: bytes) -> tuple[bytes, bytes]:
    """TPM2_MakeCredential for the example's EK and AK with a fixed ephemeral key (TPM 2.0 Part 1 §24, annex C.6.4)."""
    algorithm, ephemeral = HashAlgorithm.SHA384, fixed_key("credential", ec.SECP384R1())
    name = object_name(_BANK, AK_PUBLIC)
    ours, theirs = (key.public_key().public_numbers().x.to_bytes(48) for key in (ephemeral, _EK))
    seed = digest(algorithm, u32(1), ephemeral.exchange(ec.ECDH(), _EK.public_key()), b"IDENTITY\0", ours, theirs)
    storage = hmac.digest(seed, u32(1) + b"STORAGE\0" + name + u32(256), "sha384")[:32]
    encryptor = Cipher(algorithms.AES(storage), CFB(bytes(16))).encryptor()
    identity = encryptor.update(sized(secret)) + encryptor.finalize()
    integrity = hmac.digest(seed, u32(1) + b"INTEGRITY\0" + u32(384), "sha384")
    return sized(hmac.digest(integrity, identity + name, "sha384")) + identity, _point(ephemeral)


# -- the session -------------------------------------------------------------------------------------------------------


def _anchor(purpose: str, name: str, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> Anchor:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Anchor(purpose, name, EMULATED_PLATFORM, spki, _SINCE, _UNTIL, "docs/protocol.md")  # type: ignore[arg-type] # one of the purposes


ANCHORS: Final = TrustAnchors(
    (
        _anchor("tpm-ek-root", "CN=insecure-emulated example TPM root", _TPM_ROOT),
        _anchor("nvidia-device-root", "CN=insecure-emulated example GPU root", _GPU_ROOT),
        _anchor("verifier", "example verifier", VERIFIER_KEY),
        _anchor("ledger", ORIGIN, LEDGER_KEY),
    ),
    note="the worked example of docs/protocol.md; its private keys are published",
)

REQUIREMENTS: Final = Requirements(
    tenant=TENANT,
    audience=AUDIENCE,
    evidence=("gpu", "telemetry", "tpm", "workload"),
    gpus=1,
    pcrs=_PCRS,
    boot_pcrs=_BOOT_PCRS,
    log_pcr=_LOG_PCR,
    period_ns=10 * _SECOND_NS,
    gpu_every=1,
    lateness_ns=5 * _SECOND_NS,
    spot_every=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The messages that open the session. ``root`` is the ledger's root when the challenge was issued."""

    manifest: Manifest
    records: tuple[Record, ...]
    opening: Opening
    root: bytes
    challenge: EnrolmentChallenge
    secret: bytes
    telemetry_key: bytes
    qualifying_data: bytes
    proof: EnrolmentProof
    terms: SignedTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Window 0. ``root`` is the ledger's root when its challenge was issued, ``report`` the GPU's."""

    root: bytes
    telemetry: Telemetry
    commitment: bytes
    header: Header
    digest: bytes
    gpus: tuple[GpuEvidence, ...]
    qualifying_data: bytes
    quote: QuoteEvidence
    evidence: Evidence
    spot: SpotExpectation

    @property
    def next_prev(self) -> bytes:
        """What window 1 would name as ``prev``."""
        return link(self.digest, self.qualifying_data)


def make_manifest() -> Manifest:
    """The model: two files, of which one holds a tensor."""
    data = len(WEIGHTS) - 8
    header = Part.of(None, "", (), offset=0, size=data, shards=[sha256(WEIGHTS[:data])])
    tensor = Part.of("w", "F32", (2,), offset=data, size=8, shards=[sha256(WEIGHTS[data:])])
    config = Part.of(None, "", (), offset=0, size=len(CONFIG), shards=[sha256(CONFIG)])
    return Manifest.build(
        "tiny",
        [
            FileEntry.of("config.json", "plain", [config]),
            FileEntry.of("model.safetensors", "safetensors", [header, tensor]),
        ],
    )


def make_spot(manifest: Manifest) -> SpotExpectation:
    """The spot challenge that comes with challenge_0, about both halves of the tensor, and its answer."""
    data = len(WEIGHTS) - 8
    ranges = tuple(SpotRange("model.safetensors", offset, 4) for offset in (data + 4, data))
    asked = SpotChallenge(
        id=fixed("spot challenge", 16), manifest=manifest.digest, key=fixed("spot key"), ranges=ranges
    )
    return SpotExpectation(asked, asked.answer(WEIGHTS[part.offset :][: part.length] for part in ranges).mac)


def make_pool(manifest: Manifest) -> SpotPool:
    """The pool of that one challenge."""
    spot = make_spot(manifest)
    return SpotPool(manifest.digest, manifest.name, (PoolEntry(spot, ("w",) * len(spot.challenge.ranges)),))


def _log(events: Sequence[Event]) -> tuple[Record, ...]:
    return tuple(make_record(event, recnum=n, pcr=_LOG_PCR, algs=[_BANK]) for n, event in enumerate(events))


def _registers(records: Sequence[Record]) -> dict[int, bytes]:
    values = {number: fixed(f"PCR {number}") for number in _BOOT_PCRS}
    return {**values, _LOG_PCR: replay(bytes(32), records, _BANK, pcr=_LOG_PCR)}


def enrol() -> Enrolment:
    """The host proves itself to a verifier whose ledger is still empty."""
    manifest, session, root = make_manifest(), fixed("session", 16), merkle.EMPTY_ROOT
    records = _log([AttesterStart("0.1.0", fixed("start", 16)), ModelLoad(manifest.digest, manifest.name)])
    registers = _registers(records)
    opening = Opening(
        tenant=TENANT,
        audience=AUDIENCE,
        ak=AK_PUBLIC,
        parent=None,
        endorsement=EkEndorsement(public=_EK_PUBLIC, certificate=_ek_certificate(), intermediates=()),
        collateral=Collateral(),
        cnf=_CNF,
        peer=_PEER,
        kem=None,
        model=manifest.digest,
    )
    secret = fixed("credential")
    asked = EnrolmentChallenge(
        session=session,
        challenge=challenge(root, session, None, fixed("enrolment challenge")),
        credential=_credential(secret),
        bank=_BANK,
        pcrs=_PCRS,
        boot_pcrs=_BOOT_PCRS,
        log_pcr=_LOG_PCR,
        evidence=REQUIREMENTS.evidence,
    )
    qualifying_data = enrolment_qualifying_data(asked.challenge, _CNF, _PEER)
    policy = policy_pcr(PcrSelection.of(_BANK, _BOOT_PCRS), registers, algorithm=_BANK)
    template = telemetry_key_template(auth_policy=policy, unique=bytes(32))
    telemetry_key = template[: -len(sized(bytes(32)) + sized(b""))] + _point(_TELEMETRY_KEY)
    name = object_name(_BANK, telemetry_key)
    body = sized(name) + sized(qualified_name_of_primary(Hierarchy.NULL, name))
    attest, signature = _attest(AttestType.CERTIFY, body, qualifying_data=qualifying_data, clock=1_000)
    chain = gpu_chain()
    gpus = [GpuEvidence(gpu_report(gpu_nonce(qualifying_data), "enrolment"), chain)]
    proof = EnrolmentProof(
        session=session,
        secret=secret,
        telemetry_key=telemetry_key,
        certify_attest=attest,
        certify_signature=signature,
        quote=_quote([registers[n] for n in _PCRS], qualifying_data=qualifying_data, clock=1_010).encode(),
        gpus=encode(gpus),
        log=encode_records(records),
        manifests=encode_manifests([manifest]),
        boot=None,
    )
    ak = cose.thumbprint(_AK.public_key())
    terms = Terms(
        session=session,
        tenant=TENANT,
        audience=AUDIENCE,
        verifier=cose.thumbprint(VERIFIER_KEY.public_key()),
        ak=ak,
        telemetry_key=cose.thumbprint(_TELEMETRY_KEY.public_key()),
        cnf=_CNF,
        peer=_PEER,
        kem=None,
        model=manifest.digest,
        evidence=REQUIREMENTS.evidence,
        gpus=(gpus[0].claimed_identity,),
        bank=_BANK,
        pcrs=_PCRS,
        boot_pcrs=_BOOT_PCRS,
        log_pcr=_LOG_PCR,
        period_ns=REQUIREMENTS.period_ns,
        gpu_every=REQUIREMENTS.gpu_every,
        lateness_ns=REQUIREMENTS.lateness_ns,
        spot_every=REQUIREMENTS.spot_every,
        prev=genesis(ak),
        issued_ns=nanoseconds(ENROLLED),
    )
    return Enrolment(
        manifest=manifest,
        records=records,
        opening=opening,
        root=root,
        challenge=asked,
        secret=secret,
        telemetry_key=telemetry_key,
        qualifying_data=qualifying_data,
        proof=proof,
        terms=SignedTerms.sign(terms, signer(VERIFIER_KEY)),
    )


def seal_window(enrolment: Enrolment, root: bytes) -> Window:
    """Window 0, sealed under the challenge that the verifier issued when its ledger had the root ``root``."""
    terms = enrolment.terms.terms
    spot = make_spot(enrolment.manifest)
    start = nanoseconds(ENROLLED) + _SECOND_NS
    readings = {
        "power": (117_250, 402_000),
        "energy": (240_000_000_000, 240_000_130_000),
        "temperature": (34_000, 36_000),
    }
    source = Source(
        device=terms.gpus[0],
        name="emulated",
        start_wall_ns=start,
        period_ns=5 * _SECOND_NS,
        offsets=(0, 5 * _SECOND_NS),
        channels={
            **{name: Channel(UNITS[name], values, WINDOWS_NS.get(name)) for name, values in readings.items()},
            "memory_temperature": Channel(UNITS["memory_temperature"], None),
            "sm_clock": Channel(UNITS["sm_clock"], (None, 1_980)),
        },
        events=(SensorEvent(0, EventKind.FAULT, "sm_clock"),),
    )
    telemetry = Telemetry(session=terms.session, seq=0, sources=(source,))
    commitment = commit(fixed("salt"), b"request", b"response")
    work = WorkSummary(
        root=merkle.root([merkle.leaf_hash(commitment)]),
        requests=1,
        tokens_in=12,
        tokens_out=34,
        batch_max=1,
        prefill_ns=41_000_000,
        decode_ns=330_000_000,
    )
    header = Header(
        tenant=TENANT,
        session=terms.session,
        audience=audience_of(terms.verifier),
        terms=enrolment.terms.digest,
        seq=0,
        prev=terms.prev,
        challenge=challenge(root, terms.session, 0, fixed("challenge 0")),
        interval=Interval(
            tpm_start_ms=2_000, tpm_end_ms=12_000, wall_start_ns=start, wall_end_ns=start + 10 * _SECOND_NS
        ),
        telemetry=sha256(telemetry.encode()),
        work=work,
        log_length=len(enrolment.records),
        log_head=head(enrolment.records),
        model=terms.model,
        telemetry_key=terms.telemetry_key,
        cnf=terms.cnf,
        peer=terms.peer,
        kem=None,
        spot=SpotAnswer(spot.challenge.id, spot.mac),
        cc_state=CcState(environment=ENVIRONMENT_SIMULATION, feature="on", dev_tools=False, multi_gpu="none"),
    )
    raw = header.encode()
    gpus = (GpuEvidence(gpu_report(gpu_nonce(window_digest(raw)), "window 0"), gpu_chain()),)
    sealed, qualifying_data = seal(raw, gpus_binding(gpus), None)
    registers = _registers(enrolment.records)
    quote = _quote([registers[n] for n in _PCRS], qualifying_data=qualifying_data, clock=12_020)
    evidence = Evidence(
        window=cose.sign(raw, kid=terms.telemetry_key, typ=WINDOW_TYP, signer=signer(_TELEMETRY_KEY)),
        quote=quote.encode(),
        gpus=encode(gpus),
        telemetry=telemetry.encode(),
        log=encode_records([]),
        manifests=encode_manifests([]),
        runtime=None,
    )
    return Window(
        root=root,
        telemetry=telemetry,
        commitment=commitment,
        header=header,
        digest=sealed,
        gpus=gpus,
        qualifying_data=qualifying_data,
        quote=quote,
        evidence=evidence,
        spot=spot,
    )


def checkpoint(entries: Sequence[bytes]) -> bytes:
    """The signed note over a ledger of ``entries``."""
    text = tlog.Checkpoint(ORIGIN, len(entries), merkle.root([merkle.leaf_hash(entry) for entry in entries])).encode()
    return note.sign(text, key=NOTE_KEY, signer=LEDGER_KEY.sign)


def example_digest() -> bytes:
    """A D() of one part of each kind, for §2."""
    return D("window", b"\x01\x02", None, 3, ["x", [b""]])
