"""Every quote that was recorded, through `verify_quote` itself: file → outcome; and every recorded file has a test.

Nobody knew our challenges when these were made, and none is of 32 bytes: an authentic quote, by a key in an accepted
place, ends in ``TPM_NONCE``, the first step behind those two. That its values are the signed ones is compared beside.
Signatures that a tool stored bare are put back into the structure in which the TPM gave them.
"""

from __future__ import annotations

import base64
import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from eventlog_support import protobuf
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.proto.tee import hcl
from weighbridge.proto.tpm import attest as attests
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.attest import QuoteInfo
from weighbridge.proto.tpm.constants import HashAlgorithm, Scheme
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection, pcr_digest
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES, attestation_key_template
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import AttestationKey, pinned
from weighbridge.verifier.tpm.quote import verify_quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.proto.tpm.public import Public

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
_PCRS: Final = tuple(range(24))


class Recorded(NamedTuple):
    """A quote as a session would get it, and the key that is said to have made it."""

    ak: Public
    evidence: QuoteEvidence


# -- keys, where only the key itself was recorded: with the public area that its maker's source gives it ---------------


def rsa_area(key: rsa.RSAPublicKey) -> Public:
    head = u16(1) + u16(HashAlgorithm.SHA256) + u32(ATTESTATION_KEY_ATTRIBUTES) + sized(b"")
    scheme = u16(0x10) + u16(Scheme.RSASSA) + u16(HashAlgorithm.SHA256) + u16(2048) + u32(0)
    return public.parse(head + scheme + sized(key.public_numbers().n.to_bytes(256)))


def ecc_area(key: ec.EllipticCurvePublicKey) -> Public:
    numbers = key.public_numbers()
    return public.parse(attestation_key_template()[:-4] + sized(numbers.x.to_bytes(32)) + sized(numbers.y.to_bytes(32)))


def rsassa(value: bytes) -> bytes:
    """TPMT_SIGNATURE around a bare value."""
    return u16(Scheme.RSASSA) + u16(HashAlgorithm.SHA256) + sized(value)


def binary(value: object) -> bytes:
    """Bytes as some write them to JSON: a list of numbers, or hexadecimal."""
    return bytes.fromhex(value) if isinstance(value, str) else bytes(cast("list[int]", value))


# -- readers: each folder's own format ---------------------------------------------------------------------------------


def keylime(folder: Path) -> Recorded:
    ak = public.parse((folder / "ak.pub").read_bytes()[2:])
    quote = (folder / "quote.out").read_bytes()
    return Recorded(ak, QuoteEvidence(quote, (folder / "quotesig.out").read_bytes(), ()))


def google(index: int) -> Callable[[Path], Recorded]:
    """One of the three quotes, over the banks SHA-1, SHA-256 and SHA-384, of an attestation."""

    def read(path: Path) -> Recorded:
        fields = protobuf(path.read_bytes())
        ak = public.parse(cast("bytes", next(value for key, value in fields if key == 1)))
        quotes = [protobuf(cast("bytes", value)) for key, value in fields if key == 2]
        raw, signature, pcrs = (cast("bytes", value) for _, value in quotes[index])
        entries = [dict(protobuf(cast("bytes", value))) for key, value in protobuf(pcrs) if key == 2]
        values = {int(cast("int", entry.get(1, 0))): cast("bytes", entry[2]) for entry in entries}
        return Recorded(ak, QuoteEvidence(raw, signature, tuple(values[n] for n in sorted(values))))

    return read


def azure(path: Path) -> Recorded:
    """Evidence of a confidential machine: the key is the one that its paravisor's report names."""
    recorded = json.loads(path.read_text())
    report = recorded.get("hcl_report", recorded.get("report"))
    data = base64.urlsafe_b64decode(report + "==") if isinstance(report, str) else bytes(report)
    key = load_der_public_key(hcl.parse(data).ak_spki)
    assert isinstance(key, rsa.RSAPublicKey)
    quote = recorded.get("quote") or recorded["tpm_quote"]
    raw, signature, *values = (binary(item) for item in (quote["message"], quote["signature"], *quote["pcrs"]))
    return Recorded(rsa_area(key), QuoteEvidence(raw, rsassa(signature), tuple(values)))


def of_report(report: str) -> Callable[[Path], Recorded]:
    """A quote as a Rust program stored it, or as JSON, beside the report ``report`` that names its key."""

    def read(path: Path) -> Recorded:
        key = load_der_public_key(hcl.parse((path.parent / report).read_bytes()).ak_spki)
        assert isinstance(key, rsa.RSAPublicKey)
        if path.suffix == ".json":
            quote = json.loads(path.read_text())
            raw, signature = binary(quote["message"]), binary(quote["signature"])
            values = tuple(binary(item) for item in quote["pcrs"])
        else:
            signature, raw, values = bincode(path.read_bytes())
        return Recorded(rsa_area(key), QuoteEvidence(raw, rsassa(signature), values))

    return read


def of_key(path: Path) -> Recorded:
    """The same, beside its key alone."""
    key = load_pem_public_key((path.parent / "akpub.pem").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)
    signature, raw, values = bincode(path.read_bytes())
    return Recorded(rsa_area(key), QuoteEvidence(raw, rsassa(signature), values))


def bincode(data: bytes) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Signature, message and 24 values, each behind its length; a list behind its number."""
    parts: list[bytes] = []
    place = 0
    for _ in range(2):
        (size,) = struct.unpack_from("<Q", data, place)
        parts.append(data[place + 8 : place + 8 + size])
        place += 8 + size
    (count,) = struct.unpack_from("<Q", data, place)
    rest = data[place + 8 :]
    assert len(rest) == count * 32
    return parts[0], parts[1], tuple(rest[32 * n : 32 * n + 32] for n in range(count))


def trustee(path: Path) -> Recorded:
    recorded = json.loads(path.read_text())
    key = load_der_public_key(base64.b64decode(recorded["ak_public"]))
    assert isinstance(key, rsa.RSAPublicKey)
    quote = recorded["tpm_quote"]
    raw, signature = base64.b64decode(quote["message"]), base64.b64decode(quote["signature"])
    return Recorded(rsa_area(key), QuoteEvidence(raw, signature, tuple(bytes.fromhex(item) for item in quote["pcrs"])))


def veraison(path: Path) -> Recorded:
    anchors = json.loads((path.parent / "comid-parsec-tpm-ta.json").read_text())
    (key,) = anchors["triples"]["attester-verification-keys"][0]["verification-keys"]
    loaded = load_pem_public_key(key["value"].encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    quote = cbor2.loads(path.read_bytes())["pat"]
    return Recorded(ecc_area(loaded), QuoteEvidence(quote["attestInfo"], quote["sig"], ()))


def windows(path: Path) -> Recorded:
    recorded = json.loads(path.read_text())
    ak = public.parse(base64.b64decode(recorded["AK"]["Public"]))
    quote = recorded["Quote"] if isinstance(recorded["Quote"], dict) else recorded["Quote"][0]
    raw, signature = base64.b64decode(quote["Quote"]), base64.b64decode(quote["Signature"])
    return Recorded(ak, QuoteEvidence(raw, signature, ()))


def keylime_agent(path: Path) -> Recorded:
    """Its key was not recorded: any will do to find that the signature is not by it."""
    message, signature, *_ = path.read_text().strip()[1:].split(":")
    ak = ecc_area(ec.derive_private_key(7, ec.SECP256R1()).public_key())
    return Recorded(ak, QuoteEvidence(base64.b64decode(message), base64.b64decode(signature), ()))


# The reader, the code, and whether the values that came with it are the signed ones; ``None`` where none were recorded.
OUTCOMES: Final[dict[tuple[str, str], tuple[Callable[[Path], Recorded], Code, bool | None]]] = {
    # tpm2-tools on a software TPM: an AK below the EK, which is neither of the accepted places.
    ("keylime/files", ""): (keylime, Code.AK_ATTRIBUTES, None),
    # Nonces of no byte, and of two.
    **{
        (f"go-tpm-tools/attestations/{name}.pb", bank): (google(index), Code.TPM_NONCE, True)
        for name in ("gce-cos-85-no-nonce", "gce-cos-85-nonce9009")
        for index, bank in enumerate(("sha1", "sha256", "sha384"))
    },
    **{
        (f"trustee/az-snp-vtpm/evidence-{name}.json", ""): (azure, Code.TPM_NONCE, True)
        for name in ("genoa", "v0", "v1", "v2")
    },
    **{(f"trustee/az-tdx-vtpm/evidence-{name}.json", ""): (azure, Code.TPM_NONCE, True) for name in ("v0", "v1")},
    ("trustee/az-snp-vtpm/quote.bin", ""): (of_report("hcl-report.bin"), Code.TPM_NONCE, True),
    ("trustee/az-tdx-vtpm/quote.bin", ""): (of_report("hcl-report.bin"), Code.TPM_NONCE, True),
    ("trustee/az-snp-vtpm/tpm-quote-v1.json", ""): (of_report("hcl-report.bin"), Code.TPM_NONCE, True),
    ("trustee/az-tdx-vtpm/tpm-quote-v1.json", ""): (of_report("hcl-report.bin"), Code.TPM_NONCE, True),
    ("azure-cvm-tooling/quote.bin", ""): (of_key, Code.TPM_NONCE, True),
    ("trustee/tpm_evidence.json", ""): (trustee, Code.AK_ATTRIBUTES, True),
    ("veraison/evidence.cbor", ""): (veraison, Code.AK_ATTRIBUTES, None),
    # SHA-1 signatures are not accepted, whatever they sign.
    ("go-attestation/windows_gcp_shielded_vm.json", ""): (windows, Code.TPM_ALGORITHM, None),
    ("rust-keylime/test-quote.txt", ""): (keylime_agent, Code.TPM_ALGORITHM, None),
}


@pytest.fixture(scope="module")
def tpm_dir(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


def judge(recorded: Recorded) -> None:
    """Require the quote, with its key pinned, over all registers of the bank that it is over."""
    ak = recorded.ak
    anchor = Anchor(
        purpose="attestation-key",
        name="recorded",
        platform="tpm",
        spki=ak.spki(),
        not_before=AT,
        not_after=AT,
        source="recorded",
    )
    believed = pinned(AttestationKey(ak), TrustAnchors((anchor,)), at=AT)
    selection = PcrSelection.of(HashAlgorithm.SHA256, _PCRS)
    verify_quote(recorded.evidence, believed, qualifying_data=bytes(32), selection=selection)


@pytest.mark.parametrize(("name", "part"), OUTCOMES, ids=lambda item: item or "whole")
def test_recorded_quotes(tpm_dir: Path, name: str, part: str) -> None:
    read, code, fits = OUTCOMES[name, part]
    with pytest.raises(WeighbridgeError) as caught:
        judge(read(tpm_dir / name))
    assert caught.value.code is code
    if fits is not None:
        recorded = read(tpm_dir / name)
        info = attests.parse(recorded.evidence.attest).attested
        assert isinstance(info, QuoteInfo)
        values = recorded.evidence.pcr_values
        assert (pcr_digest(recorded.ak.signing_algorithm().hash, values) == info.digest) is fits


# -- every file --------------------------------------------------------------------------------------------------------

# Which test appraises which files; the tables of outcomes are in them.
_HERE: Final = "unit/verifier/tpm/test_recorded_quotes.py"
_CERTIFICATES: Final = "unit/verifier/tpm/test_vendor_certificates.py"
_AZURE: Final = "unit/verifier/tee/test_recorded_azure.py"
_BOOTS: Final = "unit/verifier/boot/test_real_boots.py"
_LOGS: Final = "unit/proto/eventlog/test_real_logs.py"
APPRAISED: Final = {
    "azure-cvm-tooling/hcl-report-*.bin": _AZURE,
    "azure-cvm-tooling/certs.pem": _CERTIFICATES,
    "azure-cvm-tooling/quote.bin": _HERE,
    "azure-cvm-tooling/akpub.pem": _HERE,
    "go-attestation/*.cer": _CERTIFICATES,
    "go-attestation/*eventlog": _BOOTS,
    "go-attestation/windows_gcp_shielded_vm.json": _HERE,
    "go-tpm-tools/attestations/*.pb": _HERE,
    "go-tpm-tools/ca-certs/*": _CERTIFICATES,
    "go-tpm-tools/cel/cel.b64": _LOGS,
    "go-tpm-tools/certificates/*": _CERTIFICATES,
    "go-tpm-tools/eventlogs/*": _BOOTS,
    "keylime/files/*": _HERE,
    "keylime/mb/*": _BOOTS,
    "keylime/mb_log.b64": _LOGS,
    "keylime/real-ek-certs/*": _CERTIFICATES,
    "keylime/tpm_cert_store/*": _CERTIFICATES,
    "rust-keylime/ascii_runtime_measurements": _LOGS,
    "rust-keylime/ima_log.txt": _HERE,
    "rust-keylime/test-quote.txt": _HERE,
    "rust-keylime/uefi_log.bin": _BOOTS,
    "tpm-ca-certificates/*.crt": _CERTIFICATES,
    "tpm-ca-certificates/*.pem": _CERTIFICATES,
    "trustee/amd/*": _AZURE,
    "trustee/az-snp-vtpm/evidence-*.json": _AZURE,
    "trustee/az-snp-vtpm/hcl-report.bin": _AZURE,
    "trustee/az-snp-vtpm/vcek*.pem": _AZURE,
    "trustee/az-snp-vtpm/*quote*": _HERE,
    "trustee/az-tdx-vtpm/evidence-*.json": _AZURE,
    "trustee/az-tdx-vtpm/hcl-report.bin": _AZURE,
    "trustee/az-tdx-vtpm/td-quote.bin": "unit/verifier/tee/test_tdx_real.py",
    "trustee/az-tdx-vtpm/tpm-quote-v1.json": _HERE,
    "trustee/az-tdx-vtpm/quote.bin": _HERE,
    "trustee/tpm_evidence.json": _HERE,
    "veraison/evidence.cbor": _HERE,
    "veraison/comid-parsec-tpm-ta.json": _HERE,
}
# Not evidence of a TPM.
BESIDE: Final = {
    "azure-cvm-tooling/var-data.bin": "the claims of a report, also inside it",
    "tpm-ca-certificates/LICENSE": "a licence",
    "tpm-ca-certificates/tpm-roots.yaml": "where the roots are published",
    "veraison/basic.pem.pub": "of another format",
    "veraison/basic.token": "of another format",
    "veraison/evidence.diag": "the evidence as text",
}


def test_every_recorded_file_is_appraised_somewhere(tpm_dir: Path) -> None:
    tests = Path(__file__).resolve().parents[3]
    found = {path.relative_to(tpm_dir) for path in tpm_dir.rglob("*") if path.is_file()}
    for path in found:
        matching = [pattern for pattern in APPRAISED if path.match(pattern)]
        assert bool(matching) != (path.as_posix() in BESIDE), path
    for pattern, test in APPRAISED.items():
        assert any(path.match(pattern) for path in found), pattern
        assert (tests / test).is_file(), test


def test_message_and_signature_apart(tpm_dir: Path) -> None:
    """Two files of one quote, whose key was not recorded: it is not the one of the report beside it."""
    folder = tpm_dir / "trustee" / "az-snp-vtpm"
    key = load_der_public_key(hcl.parse((folder / "hcl-report.bin").read_bytes()).ak_spki)
    assert isinstance(key, rsa.RSAPublicKey)
    raw, signature = (folder / "tpm-quote.msg").read_bytes(), (folder / "tpm-quote.sig").read_bytes()
    assert isinstance(attests.parse(raw).attested, QuoteInfo)
    with pytest.raises(WeighbridgeError) as caught:
        judge(Recorded(rsa_area(key), QuoteEvidence(raw, rsassa(signature), ())))
    assert caught.value.code is Code.TPM_SIGNATURE


def test_a_list_of_one_entry(tpm_dir: Path) -> None:
    """IMA's list as text; what is read is the kernel's binary one."""
    pcr, _, template, digest, name = (tpm_dir / "rust-keylime" / "ima_log.txt").read_text().split()
    assert (pcr, template, name) == ("10", "ima-ng", "boot_aggregate")
    assert digest.startswith("sha256:")
