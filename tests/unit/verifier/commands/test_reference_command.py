"""``weighbridge reference`` as its users see it: what is learned of a host, what is signed, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from corpus.bundle import believed, export
from eventlog_support import ima_data
from fakes.boot_logs import Boot, sha256_name
from support.baseline_owners import BaselineOwner
from support.host_owners import HostOwner
from support.options import changed
from support.world import World, requirements
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence
from weighbridge.proto.host_set import HostSet, SignedHostSet
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.anchors import TrustAnchors, load
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands.outcome import with_sets
from weighbridge.verifier.host_match import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from corpus.arena import Arena

BOOT_PCRS = tuple(range(8))
FILES = {
    "/usr/bin/python3.13": b"interpreter",
    "/opt/weighbridge/attester.py": b"attester",
    "/usr/bin/bash": b"shell",
}
ATTESTER = ("--attester", "/usr/bin/python3*", "--attester", "/opt/weighbridge/*")
OTHER = HostOwner("Beta Hosting")


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
        status = main(["reference", *map(str, arguments)])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return call


@dataclass
class Desk:
    """A hosts' owner's directory with a key, and a verifier at which a host has enrolled."""

    path: Path
    world: World
    run: Callable[..., Done]

    @property
    def state(self) -> Path:
        return self.world.directory

    def learn(self, *arguments: object, output: str = "host.set", source: object = None) -> Done:
        return self.run(
            "learn", source or self.state, "--anchors", self.path / "roots.json", "--days", 90,
            "--key", self.path / "owner.pem", "-o", self.path / output, *arguments,
        )  # fmt: skip

    def first(self, *arguments: object, output: str = "host.set") -> Done:
        session = ("--session", self.world.host.session.hex())
        named = ("--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1)
        return self.learn(*session, *named, *arguments, output=output)

    def sign(self, *arguments: object, output: str = "next.set") -> Done:
        command = ("sign", self.path / "host.set", "--days", 30, "--key", self.path / "owner.pem")
        return self.run(*changed(command, *arguments), "-o", self.path / output)

    def content(self, name: str = "host.set") -> HostSet:
        return SignedHostSet.parse((self.path / name).read_bytes()).claimed

    def write(self, name: str, data: bytes) -> Path:
        (self.path / name).write_bytes(data)
        return self.path / name


def booted(files: dict[str, bytes], *, violated: bool = False) -> Boot:
    """A machine whose firmware left its values, and whose kernel has measured ``files``."""
    boot = Boot()
    boot.firmware_begins()
    boot.firmware_ends()
    boot.kernel(files)
    if violated:
        boot.violate("/var/log/journal")
    return boot


def enrolled(world: World, boot: Boot | None) -> None:
    """The world's host, booted like that, enrols."""
    if boot is not None:
        world.host.boot_logs = boot.logs().encode()
        world.host.tpm.pcrs[HashAlgorithm.SHA256][:15] = boot.quoted(range(15)).values()
    world.open_session()


@pytest.fixture
def make(tmp_path: Path, arena: Arena, run: Callable[..., Done]) -> Iterator[Callable[..., Desk]]:
    worlds: list[World] = []

    def desk(boot: Boot | None = None, *, name: str = "verifier") -> Desk:
        """A desk, and a host that boots like ``boot``; without one it shows no logs."""
        more = {} if boot is None else {"evidence": ["boot", "gpu", "runtime", "telemetry", "tpm", "workload"]}
        pcrs = [*BOOT_PCRS, 15] if boot is None else [*BOOT_PCRS, 10, 15]
        (tmp_path / name).mkdir()
        world = World.make(tmp_path / name, wanted=requirements(pcrs=pcrs, **more), engines=arena.engines)
        worlds.append(world)
        # What makes it a verifier's state directory.
        (world.directory / "origin").write_text(world.ledger.key.name)
        (world.directory / "anchors.json").write_bytes(
            TrustAnchors(tuple(item for item in believed(world).anchors if item not in world.anchors.anchors)).encode()
        )
        enrolled(world, boot)
        made = Desk(tmp_path, world, run)
        made.write("roots.json", world.anchors.encode())
        if not (tmp_path / "owner.pem").exists():
            done = run("key", "Acme Hosting", "-o", tmp_path / "owner.pem", "--anchors", tmp_path / "owner.json")
            assert done.status == 0, done.err
        return made

    yield desk
    for world in worlds:
        world.close()


@pytest.fixture
def desk(make: Callable[..., Desk]) -> Desk:
    return make()


def refused(done: Done, code: Code) -> None:
    assert code.value in done.err
    assert done.status != 0


# -- key, trust --------------------------------------------------------------------------------------------------------


def test_a_hosts_owners_key_is_believed_for_hosts_only(desk: Desk) -> None:
    (anchor,) = load((desk.path / "owner.json").read_bytes()).anchors
    assert (anchor.purpose, anchor.name) == ("host-owner", "Acme Hosting")


def test_a_public_key_becomes_an_anchor_for_host_sets(desk: Desk) -> None:
    pem = OTHER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    done = desk.run(
        "trust", desk.write("beta.pem", pem), "--owner", OTHER.name, "-o", desk.path / "beta.json", "--json"
    )
    assert done.status == 0, done.err
    (anchor,) = load((desk.path / "beta.json").read_bytes()).anchors
    assert (anchor.purpose, anchor.name, anchor.spki) == ("host-owner", OTHER.name, OTHER.anchor().spki)
    assert done.document == {
        "schema": "weighbridge/reference-trust/v1",
        "purpose": "host-owner",
        "name": OTHER.name,
        "sha256": anchor.sha256,
    }


# -- learn -------------------------------------------------------------------------------------------------------------


def test_what_a_host_was_is_learned_signed_and_matches_it(make: Callable[..., Desk]) -> None:
    """From the enrolment to the values in force, by which the very host is found to be what it was."""
    boot = booted(FILES)
    desk = make(boot)
    done = desk.first(*ATTESTER)
    assert done.status == 0, done.err
    session = desk.world.host.session.hex()
    assert done.out.startswith(f"learned from session {session}, enrolled ")
    assert "signed set 1 of Acme Hosting for gpu-node\n" in done.out
    assert f"  PCR 7     {boot.quoted()[7].hex()}\n" in done.out
    assert "  files     3, 2 of the attester's own code\n" in done.out
    assert "  BEWARE    this is what the host was, whether good or not" in done.out
    content = desk.content()
    assert content.pcrs == {index: (boot.quoted()[index],) for index in BOOT_PCRS}
    assert {file.path: file.name for file in content.files} == {path: sha256_name(data) for path, data in FILES.items()}
    assert {file.path for file in content.files if file.attester} == {
        "/usr/bin/python3.13",
        "/opt/weighbridge/attester.py",
    }
    values = with_sets(
        Reference({}, {}, {}), [str(desk.path / "host.set")], load((desk.path / "owner.json").read_bytes())
    )
    (host,) = values.hosts
    for quoted, status in ((boot.quoted(), "match"), ({**boot.quoted(), 4: bytes(32)}, "mismatch")):
        assert [found.status for found in matches([host], quoted, 1, host.not_before)] == [status]


def test_baselines_are_no_reference_values_of_a_caller(tmp_path: Path) -> None:
    owner = BaselineOwner()
    (tmp_path / "baselines.set").write_bytes(owner.sign(owner.content()))
    anchors = TrustAnchors((owner.anchor(),))
    with pytest.raises(MalformedEvidence) as refusal:
        with_sets(Reference({}, {}, {}), [str(tmp_path / "baselines.set")], anchors)
    assert refusal.value.code is Code.COSE_HEADER
    assert "records name" in refusal.value.hint


def test_the_same_is_learned_from_a_bundle(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    desk.first()
    bundle = desk.write("session.wb", export(desk.world).encode())
    own = desk.write("own.json", (desk.state / "anchors.json").read_bytes())
    named = ("--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1)
    done = desk.learn(*named, "--anchors", own, output="again.set", source=bundle)
    assert done.status == 0, done.err
    assert desk.content("again.set").files == desk.content().files
    refused(desk.learn(*named, output="not.set", source=bundle), Code.CHAIN_UNTRUSTED)
    other = desk.learn(*named, "--anchors", own, "--session", "00" * 16, output="not.set", source=bundle)
    refused(other, Code.BUNDLE_MALFORMED)
    assert not (desk.path / "not.set").exists()


def test_a_bundle_that_was_altered_teaches_nothing(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    bundle = export(desk.world)
    path, another = b"/opt/weighbridge/attester.py", b"/opt/weighbridge/attester.pz"
    assert any(path in (entry.evidence or b"") for entry in bundle.entries)
    entries = [
        entry if entry.evidence is None else replace(entry, evidence=entry.evidence.replace(path, another))
        for entry in bundle.entries
    ]
    data = replace(bundle, entries=tuple(entries)).encode()
    own = desk.write("own.json", (desk.state / "anchors.json").read_bytes())
    named = ("--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1)
    done = desk.learn(*named, "--anchors", own, source=desk.write("session.wb", data))
    refused(done, Code.LEDGER_INCONSISTENT)
    assert not (desk.path / "host.set").exists()


def test_an_empty_bundle_teaches_nothing(desk: Desk) -> None:
    empty = desk.write("session.wb", replace(export(desk.world), entries=()).encode())
    own = desk.write("own.json", (desk.state / "anchors.json").read_bytes())
    named = ("--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1)
    refused(desk.learn(*named, "--anchors", own, source=empty), Code.BUNDLE_MALFORMED)


def test_roots_that_are_not_believed_teach_nothing(desk: Desk) -> None:
    desk.write("roots.json", TrustAnchors(()).encode())
    refused(desk.first(), Code.CHAIN_UNTRUSTED)


def test_without_imas_list_registers_are_learned_and_that_is_said(desk: Desk) -> None:
    done = desk.first(*ATTESTER)
    assert done.status == 0, done.err
    assert "  no files  the enrolment carried no list of IMA" in done.out
    assert (desk.content().files, list(desk.content().pcrs)) == ((), list(BOOT_PCRS))


def test_that_firmware_measured_nothing_is_told(make: Callable[..., Desk]) -> None:
    """Such a value is that of every TPM that no firmware extended."""
    told = "  BEWARE    firmware measured nothing into PCR 0, 1, 2, 3, 4, 5, 6, 7: every host"
    assert told in make().first().out
    desk = make(booted(FILES), name="booted")
    assert "firmware measured nothing" not in desk.first().out


def test_what_the_list_cannot_say_is_told(make: Callable[..., Desk]) -> None:
    boot = booted(FILES, violated=True)
    done = make(boot).first()
    assert done.status == 0, done.err
    assert "  BEWARE    1 violation in the list" in done.out
    assert "  attester  no file is said to be of the attester's own code" in done.out


def test_what_no_set_can_name_is_left_out_and_told(make: Callable[..., Desk]) -> None:
    boot = booted(FILES)
    boot.entry(ima_data(b"/usr/bin/old", bytes(20), b"sha1"))
    boot.entry(ima_data(b"/usr/bin/content", sha256(b"content"), b"ima:sha256"), b"ima-ngv2")
    boot.entry(ima_data(b"/usr/bin/sealed", sha256(b"verity"), b"verity:sha256"), b"ima-ngv2")
    desk = make(boot)
    done = desk.first("--json")
    assert done.status == 0, done.err
    assert (done.document["learned"]["left_out"], done.document["files"]) == (1, 5)
    assert {file.name for file in desk.content().files} >= {
        f"sha256:{sha256(b'content').hex()}",
        f"verity:sha256:{sha256(b'verity').hex()}",
    }
    assert "left out  1 of the list whose digest is not SHA-256" in desk.first().out


def test_a_pattern_that_matches_nothing_is_a_mistake(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    done = desk.first("--attester", "/opt/wieghbridge/*")
    assert (done.status, "--attester /opt/wieghbridge/* matches no path" in done.err) == (ExitCode.USAGE, True)
    assert not (desk.path / "host.set").exists()


def test_registers_are_chosen_among_those_that_were_quoted(desk: Desk) -> None:
    assert desk.first("--pcrs", "7,0").status == 0
    assert list(desk.content().pcrs) == [0, 7]
    for wrong in ("11", "15", "0,8"):
        refused(desk.first("--pcrs", wrong), Code.UNPROVEN)
    for wrong in ("10", "16", "24", "0,", "x", "-1", " 1"):
        assert desk.first("--pcrs", wrong).status == ExitCode.USAGE


def test_firmware_is_learned_where_it_is_wanted(desk: Desk) -> None:
    assert desk.first().status == 0
    assert desk.content().firmware is None
    done = desk.first("--firmware", "--json")
    assert done.status == 0, done.err
    version = desk.world.host.tpm.firmware
    assert desk.content().firmware == (version,)
    assert done.document["learned"]["firmware"] == f"{version:016x}"
    assert done.document["learned"]["session"] == desk.world.host.session.hex()


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ("--name", "--owner, --name and --number"),
        ("--owner", "--owner, --name and --number"),
        ("--number", "--owner, --name and --number"),
        ("--session", "needs --session"),
    ],
)
def test_what_nothing_else_says_has_to_be_given(desk: Desk, left: str, word: str) -> None:
    given = {
        "--session": desk.world.host.session.hex(), "--name": "gpu-node", "--owner": "Acme Hosting", "--number": 1
    }  # fmt: skip
    done = desk.learn(*(part for option, value in given.items() if option != left for part in (option, value)))
    assert (done.status, word in done.err) == (ExitCode.USAGE, True)
    assert "hint: `weighbridge reference learn --help`" in done.err


def test_a_session_that_is_not_there(desk: Desk) -> None:
    named = ("--name", "gpu-node", "--owner", "Acme Hosting", "--number", 1)
    done = desk.learn("--session", "00" * 16, *named)
    refused(done, Code.SESSION_UNKNOWN)
    assert f"hint: `weighbridge sessions {desk.state}` lists them" in done.err
    refused(desk.learn("--session", "00" * 16, *named, source=desk.path), Code.FILE_UNREADABLE)
    refused(desk.learn(*named, source=desk.path / "missing"), Code.FILE_UNREADABLE)
    (desk.state / "anchors.json").unlink()
    refused(desk.first(), Code.FILE_UNREADABLE)


# -- merge -------------------------------------------------------------------------------------------------------------


def test_another_host_of_the_class_is_accepted_beside_the_first(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    desk.first(*ATTESTER)
    before = desk.content()
    other = make(booted({**FILES, "/usr/bin/vim": b"editor"}), name="other")
    done = other.learn(
        "--session", other.world.host.session.hex(), "--merge", desk.path / "host.set",
        "--anchors", desk.path / "owner.json",
    )  # fmt: skip
    assert done.status == 0, done.err
    after = desk.content()
    assert (after.owner, after.name, after.number) == (before.owner, before.name, 2)
    assert set(after.files) > set(before.files)
    assert {file.path for file in after.files} == {*FILES, "/usr/bin/vim"}
    assert sum(file.attester for file in after.files) == 2


def test_values_are_united_by_register(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    desk.first()
    second = Boot()
    second.firmware_begins(dbx=b"\x08" * 76)
    second.firmware_ends()
    second.kernel(FILES)
    other = make(second, name="other")
    merge = ("--session", other.world.host.session.hex(), "--merge", desk.path / "host.set")
    assert other.learn(*merge, output="both.set").status == 0
    first, both = desk.content(), desk.content("both.set")
    values = second.quoted()
    assert both.pcrs == {index: tuple(sorted({*first.pcrs[index], values[index]})) for index in BOOT_PCRS}
    assert len(both.pcrs[7]) == 2
    refused(other.learn(*merge, "--pcrs", "0,7", output="not.set"), Code.UNPROVEN)
    for wrong in (("--number", 1), ("--owner", "Beta"), ("--name", "other"), ("--firmware",)):
        assert other.learn(*merge, *wrong, output="not.set").status == ExitCode.USAGE
    assert not (desk.path / "not.set").exists()


def test_another_version_of_the_attester_takes_the_place_of_the_first(make: Callable[..., Desk]) -> None:
    """A host must have run all of the attester's files: those of two versions nobody has."""
    desk = make(booted(FILES))
    desk.first(*ATTESTER)
    other = make(booted({**FILES, "/opt/weighbridge/attester.py": b"newer"}), name="other")
    merge = ("--session", other.world.host.session.hex(), "--merge", desk.path / "host.set")
    assert other.learn(*merge, *ATTESTER).status == 0
    content = desk.content()
    assert len(content.files) == 4
    marked = {file.name for file in content.files if file.attester}
    assert marked == {sha256_name(b"interpreter"), sha256_name(b"newer")}


def test_a_strangers_set_is_not_merged(desk: Desk) -> None:
    theirs = desk.write("beta.set", OTHER.sign(OTHER.content()))
    done = desk.learn("--session", desk.world.host.session.hex(), "--merge", theirs)
    refused(done, Code.CHAIN_UNTRUSTED)


# -- sign --------------------------------------------------------------------------------------------------------------


def test_the_following_set_has_what_was_put_in_and_not_what_was_taken_out(make: Callable[..., Desk]) -> None:
    boot = booted(FILES)
    desk = make(boot)
    desk.first(*ATTESTER)
    bash, new = sha256_name(b"shell"), f"verity:sha256:{'ab' * 32}"
    done = desk.sign(
        "--accept", f"4={'cd' * 32}", "--accept", new, "--drop", f"4={boot.quoted()[4].hex()}", "--drop", bash,
        "--note", "after the update", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    after = desk.content("next.set")
    assert (done.document["number"], after.number, after.note) == (2, 2, "after the update")
    assert after.pcrs[4] == (b"\xcd" * 32,)
    assert {file.name for file in after.files} == {sha256_name(b"interpreter"), sha256_name(b"attester"), new}
    assert sum(file.attester for file in after.files) == 2
    assert desk.sign("--attester", "/opt/*").status == 0
    assert [file.path for file in desk.content("next.set").files if file.attester] == ["/opt/weighbridge/attester.py"]


def test_what_is_not_there_is_not_taken_out(desk: Desk) -> None:
    desk.first()
    for wrong in (f"4={'cd' * 32}", f"9={'cd' * 32}", f"sha256:{'cd' * 32}"):
        done = desk.sign("--drop", wrong)
        assert (done.status, f"does not accept {wrong}" in done.err) == (ExitCode.USAGE, True)
    for wrong in ("4", "sha1:00", f"10={'cd' * 32}", "4=cd", f"sha256:{'CD' * 31}"):
        assert desk.sign("--accept", wrong).status == ExitCode.USAGE
    assert not (desk.path / "next.set").exists()


def test_the_last_register_cannot_be_taken_out(desk: Desk) -> None:
    desk.first("--pcrs", "4")
    refused(desk.sign("--drop", f"4={bytes(32).hex()}"), Code.FIELD_RANGE)


def test_numbers_grow_and_days_are_counted(desk: Desk) -> None:
    desk.first()
    assert desk.sign("--number", 1).status == ExitCode.USAGE
    assert desk.sign("--number", 7).status == 0
    assert desk.content("next.set").number == 7
    for wrong in ("0", "3651", "-1", "x"):
        assert desk.sign("--days", wrong).status == ExitCode.USAGE


def test_a_changed_key_goes_on_from_the_old_one(desk: Desk) -> None:
    desk.first()
    desk.run("key", "Acme Hosting", "-o", desk.path / "new.pem", "--anchors", desk.path / "new.json")
    arguments = ("--key", desk.path / "new.pem")
    refused(desk.sign(*arguments), Code.CHAIN_UNTRUSTED)
    done = desk.sign(*arguments, "--anchors", desk.path / "owner.json")
    assert done.status == 0, done.err
    assert desk.content("next.set").number == 2


# -- show, diff --------------------------------------------------------------------------------------------------------


def test_what_was_signed_is_shown(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    desk.first(*ATTESTER, "--note", "rack 7")
    path = desk.path / "host.set"
    shown = desk.run("show", path)
    assert (shown.status, shown.out.startswith("UNVERIFIED: ")) == (0, True)
    shown = desk.run("show", path, "--anchors", desk.path / "owner.json")
    assert shown.out.startswith("VERIFIED: signed by Acme Hosting; whether the host was a good one, nothing here says")
    for line in ("  class     gpu-node\n", "  firmware  any\n", "  note      rack 7\n"):
        assert line in shown.out
    assert f"    {sha256_name(b'attester')}  attester  /opt/weighbridge/attester.py\n" in shown.out
    document = desk.run("show", path, "--anchors", desk.path / "owner.json", "--json").document
    assert (document["verified"], document["valid"], len(document["files"])) == (True, True, 3)
    assert "EXPIRED" in desk.run("show", path, "--at", "2199-01-01T00:00:00Z").out
    assert "NOT YET VALID" in desk.run("show", path, "--at", "2000-01-01T00:00:00Z").out
    other = desk.write("other.json", TrustAnchors((OTHER.anchor(),)).encode())
    refused(desk.run("show", path, "--anchors", other), Code.CHAIN_UNTRUSTED)


def test_a_large_set_fits_a_screen(make: Callable[..., Desk]) -> None:
    desk = make(booted({f"/usr/bin/{number}": b"%d" % number for number in range(200)}))
    desk.first()
    lines = desk.run("show", desk.path / "host.set").out.splitlines()
    assert (len(lines) < 45, lines[-1]) == (True, "… 180 more lines: --all")
    assert len(desk.run("show", desk.path / "host.set", "--all").out.splitlines()) > 200


def test_what_differs_is_named_and_ends_with_its_own_status(make: Callable[..., Desk]) -> None:
    desk = make(booted(FILES))
    desk.first(*ATTESTER)
    desk.sign("--accept", f"4={'cd' * 32}", "--drop", sha256_name(b"shell"))
    done = desk.run("diff", desk.path / "host.set", desk.path / "next.set")
    assert done.status == ExitCode.DENIED
    assert done.out.startswith("DIFFERENT: 1 value only in A, 1 value only in B\n")
    assert f"only in A  file {sha256_name(b'shell')}  /usr/bin/bash\n" in done.out
    assert f"only in B  PCR 4 {'cd' * 32}\n" in done.out
    document = desk.run("diff", desk.path / "host.set", desk.path / "next.set", "--json").document
    assert (document["equal"], [item["what"] for item in document["only_b"]]) == (False, ["PCR 4"])
    same = desk.run("diff", desk.path / "host.set", desk.path / "host.set")
    assert (same.status, same.out.startswith("EQUAL: both accept the same\n")) == (0, True)


@pytest.mark.parametrize("data", [b"", b"neither", b"\xd2\x84", b"{}"])
def test_what_is_no_set_is_malformed(desk: Desk, data: bytes) -> None:
    path = desk.write("odd", data)
    shown = desk.run("show", path)
    assert shown.status == ExitCode.MALFORMED
    assert "not a host set: host set is not " in shown.err
    assert f"at {path}: host set" in shown.err
    assert "hint: name a file that `weighbridge reference learn` or `sign` wrote" in shown.err
    assert desk.run("diff", path, path).status == ExitCode.MALFORMED
    assert desk.learn("--session", desk.world.host.session.hex(), "--merge", path).status == ExitCode.MALFORMED
