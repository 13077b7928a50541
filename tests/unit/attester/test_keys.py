"""The two TLS keys: made once, private, named by their SubjectPublicKeyInfo."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from weighbridge.attester.keys import ensure_keys, load_channel, load_serving
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.pki import create_authority, issue_client

AT = datetime(2026, 6, 1, tzinfo=UTC)


def made(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    ensure_keys(state, names=["gpu-7.example", "10.0.0.7"], at=AT)
    authority = tmp_path / "authority"
    authority.mkdir()
    create_authority(authority, name="test", at=AT)
    certificate = issue_client(authority, (state / "channel.csr").read_bytes(), at=AT)
    (state / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return state


def test_keys_are_private_and_kept(tmp_path: Path) -> None:
    state = made(tmp_path)
    for name in ("serving.key", "channel.key"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    cnf, peer = ensure_keys(state, names=["other"], at=AT)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert cnf == load_serving(state).cnf
    assert peer == load_channel(state).peer


def test_thumbprints_are_those_of_the_certificates(tmp_path: Path) -> None:
    state = made(tmp_path)
    serving, channel = load_serving(state), load_channel(state)
    for certificate, thumbprint in (
        (x509.load_pem_x509_certificate(serving.certificate_file.read_bytes()), serving.cnf),
        (x509.load_pem_x509_certificate(channel.certificate), channel.peer),
    ):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert cose.thumbprint(key) == thumbprint
    assert isinstance(load_pem_private_key(channel.key, password=None), ec.EllipticCurvePrivateKey)


def test_the_serving_certificate_names_the_host(tmp_path: Path) -> None:
    state = made(tmp_path)
    certificate = x509.load_pem_x509_certificate((state / "serving.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gpu-7.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert certificate.not_valid_before_utc < AT < certificate.not_valid_after_utc


@pytest.mark.parametrize("name", ["serving.key", "serving.pem", "channel.key", "channel.pem"])
def test_a_missing_file_says_what_to_do(tmp_path: Path, name: str) -> None:
    state = made(tmp_path)
    (state / name).unlink()
    with pytest.raises(EnvironmentFault) as caught:
        load_serving(state) if name.startswith("serving") else load_channel(state)
    assert caught.value.code is Code.FILE_UNREADABLE
    assert ("init" if name != "channel.pem" else "channel.csr") in caught.value.hint
    assert name in caught.value.where


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("serving.key", b"junk"),
        ("serving.key", pem(ec.generate_private_key(ec.SECP384R1()))),
        ("serving.key", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("serving.pem", b"junk"),
        ("serving.pem", bytes(100_000)),
        ("channel.key", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("channel.pem", b""),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path: Path, name: str, content: bytes) -> None:
    state = made(tmp_path)
    (state / name).write_bytes(content)
    with pytest.raises(EnvironmentFault) as caught:
        load_serving(state) if name.startswith("serving") else load_channel(state)
    assert caught.value.code is Code.STATE_CORRUPT


def test_another_place_for_the_certificate(tmp_path: Path) -> None:
    state = made(tmp_path)
    elsewhere = tmp_path / "elsewhere.pem"
    (state / "channel.pem").rename(elsewhere)
    assert load_channel(state, certificate=elsewhere).certificate == elsewhere.read_bytes()


@pytest.mark.parametrize("name", ["serving.key", "channel.key"])
@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_key_that_strangers_can_use_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """A group may read it: the inference server can be another user."""
    state = made(tmp_path)
    (state / name).chmod(0o640)
    assert load_serving(state).cnf != load_channel(state).peer
    (state / name).chmod(mode)
    with pytest.raises(EnvironmentFault) as caught:
        load_serving(state) if name.startswith("serving") else load_channel(state)
    assert (caught.value.code, caught.value.where) == (Code.KEY_EXPOSED, str(state / name))
    assert caught.value.hint
