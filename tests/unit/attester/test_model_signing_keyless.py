"""Sigstore's keyless mode, offline, by the sigstore library, under an instance whose every service signs for real."""

from __future__ import annotations

import base64
import copy
import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.model_signers import NOW, private_pem, public_pem
from fakes.models import flip_bit, write_model
from fakes.sigstore_instance import IDENTITY, ISSUER, Instance
from weighbridge.attester import cli
from weighbridge.attester.model_signing import (
    KeylessSigner,
    TrustedIdentity,
    VerifiedModel,
    load_public_key,
    load_signing_key,
    sign,
    verify,
)
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic, WeighbridgeError

KEY = load_signing_key(private_pem(ec.generate_private_key(ec.SECP256R1())))
INSTANCE = Instance()

installed = pytest.mark.usefixtures("_library")


@pytest.fixture
def _library() -> None:
    pytest.importorskip("sigstore", reason="the extra [sigstore] is not installed")


@dataclass
class Signed:
    """A model, its bundle as a document, and the instance's trusted root beside it."""

    model: Path
    bundle: dict[str, Any]
    trusted_root: Path

    def verify(self, *, identity: str = IDENTITY, issuer: str = ISSUER) -> VerifiedModel:
        trust = TrustedIdentity(identity, issuer, self.trusted_root)
        return verify(json.dumps(self.bundle).encode(), self.model, trust, at=NOW)

    def refusal(self, *, identity: str = IDENTITY, issuer: str = ISSUER) -> WeighbridgeError:
        with pytest.raises(WeighbridgeError) as caught:
            self.verify(identity=identity, issuer=issuer)
        return caught.value

    @property
    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = self.bundle["verificationMaterial"]["tlogEntries"][0]
        return entry


def make(folder: Path, **changes: Any) -> Signed:  # noqa: ANN401 - what Instance.bundle takes
    model = write_model(folder / "model")
    trusted_root = folder / "trusted_root.json"
    trusted_root.write_text(json.dumps(INSTANCE.trusted_root()))
    return Signed(model, INSTANCE.bundle(sign(model, KEY)[1].raw, **changes), trusted_root)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return make(tmp_path)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@installed
def test_keyless_signature(signed: Signed) -> None:
    verified = signed.verify()
    assert isinstance(verified.signer, KeylessSigner)
    assert (verified.signer.identity, verified.signer.issuer) == (IDENTITY, ISSUER)
    assert verified.signer.not_before < NOW < verified.signer.not_after
    assert len(verified.statement.files()) == 3


@installed
def test_file_that_differs_is_refused_after_the_signature_holds(signed: Signed) -> None:
    flip_bit(signed.model / "config.json", 1)
    refusal = signed.refusal()
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_DIFFERS, "config.json")


@installed
@pytest.mark.parametrize(
    "trust",
    [
        {"identity": "other@models.example"},
        {"identity": IDENTITY.upper()},
        {"issuer": "https://accounts.other"},
        {"issuer": ISSUER + "/"},
    ],
)
def test_another_identity_is_refused(signed: Signed, trust: dict[str, str]) -> None:
    refusal = signed.refusal(**trust)
    assert isinstance(refusal, NotAuthentic)
    assert refusal.code == Code.MODEL_SIGNER


@pytest.mark.parametrize(("identity", "issuer"), [("", ISSUER), (IDENTITY, "")])
def test_neither_identity_nor_issuer_is_left_open(tmp_path: Path, identity: str, issuer: str) -> None:
    with pytest.raises(ValueError, match="no identity or no issuer"):
        TrustedIdentity(identity, issuer, tmp_path)


def flip(text: str, index: int = -8) -> str:
    data = bytearray(base64.b64decode(text))
    data[index] ^= 1
    return base64.b64encode(data).decode()


def wrong_promise(signed: Signed) -> None:
    promise = signed.entry["inclusionPromise"]
    promise["signedEntryTimestamp"] = flip(promise["signedEntryTimestamp"])


def no_promise(signed: Signed) -> None:
    del signed.entry["inclusionPromise"]


def another_time(signed: Signed) -> None:
    signed.entry["integratedTime"] = str(int(NOW.timestamp()) + 1)


def wrong_proof(signed: Signed) -> None:
    signed.entry["inclusionProof"]["hashes"] = [flip(signed.entry["inclusionProof"]["hashes"][0])]


def no_proof(signed: Signed) -> None:
    del signed.entry["inclusionProof"]


def wrong_checkpoint(signed: Signed) -> None:
    checkpoint = signed.entry["inclusionProof"]["checkpoint"]
    checkpoint["envelope"] = checkpoint["envelope"].replace("\n2\n", "\n3\n", 1)


def no_entry(signed: Signed) -> None:
    signed.bundle["verificationMaterial"]["tlogEntries"] = []


def two_entries(signed: Signed) -> None:
    signed.bundle["verificationMaterial"]["tlogEntries"] *= 2


def entry_of_another_signature(signed: Signed) -> None:
    payload = base64.b64decode(signed.bundle["dsseEnvelope"]["payload"])
    other = INSTANCE.bundle(payload)
    signed.bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]


def another_certificate(signed: Signed) -> None:
    other = INSTANCE.certify(ec.generate_private_key(ec.SECP256R1()).public_key())
    encoded = base64.b64encode(other.public_bytes(Encoding.DER)).decode()
    signed.bundle["verificationMaterial"]["certificate"]["rawBytes"] = encoded


def another_payload(signed: Signed) -> None:
    document = json.loads(base64.b64decode(signed.bundle["dsseEnvelope"]["payload"]))
    document["subject"][0]["name"] = "another"
    signed.bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(document).encode()).decode()


def wrong_signature(signed: Signed) -> None:
    signature = signed.bundle["dsseEnvelope"]["signatures"][0]
    signature["sig"] = flip(signature["sig"])


def recorded_too_late(signed: Signed) -> None:
    late = Instance(INSTANCE.authority, INSTANCE.ct, INSTANCE.log, at=lambda: NOW + timedelta(hours=1))
    raw = base64.b64decode(signed.bundle["verificationMaterial"]["certificate"]["rawBytes"])
    entry = late.record(signed.bundle["dsseEnvelope"], load_der_x509_certificate(raw))
    signed.bundle["verificationMaterial"]["tlogEntries"] = [entry]


def another_authority(signed: Signed) -> None:
    other = Instance(ct=INSTANCE.ct, log=INSTANCE.log)
    signed.bundle = other.bundle(base64.b64decode(signed.bundle["dsseEnvelope"]["payload"]))


def another_log(signed: Signed) -> None:
    other = Instance(authority=INSTANCE.authority, ct=INSTANCE.ct)
    signed.bundle = other.bundle(base64.b64decode(signed.bundle["dsseEnvelope"]["payload"]))


def another_certificate_log(signed: Signed) -> None:
    other = Instance(authority=INSTANCE.authority, log=INSTANCE.log)
    signed.bundle = other.bundle(base64.b64decode(signed.bundle["dsseEnvelope"]["payload"]))


def unlogged_certificate(signed: Signed) -> None:
    signed.bundle = INSTANCE.bundle(base64.b64decode(signed.bundle["dsseEnvelope"]["payload"]), logged=False)


@installed
@pytest.mark.parametrize(
    "change",
    [
        wrong_promise,
        no_promise,
        another_time,
        wrong_proof,
        no_proof,
        wrong_checkpoint,
        no_entry,
        two_entries,
        entry_of_another_signature,
        another_certificate,
        another_payload,
        wrong_signature,
        recorded_too_late,
        another_authority,
        another_log,
        another_certificate_log,
        unlogged_certificate,
    ],
)
def test_what_does_not_verify(signed: Signed, change: Callable[[Signed], None]) -> None:
    change(signed)
    refusal = signed.refusal()
    assert isinstance(refusal, NotAuthentic)
    assert refusal.code == Code.MODEL_SIGNATURE


@installed
@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        (lambda path: path.unlink(), EnvironmentFault, Code.FILE_UNREADABLE),
        (lambda path: path.write_text("{}"), MalformedEvidence, Code.ANCHORS_INVALID),
        (lambda path: path.write_text("no JSON"), MalformedEvidence, Code.ANCHORS_INVALID),
        (lambda path: _change(path, "tlogs", []), MalformedEvidence, Code.ANCHORS_INVALID),
        (lambda path: _change(path, "certificateAuthorities", []), MalformedEvidence, Code.ANCHORS_INVALID),
        (lambda path: _change(path, "mediaType", "application/json"), MalformedEvidence, Code.ANCHORS_INVALID),
        # Found out only where it is needed.
        (lambda path: _change(path, "ctlogs", []), NotAuthentic, Code.MODEL_SIGNATURE),
    ],
)
def test_trusted_root_that_is_none(
    signed: Signed, change: Callable[[Path], object], kind: type[WeighbridgeError], code: Code
) -> None:
    change(signed.trusted_root)
    refusal = signed.refusal()
    assert isinstance(refusal, kind)
    assert refusal.code == code


def _change(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_no_mode_stands_in_for_another(signed: Signed) -> None:
    trusted = load_public_key(public_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(NotAuthentic) as caught:
        verify(json.dumps(signed.bundle).encode(), signed.model, trusted, at=NOW)
    assert caught.value.code == Code.MODEL_SIGNATURE_MODE
    assert "identity" in caught.value.hint
    signed.bundle = json.loads(sign(signed.model, KEY)[0])
    assert signed.refusal().code == Code.MODEL_SIGNATURE_MODE


def test_library_that_is_not_installed(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sigstore", "sigstore.errors", "sigstore.models"):
        monkeypatch.setitem(sys.modules, name, None)
    refusal = signed.refusal()
    assert isinstance(refusal, EnvironmentFault)
    assert refusal.code == Code.TOOL_MISSING
    assert "weighbridge[sigstore]" in refusal.hint


@installed
def test_command_line(signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signature = tmp_path / "model.sig"
    signature.write_text(json.dumps(signed.bundle))
    command = ["model", "verify", str(signed.model), "--signature", str(signature)]
    command += ["--trusted-root", str(signed.trusted_root), "--issuer", ISSUER, "--identity"]
    assert cli.main([*command, IDENTITY]) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == [
        f"signer      {IDENTITY}",
        f"issuer      {ISSUER}",
        "signed      between 2026-05-31T23:59:00Z and 2026-06-01T00:09:00Z",
    ]
    assert cli.main([*command, IDENTITY, "--json"]) == 0
    signer = json.loads(capsys.readouterr().out)["signer"]
    assert (signer["mode"], signer["identity"], signer["issuer"]) == ("keyless", IDENTITY, ISSUER)
    assert cli.main([*command, "somebody@else.example"]) == 4
    assert "MODEL_SIGNER" in capsys.readouterr().err


# Without digits: "01" would be another spelling of an index, which the library reads.
TEXT = st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=20)
JSON: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(), TEXT, st.just([]), st.just({}), st.just([{}])
)


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return make(tmp_path_factory.mktemp("keyless"))


@installed
@settings(max_examples=200)
@given(st.data(), JSON)
def test_any_value_in_any_place_is_refused_by_a_code(shared: Signed, data: st.DataObject, value: object) -> None:
    """Whatever the library makes of it, no other error comes out, and nothing is accepted that was changed."""
    changed = copy.deepcopy(shared)
    found = list(places(changed.bundle["verificationMaterial"]))
    container, key = found[data.draw(st.integers(0, len(found) - 1))]
    if container[key] == value:
        return
    container[key] = value
    assert isinstance(changed.refusal(), MalformedEvidence | NotAuthentic)
