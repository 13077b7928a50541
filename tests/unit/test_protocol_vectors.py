"""docs/protocol.md says what the code does: every vector in it is made anew, decoded, and judged by the product."""

from __future__ import annotations

import ast
import hmac
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import protocol_example as example
import protocol_judgement as judgement
import protocol_owners as owners
import protocol_vectors as document
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fakes.soft_tpm import SoftTpm
from weighbridge.attester.weights import measure
from weighbridge.policy import policy_set
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import binding, cbor, cose, measurement_log, merkle, note, receipt, strict, tlog
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.manifest import Manifest, encode_manifests, parse_manifests
from weighbridge.proto.measurement_log import encode_records, parse_record, parse_records
from weighbridge.proto.policy_bundle import PolicyBundle
from weighbridge.proto.reference_set import ReferenceSet
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spot import SpotAnswer, SpotChallenge, SpotPool
from weighbridge.proto.statement import Statement
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.terms import TERMS_TYP, SignedTerms, Terms
from weighbridge.proto.tpm import attest as tpm_attest
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.v1 import attestation_pb2
from weighbridge.proto.window import WINDOW_TYP, Evidence, Header, seal
from weighbridge.proto.workload import WorkSummary, commit
from weighbridge.verifier import bundle as bundles
from weighbridge.verifier import policy_bundle, reference_set, result_token
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.bundle import Bundle
from weighbridge.verifier.record import Leaf, Record
from weighbridge.verifier.requirements import Requirements

TEXT: Final = document.DOCUMENT.read_text(encoding="utf-8")
VECTORS: Final = document.read_vectors(TEXT)
_LIMIT: Final = 1 << 16


def test_document_and_schema_are_what_the_code_writes() -> None:
    """If this fails, something changed bytes or lists that the document fixes: see its §13, then run the script."""
    filled = document.fill(TEXT, document.parts())
    assert filled == TEXT, "docs/protocol.md is stale: run scripts/protocol_vectors.py and read the difference"
    assert document.CDDL.read_text(encoding="utf-8") == document.cddl_of(TEXT)


def test_filling_in_refuses_what_is_missing_repeated_or_unknown() -> None:
    part = "<!-- begin vector:x -->\n<!-- end vector:x -->\n"
    assert document.fill(part, {"vector:x": "new\n"}) == part.replace("\n", "\nnew\n", 1)
    for text, made in ((part, {}), (part * 2, {"vector:x": ""}), ("", {"vector:x": ""})):
        with pytest.raises(ValueError, match="part"):
            document.fill(text, made)


def test_every_section_that_the_code_names_is_there(root: Path) -> None:
    headings = set(re.findall(r"^##+ ([0-9]+)(?:\.[0-9]+)?\.? ", TEXT, re.MULTILINE))
    named: set[str] = set()
    for part in ("attester", "verifier", "policy", "proto"):
        for path in (root / part).rglob("*.py"):
            for match in re.findall(r"protocol\.md`{0,2} (§[0-9]+(?:(?:,| and| to) §[0-9]+)*)", path.read_text()):
                named.update(re.findall(r"[0-9]+", match))
    assert named
    assert named <= headings


# -- each vector, as a reader of the document finds it, through the product's parser and back --------------------------


def _cose(data: bytes, typ: str) -> bytes:
    return cose.parse(data, typ=typ, limit=_LIMIT, what="vector").raw


ROUND_TRIPS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "opening": lambda data: Opening.parse(data).encode(),
    "enrolment-challenge": lambda data: EnrolmentChallenge.parse(data).encode(),
    "telemetry-key": lambda data: tpm_public.parse(data).raw,
    "enrolment-proof": lambda data: EnrolmentProof.parse(data).encode(),
    "terms": lambda data: Terms.parse(data).encode(),
    "signed-terms": lambda data: SignedTerms.open(data, example.VERIFIER_KEY.public_key()).raw,
    "requirements": lambda data: Requirements.parse(data).encode(),
    "header": lambda data: Header.parse(data).encode(),
    "signed-header": lambda data: _cose(data, WINDOW_TYP),
    "evidence": lambda data: Evidence.parse(data).encode(),
    "quote": lambda data: QuoteEvidence.parse(data).encode(),
    "gpus": lambda data: gpu_evidence.encode(gpu_evidence.parse(data)),
    "telemetry": lambda data: Telemetry.parse(data).encode(),
    "log": lambda data: encode_records(parse_records(data)),
    "manifest-json": lambda data: Manifest.from_json(data).to_json(),
    "work": lambda data: cbor.encode(
        WorkSummary.from_cbor(cbor.decode(data, limit=_LIMIT, what="work"), where="work").to_cbor()
    ),
    "spot": lambda data: SpotChallenge.parse(data).encode(),
    "spot-pool": lambda data: SpotPool.from_json(data).to_json(),
    "record": lambda data: Record.parse(data).encode(),
    "leaf": lambda data: Leaf.parse(data).encode(),
    "verdict": lambda data: strict.json_encode(strict.json_decode(data, what="verdict")),
    "tiles": lambda data: tlog.encode_bundle(tlog.parse_bundle(data, width=2)),
    "checkpoint": lambda data: note.parse(data).raw,
    "ledger-proof": lambda data: tlog.parse_proof(data).encode(),
    "ledger-receipt": lambda data: receipt.parse(data).raw,
    "reference": lambda data: Reference.parse(data).to_json(),
    "reference-set": lambda data: ReferenceSet.parse(data).encode(),
    "policy-bundle": lambda data: PolicyBundle.parse(data).encode(),
    "bundle": lambda data: Bundle.parse(data).encode(),
    "envelope": lambda data: attestation_pb2.AttestRequest.FromString(data).SerializeToString(deterministic=True),
}
# Their first item is no structure of its own, or one that nobody encodes again; the tests below take them apart.
TAKEN_APART: Final = {"digest", "challenge", "links", "manifest", "token", "policy"}


def test_every_vector_is_looked_at() -> None:
    assert ROUND_TRIPS.keys() | TAKEN_APART == VECTORS.keys()


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_vector_decodes_and_encodes_to_the_same_bytes(name: str) -> None:
    data = VECTORS[name].first
    assert ROUND_TRIPS[name](data) == data


# JSON may end in white space; protobuf skips unknown fields; an offline proof's note is parsed when it is verified.
LOOSE_ENDS: Final = {"envelope", "ledger-proof", "manifest-json", "verdict"}


@pytest.mark.parametrize("name", sorted(ROUND_TRIPS.keys() - LOOSE_ENDS))
def test_vector_with_a_byte_more_or_less_is_refused(name: str) -> None:
    data = VECTORS[name].first
    for changed in (data[:-1], data + b"\0"):
        with pytest.raises(WeighbridgeError):
            ROUND_TRIPS[name](changed)


def test_digest() -> None:
    vector = VECTORS["digest"]
    assert cbor.decode(vector["encoding"], limit=64, what="vector") == [
        "weighbridge/v1/window",
        b"\x01\x02",
        None,
        3,
        ["x", [b""]],
    ]
    assert sha256(vector["encoding"]) == vector.items[1].data == example.example_digest()


def test_challenges() -> None:
    vector = VECTORS["challenge"]
    session = vector["session"]
    first = binding.challenge(vector["ledger_root"], session, None, vector["random"])
    assert first == vector["enrolment challenge"]
    second = binding.challenge(vector["ledger_root at window 0"], session, 0, vector["random at window 0"])
    assert second == vector["challenge_0"] == Header.parse(VECTORS["header"].first).challenge
    assert vector["ledger_root"] == merkle.EMPTY_ROOT


def test_links() -> None:
    vector, header = VECTORS["links"], VECTORS["header"].first
    gpus = gpu_evidence.parse(VECTORS["gpus"].first)
    assert vector["H_0"] == VECTORS["header"].items[1].data == binding.window_digest(header)
    assert vector["gpu nonce of window 0"] == binding.gpu_nonce(vector["H_0"]) == spdm.parse(gpus[0].report).nonce
    assert vector["G_0"] == gpu_evidence.gpus_binding(gpus) == sha256(vector["encoding under G_0"])
    assert vector["G of a window without GPU reports"] == gpu_evidence.gpus_binding(None)
    assert seal(header, vector["G_0"], None) == (vector["H_0"], vector["qualifyingData_0"])
    quote = tpm_attest.parse(QuoteEvidence.parse(VECTORS["quote"].first).attest)
    assert quote.extra_data == vector["qualifyingData_0"]
    assert vector["prev of window 1"] == binding.link(vector["H_0"], vector["qualifyingData_0"])
    assert vector["genesis"] == binding.genesis(vector["ak"]) == Header.parse(header).prev
    challenge = VECTORS["challenge"]["enrolment challenge"]
    expected = binding.enrolment_qualifying_data(challenge, vector["cnf"], vector["peer"])
    assert vector["qualifyingData of the enrolment"] == expected


def test_parts_of_the_evidence_are_the_vectors_of_their_own() -> None:
    evidence = Evidence.parse(VECTORS["evidence"].first)
    assert evidence.window == VECTORS["signed-header"].first
    assert evidence.quote == VECTORS["quote"].first
    assert evidence.gpus == VECTORS["gpus"].first
    assert evidence.telemetry == VECTORS["telemetry"].first
    assert evidence.signed_header().payload == VECTORS["header"].first
    assert (
        sha256(evidence.telemetry) == VECTORS["telemetry"]["SHA-256"] == Header.parse(VECTORS["header"].first).telemetry
    )
    assert Telemetry.parse(evidence.telemetry).content() == VECTORS["telemetry"]["content"]


def test_gpu_vector() -> None:
    vector = VECTORS["gpus"]
    (gpu,) = gpu_evidence.parse(vector.first)
    assert gpu.claimed_identity == vector["identity"]
    assert sha256(gpu.report) == vector["SHA-256 of the report"]
    assert gpu.chain_digest == vector["SHA-256 of the chain"]
    assert Terms.parse(VECTORS["terms"].first).gpus == (vector["identity"],)


def test_terms_vector() -> None:
    signed = SignedTerms.open(VECTORS["signed-terms"].first, example.VERIFIER_KEY.public_key())
    assert signed.digest == VECTORS["terms"]["terms digest"] == Header.parse(VECTORS["header"].first).terms
    message = cose.parse(signed.raw, typ=TERMS_TYP, limit=_LIMIT, what="terms")
    assert message.payload == VECTORS["terms"].first
    assert cose.to_be_signed(message.protected, message.payload) == VECTORS["signed-terms"]["Sig_structure"]
    key = cose.load_p256(VECTORS["signed-terms"]["verifier's SubjectPublicKeyInfo"], what="vector")
    assert cose.thumbprint(key) == message.claimed_kid == signed.terms.verifier


def test_log_vector() -> None:
    vector = VECTORS["log"]
    records = parse_records(vector.first)
    assert [vector["record 0"], vector["record 1"]] == [record.raw for record in records]
    assert parse_record(vector["record 1"]) == records[1]
    assert measurement_log.head([]) == vector["head after 0 records"]
    assert (
        measurement_log.head(records)
        == vector["head after 2 records"]
        == Header.parse(VECTORS["header"].first).log_head
    )
    register = measurement_log.replay(bytes(32), records, HashAlgorithm.SHA256, pcr=15)
    assert register == vector["PCR 15, SHA-256 bank, after 2 records"]
    assert register == QuoteEvidence.parse(VECTORS["quote"].first).pcr_values[-1]


def test_manifest_vector_is_what_measuring_its_files_gives(tmp_path: Path) -> None:
    vector = VECTORS["manifest"]
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(vector[name])
    measured = measure(folder)
    assert measured.raw == vector["manifest"]
    assert measured.digest == vector.items[5].data == D("manifest", vector["manifest"])
    assert measured.files[1].table == vector.items[2].data
    assert measured.files[1].digest == vector.items[3].data == D("parts", vector.items[2].data)
    assert Manifest.from_json(VECTORS["manifest-json"].first) == measured
    assert encode_manifests(parse_manifests(vector["manifests"])) == vector["manifests"] == encode_manifests([measured])


def test_work_vector() -> None:
    vector = VECTORS["work"]
    commitment = commit(vector["salt"], vector["request"], vector["response"])
    assert commitment == vector["commitment"]
    assert merkle.leaf_hash(commitment) == vector["leaf hash"]
    assert Header.parse(VECTORS["header"].first).work.root == merkle.root([vector["leaf hash"]])
    assert WorkSummary.empty().root == vector["root of a window without requests"]


def test_spot_vector() -> None:
    vector, weights = VECTORS["spot"], VECTORS["manifest"]["model.safetensors"]
    asked = SpotChallenge.parse(vector.first)
    pieces = [weights[part.offset : part.offset + part.length] for part in asked.ranges]
    assert pieces == [vector["first range"], vector["second range"]]
    mac = hmac.digest(asked.key, vector["encoding before the ranges"] + b"".join(pieces), "sha256")
    assert SpotAnswer(asked.id, mac) == asked.answer(pieces) == SpotAnswer(asked.id, vector["mac"])
    assert Header.parse(VECTORS["header"].first).spot == asked.answer(pieces)
    recorded = Record.parse(VECTORS["record"].first).spot
    assert recorded is not None
    assert (recorded.challenge, recorded.mac) == (asked, mac)
    (entry,) = SpotPool.from_json(VECTORS["spot-pool"].first).entries
    assert entry.expectation == recorded


def test_credential_opens_in_a_tpm_that_holds_both_keys() -> None:
    """The secret comes back out of the vector's credential, by an implementation of the TPM's side."""
    challenge = EnrolmentChallenge.parse(VECTORS["enrolment-challenge"].first)
    assert challenge.credential is not None
    tpm = SoftTpm("unused")
    tpm.ek_key = example.fixed_key("endorsement key", ec.SECP384R1())
    tpm.ak_key = example.fixed_key("attestation key")
    secret = tpm.activate_credential(*challenge.credential)
    assert secret == VECTORS["enrolment-challenge"]["secret in the credential"]
    assert secret == EnrolmentProof.parse(VECTORS["enrolment-proof"].first).secret


def test_ledger_vectors_are_one_tree() -> None:
    entries = tlog.parse_bundle(VECTORS["tiles"].first, width=2)
    hashes = tlog.parse_tile(VECTORS["tiles"]["tile/0/000.p/2"], width=2)
    assert [merkle.leaf_hash(entry) for entry in entries] == list(hashes)
    assert entries[1] == VECTORS["leaf"].first
    assert Leaf.parse(entries[1]).record == sha256(VECTORS["record"].first) == VECTORS["record"]["SHA-256"]
    key = note.parse_vkey(VECTORS["checkpoint"]["verifier key"].decode().strip())
    assert key.key_id == VECTORS["checkpoint"]["key id"]
    signed = tlog.open_checkpoint(VECTORS["checkpoint"].first, key, origin=example.ORIGIN)
    assert (signed.size, signed.root) == (2, VECTORS["tiles"]["root"]) == (2, merkle.root(hashes))
    proof = tlog.parse_proof(VECTORS["ledger-proof"].first)
    entry = tlog.verify_entry(proof, VECTORS["leaf"]["leaf hash"], key, origin=example.ORIGIN)
    assert entry.index == 1


def test_receipts_are_of_the_same_tree() -> None:
    vector, hashes = VECTORS["ledger-receipt"], tlog.parse_tile(VECTORS["tiles"]["tile/0/000.p/2"], width=2)
    included = receipt.verify_inclusion(
        receipt.parse(vector["of entry 1"]), hashes[1], example.NOTE_KEY, origin=example.ORIGIN
    )
    entries = tlog.parse_bundle(VECTORS["tiles"].first, width=2)
    first = tlog.open_checkpoint(example.checkpoint(entries[:1]), example.NOTE_KEY, origin=example.ORIGIN)
    grown = receipt.verify_consistency(receipt.parse(vector["of growth from 1 to 2"]), first, origin=example.ORIGIN)
    assert (included.index, included.size, grown.size) == (1, 2, 2)
    assert included.root == grown.root == VECTORS["tiles"]["root"]


def test_token_vector() -> None:
    vector = VECTORS["token"]
    key = example.VERIFIER_KEY.public_key()
    token = vector["token"].decode()
    at = example.RECEIVED
    result = result_token.verify(token, key, audience=example.AUDIENCE, at=at)
    assert result.ledger_leaf == VECTORS["leaf"]["leaf hash"]
    assert result.payload == strict.json_decode(vector["payload"], what="payload")
    # §8: one and a half periods of 10 s and 2 s, rounded down to whole seconds.
    assert (result.expires - at).total_seconds() == 16.5
    header, payload, _ = token.split(".")
    assert strict.base64url_decode(header, what="header") == vector["header"]
    assert strict.base64url_decode(payload, what="payload") == vector["payload"]


def test_policy_and_reference_vectors() -> None:
    text = VECTORS["policy"]["example.rego"]
    assert D("policy", [["example.rego", text]]) == VECTORS["policy"]["digest"]
    assert Reference.parse(VECTORS["reference"].first).digest == VECTORS["reference"]["digest"]
    record = Record.parse(VECTORS["record"].first)
    assert (record.policy, record.reference) == (VECTORS["policy"]["digest"], VECTORS["reference"]["digest"])


def test_reference_set_vector_is_verified_with_its_anchors() -> None:
    vector = VECTORS["reference-set"]
    values = reference_set.verify(vector["signed reference set"], anchors=owners.ANCHORS).values
    reference = Reference({}, {}, {}).with_sets([values])
    assert reference.to_json() == vector["values in force"]
    assert reference.digest == Reference.recorded(vector["values in force"]).digest == vector["digest of the values"]
    assert Statement.parse(vector["statement"]).digest.hex() == values.models[0].statements[0].digest
    for place in range(0, len(vector["signed reference set"]), 41):
        data = bytearray(vector["signed reference set"])
        data[place] ^= 1
        with pytest.raises((MalformedEvidence, NotAuthentic)):
            reference_set.verify(bytes(data), anchors=owners.ANCHORS)


def test_policy_bundle_vector_is_verified_with_its_anchors() -> None:
    vector = VECTORS["policy-bundle"]
    verified = policy_bundle.verify(vector["signed policy bundle"], anchors=owners.ANCHORS)
    assert verified.digest == vector["SHA-256"]
    assert (verified.content.files, verified.content.tenant) == (judgement.MODULES, "example-tenant")
    for place in range(0, len(vector["signed policy bundle"]), 17):
        data = bytearray(vector["signed policy bundle"])
        data[place] ^= 1
        with pytest.raises((MalformedEvidence, NotAuthentic)):
            policy_bundle.verify(bytes(data), anchors=owners.ANCHORS)


def test_envelope_vectors() -> None:
    request = attestation_pb2.AttestRequest.FromString(VECTORS["envelope"].first)
    assert request.WhichOneof("request") == "resume"
    assert request.resume.session == VECTORS["challenge"]["session"]
    answer = attestation_pb2.AttestResponse.FromString(VECTORS["envelope"].items[1].data)
    assert (answer.resumed.next_seq, answer.resumed.challenge) == (1, VECTORS["challenge"]["challenge_0"])


# -- the session of the vectors, judged by the product -----------------------------------------------------------------


def test_bundle_vector_is_admitted_with_its_anchors() -> None:
    """Steps 2 to 7 of §9 on the bytes in the document: the recorded verdict comes out again, byte for byte."""
    bundle = Bundle.parse(VECTORS["bundle"].first)
    made = judgement.appraiser_of(example.enrol())
    result = bundles.verify(bundle, anchors=example.ANCHORS, appraiser=lambda *_: made)
    assert result.admitted
    assert result.same_policy
    assert [verdict.encode() for verdict in result.verdicts] == [VECTORS["verdict"].first]
    assert bundle.entries[1].evidence == VECTORS["evidence"].first


@pytest.mark.parametrize("name", ["production", "insecure_development"])
def test_bundle_vector_under_the_shipped_policies(name: policy_set.Shipped) -> None:
    """Emulated, so production denies; the other policy has no reference measurements for its GPU, so it denies too."""
    bundle = Bundle.parse(VECTORS["bundle"].first)
    reference = Reference.parse(*bundle.references)
    manifests = {item.digest: item for item in map(Manifest.unpack, bundle.manifests)}
    with RegorusEngine().load(policy_set.shipped(name, reference=reference)) as prepared:
        made = Appraiser(prepared, reference, manifests)
        result = bundles.verify(bundle, anchors=example.ANCHORS, appraiser=lambda *_: made)
    codes = {denial.code for denial in result.verdicts[0].denials}
    assert not result.admitted
    assert ("PLATFORM_EMULATED" in codes) == (name == "production")
    assert "GPU_REFERENCE_ABSENT" in codes


def _flipped(bundle: Bundle) -> Iterator[Bundle]:
    enrolment, window = bundle.entries
    for at in range(0, len(window.evidence or b""), 97):
        data = bytearray(window.evidence or b"")
        data[at] ^= 1
        yield replace(bundle, entries=(enrolment, replace(window, evidence=bytes(data))))


def test_bundle_vector_with_a_flipped_bit_is_refused() -> None:
    bundle = Bundle.parse(VECTORS["bundle"].first)
    made = judgement.appraiser_of(example.enrol())
    for changed in _flipped(bundle):
        with pytest.raises(WeighbridgeError):
            bundles.verify(changed, anchors=example.ANCHORS, appraiser=lambda *_: made)


# -- the schema, by somebody else's validator --------------------------------------------------------------------------

RULES: Final[dict[str, tuple[str, int]]] = {
    "opening": ("opening", 0),
    "enrolment-challenge": ("enrolment-challenge", 0),
    "enrolment-proof": ("enrolment-proof", 0),
    "terms": ("terms", 0),
    "signed-terms": ("signed-terms", 0),
    "sig-structure": ("signed-terms", 1),
    "header": ("header", 0),
    "signed-header": ("signed-header", 0),
    "evidence": ("evidence", 0),
    "quote": ("quote", 0),
    "gpus": ("gpus", 0),
    "telemetry": ("telemetry", 0),
    "telemetry-content": ("telemetry", 1),
    "log": ("log", 0),
    "log-record": ("log", 2),
    "parts": ("manifest", 2),
    "manifest": ("manifest", 4),
    "manifests": ("manifest", 6),
    "work": ("work", 0),
    "spot-challenge": ("spot", 0),
    "record": ("record", 0),
    "leaf": ("leaf", 0),
    "ledger-receipt": ("ledger-receipt", 0),
    "bundle": ("bundle", 0),
    "bundle-content": ("bundle", 1),
    "reference-set": ("reference-set", 0),
    "signed-reference-set": ("reference-set", 1),
    "policy-bundle": ("policy-bundle", 0),
    "signed-policy-bundle": ("policy-bundle", 1),
}
JSON_RULES: Final[dict[str, tuple[str, int]]] = {
    "requirements": ("requirements", 0),
    "manifest-json": ("manifest-json", 0),
    "verdict": ("verdict", 0),
    "spot-pool": ("spot-pool", 0),
    "reference": ("reference", 0),
    "reference-values": ("reference-set", 3),
    "result-token": ("token", 2),
}


@pytest.fixture(scope="module")
def validate(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], bool]:
    """Whether cddl-verifier finds that CBOR bytes match a rule of docs/weighbridge.cddl, deterministically encoded."""
    command = root / ".peers" / "cddl" / "bin" / "cddl-verify"
    if not command.exists():
        pytest.skip("no cddl-verifier: run scripts/setup --peers")
    folder = tmp_path_factory.mktemp("cddl")

    def run(rule: str, data: bytes) -> bool:
        path = folder / "item.cbor"
        path.write_bytes(data)
        options = ["--require-deterministic", "--no-annotate", "-t", rule, "-o", str(folder / "item.edn")]
        done = subprocess.run(
            [str(command), *options, str(document.CDDL), str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if "VALIDATION FAILED" not in done.stdout + done.stderr and done.returncode != 0:
            pytest.fail(f"{rule}: {done.stdout}{done.stderr}")
        return done.returncode == 0

    return run


@pytest.mark.peer
@pytest.mark.parametrize("rule", [*RULES, *JSON_RULES])
def test_vector_matches_its_cddl(rule: str, validate: Callable[[str, bytes], bool]) -> None:
    name, item = {**RULES, **JSON_RULES}[rule]
    data = VECTORS[name].items[item].data
    if rule in JSON_RULES:
        data = cbor.encode(strict.json_decode(data, what=rule))
    assert validate(rule, data)


@pytest.mark.peer
def test_cddl_refuses_what_the_parser_refuses(validate: Callable[[str, bytes], bool]) -> None:
    """The schema is not so wide that it would say nothing: each field gone, and each of another type."""
    fields = cast("dict[int | str, cbor.CborValue]", cbor.decode(VECTORS["header"].first, limit=_LIMIT, what="header"))
    for key in (10, 265, -70101, -70105, -70108, -70112, -70113, -70114):
        for changed in ({k: v for k, v in fields.items() if k != key}, {**fields, key: True}):
            data = cbor.encode(changed)
            with pytest.raises(MalformedEvidence):
                Header.parse(data)
            assert not validate("header", data)


# -- COSE, by somebody else's implementation ---------------------------------------------------------------------------

_CWT: Final = """
import sys
from cwt import COSE, COSEKey
verb, pem, kid, data, typ = sys.argv[1], sys.argv[2], *map(bytes.fromhex, sys.argv[3:5]), sys.argv[5]
key = COSEKey.from_pem(open(pem).read(), alg="ES256", kid=kid)
if verb == "verify":
    print(COSE.new().decode(data, key).hex())
else:
    print(COSE.new().encode_and_sign(data, key, protected={1: -7, 4: kid, 16: typ}, unprotected={}).hex())
"""


@pytest.fixture(scope="module")
def cwt(root: Path) -> Callable[..., bytes]:
    """Verifies or signs with the oracle: verb, key file, data and type; returns the payload or the message."""
    python = root / ".peers" / "cwt" / "bin" / "python"
    if not python.exists():
        pytest.skip("no cwt: run scripts/setup --peers")

    kid = cose.thumbprint(example.VERIFIER_KEY.public_key()).hex()

    def run(verb: str, key: Path, data: bytes) -> bytes:
        command = [str(python), "-I", "-c", _CWT, verb, str(key), kid, data.hex(), TERMS_TYP]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return bytes.fromhex(done.stdout)

    return run


@pytest.mark.peer
def test_cwt_verifies_our_cose_sign1(cwt: Callable[..., bytes], tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(example.VERIFIER_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert cwt("verify", key, VECTORS["signed-terms"].first) == VECTORS["terms"].first


@pytest.mark.peer
def test_we_verify_the_cose_sign1_of_cwt(cwt: Callable[..., bytes], tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(example.VERIFIER_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signed = cwt("sign", key, VECTORS["terms"].first)
    terms = SignedTerms.open(signed, example.VERIFIER_KEY.public_key())
    assert terms.digest == VECTORS["terms"]["terms digest"]
    # All but the random signature is byte for byte ours.
    assert signed[:-64] == VECTORS["signed-terms"].first[:-64]


# -- the tables --------------------------------------------------------------------------------------------------------


def test_classes_of_codes_are_those_in_the_source(root: Path) -> None:
    """No error is built outright with a code whose class the document does not name."""
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE))
    classes = {
        "MalformedEvidence",
        "NotAuthentic",
        "PolicyDenied",
        "Indeterminate",
        "LedgerInconsistent",
        "EnvironmentFault",
    }
    checked = 0
    for part in ("attester", "verifier", "policy", "proto"):
        for path in (root / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                    continue
                code = node.args[0]
                if node.func.id in classes and isinstance(code, ast.Attribute) and code.attr.isupper():
                    assert node.func.id in rows[code.attr], f"{path}:{node.lineno}"
                    checked += 1
    assert checked > 100
