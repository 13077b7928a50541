"""OpenSSF model signatures, parsed whole or refused. Who made them is tested where the files are."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_signers import certify, public_pem
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_signing import (
    Bundle,
    CertificateChain,
    KeyHint,
    Keyless,
    Resource,
    Serialization,
    Statement,
    encode_bundle,
    ignore_rule,
    pae,
)

HOLDER = certify("Model Owner")
FILES = Serialization("files", "sha256", allow_symlinks=False, ignore_paths=(), shard_size=None)
SHARDS = Serialization("shards", "sha256", allow_symlinks=False, ignore_paths=(), shard_size=10)


def digest(number: int, size: int = 32) -> bytes:
    return bytes([number]) * size


def sample() -> dict[str, Any]:
    """A statement as the reference implementation writes it: ignored paths in any order, unsorted keys."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "sample", "digest": {"sha256": hashlib.sha256(digest(1) + digest(2)).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig", ".git"],
            },
            "resources": [
                {"name": "config.json", "algorithm": "sha256", "digest": digest(1).hex()},
                {"name": "d0/weights", "algorithm": "sha256", "digest": digest(2).hex()},
            ],
        },
    }


def sample_shards() -> dict[str, Any]:
    document = sample()
    document["predicate"]["serialization"] |= {"method": "shards", "shard_size": 10.0}
    document["predicate"]["resources"] = [
        {"name": "a:0:10", "algorithm": "sha256-sharded-10", "digest": digest(1).hex()},
        {"name": "a:10:15", "algorithm": "sha256-sharded-10", "digest": digest(2).hex()},
    ]
    return document


def sample_bundle(payload: bytes | None = None) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": digest(9).hex()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload or encoded(sample())).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(b"signature").decode(), "keyid": ""}],
        },
    }


def encoded(document: object) -> bytes:
    return json.dumps(document, indent=2).encode()


def statement_refusal(document: object) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        Statement.parse(encoded(document))
    return caught.value


def bundle_refusal(document: object) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        Bundle.parse(encoded(document))
    return caught.value


# -- the statement ----------------------------------------------------------------------------------------------------


def test_statement_of_files() -> None:
    data = encoded(sample())
    statement = Statement.parse(data)
    assert statement == Statement(
        "sample",
        hashlib.sha256(digest(1) + digest(2)).digest(),
        Serialization("files", "sha256", allow_symlinks=False, ignore_paths=(".git", "model.sig"), shard_size=None),
        (Resource("config.json", None, None, digest(1)), Resource("d0/weights", None, None, digest(2))),
        data,
    )
    assert [resource.name for resource in statement.resources] == ["config.json", "d0/weights"]


def test_statement_of_shards_whose_size_was_written_as_a_double() -> None:
    statement = Statement.parse(encoded(sample_shards()))
    assert statement.serialization.shard_size == 10
    assert statement.serialization.algorithm == "sha256-sharded-10"
    assert statement.files() == {"a": [Resource("a", 0, 10, digest(1)), Resource("a", 10, 15, digest(2))]}


@pytest.mark.parametrize(("hash_type", "size"), [("blake2b", 64), ("blake3", 32)])
def test_other_hashes_have_their_own_sizes(hash_type: str, size: int) -> None:
    document = sample()
    document["predicate"]["serialization"]["hash_type"] = hash_type
    document["predicate"]["resources"] = [{"name": "a", "algorithm": hash_type, "digest": digest(1, size).hex()}]
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(digest(1, size)).hexdigest()
    assert Statement.parse(encoded(document)).resources[0].digest == digest(1, size)
    document["predicate"]["resources"][0]["digest"] = digest(1, size - 1).hex()
    assert statement_refusal(document).code == Code.FIELD_RANGE


def test_other_fields_of_the_predicate_are_ignored_as_the_format_demands() -> None:
    document = sample()
    document["predicate"]["model_card"] = {"any": ["thing"]}
    assert Statement.parse(encoded(document)).resources == Statement.parse(encoded(sample())).resources


def test_order_of_the_resources_is_what_the_digest_is_over() -> None:
    document = sample()
    document["predicate"]["resources"].reverse()
    assert statement_refusal(document).code == Code.MANIFEST_DIGEST


def set_in(*path: object) -> Callable[[dict[str, Any]], None]:
    """What sets the value last named at the path before it; ``...`` deletes."""
    *keys, last, value = path

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for key in keys:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


HOW = ("predicate", "serialization")
FIRST = ("predicate", "resources", 0)
SUBJECT = {"name": "x", "digest": {"sha256": "00" * 32}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_in("_type", "https://in-toto.io/Statement/v0.1"), Code.VERSION_UNSUPPORTED),
        (set_in("predicateType", "https://model_signing/signature/v1.1"), Code.VERSION_UNSUPPORTED),
        (set_in("predicateType", "https://model_signing/Digests/v0.1"), Code.VERSION_UNSUPPORTED),
        (set_in("predicateType", ...), Code.FIELD_MISSING),
        (set_in("predicate", []), Code.FIELD_TYPE),
        (set_in("extra", 1), Code.FIELD_UNKNOWN),
        (set_in("subject", []), Code.FIELD_RANGE),
        (set_in("subject", [SUBJECT, SUBJECT]), Code.TOO_LARGE),
        (set_in("subject", 0, "name", "a\nb"), Code.FIELD_RANGE),
        (set_in("subject", 0, "name", "a" * 1000), Code.TOO_LARGE),
        (set_in("subject", 0, "uri", "x"), Code.FIELD_UNKNOWN),
        (set_in("subject", 0, "digest", "sha512", "00" * 64), Code.FIELD_UNKNOWN),
        (set_in("subject", 0, "digest", "sha256", "00" * 32), Code.MANIFEST_DIGEST),
        (set_in("subject", 0, "digest", "sha256", "00" * 31), Code.FIELD_RANGE),
        (set_in("subject", 0, "digest", "sha256", "0A" * 32), Code.NOT_HEX),
        (set_in(*HOW, "method", "directories"), Code.FIELD_RANGE),
        (set_in(*HOW, "hash_type", "sha1"), Code.FIELD_RANGE),
        (set_in(*HOW, "hash_type", "blake2b"), Code.FIELD_RANGE),
        (set_in(*HOW, "allow_symlinks", "false"), Code.FIELD_TYPE),
        (set_in(*HOW, "shard_size", 10), Code.FIELD_UNKNOWN),
        (set_in(*HOW, "follow", 1), Code.FIELD_UNKNOWN),
        (set_in(*HOW, "ignore_paths", ["."]), Code.FIELD_RANGE),
        (set_in(*HOW, "ignore_paths", [""]), Code.FIELD_RANGE),
        (set_in(*HOW, "ignore_paths", ["../other"]), Code.FIELD_RANGE),
        (set_in(*HOW, "ignore_paths", [1]), Code.FIELD_TYPE),
        (set_in(*HOW, "ignore_paths", ["d0"]), Code.FIELD_RANGE),
        (set_in(*HOW, "ignore_paths", ["a"] * 1025), Code.TOO_LARGE),
        (set_in("predicate", "resources", []), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "/etc/passwd"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "../config.json"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "d0//weights"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "d0/weights"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "."), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", 7), Code.FIELD_TYPE),
        (set_in(*FIRST, "algorithm", "sha512"), Code.FIELD_RANGE),
        (set_in(*FIRST, "digest", "00"), Code.FIELD_RANGE),
        (set_in(*FIRST, "size", 1), Code.FIELD_UNKNOWN),
        (set_in(*FIRST, "digest", ...), Code.FIELD_MISSING),
    ],
)
def test_statement_that_is_none(change: Callable[[dict[str, Any]], None], code: Code) -> None:
    document = sample()
    change(document)
    assert statement_refusal(document).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_in(*HOW, "shard_size", 10.5), Code.FIELD_TYPE),
        (set_in(*HOW, "shard_size", 1e300), Code.FIELD_TYPE),
        (set_in(*HOW, "shard_size", 0), Code.FIELD_RANGE),
        (set_in(*HOW, "shard_size", True), Code.FIELD_TYPE),
        (set_in(*HOW, "shard_size", ...), Code.FIELD_MISSING),
        (set_in(*HOW, "hash_type", "blake3"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:b:0:10"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", ":0:10"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:00:10"), Code.NOT_A_NUMBER),
        (set_in(*FIRST, "name", "a:-10:0"), Code.NOT_A_NUMBER),
        (set_in(*FIRST, "name", "a: 0:10"), Code.NOT_A_NUMBER),
        (set_in(*FIRST, "name", "a:0:9"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:0:11"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:0:0"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:10:15"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "a:20:30"), Code.FIELD_RANGE),
        (set_in(*FIRST, "name", "b:0:10"), Code.FIELD_RANGE),
        (set_in(*FIRST, "algorithm", "sha256"), Code.FIELD_RANGE),
        (set_in(*FIRST, "algorithm", "sha256-sharded-11"), Code.FIELD_RANGE),
    ],
)
def test_statement_of_shards_that_is_none(change: Callable[[dict[str, Any]], None], code: Code) -> None:
    document = sample_shards()
    change(document)
    assert statement_refusal(document).code == code


def test_old_predicate_says_what_to_do() -> None:
    document = sample()
    document["predicateType"] = "https://model_signing/Digests/v0.1"
    assert "sign the model again" in statement_refusal(document).hint


def test_numbers_of_resources_and_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_SIGNATURE_RESOURCES_MAX", 1)
    assert statement_refusal(sample()).code == Code.TOO_LARGE
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MANIFEST_FILES_MAX", 1)
    assert statement_refusal(sample()).code == Code.TOO_LARGE
    assert len(Statement.parse(encoded(sample_shards())).resources) == 2


def test_statement_sorts_paths_by_their_segments() -> None:
    # As the reference implementation does: "a/b" before "a.b", though "." sorts before "/".
    resources = [Resource(path, None, None, digest(1)) for path in ("a.b", "b", "a/b", "a0")]
    statement = Statement.build("model", FILES, resources)
    assert [resource.path for resource in statement.resources] == ["a/b", "a.b", "a0", "b"]


@pytest.mark.parametrize("path", ["", "..", "a/../b", "a\nb", "\ud800"])
def test_statement_is_not_built_for_a_path_that_is_none(path: str) -> None:
    with pytest.raises(MalformedEvidence):
        Statement.build("model", FILES, [Resource(path, None, None, digest(1))])


def test_statement_of_shards_is_not_built_for_a_name_with_a_colon() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        Statement.build("model", SHARDS, [Resource("a:b", 0, 5, digest(1))])
    assert caught.value.code == Code.FIELD_RANGE


PATHS = st.lists(
    st.text(st.characters(min_codepoint=32, exclude_characters="/\x7f", exclude_categories=["Cs"]), min_size=1).filter(
        lambda name: name not in {".", ".."}
    ),
    min_size=1,
    max_size=3,
).map("/".join)


@given(st.dictionaries(PATHS, st.binary(min_size=32, max_size=32), min_size=1, max_size=5), st.booleans())
def test_what_is_built_is_what_is_parsed(files: dict[str, bytes], links: bool) -> None:
    how = Serialization("files", "sha256", allow_symlinks=links, ignore_paths=(".git",), shard_size=None)
    wanted = {path: content for path, content in files.items() if not ignore_rule([".git"])(path)}
    resources = [Resource(path, None, None, content) for path, content in wanted.items()]
    if not resources:
        return
    statement = Statement.build("a model", how, resources)
    assert statement == Statement.parse(statement.raw)
    assert {resource.path: resource.digest for resource in statement.resources} == wanted
    assert statement.serialization == how


@given(st.integers(1, 60), st.integers(1, 60))
def test_shards_of_every_size_are_what_is_parsed(size: int, shard: int) -> None:
    how = Serialization("shards", "blake2b", allow_symlinks=False, ignore_paths=(), shard_size=shard)
    shards = [Resource("a", begin, min(begin + shard, size), digest(3, 64)) for begin in range(0, size, shard)]
    statement = Statement.build("a model", how, reversed(shards))
    assert statement.files() == {"a": shards}
    if len(shards) > 1:
        with pytest.raises(MalformedEvidence):
            Statement.build("a model", how, shards[1:])


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        (".git", True),
        (".git/config", True),
        (".gitignore", False),
        ("a/.git", False),
        ("d/e", True),
        ("d/e/f", True),
        ("d/ef", False),
        ("d", False),
    ],
)
def test_ignored_is_the_path_and_what_lies_below(path: str, ignored: bool) -> None:
    assert ignore_rule([".git", "d/e"])(path) is ignored
    assert not ignore_rule([])(path)


# -- the bundle -------------------------------------------------------------------------------------------------------


def test_bundle_of_mode_key() -> None:
    bundle = Bundle.parse(encoded(sample_bundle()))
    assert bundle.material == KeyHint(digest(9))
    assert bundle.signature == b"signature"
    assert bundle.signed == b"DSSEv1 28 application/vnd.in-toto+json %d " % len(bundle.statement.raw) + encoded(
        sample()
    )


def test_bundle_as_releases_1_0_wrote_it() -> None:
    pem = public_pem(HOLDER.key)
    document = sample_bundle()
    document["verificationMaterial"] = {
        "publicKey": {"rawBytes": base64.b64encode(pem).decode(), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    }
    document["dsseEnvelope"]["signatures"][0]["keyid"] = None
    assert Bundle.parse(encoded(document)).material == KeyHint(hashlib.sha256(pem).digest())


def certified_bundle() -> dict[str, Any]:
    der = HOLDER.certificate.public_bytes(Encoding.DER)
    chain = {"certificates": [{"rawBytes": base64.b64encode(der).decode()}]}
    return {**sample_bundle(), "verificationMaterial": {"x509CertificateChain": chain}}


def test_bundle_of_mode_certificate() -> None:
    assert Bundle.parse(encoded(certified_bundle())).material == CertificateChain((HOLDER.certificate,))


@given(st.data())
def test_any_flipped_bit_of_a_certificate(data: st.DataObject) -> None:
    """A certificate or a refusal comes out, and never another error."""
    der = bytearray(HOLDER.certificate.public_bytes(Encoding.DER))
    der[data.draw(st.integers(0, len(der) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    document = certified_bundle()
    document["verificationMaterial"]["x509CertificateChain"]["certificates"] = [
        {"rawBytes": base64.b64encode(der).decode()}
    ]
    with contextlib.suppress(MalformedEvidence):
        Bundle.parse(encoded(document))


@pytest.mark.parametrize("material", [KeyHint(digest(9)), CertificateChain((HOLDER.certificate, HOLDER.certificate))])
def test_bundle_that_is_encoded_is_what_is_parsed(material: KeyHint | CertificateChain) -> None:
    statement = Statement.build("model", SHARDS, [Resource("a", 0, 5, digest(1))])
    assert Bundle.parse(encode_bundle(material, statement, b"sig")) == Bundle(material, statement, b"sig")


def test_pre_authentication_encoding_counts_bytes() -> None:
    assert pae("ä".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xa4"


MATERIAL = "verificationMaterial"
ENVELOPE = "dsseEnvelope"
SIGNATURE = (ENVELOPE, "signatures", 0)
KEY = (MATERIAL, "publicKey")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_in("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.1"), Code.VERSION_UNSUPPORTED),
        (set_in("mediaType", ...), Code.FIELD_MISSING),
        (set_in("more", 1), Code.FIELD_UNKNOWN),
        (set_in("messageSignature", {}), Code.MODEL_SIGNATURE_MODE),
        (set_in(MATERIAL, "tlogEntries", [{}]), Code.MODEL_SIGNATURE_MODE),
        (set_in(MATERIAL, "certificate", {"rawBytes": ""}), Code.FIELD_UNKNOWN),
        (set_in(MATERIAL, {"certificate": "", "tlogEntries": [{}]}), Code.FIELD_TYPE),
        (set_in(MATERIAL, {"certificate": {}}), Code.FIELD_MISSING),
        (set_in(MATERIAL, {"certificate": {}, "tlogEntries": {}}), Code.FIELD_TYPE),
        (set_in(MATERIAL, {"certificate": {}, "tlogEntries": [{}] * 17}), Code.TOO_LARGE),
        (set_in(MATERIAL, {"certificate": {}, "tlogEntries": [], "x": 1}), Code.FIELD_UNKNOWN),
        (set_in(MATERIAL, "timestampVerificationData", {}), Code.MODEL_SIGNATURE_MODE),
        (set_in(MATERIAL, "x509CertificateChain", {}), Code.FIELD_UNKNOWN),
        (set_in(MATERIAL, {}), Code.FIELD_MISSING),
        (set_in(MATERIAL, {"x509CertificateChain": {"certificates": []}}), Code.CHAIN_LENGTH),
        (set_in(MATERIAL, {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}), Code.CERT_MALFORMED),
        (set_in(MATERIAL, {"x509CertificateChain": {"certificates": [{}] * 9}}), Code.TOO_LARGE),
        (set_in(*KEY, {}), Code.FIELD_MISSING),
        (set_in(*KEY, "hint", "00"), Code.FIELD_RANGE),
        (set_in(*KEY, "rawBytes", "AAAA"), Code.FIELD_MISSING),
        (set_in(*KEY, {"rawBytes": "AAAA", "keyDetails": "PKCS1_RSA_PKCS1V5"}), Code.KEY_UNSUPPORTED),
        (set_in(*KEY, "other", 1), Code.FIELD_UNKNOWN),
        (set_in(ENVELOPE, "payloadType", "application/json"), Code.VERSION_UNSUPPORTED),
        (set_in(ENVELOPE, "payload", "e30"), Code.NOT_BASE64),
        (set_in(ENVELOPE, "payload", "e30="), Code.FIELD_MISSING),
        (set_in(ENVELOPE, "payload", ""), Code.NOT_JSON),
        (set_in(ENVELOPE, "other", 1), Code.FIELD_UNKNOWN),
        (set_in(ENVELOPE, "signatures", []), Code.FIELD_RANGE),
        (set_in(ENVELOPE, "signatures", [{"sig": "AAAA"}] * 2), Code.TOO_LARGE),
        (set_in(*SIGNATURE, "sig", "A" * 1000), Code.TOO_LARGE),
        (set_in(*SIGNATURE, "sig", None), Code.FIELD_TYPE),
        (set_in(*SIGNATURE, "keyid", "somebody"), Code.FIELD_RANGE),
        (set_in(*SIGNATURE, "cert", "x"), Code.FIELD_UNKNOWN),
    ],
)
def test_bundle_that_is_none(change: Callable[[dict[str, Any]], None], code: Code) -> None:
    document = sample_bundle()
    change(document)
    assert bundle_refusal(document).code == code


def test_bundle_of_mode_keyless_is_left_to_the_library() -> None:
    document = sample_bundle()
    document[MATERIAL] = {"certificate": {"rawBytes": "none"}, "tlogEntries": [{"logIndex": "one"}]}
    assert Bundle.parse(encoded(document)).material == Keyless()
    document[MATERIAL]["timestampVerificationData"] = {"rfc3161Timestamps": []}
    assert Bundle.parse(encoded(document)).material == Keyless()


def test_a_key_that_is_stated_twice_in_json_is_none() -> None:
    text = encoded(sample_bundle()).replace(b'"hint"', b'"hint": "00", "hint"', 1)
    with pytest.raises(MalformedEvidence) as caught:
        Bundle.parse(text)
    assert caught.value.code == Code.DUPLICATE_KEY


def test_bundle_is_bounded() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        Bundle.parse(b" " * (limits.MODEL_SIGNATURE_MAX + 1))
    assert caught.value.code == Code.TOO_LARGE


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    for parse in (Bundle.parse, Statement.parse):
        with contextlib.suppress(MalformedEvidence):
            parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a document but its top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *places(item, (*path, key)))]


@given(st.data(), JSON)
def test_any_value_in_any_place(data: st.DataObject, value: object) -> None:
    """Whatever stands in one place, a statement or a refusal comes out, and never another error."""
    for document, parse in (
        (sample(), Statement.parse),
        (sample_shards(), Statement.parse),
        (sample_bundle(), Bundle.parse),
        (certified_bundle(), Bundle.parse),
    ):
        changed = copy.deepcopy(document)
        set_in(*data.draw(st.sampled_from(places(document))), value)(changed)
        with contextlib.suppress(MalformedEvidence):
            parse(json.dumps(changed).encode())


def test_as_many_resources_and_ignored_paths_as_are_read() -> None:
    """The most that is read, every ignored path nearly matching every resource."""
    count = 20_000
    prefix = "a/" * 40
    resources = [Resource(f"{prefix}{index:05}", None, None, digest(1)) for index in range(count)]
    ignored = tuple(f"{prefix}{index:05}x" for index in range(1024))
    how = Serialization("files", "sha256", allow_symlinks=False, ignore_paths=ignored, shard_size=None)
    assert len(Statement.build("model", how, resources).resources) == count
