"""Both directions with the reference implementation of OpenSSF Model Signing, in an environment of its own.

What its command line signs is verified by ours, and the reverse; what one refuses, the other refuses. The differences
that are left are here too, each with a test that says so.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.model_signers import NOW, Hierarchy, Holder, certify, hierarchy, private_pem, public_pem
from fakes.models import flip_bit, write_model
from fakes.sigstore_instance import IDENTITY, ISSUER, Instance, serve, token, trust_config
from weighbridge.attester import cli
from weighbridge.attester.model_signing import TrustedRoots, VerifiedModel, load_public_key, verify
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.model_signing import Bundle

pytestmark = pytest.mark.peer

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]
PKI = hierarchy()

# What their command line has no options for. The configuration is guessed from the signature when verifying.
_API = """
import sys
from model_signing import hashing, signing, verifying
verb, model, signature, key = sys.argv[1:5]
if verb == "verify":
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(model, signature)
else:
    method, algorithm, size = sys.argv[5:]
    config = hashing.Config()
    if method == "shards":
        config.use_shard_serialization(hashing_algorithm=algorithm, shard_size=int(size))
    else:
        config.use_file_serialization(hashing_algorithm=algorithm)
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config).sign(model, signature)
"""


@dataclass(frozen=True)
class Peer:
    """Their programs."""

    folder: Path

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self._run(str(self.folder / "model_signing"), *arguments)

    def api(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self._run(str(self.folder / "python"), "-I", "-c", _API, *arguments)

    def _run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(argument) for argument in arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def peer(root: Path) -> Peer:
    folder = root / ".peers" / "model-signing" / "bin"
    if not (folder / "model_signing").exists():
        pytest.skip("no model-signing: run scripts/setup --peers")
    return Peer(folder)


@dataclass(frozen=True)
class Desk:
    """A model, and the files of a signer beside it."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def signature(self) -> Path:
        return self.folder / "model.sig"

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def key(self, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        return self.write("key.pem", private_pem(key)), self.write("public.pem", public_pem(key))

    def chain(self, pki: Hierarchy) -> tuple[list[str | Path], list[str | Path]]:
        """Arguments of their signing, and of ours."""
        key, own = self.write("owner.key", pki.signer.key_pem), self.write("owner.pem", pki.signer.pem)
        between = self.write("between.pem", pki.intermediate.pem)
        self.write("root.pem", pki.root.pem)
        return (
            ["--private_key", key, "--signing_certificate", own, "--certificate_chain", between],
            ["--private-key", key, "--certificate", own, "--chain", between],
        )

    def verify(self, trust: TrustedRoots | ec.EllipticCurvePrivateKey, at: datetime = NOW) -> VerifiedModel:
        trusted = trust if isinstance(trust, TrustedRoots) else load_public_key(public_pem(trust))
        return verify(self.signature.read_bytes(), self.model, trusted, at=at)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """With an empty file, a folder in a folder, and names that sort otherwise by segments than by characters."""
    model = write_model(tmp_path / "model")
    (model / "empty").touch()
    (model / "extra" / "deep").mkdir()
    (model / "extra" / "deep" / "ä ü.txt").write_text("text")
    (model / "extra.json").write_text("{}")
    return Desk(tmp_path)


def roots(*holders: Holder) -> TrustedRoots:
    return TrustedRoots(tuple(holder.certificate for holder in holders))


def ours(*arguments: object) -> int:
    return cli.main(["model", *(str(argument) for argument in arguments)])


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Refused by them: what they say."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Verification failed" in done.stderr
    return done.stderr


def code(call: Callable[[], object]) -> Code:
    """Refused by us: the code."""
    with pytest.raises(NotAuthentic) as caught:
        call()
    return caught.value.code


# -- theirs, verified here --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_key_signed_there(peer: Peer, desk: Desk, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    private, _ = desk.key(key)
    succeeded(peer("sign", "key", desk.model, "--signature", desk.signature, "--private_key", private))
    verified = desk.verify(key)
    assert verified.statement.model_name == "model"
    assert len(verified.statement.files()) == 6
    assert set(verified.statement.serialization.ignore_paths) == {".git", ".gitattributes", ".github", ".gitignore"}


def test_certificate_signed_there(peer: Peer, desk: Desk) -> None:
    arguments, _ = desk.chain(PKI)
    succeeded(peer("sign", "certificate", desk.model, "--signature", desk.signature, *arguments))
    assert desk.verify(roots(PKI.root)).left_out == ()


@pytest.mark.parametrize(
    ("method", "algorithm", "size"),
    [
        ("shards", "sha256", 100),
        ("shards", "sha256", 1_000_000_000),
        ("shards", "blake2", 64),
        ("files", "blake2", 1),
        ("files", "blake3", 1),
    ],
)
def test_other_serializations_signed_there(peer: Peer, desk: Desk, method: str, algorithm: str, size: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private, _ = desk.key(key)
    if method == "shards":
        # They leave an empty file unsigned without a word: refused here, until it goes.
        succeeded(peer.api("sign", desk.model, desk.signature, private, method, algorithm, size))
        assert code(lambda: desk.verify(key)) == Code.MODEL_FILE_UNSIGNED
        (desk.model / "empty").unlink()
    succeeded(peer.api("sign", desk.model, desk.signature, private, method, algorithm, size))
    assert desk.verify(key).statement.serialization.method == method
    flip_bit(desk.model / "model.safetensors", 300)
    assert code(lambda: desk.verify(key)) == Code.MODEL_FILE_DIFFERS


def test_signature_and_ignored_paths_within_the_model(
    peer: Peer, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = desk.key(ec.generate_private_key(ec.SECP256R1()))
    signature = desk.model / "model.sig"
    (desk.model / ".git").mkdir()
    (desk.model / ".git" / "HEAD").write_text("ref\n")
    ignored = ("--ignore-paths", desk.model / "extra")
    succeeded(peer("sign", "key", desk.model, "--signature", signature, "--private_key", private, *ignored))
    assert ours("verify", desk.model, "--signature", signature, "--public-key", public) == 0
    assert "unsigned    .git/HEAD, extra/deep/ä ü.txt, extra/vocab.txt, model.sig\n" in capsys.readouterr().out


# -- ours, verified there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_key_signed_here(peer: Peer, desk: Desk, curve: ec.EllipticCurve) -> None:
    private, public = desk.key(ec.generate_private_key(curve))
    assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature) == 0
    succeeded(peer("verify", "key", desk.model, "--signature", desk.signature, "--public_key", public))


def test_certificate_signed_here(peer: Peer, desk: Desk) -> None:
    _, arguments = desk.chain(PKI)
    assert ours("sign", desk.model, *arguments, "-o", desk.signature) == 0
    check = ("verify", "certificate", desk.model, "--signature", desk.signature, "--certificate_chain")
    succeeded(peer(*check, desk.folder / "root.pem"))


def test_signature_and_ignored_paths_within_the_model_signed_here(peer: Peer, desk: Desk) -> None:
    private, public = desk.key(ec.generate_private_key(ec.SECP256R1()))
    signature = desk.model / "model.sig"
    (desk.model / ".gitattributes").write_text("*\n")
    assert ours("sign", desk.model, "--private-key", private, "-o", signature, "--ignore", "extra") == 0
    succeeded(peer("verify", "key", desk.model, "--signature", signature, "--public_key", public))


def test_links_signed_here(peer: Peer, desk: Desk) -> None:
    private, public = desk.key(ec.generate_private_key(ec.SECP256R1()))
    (desk.model / "link.json").symlink_to("extra.json")
    assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature, "--allow-symlinks") == 0
    check = ("verify", "key", desk.model, "--signature", desk.signature, "--public_key", public)
    succeeded(peer(*check, "--allow_symlinks"))
    refused(peer(*check))


def test_shards_signed_here(peer: Peer, desk: Desk) -> None:
    """By their library: their command line verifies files only, whatever was signed."""
    private, public = desk.key(ec.generate_private_key(ec.SECP256R1()))
    (desk.model / "empty").unlink()
    assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature, "--method", "shards") == 0
    succeeded(peer.api("verify", desk.model, desk.signature, public))
    refused(peer("verify", "key", desk.model, "--signature", desk.signature, "--public_key", public))
    flip_bit(desk.model / "model.safetensors", 300)
    assert "Hash mismatch" in peer.api("verify", desk.model, desk.signature, public).stderr


# -- keyless, by a Sigstore instance on a loopback port ---------------------------------------------------------------


@pytest.fixture(scope="module")
def instance() -> Instance:
    pytest.importorskip("sigstore", reason="the extra [sigstore] is not installed")
    return Instance(at=lambda: datetime.now(UTC))


def test_keyless_signed_there(peer: Peer, desk: Desk, instance: Instance) -> None:
    trusted_root = desk.write("trusted_root.json", strict.json_encode(instance.trusted_root()))
    with serve(instance) as url:
        config = desk.write("config.json", strict.json_encode(trust_config(instance, url)))
        arguments = ("--signature", desk.signature, "--trust_config", config, "--identity_token", token())
        succeeded(peer("sign", "sigstore", desk.model, *arguments))
    verify_here = ("verify", desk.model, "--signature", desk.signature, "--trusted-root", trusted_root)
    assert ours(*verify_here, "--identity", IDENTITY, "--issuer", ISSUER) == 0
    assert ours(*verify_here, "--identity", IDENTITY, "--issuer", "https://other.example") == 4
    flip_bit(desk.model / "model.safetensors", 300)
    assert ours(*verify_here, "--identity", IDENTITY, "--issuer", ISSUER) == 4


def test_forged_instance_convinces_them_too(peer: Peer, desk: Desk, instance: Instance) -> None:
    """So what is refused of it in the unit tests is refused for its one deviation."""
    private, _ = desk.key(ec.generate_private_key(ec.SECP256R1()))
    assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature) == 0
    payload = Bundle.parse(desk.signature.read_bytes()).statement.raw
    desk.signature.write_bytes(strict.json_encode(instance.bundle(payload)))
    config = desk.write("config.json", strict.json_encode(trust_config(instance, "http://none.invalid")))
    check = ("verify", "sigstore", desk.model, "--signature", desk.signature, "--trust_config", config)
    succeeded(peer(*check, "--identity", IDENTITY, "--identity_provider", ISSUER))
    refused(peer(*check, "--identity", "other@models.example", "--identity_provider", ISSUER))


# -- what both refuse -------------------------------------------------------------------------------------------------


def remove(model: Path) -> None:
    (model / "config.json").unlink()


def add(model: Path) -> None:
    (model / "adapter.bin").write_bytes(b"lora")


def flip(model: Path) -> None:
    flip_bit(model / "model.safetensors", 300)


@pytest.mark.parametrize("signer", ["theirs", "ours"])
@pytest.mark.parametrize(
    ("change", "expected", "their_words"),
    [
        (flip, Code.MODEL_FILE_DIFFERS, "Hash mismatch for "),
        (add, Code.MODEL_FILE_UNSIGNED, "Extra files found in model 'model': adapter.bin"),
        (remove, Code.MODEL_FILE_MISSING, "Missing files in model 'model': config.json"),
    ],
)
def test_directory_that_changed(
    peer: Peer, desk: Desk, signer: str, change: Callable[[Path], None], expected: Code, their_words: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = desk.key(key)
    if signer == "theirs":
        succeeded(peer("sign", "key", desk.model, "--signature", desk.signature, "--private_key", private))
    else:
        assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature) == 0
    change(desk.model)
    assert code(lambda: desk.verify(key)) == expected
    check = ("verify", "key", desk.model, "--signature", desk.signature, "--public_key", public)
    assert their_words in refused(peer(*check))


def test_another_key(peer: Peer, desk: Desk) -> None:
    private, _ = desk.key(ec.generate_private_key(ec.SECP256R1()))
    other = ec.generate_private_key(ec.SECP256R1())
    assert ours("sign", desk.model, "--private-key", private, "-o", desk.signature) == 0
    assert code(lambda: desk.verify(other)) == Code.MODEL_SIGNER
    check = ("verify", "key", desk.model, "--signature", desk.signature, "--public_key")
    assert "Key mismatch" in refused(peer(*check, desk.write("other.pem", public_pem(other))))


@pytest.mark.parametrize("what", ["another root", "expired authority", "not for signing"])
def test_chain_that_is_none(peer: Peer, desk: Desk, what: str) -> None:
    root = certify("Root", ca=True)
    ended = NOW - timedelta(days=5) if what == "expired authority" else NOW + timedelta(days=5)
    between = certify("Between", issuer=root, ca=True, end=ended)
    usage = "key_encipherment" if what == "not for signing" else "digital_signature"
    signer = certify("Owner", issuer=between, begin=NOW - timedelta(days=1), usage=usage)
    theirs, _ = desk.chain(Hierarchy(root, between, signer))
    succeeded(peer("sign", "certificate", desk.model, "--signature", desk.signature, *theirs))
    trusted = certify("Root", ca=True) if what == "another root" else root
    expected = {
        "another root": Code.CHAIN_UNTRUSTED,
        "expired authority": Code.CHAIN_EXPIRED,
        "not for signing": Code.CERT_PURPOSE,
    }
    assert code(lambda: desk.verify(roots(trusted))) == expected[what]
    check = ("verify", "certificate", desk.model, "--signature", desk.signature, "--certificate_chain")
    refused(peer(*check, desk.write("trusted.pem", trusted.pem)))


# -- where we are stricter --------------------------------------------------------------------------------------------


def test_expired_signer_is_refused_here_only(peer: Peer, desk: Desk) -> None:
    """They judge everything at the beginning of the signer's validity; here it is now, or the time that is stated."""
    _, arguments = desk.chain(PKI)
    assert ours("sign", desk.model, *arguments, "-o", desk.signature) == 0
    here = ("verify", desk.model, "--signature", desk.signature, "--root", desk.folder / "root.pem", "--at")
    assert ours(*here, strict.time_encode(NOW)) == 0
    assert ours(*here, "2100-01-01T00:00:00Z") == 4
    assert code(lambda: desk.verify(roots(PKI.root), datetime(2100, 1, 1, tzinfo=UTC))) == Code.CHAIN_EXPIRED
    check = ("verify", "certificate", desk.model, "--signature", desk.signature, "--certificate_chain")
    succeeded(peer(*check, desk.folder / "root.pem"))


def test_certificate_of_a_server_is_refused_here_only(peer: Peer, desk: Desk) -> None:
    signer = certify("server.example", issuer=PKI.intermediate, extended=ExtendedKeyUsageOID.SERVER_AUTH)
    theirs, _ = desk.chain(Hierarchy(PKI.root, PKI.intermediate, signer))
    succeeded(peer("sign", "certificate", desk.model, "--signature", desk.signature, *theirs))
    check = ("verify", "certificate", desk.model, "--signature", desk.signature, "--certificate_chain")
    succeeded(peer(*check, desk.folder / "root.pem"))
    assert code(lambda: desk.verify(roots(PKI.root))) == Code.CERT_PURPOSE
