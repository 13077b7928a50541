"""``weighbridge model`` as its users see it: what it writes, what it prints, and how it ends."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.owners import EVALUATION, Issuer
from support.world import manifest
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.manifest import FileEntry, Manifest, Part
from weighbridge.proto.reference_set import SignedSet
from weighbridge.verifier.anchors import TrustAnchors, load
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.proto.reference_set import ReferenceSet

UNTIL = "2199-06-30T00:00:00Z"
LAB = Issuer()
ONE, TWO = manifest("one"), manifest("two", weights=b"Weights")


@dataclass(frozen=True)
class Done:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*arguments: object) -> Done:
        status = main(["model", *map(str, arguments)])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return call


@dataclass(frozen=True)
class Desk:
    """An owner's directory: the key, the anchors, two manifests."""

    path: Path
    run: Callable[..., Done]

    def sign(self, *arguments: object, output: str = "models.set") -> Done:
        return self.run(
            "sign", *arguments, "--valid-until", UNTIL, "--key", self.path / "owner.pem", "-o", self.path / output
        )

    def first(self, *arguments: object) -> Done:
        return self.sign("--owner", "Acme Models", "--number", 1, *arguments)

    def content(self, name: str = "models.set") -> ReferenceSet:
        return SignedSet.parse((self.path / name).read_bytes()).claimed

    def write(self, name: str, data: bytes) -> Path:
        (self.path / name).write_bytes(data)
        return self.path / name


@pytest.fixture
def desk(tmp_path: Path, run: Callable[..., Done]) -> Desk:
    done = run("key", "Acme Models", "-o", tmp_path / "owner.pem", "--anchors", tmp_path / "owner.json")
    assert done.status == 0, done.err
    made = Desk(tmp_path, run)
    made.write("one.json", ONE.to_json())
    made.write("two.json", TWO.to_json())
    made.write("lab.json", TrustAnchors((LAB.anchor(),)).encode())
    return made


def refused(done: Done, code: Code) -> None:
    assert code.value in done.err
    assert done.status != 0


# -- key ---------------------------------------------------------------------------------------------------------------


def test_a_key_is_its_owners_alone_and_never_replaced(desk: Desk) -> None:
    key = desk.path / "owner.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    again = desk.run("key", "Acme Models", "-o", key, "--anchors", desk.path / "other.json")
    refused(again, Code.FILE_UNWRITABLE)
    assert (key.read_bytes(), (desk.path / "other.json").exists()) == (before, False)


def test_a_key_that_others_can_read_signs_nothing(desk: Desk) -> None:
    (desk.path / "owner.pem").chmod(0o644)
    refused(desk.first(desk.path / "one.json"), Code.KEY_EXPOSED)
    assert not (desk.path / "models.set").exists()


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519"])
def test_a_public_key_becomes_an_anchor(desk: Desk, kind: Literal["P-256", "P-384", "Ed25519"]) -> None:
    lab = Issuer("Another Lab", kind)
    pem = lab.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    trust = ("trust", desk.write("lab.pem", pem), "--issuer", lab.name, "-o", desk.path / "another.json")
    done = desk.run(*trust, "--json")
    assert done.status == 0, done.err
    (anchor,) = load((desk.path / "another.json").read_bytes()).anchors
    assert (anchor.purpose, anchor.name, anchor.spki) == ("statement-issuer", lab.name, lab.anchor().spki)
    assert done.document["sha256"] == anchor.sha256
    desk.first(desk.path / "one.json", "--statement", desk.write("s.json", lab.in_toto(ONE.digest)))
    anchors = ("--anchors", desk.path / "owner.json", "--anchors", desk.path / "another.json")
    assert f"{EVALUATION}, by Another Lab" in desk.run("show", desk.path / "models.set", *anchors).out
    # Believed only from a later time on, it is not believed in a set that was signed before.
    assert desk.run(*trust, "--since", "2190-01-01T00:00:00Z").status == 0
    refused(desk.run("show", desk.path / "models.set", *anchors), Code.CHAIN_EXPIRED)


def test_what_is_no_public_key_becomes_none(desk: Desk) -> None:
    for data in (b"", b"-----BEGIN PUBLIC KEY-----", (desk.path / "owner.pem").read_bytes()):
        done = desk.run("trust", desk.write("key.pem", data), "--issuer", "x", "-o", desk.path / "x.json")
        refused(done, Code.KEY_MALFORMED)
    pem = Issuer("x", "Ed25519").key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    refused(
        desk.run("trust", desk.write("key.pem", pem), "--owner", "x", "-o", desk.path / "x.json"), Code.ANCHORS_INVALID
    )
    assert not (desk.path / "x.json").exists()


# -- sign --------------------------------------------------------------------------------------------------------------


def test_what_was_signed_is_shown_and_verified(desk: Desk) -> None:
    statement = desk.write("evaluation.json", LAB.in_toto(ONE.digest))
    bom = desk.write("bom.json", LAB.ml_bom(TWO.digest))
    done = desk.first(
        desk.path / "one.json", desk.path / "two.json", "--statement", statement, "--statement", bom,
        "--revoke", f"{'00' * 32}=weights leaked",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "2 models with 2 statements, 1 revoked" in done.out
    anchors = ("--anchors", desk.path / "owner.json", "--anchors", desk.path / "lab.json")
    shown = desk.run("show", desk.path / "models.set", *anchors)
    assert shown.status == 0, shown.err
    assert shown.out.startswith("VERIFIED: signed by Acme Models")
    assert f"{EVALUATION}, by Evaluation Lab, 2026-05-01T00:00:00Z" in shown.out
    assert "cyclonedx, by Evaluation Lab, 2026-04-01T09:30:00Z" in shown.out
    assert "weights leaked" in shown.out
    document = desk.run("show", desk.path / "models.set", *anchors, "--json").document
    assert (document["verified"], document["valid"], document["number"]) == (True, True, 1)
    by_name = {model["name"]: model["statements"] for model in document["models"]}
    assert [item["type"] for item in by_name["one"]] == [EVALUATION]
    assert [item["issuer"] for item in by_name["two"]] == ["Evaluation Lab"]


def test_unverified_is_said_first(desk: Desk) -> None:
    desk.first(desk.path / "one.json", "--statement", desk.write("s.json", LAB.in_toto(ONE.digest, date=None)))
    shown = desk.run("show", desk.path / "models.set")
    assert (shown.status, shown.out.startswith("UNVERIFIED: ")) == (0, True)
    assert "by somebody (UNVERIFIED), undated" in shown.out
    document = desk.run("show", desk.path / "models.set", "--json").document
    assert (document["verified"], document["models"][0]["statements"][0]["issuer"]) == (False, None)


def test_an_unknown_issuer_is_told_with_anchors(desk: Desk) -> None:
    desk.first(desk.path / "one.json", "--statement", desk.write("s.json", LAB.in_toto(ONE.digest)))
    done = desk.run("show", desk.path / "models.set", "--anchors", desk.path / "owner.json")
    refused(done, Code.STATEMENT_UNTRUSTED)
    assert done.status == ExitCode.NOT_AUTHENTIC


@pytest.mark.parametrize(
    ("at", "word"),
    [("2198-01-01T00:00:00Z", "valid"), ("2000-01-01T00:00:00Z", "NOT YET VALID"), ("2199-12-01T00:00:00Z", "EXPIRED")],
)
def test_validity_is_told_at_a_time(desk: Desk, at: str, word: str) -> None:
    desk.first(desk.path / "one.json")
    done = desk.run("show", desk.path / "models.set", "--at", at)
    assert f"2199-06-30T00:00:00Z: {word}\n" in done.out


def test_a_statement_about_another_model_is_not_taken(desk: Desk) -> None:
    refused(
        desk.first(desk.path / "one.json", "--statement", desk.write("s.json", LAB.in_toto(TWO.digest))),
        Code.STATEMENT_SUBJECT,
    )
    assert not (desk.path / "models.set").exists()


def test_the_next_set_carries_over_what_it_does_not_change(desk: Desk) -> None:
    statement = LAB.in_toto(ONE.digest)
    desk.first(
        desk.path / "one.json", "--statement", desk.write("s.json", statement), "--revoke", f"{'00' * 32}=leaked"
    )
    done = desk.sign(desk.path / "two.json", "--previous", desk.path / "models.set", output="next.set")
    assert done.status == 0, done.err
    content = desk.content("next.set")
    assert (content.owner, content.number) == ("Acme Models", 2)
    assert {model.name: model.statements for model in content.models} == {"one": (statement,), "two": ()}
    assert [model.reason for model in content.revoked] == ["leaked"]


def test_a_revoked_model_stays_revoked(desk: Desk) -> None:
    desk.first("--revoke", f"{ONE.digest.hex()}=leaked")
    refused(desk.sign(desk.path / "one.json", "--previous", desk.path / "models.set"), Code.MODEL_REVOKED)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--number", 1),
        ("--owner", "Acme Models"),
        ("--previous", "SET", "--number", 1),
        ("--previous", "SET", "--owner", "Beta"),
    ],
)
def test_owner_and_number_follow_from_the_previous_set_or_are_given(desk: Desk, arguments: tuple[object, ...]) -> None:
    desk.first(desk.path / "one.json")
    given = [desk.path / "models.set" if item == "SET" else item for item in arguments]
    done = desk.sign(*given, output="next.set")
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert "hint: `weighbridge model sign --help`" in done.err
    assert not (desk.path / "next.set").exists()


def test_a_previous_set_of_a_stranger_is_not_signed_again(desk: Desk, run: Callable[..., Done], tmp_path: Path) -> None:
    """Unless the anchors say whose it is: a key that was changed."""
    desk.first(desk.path / "one.json")
    run("key", "Acme Models", "-o", tmp_path / "new.pem", "--anchors", tmp_path / "new.json")
    arguments = ("--previous", desk.path / "models.set", "--valid-until", UNTIL, "--key", tmp_path / "new.pem")
    refused(run("sign", *arguments, "-o", tmp_path / "next.set"), Code.CHAIN_UNTRUSTED)
    refused(
        run(
            "revoke",
            desk.path / "models.set",
            "00" * 32,
            "--reason",
            "x",
            "--key",
            tmp_path / "new.pem",
            "-o",
            tmp_path / "next.set",
        ),
        Code.CHAIN_UNTRUSTED,
    )
    done = run("sign", *arguments, "--anchors", desk.path / "owner.json", "-o", tmp_path / "next.set")
    assert done.status == 0, done.err
    assert desk.content("next.set").number == 2


def test_validity_that_ends_before_it_begins(desk: Desk) -> None:
    done = desk.first("--valid-from", "2199-12-01T00:00:00Z")
    assert (done.status, "--valid-until is earlier" in done.err) == (ExitCode.USAGE, True)
    assert not (desk.path / "models.set").exists()


# -- revoke ------------------------------------------------------------------------------------------------------------


def test_revoking_signs_the_set_that_follows_in_its_place(desk: Desk) -> None:
    desk.first(desk.path / "one.json", desk.path / "two.json")
    before = desk.content()
    done = desk.run(
        "revoke", desk.path / "models.set", ONE.digest.hex(), "00" * 32, "--reason", "weights leaked",
        "--key", desk.path / "owner.pem", "-o", desk.path / "models.set", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    content = desk.content()
    assert (content.number, done.document["number"], done.document["revoked"]) == (2, 2, 2)
    assert [model.name for model in content.models] == ["two"]
    assert {(model.manifest, model.reason) for model in content.revoked} == {
        (ONE.digest, "weights leaked"),
        (bytes(32), "weights leaked"),
    }
    assert (content.not_before_ns, content.not_after_ns) == (before.not_before_ns, before.not_after_ns)
    again = desk.run(
        "revoke", desk.path / "models.set", ONE.digest.hex(), "--reason", "another", "--key", desk.path / "owner.pem",
        "-o", desk.path / "models.set",
    )  # fmt: skip
    assert again.status == 0, again.err
    # For the reason given first.
    assert {model.reason for model in desk.content().revoked} == {"weights leaked"}


# -- show --------------------------------------------------------------------------------------------------------------


def large() -> Manifest:
    """A model of 700 files of one tensor each."""

    def entry(number: int) -> FileEntry:
        digest = sha256(b"%d" % number)
        parts = [
            Part.of(None, "", (), offset=0, size=8, shards=[sha256(b"header")]),
            Part.of(f"layer.{number}.weight", "F32", (number + 1,), offset=8, size=4 * (number + 1), shards=[digest]),
        ]
        return FileEntry.of(f"model-{number:05}-of-00700.safetensors", "safetensors", parts)

    return Manifest.build("large", map(entry, range(700)))


def test_a_large_model_fits_a_screen(desk: Desk) -> None:
    path = desk.write("large.json", large().to_json())
    done = desk.run("show", path)
    lines = done.out.splitlines()
    assert (done.status, len(lines) < 40) == (0, True)
    assert lines[0].startswith("UNVERIFIED: ")
    assert lines[-1] == "… 680 smaller files: --all"
    assert "files      700, 987.0 kB: 700 safetensors" in lines
    assert "model-00699-of-00700.safetensors" in lines[-21]
    assert len(desk.run("show", path, "--all").out.splitlines()) > 700
    tensors = desk.run("show", path, "--tensors").out
    assert "model-00000-of-00700.safetensors: layer.0.weight" in tensors
    assert tensors.endswith("… 680 more tensors: --all\n")
    document = desk.run("show", path, "--json").document
    assert (document["digest"], len(document["files"]), document["tensors"]) == (large().digest.hex(), 700, 700)


def test_names_cannot_steer_the_terminal(desk: Desk) -> None:
    part = Part.of("layer\x1b[2J", "F32", (1,), offset=0, size=4, shards=[sha256(b"x")])
    made = Manifest.build("one", [FileEntry.of("a\u202eb.safetensors", "safetensors", [part])])
    path = desk.write("odd.json", made.to_json())
    desk.write(
        "plain.json",
        Manifest.build(
            "one", [FileEntry.of("a\u202eb.safetensors", "safetensors", [replace(part, digest=sha256(b"y"))])]
        ).to_json(),
    )
    for arguments in (("show", path), ("show", path, "--tensors"), ("diff", path, desk.path / "plain.json")):
        out = desk.run(*arguments).out
        assert "\x1b" not in out
        assert "\u202e" not in out


@pytest.mark.parametrize("data", [b"", b"neither", b"\xd2\x84", b"{}", b"[]"])
def test_what_is_neither_is_malformed(desk: Desk, data: bytes) -> None:
    assert desk.run("show", desk.write("odd", data)).status == ExitCode.MALFORMED


def test_what_is_too_large_is_malformed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MANIFEST_JSON_MAX", 10)
    refused(desk.run("show", desk.path / "one.json"), Code.TOO_LARGE)


# -- diff --------------------------------------------------------------------------------------------------------------


def test_a_model_is_equal_to_itself(desk: Desk) -> None:
    done = desk.run("diff", desk.path / "one.json", desk.path / "one.json")
    assert (done.status, done.out) == (0, f"EQUAL: both are one, {ONE.digest.hex()}\n")
    document = desk.run("diff", desk.path / "one.json", desk.path / "one.json", "--json").document
    assert (document["equal"], document["differences"]) == (True, [])


def test_what_is_no_manifest_is_named(desk: Desk) -> None:
    other = desk.write("config.json", b'{"hidden_size": 384}')
    for arguments in (("diff", desk.path / "one.json", other), ("show", other)):
        done = desk.run(*arguments)
        assert done.status == ExitCode.MALFORMED
        assert f"at {other}: manifest" in done.err
        assert "hint: name a file that `weighbridge-attester measure -o` wrote" in done.err


def test_what_differs_is_named_and_ends_with_its_own_status(desk: Desk) -> None:
    done = desk.run("diff", desk.path / "one.json", desk.path / "two.json")
    assert done.status == ExitCode.DENIED
    assert done.out.startswith("DIFFERENT: 1 of 2 files\n       1 tensor changed\n")
    assert "the whole model\n  name, A one, B two\n" in done.out
    assert "model.safetensors\n  layer.weight: tensor changed, A " in done.out
    document = desk.run("diff", desk.path / "one.json", desk.path / "two.json", "--json").document
    assert (document["equal"], document["counts"]) == (False, {"name": 1, "tensor_changed": 1})
    assert [item["tensor"] for item in document["differences"]] == [None, "layer.weight"]


def test_many_differences_fit_a_screen(desk: Desk) -> None:
    made = large()
    fewer = Manifest.build("large", made.files[:100])
    a, b = desk.write("a.json", made.to_json()), desk.write("b.json", fewer.to_json())
    lines = desk.run("diff", a, b).out.splitlines()
    assert lines[:2] == ["DIFFERENT: 600 of 700 files", "     600 files only in A"]
    assert (len(lines) < 40, lines[-1]) == (True, "… 1180 more lines: --all")
    assert len(desk.run("diff", a, b, "--all").out.splitlines()) > 1200
    reversed_ = desk.run("diff", b, a)
    assert "     600 files only in B" in reversed_.out


def test_a_shard_is_named_by_its_bytes(desk: Desk) -> None:
    size = 3 * 64 * 1024 * 1024
    shards = [sha256(b"%d" % number) for number in range(3)]
    paths = []
    for name, second in (("a", shards[1]), ("b", sha256(b"changed"))):
        part = Part.of("large", "F32", (size // 4,), offset=0, size=size, shards=[shards[0], second, shards[2]])
        made = Manifest.build("one", [FileEntry.of("model.safetensors", "safetensors", [part])])
        paths.append(desk.write(f"{name}.json", made.to_json()))
    out = desk.run("diff", *paths).out
    assert "  large: bytes 67108864 to 134217728: tensor changed, A " in out
