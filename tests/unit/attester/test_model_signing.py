"""Model signatures over real directories: what verifies, and the code of everything that does not."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_signers import (
    AUTHORITY,
    BEGIN,
    END,
    NOW,
    Holder,
    certify,
    hierarchy,
    private_pem,
    public_pem,
)
from fakes.models import flip_bit, write_model
from weighbridge.attester.model_signing import (
    CertifiedSigner,
    KeySigner,
    SigningKey,
    TrustedKey,
    TrustedRoots,
    VerifiedModel,
    load_public_key,
    load_roots,
    load_signing_key,
    sign,
    verify,
)
from weighbridge.attester.weights.hashing import Progress, new_hash
from weighbridge.proto import cose, model_signing
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.model_signing import Bundle, KeyHint, Serialization, Statement, encode_bundle

KEY = ec.generate_private_key(ec.SECP256R1())
SIGNING_KEY = load_signing_key(private_pem(KEY))
TRUSTED = load_public_key(public_pem(KEY))
PKI = hierarchy()
ROOTS = TrustedRoots((PKI.root.certificate,))
CERTIFIED = load_signing_key(PKI.signer.key_pem, certificate=PKI.signer.pem, chain=PKI.intermediate.pem)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def refused(call: Callable[[], object]) -> WeighbridgeError:
    with pytest.raises(WeighbridgeError) as caught:
        call()
    return caught.value


@dataclass
class Signed:
    """A model and its signature by the trusted key."""

    model: Path
    data: bytes

    def verify(
        self,
        *,
        trust: TrustedKey | TrustedRoots = TRUSTED,
        at: datetime = NOW,
        ignore: tuple[str, ...] = (),
        progress: Progress | None = None,
    ) -> VerifiedModel:
        return verify(self.data, self.model, trust, at=at, ignore=ignore, progress=progress)

    def refusal(
        self,
        *,
        trust: TrustedKey | TrustedRoots = TRUSTED,
        ignore: tuple[str, ...] = (),
        progress: Progress | None = None,
    ) -> WeighbridgeError:
        return refused(lambda: self.verify(trust=trust, ignore=ignore, progress=progress))


@pytest.fixture
def signed(model: Path) -> Signed:
    return Signed(model, sign(model, SIGNING_KEY)[0])


# -- both directions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["files", "shards"])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_mode_key(model: Path, curve: ec.EllipticCurve, method: model_signing.Method) -> None:
    key = ec.generate_private_key(curve)
    data, statement = sign(model, load_signing_key(private_pem(key)), method=method)
    verified = verify(data, model, load_public_key(public_pem(key)), at=NOW)
    assert verified.signer == KeySigner(cose.thumbprint(key.public_key()))
    assert verified.statement == statement
    assert sorted(statement.files()) == ["config.json", "extra/vocab.txt", "model.safetensors"]
    assert verified.size == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    assert verified.left_out == ()


def test_mode_certificate(model: Path) -> None:
    data, _ = sign(model, CERTIFIED)
    own, key = PKI.signer.certificate, PKI.signer.key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert verify(data, model, ROOTS, at=NOW).signer == CertifiedSigner(
        subject="CN=Model Owner",
        issuer="CN=Model Authority",
        serial=own.serial_number,
        not_before=BEGIN,
        not_after=END,
        fingerprint=sha256(own.public_bytes(Encoding.DER)),
        thumbprint=cose.thumbprint(key),
        root="CN=Model Root",
        at=NOW,
    )


def test_digest_of_a_file_is_its_plain_sha256(model: Path) -> None:
    _, statement = sign(model, SIGNING_KEY)
    for resource in statement.resources:
        assert resource.digest == sha256((model / resource.path).read_bytes())


@pytest.mark.parametrize("hash_type", ["blake2b", "blake3"])
def test_other_hashes_are_verified(model: Path, hash_type: model_signing.FileHash) -> None:
    """We sign with SHA-256 only; the reference implementation may have been asked for these."""
    resources: list[model_signing.Resource] = []
    for path in (path for path in model.rglob("*") if path.is_file()):
        digest = new_hash(hash_type)()
        digest.update(memoryview(path.read_bytes()))
        resources.append(model_signing.Resource(path.relative_to(model).as_posix(), None, None, digest.digest()))
    how = Serialization("files", hash_type, allow_symlinks=False, ignore_paths=(), shard_size=None)
    data = forge(Statement.build("model", how, resources))
    assert verify(data, model, TRUSTED, at=NOW).statement.serialization.hash_type == hash_type
    flip_bit(model / "config.json", 3)
    refusal = refused(lambda: verify(data, model, TRUSTED, at=NOW))
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_DIFFERS, "config.json")


def forge(statement: Statement, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """Any statement, signed as mode key demands."""
    signature = key.sign(model_signing.pae(statement.raw), ec.ECDSA(hashes.SHA256()))
    return encode_bundle(KeyHint(sha256(public_pem(key))), statement, signature)


# -- the directory ----------------------------------------------------------------------------------------------------


def test_flipped_bit_names_the_file(signed: Signed) -> None:
    flip_bit(signed.model / "model.safetensors", 300, 5)
    refusal = signed.refusal()
    assert isinstance(refusal, NotAuthentic)
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_DIFFERS, "model.safetensors")


def test_flipped_bit_names_the_shard(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.attester.model_signing.signing.SHARD_SIZE", 100)
    data, statement = sign(model, SIGNING_KEY, method="shards")
    assert len(statement.files()["model.safetensors"]) > 3
    flip_bit(model / "model.safetensors", 250)
    refusal = refused(lambda: verify(data, model, TRUSTED, at=NOW))
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_DIFFERS, "model.safetensors:200:300")


def test_several_that_differ_are_counted(signed: Signed) -> None:
    flip_bit(signed.model / "model.safetensors", 300)
    flip_bit(signed.model / "config.json", 1)
    refusal = signed.refusal()
    assert refusal.where == "config.json"
    assert "(2 in all)" in refusal.message


def test_file_of_another_size_is_not_read(model: Path) -> None:
    data, _ = sign(model, SIGNING_KEY, method="shards")
    with (model / "config.json").open("ab") as file:
        file.write(b"\n")
    refusal = refused(lambda: verify(data, model, TRUSTED, at=NOW))
    assert (refusal.code, refusal.where, refusal.got) == (Code.MODEL_FILE_DIFFERS, "config.json", "15 bytes")


@pytest.mark.parametrize("content", [b"lora", b""])
@pytest.mark.parametrize("name", ["adapter.bin", ".hidden", "extra/model.sig"])
def test_file_that_was_added_is_refused(signed: Signed, name: str, content: bytes) -> None:
    (signed.model / name).write_bytes(content)
    refusal = signed.refusal()
    assert isinstance(refusal, NotAuthentic)
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_UNSIGNED, name)
    assert signed.verify(ignore=(name,)).left_out == (name,)


def test_file_that_was_removed_is_refused(signed: Signed) -> None:
    (signed.model / "config.json").unlink()
    refusal = signed.refusal()
    assert isinstance(refusal, NotAuthentic)
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_MISSING, "config.json")
    assert "fetch the model again" in refusal.hint


def test_what_the_caller_ignores_must_not_be_signed(signed: Signed) -> None:
    refusal = signed.refusal(ignore=("extra",))
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_MISSING, "extra/vocab.txt")
    assert "extra" in refusal.hint


def test_what_the_signer_ignored_is_shown(model: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (model / "notes").mkdir()
    (model / "notes" / "a.txt").write_text("a")
    data, statement = sign(model, SIGNING_KEY, ignore=(".git", "notes"))
    assert statement.serialization.ignore_paths == (".git", "notes")
    assert verify(data, model, TRUSTED, at=NOW).left_out == (".git/HEAD", "notes/a.txt")


def test_git_is_left_out_unless_it_is_asked_for(model: Path) -> None:
    (model / ".gitattributes").write_text("* -text\n")
    assert ".gitattributes" not in sign(model, SIGNING_KEY)[1].files()
    assert ".gitattributes" in sign(model, SIGNING_KEY, ignore=())[1].files()


def test_empty_file_that_shards_cannot_name(model: Path) -> None:
    data, _ = sign(model, SIGNING_KEY, method="shards")
    (model / "marker").touch()
    refusal = refused(lambda: verify(data, model, TRUSTED, at=NOW))
    assert refusal.code == Code.MODEL_FILE_UNSIGNED
    assert "no shard" in refusal.hint
    refusal = refused(lambda: sign(model, SIGNING_KEY, method="shards"))
    assert isinstance(refusal, MalformedEvidence)
    assert (refusal.code, refusal.where) == (Code.FIELD_RANGE, "marker")
    assert "marker" in sign(model, SIGNING_KEY)[1].files()


def test_colon_that_shards_cannot_name(model: Path) -> None:
    (model / "a:b").write_text("a")
    assert refused(lambda: sign(model, SIGNING_KEY, method="shards")).where == "a:b"
    assert "a:b" in sign(model, SIGNING_KEY)[1].files()


def test_links_are_followed_only_where_the_signature_says_so(signed: Signed) -> None:
    model = signed.model
    (model / "config.json").rename(model / "extra" / "real.json")
    (model / "config.json").symlink_to("extra/real.json")
    refusal = signed.refusal(ignore=("extra/real.json",))
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_UNSIGNED, "config.json")
    refusal = refused(lambda: sign(model, SIGNING_KEY))
    assert isinstance(refusal, EnvironmentFault)
    assert (refusal.code, refusal.where) == (Code.WEIGHTS_UNREADABLE, "config.json")
    data, statement = sign(model, SIGNING_KEY, allow_symlinks=True)
    assert statement.serialization.allow_symlinks
    assert verify(data, model, TRUSTED, at=NOW).statement == statement


def test_linked_directory_counts_as_a_link(signed: Signed) -> None:
    (signed.model / "extra").rename(signed.model / "other")
    (signed.model / "extra").symlink_to("other")
    assert signed.refusal(ignore=("other",)).code == Code.MODEL_FILE_UNSIGNED


def test_link_out_of_the_directory_is_refused_whatever_the_signature_says(model: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("a")
    (model / "inside").symlink_to(tmp_path / "outside")
    refusal = refused(lambda: sign(model, SIGNING_KEY, allow_symlinks=True))
    assert (refusal.code, refusal.where) == (Code.WEIGHTS_UNREADABLE, "inside")


def test_pipe_is_refused(signed: Signed) -> None:
    os.mkfifo(signed.model / "pipe")
    refusal = signed.refusal()
    assert isinstance(refusal, EnvironmentFault)
    assert refusal.where == "pipe"


@pytest.mark.parametrize("change", ["add", "touch"])
def test_directory_that_changes_while_it_is_read(signed: Signed, change: str) -> None:
    def progress(_: int, __: int) -> None:
        if change == "add":
            (signed.model / "late").write_text("a")
        else:
            os.utime(signed.model / "config.json", ns=(1, 1))

    refusal = signed.refusal(progress=progress)
    assert isinstance(refusal, EnvironmentFault)
    assert (refusal.code, refusal.where) == (Code.WEIGHTS_CHANGED, "late" if change == "add" else "config.json")


@pytest.mark.parametrize("name", ["none", "model/config.json"])
def test_what_is_no_directory(signed: Signed, tmp_path: Path, name: str) -> None:
    refusal = refused(lambda: verify(signed.data, tmp_path / name, TRUSTED, at=NOW))
    assert refusal.code == Code.WEIGHTS_UNREADABLE


# -- the signature ----------------------------------------------------------------------------------------------------


def test_another_key_is_refused(signed: Signed) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    refusal = signed.refusal(trust=load_public_key(public_pem(other)))
    assert isinstance(refusal, NotAuthentic)
    assert refusal.code == Code.MODEL_SIGNER
    assert refusal.expected is not None
    assert sha256(public_pem(other)).hex().startswith(refusal.expected[:60])


def test_a_hint_convinces_nobody(signed: Signed) -> None:
    """A stranger who names the trusted key cannot sign with it."""
    statement = Bundle.parse(signed.data).statement
    stranger = ec.generate_private_key(ec.SECP256R1())
    signature = Bundle.parse(forge(statement, stranger)).signature
    data = encode_bundle(KeyHint(sha256(public_pem(KEY))), statement, signature)
    refusal = refused(lambda: verify(data, signed.model, TRUSTED, at=NOW))
    assert isinstance(refusal, NotAuthentic)
    assert refusal.code == Code.MODEL_SIGNATURE


def test_hash_is_the_one_of_the_curve(model: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    statement = sign(model, load_signing_key(private_pem(key)))[1]
    signature = key.sign(model_signing.pae(statement.raw), ec.ECDSA(hashes.SHA256()))
    data = encode_bundle(KeyHint(sha256(public_pem(key))), statement, signature)
    refusal = refused(lambda: verify(data, model, load_public_key(public_pem(key)), at=NOW))
    assert refusal.code == Code.MODEL_SIGNATURE


def test_no_mode_stands_in_for_the_other(signed: Signed) -> None:
    refusal = signed.refusal(trust=ROOTS)
    assert isinstance(refusal, NotAuthentic)
    assert refusal.code == Code.MODEL_SIGNATURE_MODE
    data, _ = sign(signed.model, CERTIFIED)
    own = PKI.signer.key.public_key()
    assert isinstance(own, ec.EllipticCurvePublicKey)
    refusal = refused(lambda: verify(data, signed.model, TrustedKey(own), at=NOW))
    assert refusal.code == Code.MODEL_SIGNATURE_MODE


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    model = write_model(tmp_path_factory.mktemp("shared") / "model")
    return Signed(model, sign(model, SIGNING_KEY)[0])


@given(st.data())
def test_no_bit_of_a_bundle_can_be_flipped(shared: Signed, data: st.DataObject) -> None:
    changed = bytearray(shared.data)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedEvidence, NotAuthentic)):
        verify(bytes(changed), shared.model, TRUSTED, at=NOW)


def test_signed_statement_about_other_files_is_refused_by_their_names(signed: Signed) -> None:
    """The signature holds; what it is about is not what lies there."""
    document = json.loads(Bundle.parse(signed.data).statement.raw)
    document["predicate"]["resources"][0]["name"] = "other.json"
    data = forge(Statement.parse(json.dumps(document).encode()))
    refusal = refused(lambda: verify(data, signed.model, TRUSTED, at=NOW))
    assert (refusal.code, refusal.where) == (Code.MODEL_FILE_MISSING, "other.json")


def test_time_has_a_zone(signed: Signed) -> None:
    with pytest.raises(ValueError, match="naive"):
        signed.verify(at=NOW.replace(tzinfo=None))


def test_verified_model_is_made_by_verify_only(signed: Signed) -> None:
    verified = signed.verify()
    with pytest.raises(TypeError, match="verify only"):
        VerifiedModel(verified.signer, verified.statement, (), (), 0, object())
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(verified)


# -- certificates -----------------------------------------------------------------------------------------------------


def certified(model: Path, signer: Holder, *others: Holder) -> bytes:
    """A bundle whose chain is these, signed without the checks that signing does."""
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    return sign(model, SigningKey(signer.key, tuple(holder.certificate for holder in (signer, *others))))[0]


def chain_refusal(model: Path, *chain: Holder, trust: TrustedRoots = ROOTS, at: datetime = NOW) -> Code:
    data = certified(model, *chain)
    refusal = refused(lambda: verify(data, model, trust, at=at))
    assert isinstance(refusal, NotAuthentic)
    return refusal.code


@pytest.mark.parametrize("at", [BEGIN - timedelta(seconds=1), END + timedelta(seconds=1)])
def test_certificate_out_of_its_time(model: Path, at: datetime) -> None:
    assert chain_refusal(model, PKI.signer, PKI.intermediate, at=at) == Code.CHAIN_EXPIRED


@pytest.mark.parametrize("at", [BEGIN, END])
def test_certificate_at_the_ends_of_its_time(model: Path, at: datetime) -> None:
    verify(certified(model, PKI.signer, PKI.intermediate), model, ROOTS, at=at)


def test_expired_signer_among_valid_authorities(model: Path) -> None:
    signer = certify("Model Owner", issuer=PKI.intermediate, end=NOW - timedelta(days=1))
    assert chain_refusal(model, signer, PKI.intermediate) == Code.CHAIN_EXPIRED
    verify(certified(model, signer, PKI.intermediate), model, ROOTS, at=NOW - timedelta(days=2))


def test_expired_intermediate_and_root(model: Path) -> None:
    old = certify("Old Authority", issuer=PKI.root, ca=True, end=NOW - timedelta(days=1))
    assert chain_refusal(model, certify("Owner", issuer=old), old) == Code.CHAIN_EXPIRED
    root = certify("Old Root", ca=True, end=NOW - timedelta(days=1))
    trust = TrustedRoots((root.certificate,))
    assert chain_refusal(model, certify("Owner", issuer=root), trust=trust) == Code.CHAIN_EXPIRED


def test_root_that_is_not_trusted(model: Path) -> None:
    namesake = hierarchy()
    assert chain_refusal(model, namesake.signer, namesake.intermediate, namesake.root) == Code.CHAIN_UNTRUSTED


def test_intermediate_that_is_missing(model: Path) -> None:
    assert chain_refusal(model, PKI.signer) == Code.CHAIN_UNTRUSTED


def test_root_in_the_bundle_does_no_harm(model: Path) -> None:
    data = certified(model, PKI.signer, PKI.intermediate, PKI.root)
    assert isinstance(verify(data, model, ROOTS, at=NOW).signer, CertifiedSigner)


@pytest.mark.parametrize("change", [{"ca": False, "usage": AUTHORITY}, {"ca": True, "usage": "crl_sign"}])
def test_intermediate_that_may_not_certify(model: Path, change: dict[str, Any]) -> None:
    between = certify("No Authority", issuer=PKI.root, **change)
    assert chain_refusal(model, certify("Owner", issuer=between), between) == Code.CHAIN_UNTRUSTED


def test_authorities_without_key_usage(model: Path) -> None:
    """What `openssl req -x509` makes."""
    root = certify("Plain Root", ca=True, usage=None)
    verify(certified(model, certify("Owner", issuer=root)), model, TrustedRoots((root.certificate,)), at=NOW)


@pytest.mark.parametrize(
    ("usage", "extended", "accepted"),
    [
        ("digital_signature", None, True),
        ("digital_signature", ExtendedKeyUsageOID.CODE_SIGNING, True),
        (None, ExtendedKeyUsageOID.CODE_SIGNING, True),
        (None, None, False),
        ("key_encipherment", None, False),
        ("key_encipherment", ExtendedKeyUsageOID.CODE_SIGNING, False),
        ("digital_signature", ExtendedKeyUsageOID.SERVER_AUTH, False),
        ("digital_signature", ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, False),
    ],
)
def test_what_a_certificate_must_be_for(
    model: Path, usage: str | None, extended: x509.ObjectIdentifier | None, accepted: bool
) -> None:
    signer = certify("Owner", issuer=PKI.root, usage=usage, extended=extended)
    if accepted:
        verify(certified(model, signer), model, ROOTS, at=NOW)
        load_signing_key(signer.key_pem, certificate=signer.pem)
        return
    assert chain_refusal(model, signer) == Code.CERT_PURPOSE
    refusal = refused(lambda: load_signing_key(signer.key_pem, certificate=signer.pem))
    assert refusal.code == Code.CERT_PURPOSE


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())])
def test_certified_key_of_another_kind(model: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Nobody signs with it here: the certificate alone is enough to refuse."""
    signer = certify("Owner", issuer=PKI.root, key=key)
    statement = sign(model, SIGNING_KEY)[1]
    data = encode_bundle(model_signing.CertificateChain((signer.certificate,)), statement, b"sig")
    assert refused(lambda: verify(data, model, ROOTS, at=NOW)).code == Code.CERT_PURPOSE


def test_pinned_signer_is_its_own_root(model: Path) -> None:
    """Whoever names the signer's own certificate as root believes that one signer."""
    data = certified(model, PKI.signer, PKI.intermediate)
    verified = verify(data, model, TrustedRoots((PKI.signer.certificate,)), at=NOW)
    assert isinstance(verified.signer, CertifiedSigner)
    assert verified.signer.root == "CN=Model Owner"


def test_bundle_with_a_swapped_certificate(model: Path) -> None:
    """Another certificate of the same authority does not make its holder the signer."""
    other = certify("Somebody Else", issuer=PKI.root)
    document = json.loads(certified(model, PKI.signer, PKI.intermediate))
    der = base64.b64encode(other.certificate.public_bytes(Encoding.DER)).decode()
    document["verificationMaterial"]["x509CertificateChain"]["certificates"][0]["rawBytes"] = der
    refusal = refused(lambda: verify(json.dumps(document).encode(), model, ROOTS, at=NOW))
    assert refusal.code == Code.MODEL_SIGNATURE


# -- files of keys ----------------------------------------------------------------------------------------------------


def test_keys_that_are_none() -> None:
    assert refused(lambda: load_public_key(b"nothing")).code == Code.KEY_MALFORMED
    assert refused(lambda: load_public_key(private_pem(KEY))).code == Code.KEY_MALFORMED
    assert refused(lambda: load_signing_key(public_pem(KEY))).code == Code.KEY_MALFORMED


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())])
def test_keys_of_another_kind(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    assert refused(lambda: load_public_key(public_pem(key))).code == Code.KEY_UNSUPPORTED
    assert refused(lambda: load_signing_key(private_pem(key))).code == Code.KEY_UNSUPPORTED


def test_encrypted_key_says_what_to_do() -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    refusal = refused(lambda: load_signing_key(pem))
    assert refusal.code == Code.KEY_UNSUPPORTED
    assert "decrypt" in refusal.hint


def test_certificates_that_do_not_fit() -> None:
    refusal = refused(lambda: load_signing_key(private_pem(KEY), certificate=PKI.signer.pem))
    assert refusal.code == Code.MODEL_SIGNER
    two = PKI.signer.pem + PKI.intermediate.pem
    assert refused(lambda: load_signing_key(PKI.signer.key_pem, certificate=two)).code == Code.TOO_LARGE
    assert refused(lambda: load_signing_key(PKI.signer.key_pem, certificate=b"x")).code == Code.CERT_MALFORMED
    with pytest.raises(ValueError, match="without a certificate"):
        load_signing_key(private_pem(KEY), chain=PKI.root.pem)


def test_roots_are_certificates_and_there_is_one() -> None:
    assert load_roots(PKI.root.pem + PKI.intermediate.pem) == (PKI.root.certificate, PKI.intermediate.certificate)
    assert refused(lambda: load_roots(b"")).code == Code.CERT_MALFORMED
    with pytest.raises(ValueError, match="no root"):
        TrustedRoots(())
