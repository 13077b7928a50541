"""``weighbridge policy key | trust | bundle`` as their users see them: what is signed, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.authors import ADMITS, Author
from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.policy_bundle import SignedPolicyBundle
from weighbridge.verifier.anchors import load
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEST = b"""package weighbridge.policy_test

import data.weighbridge.policy
import rego.v1

test_admits_nothing_by_itself if not policy.allow with input as data.examples.emulated.input
"""
FAILS = b"""package weighbridge.policy_test

import rego.v1

test_that_fails if 1 == 2
"""


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


@dataclass
class Desk:
    """An author's directory: a policy, a key, the anchors for it."""

    path: Path
    run: Callable[..., Done]

    def write(self, name: str, data: bytes) -> Path:
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        return target

    def sign(self, *arguments: object, number: int = 1, output: str = "gate.policy") -> Done:
        return self.run(
            "bundle", "sign", self.path / "policy", "--owner", "Acme Safety", "--name", "gate", "--number", number,
            "--key", self.path / "author.pem", "-o", self.path / output, *arguments,
        )  # fmt: skip

    def verify(self, *arguments: object, file: str = "gate.policy") -> Done:
        return self.run("bundle", "verify", self.path / file, "--anchors", self.path / "author.json", *arguments)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    def run(*arguments: object) -> Done:
        status = main(["policy", *map(str, arguments)])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    made = Desk(tmp_path, run)
    made.write("policy/gate.rego", ADMITS)
    key = run("key", "Acme Safety", "-o", tmp_path / "author.pem", "--anchors", tmp_path / "author.json")
    assert key.status == ExitCode.AFFIRMED
    return made


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_for_everybodys_policies(desk: Desk) -> None:
    (anchor,) = load((desk.path / "author.json").read_bytes()).anchors
    assert (anchor.purpose, anchor.name, anchor.tenant) == ("policy-author", "Acme Safety", None)


def test_a_key_for_one_tenants(desk: Desk) -> None:
    done = desk.run(
        "key", "Tenant A", "--tenant", "tenant-a", "-o", desk.path / "a.pem", "--anchors", desk.path / "a.json"
    )
    assert "made a key for Tenant A, for tenant-a alone\n" in done.out
    assert [anchor.tenant for anchor in load((desk.path / "a.json").read_bytes()).anchors] == ["tenant-a"]


def test_the_operator_says_for_whom_a_key_speaks(desk: Desk) -> None:
    """Not the tenant in the document that it hands over: the operator makes one of the public key."""
    public = Author("Tenant A").key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    pem = desk.write("a.pub.pem", public)
    done = desk.run("trust", pem, "--author", "Tenant A", "--tenant", "tenant-a", "-o", desk.path / "a.json", "--json")
    assert (done.status, done.document["schema"]) == (ExitCode.AFFIRMED, "weighbridge/policy-trust/v1")
    (anchor,) = load((desk.path / "a.json").read_bytes()).anchors
    assert (anchor.purpose, anchor.tenant) == ("policy-author", "tenant-a")


def test_a_tenant_with_too_long_a_name(desk: Desk) -> None:
    done = desk.run("key", "A", "--tenant", "a" * 65, "-o", desk.path / "a.pem", "--anchors", desk.path / "a.json")
    assert (done.status, "at most 64 bytes" in done.err) == (ExitCode.USAGE, True)


# -- sign --------------------------------------------------------------------------------------------------------------


def test_what_is_signed(desk: Desk) -> None:
    desk.write("policy/data.json", b'{"most": 3}')
    desk.write("policy/gate_test.rego", TEST)
    desk.write("policy/reference.json", Reference({}, {}, {}).to_json())
    done = desk.sign("--tenant", "tenant-a", "--note", "for the summer")
    assert done.status == ExitCode.AFFIRMED, done.err
    assert "  tests     1 test passed\n" in done.out
    data = (desk.path / "gate.policy").read_bytes()
    content = SignedPolicyBundle.parse(data).claimed
    assert content.files == (("data.json", b'{"most": 3}'), ("gate.rego", ADMITS))
    assert (content.owner, content.name, content.tenant, content.number) == ("Acme Safety", "gate", "tenant-a", 1)
    assert content.note == "for the summer"
    assert f"sha256 {sha256(data).hex()}" in done.out
    assert policy_set.authored(content.files, reference=Reference({}, {}, {})).digest.hex() in done.out


def test_a_policy_of_another_verifier_goes_with_it(desk: Desk) -> None:
    """It is part of what is signed, and of the digest that verdicts name."""
    theirs = desk.write("theirs.rego", b"package policy\n\nimport rego.v1\n\ndefault nv_match := true\n")
    alone = desk.sign("--without-tests", "--json").document["policy"]
    done = desk.sign("--without-tests", "--foreign", f"nvidia:{theirs}", "--json")
    assert done.status == ExitCode.AFFIRMED, done.err
    assert [item["name"] for item in done.document["files"]] == ["foreign/nvidia/theirs.rego", "gate.rego"]
    assert done.document["policy"] != alone
    assert desk.verify("--json").document["policy"] == done.document["policy"]


def test_a_policy_that_the_checker_refuses_is_not_signed(desk: Desk) -> None:
    desk.write("policy/gate.rego", ADMITS + b"\nallow := 3\n")
    done = desk.sign("--without-tests")
    assert (done.status, Code.POLICY_INVALID in done.err) == (ExitCode.DENIED, True)
    assert not (desk.path / "gate.policy").exists()


@pytest.mark.parametrize("test", [FAILS, None])
def test_a_policy_whose_tests_fail_is_not_signed_but_on_demand(desk: Desk, test: bytes | None) -> None:
    if test is not None:
        desk.write("policy/gate_test.rego", test)
    done = desk.sign()
    assert (done.status, "--without-tests" in done.err) == (ExitCode.DENIED, True)
    assert not (desk.path / "gate.policy").exists()
    done = desk.sign("--without-tests")
    assert (done.status, "  tests     none ran\n" in done.out) == (ExitCode.AFFIRMED, True)


def test_a_file_whose_name_cannot_be_signed(desk: Desk) -> None:
    (desk.path / "policy" / "gate.rego").rename(desk.path / "policy" / "my gate.rego")
    done = desk.sign("--without-tests")
    assert (done.status, "a file of this name cannot be signed" in done.err) == (ExitCode.DENIED, True)


@pytest.mark.parametrize(
    "arguments",
    [("--days", 0), ("--days", "x"), ("--days", 3651), ("--number", 0), ("--tenant", ""), ("--note", "a\nb")],
)
def test_arguments_that_are_none(desk: Desk, arguments: tuple[str, object]) -> None:
    assert desk.sign(*arguments).status == ExitCode.USAGE


# -- verify, show ------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(desk: Desk) -> Desk:
    assert desk.sign("--without-tests", "--days", 5).status == ExitCode.AFFIRMED
    return desk


def test_a_good_bundle(signed: Desk) -> None:
    done = signed.verify("--json")
    assert done.status == ExitCode.AFFIRMED
    assert (done.document["schema"], done.document["valid"]) == ("weighbridge/policy-bundle-verify/v1", True)
    assert [item["name"] for item in done.document["files"]] == ["gate.rego"]
    assert signed.verify().out.startswith("VERIFIED: number 1 of Acme Safety, gate")


@pytest.mark.parametrize(
    ("at", "word"), [("2025-01-01T00:00:00Z", "NOT YET VALID"), ("2200-01-01T00:00:00Z", "EXPIRED")]
)
def test_a_bundle_at_another_time(signed: Desk, at: str, word: str) -> None:
    done = signed.verify("--at", at)
    assert (done.status, done.out.startswith(word)) == (ExitCode.DENIED, True)


def test_an_edited_bundle(signed: Desk) -> None:
    data = (signed.path / "gate.policy").read_bytes().replace(b"lib.fresh", b"lib.stale")
    signed.write("gate.policy", data)
    done = signed.verify()
    assert (done.status, Code.COSE_SIGNATURE in done.err) == (ExitCode.NOT_AUTHENTIC, True)


def test_a_bundle_of_a_stranger_and_one_for_another_tenant(signed: Desk) -> None:
    mallory, tenant = Author("Mallory"), Author("Tenant A", "tenant-a")
    signed.write("mallory.policy", mallory.sign(mallory.content()))
    done = signed.verify(file="mallory.policy")
    assert (done.status, Code.CHAIN_UNTRUSTED in done.err) == (ExitCode.NOT_AUTHENTIC, True)
    signed.write("tenant.policy", tenant.sign(tenant.content(tenant="tenant-b")))
    public = tenant.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    trusted = signed.path / "a.json"
    signed.run("trust", signed.write("a.pem", public), "--author", "Tenant A", "--tenant", "tenant-a", "-o", trusted)
    done = signed.verify("--anchors", trusted, file="tenant.policy")
    assert (done.status, Code.POLICY_TENANT in done.err) == (ExitCode.NOT_AUTHENTIC, True)


def test_a_bundle_whose_policy_does_not_load(signed: Desk) -> None:
    author = Author()
    signed.write("bad.policy", author.sign(author.content({"gate.rego": b"package"})))
    public = author.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    trusted = signed.path / "b.json"
    signed.run("trust", signed.write("b.pem", public), "--author", author.name, "-o", trusted)
    done = signed.run("bundle", "verify", signed.path / "bad.policy", "--anchors", trusted)
    assert (done.status, Code.POLICY_INVALID in done.err) == (ExitCode.DENIED, True)


def test_a_file_that_is_no_bundle(signed: Desk) -> None:
    for verb in (("verify", "--anchors", signed.path / "author.json"), ("show",)):
        done = signed.run("bundle", verb[0], signed.path / "author.json", *verb[1:])
        assert (done.status, "not a policy bundle" in done.err) == (ExitCode.MALFORMED, True), done.err


def test_what_is_shown_is_not_verified(signed: Desk) -> None:
    done = signed.run("bundle", "show", signed.path / "gate.policy")
    assert (done.status, done.out.startswith("UNVERIFIED: ")) == (ExitCode.AFFIRMED, True)
    assert f"  {sha256(ADMITS).hex()}\n" in done.out
    assert all(len(line) <= 120 for line in done.out.splitlines())
    done = signed.run("bundle", "show", signed.path / "gate.policy", "--source", "gate.rego")
    assert done.out == ADMITS.decode()
    done = signed.run("bundle", "show", signed.path / "gate.policy", "--source", "other.rego")
    assert (done.status, "no such file" in done.err) == (ExitCode.DENIED, True)


def test_nothing_of_a_source_steers_the_terminal(signed: Desk) -> None:
    author = Author()
    signed.write("odd.policy", author.sign(author.content({"gate.rego": b"\x1b[2J\xff\nhidden"})))
    done = signed.run("bundle", "show", signed.path / "odd.policy", "--source", "gate.rego")
    assert done.out == "\\x1b[2J\ufffd\nhidden\n"
