"""Inputs that the project's own code makes, for parsers that no case of the corpus gives any."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any, Final

import protocol_vectors
from cryptography.hazmat.primitives.serialization import Encoding
from protocol_items import Vector

from fakes.forged_tdx import ForgedTdx
from fakes.gguf import real
from fakes.model_signers import certify, private_pem, public_pem
from fakes.ocsp_responder import RevocableVendor, revocation_list
from fakes.soft_tpm import derive_key
from fuzz.seeds_ledger import ORIGIN
from support import relying
from support.baseline_owners import made_up
from support.host_owners import HostOwner
from support.owners import Issuer
from support.result_tokens import CLAIMS
from support.world import NOON
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.attester.workload.client import PROTOCOL
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Expectation, Golden
from weighbridge.proto import cbor, cose, strict
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.proto.token_key import TOKEN_KEY_TYP, TokenKeyStatement
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.v1 import results_pb2
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.redaction import Redaction, Row
from weighbridge.verifier.result import jwks
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.past import write_evidence

NONCE: Final = bytes(range(32))
SIGNER: Final = derive_key("a signer of tokens")
TDX: Final = ForgedTdx.create()
SCOPE: Final = Scope(
    gpu_model="NVIDIA H200",
    driver="580.159.04",
    vbios="96.00.A5.00.1A",
    engine="vllm 0.11.0",
    model=bytes([7] * 32),
    workload="chat, 32 streams",
    power_limit_mw=700_000,
)


def vector(name: str) -> bytes:
    """The first item of a vector of ``docs/protocol.md``."""
    first: bytes = _vectors()[name].first
    return first


@cache
def _vectors() -> dict[str, Vector]:
    return protocol_vectors.read_vectors(protocol_vectors.DOCUMENT.read_text(encoding="utf-8"))


def recording() -> bytes:
    """A recording of one window."""
    source = Source(
        device=bytes(32),
        name="nvml",
        start_wall_ns=5,
        period_ns=100,
        offsets=(0, 100),
        channels={"power": Channel("mW", (417_000, None))},
    )
    telemetry = Telemetry(session=bytes(16), seq=3, sources=(source,)).encode()
    work = WorkSummary(root=bytes(32), requests=2, tokens_in=30, tokens_out=40, batch_max=2)
    window = RecordedWindow(telemetry=telemetry, work=work, start_ns=5, end_ns=205, window=bytes([2] * 32))
    return Recording(origin="session", label="run 1", scope=SCOPE, windows=(window,)).encode()


def host_set(*, signed: bool) -> bytes:
    """What an owner of hosts accepts."""
    owner = HostOwner()
    content = owner.content()
    return owner.sign(content) if signed else content.encode()


def collateral() -> bytes:
    """Two items of a verifier's collateral."""
    return Collateral.of(CollateralItem("ocsp", b"x"), CollateralItem("ocsp", b"y")).encode()


def token_key() -> bytes:
    """A key that a verifier endorses, signed."""
    began = nanoseconds(NOON)
    statement = TokenKeyStatement(
        key=SIGNER.public_key(), not_before_ns=began, not_after_ns=began + 10**9, issued_ns=began
    )
    return statement.sign(kid=cose.thumbprint(SIGNER.public_key()), signer=lambda data: sign_es256(SIGNER, data))


def token_key_statement() -> bytes:
    """The statement alone."""
    return cose.parse(token_key(), typ=TOKEN_KEY_TYP, limit=4096, what="seed").payload


def key_set() -> bytes:
    """A verifier's key, and one that it endorses."""
    return strict.json_encode(jwks.write([(SIGNER.public_key(), None), (SIGNER.public_key(), token_key())]))


def ml_bom() -> bytes:
    """A signed statement about a model."""
    return Issuer().ml_bom(sha256(b"a model"))


def model_statement() -> bytes:
    """What a model's signer signs."""
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "sample", "digest": {"sha256": sha256(bytes([1]) * 32 + bytes([2]) * 32).hex()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [
                {"name": "config.json", "algorithm": "sha256", "digest": "01" * 32},
                {"name": "weights", "algorithm": "sha256", "digest": "02" * 32},
            ],
        },
    }
    return json.dumps(document).encode()


def model_bundle() -> bytes:
    """A signed model's bundle; nobody's signature."""
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "09" * 32}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": strict.base64_encode(model_statement()),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": strict.base64_encode(b"signature"), "keyid": ""}],
        },
    }
    return json.dumps(document).encode()


@cache
def signer() -> tuple[bytes, bytes, bytes]:
    """PEM: a public key, a private one, a certificate."""
    held = certify("Model Owner")
    return public_pem(held.key), private_pem(held.key), held.certificate.public_bytes(Encoding.PEM)


def recorded_evidence() -> bytes:
    """What NVIDIA's tools write of a device, of an emulated one."""
    vendor = EmulatedVendor.create()
    device = EmulatedH100.make(vendor)
    sent = device.attest(NONCE)
    entry = {
        "arch": "HOPPER",
        "nonce": NONCE.hex(),
        "evidence": strict.base64_encode(sent.report),
        "certificate": strict.base64_encode(device.keys.to_pem().split(b"-----BEGIN PRIVATE")[0]),
    }
    return json.dumps([entry]).encode()


def crl() -> bytes:
    """An issuer's list of what it has revoked."""
    return revocation_list(RevocableVendor.create().provisioner)


def session_evidence() -> bytes:
    """What a session's evidence against a baseline comes to, of no units."""
    return write_evidence(SessionEvidence.start())


def claimed_requests() -> bytes:
    """A tenant's list of requests that it wants shown."""
    opened = {"index": 0, "salt": "00" * 32, "request": "01" * 32, "response": "02" * 32}
    window = {"seq": 2, "commitments": ["03" * 32], "shown": [opened]}
    return strict.json_encode({"schema": "weighbridge/requests/v1", "windows": [window]})


def relying_parties() -> bytes:
    """Who may ask for results."""
    party = {"name": "gate", "key": "01" * 32, "tenants": ["a", "b"], "audiences": ["x"]}
    return json.dumps({"schema": "weighbridge/relying-parties/v1", "relying_parties": [party]}).encode()


def gate_file() -> bytes:
    """A gate's configuration."""
    return relying.gate_file().encode()


def affirmed() -> bytes:
    """What a verifier keeps of an affirmation."""
    return Affirmed(claims=CLAIMS, received_ns=nanoseconds(NOON), period_ns=10**10, within=None).encode()


def golden() -> bytes:
    """A policy's golden case."""
    example = EXAMPLES["azure_snp_h100"]
    return Golden("a title", example.input, example.reference, Expectation("allow", (), {})).to_json()


def policy_input() -> bytes:
    """What a policy sees."""
    return EXAMPLES["azure_snp_h100"].input.to_json()


def verdict() -> bytes:
    """What an attester is answered."""
    denial = {
        "code": "MODEL_UNDECLARED",
        "message": "another model",
        "window": 3,
        "device": None,
        "expected": "aa",
        "got": "bb",
        "hint": "declare it",
    }
    document = {
        "schema": "weighbridge/verdict/v1",
        "seq": 3,
        "outcome": "denied",
        "received_at": "2026-06-01T12:00:00Z",
        "denials": [denial],
    }
    return strict.json_encode(document)


def messages() -> list[bytes]:
    """What an inference server says to its attester."""
    said: list[dict[str, Any]] = [
        {"type": "hello", "protocol": PROTOCOL, "ticks": False},
        {"type": "load", "directory": "/m", "name": None, "guarded": False},
        {"type": "handing", "file": "/m/a", "recnum": None},
        {"type": "ranges", "recnum": 3, "path": "a", "ranges": [[8, 4, "07" * 32]]},
        {"type": "handed", "recnum": 3, "path": "a", "changed": None},
        {"type": "unload", "recnum": 3},
        {"type": "ticked", "seq": 0},
        {
            "type": "done",
            "commitment": "07" * 32,
            "tokens_in": 3,
            "tokens_out": 4,
            "batch": 1,
            "prefill_ns": 5,
            "decode_ns": 6,
        },
    ]
    return [json.dumps(item).encode() for item in said]


def cel() -> bytes:
    """A canonical event log (TLV) of one record."""
    content = _tlv(5, _tlv(0, (1).to_bytes(4)) + _tlv(1, b"a firmware blob"))
    digests = _tlv(3, _tlv(int(HashAlgorithm.SHA256), sha256(b"a firmware blob")))
    return _tlv(0, bytes(8)) + _tlv(1, b"\0") + digests + content


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(4) + value


def trusted_verifiers() -> bytes:
    """Whom an attester believes."""
    key = cose.spki(SIGNER.public_key())
    day = timedelta(days=1)
    return TrustAnchors((Anchor("verifier", "verifier", "verifier", key, NOON - day, NOON + day, "a test"),)).encode()


def profile() -> bytes:
    """A baseline of made-up runs."""
    return made_up().encode()


def gguf() -> bytes:
    """A file of llama.cpp's."""
    return real().data()


METRICS_PAGE: Final = b"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 8.128902e+06
vllm:generation_tokens_total{engine="0",model_name="m"} 7557572.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 30.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="m"} 1.25
"""

HOST_OWNER: Final = HostOwner()


def authority() -> bytes:
    """Who may sign the certificates of clients."""
    return certify("Authority", ca=True).certificate.public_bytes(Encoding.PEM)


def redaction() -> bytes:
    """What a verifier signs of a session's judgements."""
    row = Row(1, bytes(32), b"{}")
    made = Redaction(
        session=bytes(16),
        tenant="tenant-a",
        origin=ORIGIN,
        salt=bytes(32),
        issued_ns=1,
        model=bytes(32),
        adapters=(),
        rows=(row,),
    )
    kid = cose.thumbprint(SIGNER.public_key())
    signed = made.sign(kid=kid, signer=lambda data: sign_es256(SIGNER, data))
    return cbor.decode(signed[1:], limit=len(signed), what="seed")[2]  # type: ignore[index, return-value] # an array


def settings() -> list[bytes]:
    """Configuration files: the examples of the documentation."""
    text = (protocol_vectors.DOCUMENT.parent / "configuration.md").read_text(encoding="utf-8")
    return [found.encode() for found in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]


@cache
def der_certificate() -> bytes:
    """A certificate as a TPM stores it."""
    return certify("A TPM").certificate.public_bytes(Encoding.DER)


def safetensors() -> list[bytes]:
    """The header of a file with one tensor."""
    tensor = {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}
    return [json.dumps({"layer.weight": tensor}).encode()]


def http_requests() -> list[bytes]:
    """Requests, one with a body, two in a line."""
    get = b"GET /?x=1 HTTP/1.1\r\nhost: here\r\n\r\n"
    post = b"POST /form HTTP/1.1\r\nhost: here\r\ncontent-length: 3\r\n\r\na=b"
    chunked = b"POST /form HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n"
    return [get, post, get + post, chunked]


def signed_terms() -> bytes:
    """A session's terms, by the verifier of :func:`trusted_verifiers`."""
    terms = replace(Terms.parse(vector("terms")), verifier=cose.thumbprint(SIGNER.public_key()))
    return SignedTerms.sign(terms, lambda data: sign_es256(SIGNER, data)).raw


def watches() -> list[bytes]:
    """What relying parties ask to be told of: sessions, or a model."""
    model = results_pb2.WatchResultsRequest()
    model.model.tenant, model.model.digest = "tenant-a", bytes(32)
    sessions = results_pb2.WatchResultsRequest(sessions=[bytes(16), bytes([1]) * 16], audience="x")
    return [sessions.SerializeToString(), model.SerializeToString()]
