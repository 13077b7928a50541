"""``weighbridge ledger monitor | witness | witness-key | cosign | compare``, as a user sees them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.logs import KEY, ORIGIN, PRIVATE, SECOND, START, Host, append, honest, served, write
from weighbridge.proto import cosignature, note, tlog
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier import anchors, witnesses
from weighbridge.verifier.cli import main
from weighbridge.verifier.clock import moment
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.ledger import Ledger
from weighbridge.verifier.ledger.storage import DirectoryStorage

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command about this log, a minute after its first entry."""
    monkeypatch.setattr(time, "time_ns", lambda: START + 60 * SECOND)

    def called(*arguments: object) -> tuple[int, str, str]:
        status = main(["ledger", *map(str, arguments), "--key", KEY.vkey])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log", honest("first"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def fork(tmp_path: Path, more: int = 0) -> Path:
    """Another history of the same ledger."""
    return write(tmp_path / "fork", honest("another"), [Host().leaf("junk").encode()] * (more + 1))


# -- monitor -----------------------------------------------------------------------------------------------------------


def test_a_look(run: Run, log: Path, state: Path) -> None:
    root = tlog.open_checkpoint((log / "checkpoint").read_bytes(), KEY, origin=ORIGIN).root.hex()
    assert run("monitor", log, "--state", state, "--once") == (
        0,
        (
            f"2026-05-28T20:27:40Z  head        5 entries (+5), 0 sessions not closed, root {root[:16]}; "
            "first look: nothing to compare with\n"
        ),
        "",
    )
    append(log, [Host("second", at_ns=START + 30 * SECOND).enrol()])
    status, out, _ = run("monitor", log, "--state", state, "--once", "--json")
    (line,) = out.splitlines()
    document = json.loads(line)
    assert (status, document["event"], document["size"], document["new"], document["sessions"]) == (0, "head", 6, 1, 1)
    assert document["first"] is False
    assert (document["schema"], document["origin"], document["at"]) == (
        "weighbridge/ledger-event/v1",
        ORIGIN,
        "2026-05-28T20:27:40Z",
    )


def test_what_a_person_should_look_at(run: Run, log: Path, state: Path) -> None:
    host = Host("gap", at_ns=START + 30 * SECOND)
    entries = [host.enrol(), *host.windows(3)]
    append(log, [*entries[:2], entries[3], b"no leaf"])
    status, out, err = run("monitor", log, "--state", state, "--once")
    assert (status, err) == (ExitCode.INDETERMINATE, "")
    gap, unreadable, head = out.splitlines()
    assert gap.endswith(
        f"GAP         session {host.session.hex()} at entry 7: window 1 missing, expected window 1, got window 2"
    )
    assert "  UNREADABLE  at entry 8: the entry is no leaf that is known here: " in unreadable
    assert "9 entries (+9), 1 session not closed" in head
    # It is told once.
    assert run("monitor", log, "--state", state, "--once")[0] == 0


def test_events_for_programs(run: Run, log: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("silent", at_ns=START + 30 * SECOND)
    append(log, [host.enrol(), host.window()])
    monkeypatch.setattr(time, "time_ns", lambda: START + 1000 * SECOND)
    status, out, _ = run(
        "monitor", log, "--state", state, "--once", "--json", "--silence", 900, "--stall", 600, "--interval", 1
    )
    silent, head = map(json.loads, out.splitlines())
    assert (status, head["told"], head["not_listed"]) == (6, 1, 0)
    assert silent["event"] == "silent"
    assert (silent["session"], silent["entry"], silent["received_at"]) == (
        host.session.hex(),
        None,
        "2026-05-28T20:27:20Z",
    )


def test_a_line_says_which_session_is_silent(run: Run, log: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("silent", at_ns=START + 30 * SECOND)
    append(log, [host.enrol(), host.window()])
    monkeypatch.setattr(time, "time_ns", lambda: START + 1000 * SECOND)
    _, out, _ = run("monitor", log, "--state", state, "--once", "--silence", 900)
    assert f"  SILENT      session {host.session.hex()}: " in out
    # It is told once, and stays in sight until something is heard of it.
    status, out, _ = run("monitor", log, "--state", state, "--once", "--silence", 900)
    assert (status, "SILENT" in out, "1 session not closed (1 silent)" in out) == (0, False, True)
    host.at_ns = START + 990 * SECOND
    append(log, [host.window()])
    assert "1 session not closed, root" in run("monitor", log, "--state", state, "--once", "--silence", 900)[1]


def test_a_server(run: Run, log: Path, state: Path) -> None:
    with served(log) as server:
        assert run("monitor", server.address, "--state", state, "--once")[0] == 0
        append(log, honest("second"))
        assert "10 entries (+5)" in run("monitor", server.address + "/", "--state", state, "--once")[1]


def test_a_fork(run: Run, log: Path, state: Path, tmp_path: Path) -> None:
    """A71: exit 7, both heads kept, nothing else remembered; and anybody can see it in what was kept."""
    run("monitor", log, "--state", state, "--once")
    before = state.read_bytes()
    status, out, err = run("monitor", fork(tmp_path), "--state", state, "--once")
    assert (status, out) == (ExitCode.LEDGER_INCONSISTENT, "")
    assert "error: LEDGER_FORK: the log has signed two histories" in err
    (kept,) = tmp_path.glob("state.fork-*.json")
    assert str(kept) in err
    assert state.read_bytes() == before
    status, out, err = run("compare", kept)
    assert (status, out) == (ExitCode.LEDGER_INCONSISTENT, "")
    assert "LEDGER_FORK" in err


def test_a_failure_for_programs_is_one_line_too(run: Run, log: Path, state: Path, tmp_path: Path) -> None:
    run("monitor", log, "--state", state, "--once")
    status, out, err = run("monitor", fork(tmp_path), "--state", state, "--once", "--json")
    (document,) = map(json.loads, out.splitlines())
    assert (status, document["event"], document["code"], document["exit"]) == (7, "error", "LEDGER_FORK", 7)
    assert err.startswith("weighbridge: error: LEDGER_FORK")


def test_a_rollback(run: Run, log: Path, state: Path) -> None:
    earlier = (log / "checkpoint").read_bytes()
    append(log, honest("second"))
    run("monitor", log, "--state", state, "--once")
    (log / "checkpoint").write_bytes(earlier)
    status, _, err = run("monitor", log, "--state", state, "--once")
    assert (status, "LEDGER_ROLLBACK" in err) == (7, True)


def test_nothing_to_read(run: Run, state: Path, tmp_path: Path) -> None:
    status, out, err = run("monitor", tmp_path / "nowhere", "--state", state, "--once")
    assert (status, out) == (ExitCode.ENVIRONMENT, "")
    assert f"no ledger here, at {tmp_path / 'nowhere/checkpoint'}" in err
    assert not state.exists()


def test_a_state_that_is_none(run: Run, log: Path, state: Path) -> None:
    state.write_bytes(b"{}")
    status, _, err = run("monitor", log, "--state", state, "--once")
    assert (status, "not what a monitor remembers" in err, state.read_bytes()) == (3, True, b"{}")


def test_a_watch_goes_on_until_it_is_stopped(run: Run, log: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be read it is asked again; what does not change is not told."""
    away = log.with_name("away")

    def first(seconds: float) -> None:
        assert seconds == 7
        pending.pop(0)()

    def stop() -> None:
        raise KeyboardInterrupt

    pending = [
        lambda: None,
        lambda: shutil.move(log, away) and None,
        lambda: shutil.move(away, log) and None,
        lambda: append(log, honest("second", at_ns=START + 30 * SECOND)),
        stop,
    ]
    monkeypatch.setattr(time, "sleep", first)
    status, out, err = run("monitor", log, "--state", state, "--interval", 7)
    assert status == ExitCode.ENVIRONMENT
    assert [line.split("  ")[-1][:15] for line in out.splitlines()] == ["5 entries (+5),", "10 entries (+5)"]
    assert err.count("FILE_UNREADABLE") == 1


def test_a_watch_ends_where_nothing_can_be_believed(
    run: Run, log: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fork(tmp_path)

    def swap(_: float) -> None:
        shutil.rmtree(log)
        shutil.copytree(other, log)

    monkeypatch.setattr(time, "sleep", swap)
    assert run("monitor", log, "--state", state)[0] == ExitCode.LEDGER_INCONSISTENT


@pytest.mark.parametrize(
    "arguments",
    [
        ("monitor", "http://", "--state", "s"),
        ("monitor", "https://user@log.example", "--state", "s"),
        ("monitor", "https://log.example/?page=1", "--state", "s"),
        ("monitor", "http://log.example:port/", "--state", "s"),
        ("monitor", "http://log.example/a b", "--state", "s"),
        ("monitor", "log", "--state", "-"),
        ("monitor", "log", "--state", "s", "--interval", "0"),
        ("monitor", "log", "--state", "s", "--silence", "-1"),
        ("compare", "note", "note", "--log", "http://"),
    ],
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == ExitCode.USAGE


# -- witnesses ---------------------------------------------------------------------------------------------------------


class Witness:
    """A witness, and where it puts what it cosigned."""

    def __init__(self, run: Run, directory: Path, capsys: pytest.CaptureFixture[str], name: str = "w1") -> None:
        self.name = f"witness.example/{name}"
        self.key_file, self.anchors = directory / f"{name}.pem", directory / f"{name}.json"
        self.state, self.head = directory / f"{name}.state", directory / f"{name}.head"
        self._run = run
        status = main(["ledger", "witness-key", self.name, "-o", str(self.key_file), "--anchors", str(self.anchors)])
        assert status == 0
        assert self.key.vkey in capsys.readouterr().out

    @property
    def key(self) -> cosignature.WitnessKey:
        (anchor,) = anchors.load(self.anchors.read_bytes()).select("witness")
        return cosignature.WitnessKey.from_spki(anchor.name, anchor.spki)

    def look(self, log: Path | str) -> tuple[int, str, str]:
        options = ("--state", self.state, "--key-file", self.key_file, "--name", self.name, "-o", self.head)
        return self._run("witness", log, *options, "--once")


@pytest.fixture
def witness(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Witness:
    return Witness(run, tmp_path, capsys)


def test_from_the_witness_to_the_proof(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    """What is cosigned is published, and a proof under it says who else saw that tree."""
    status, out, _ = witness.look(log)
    root = tlog.open_checkpoint((log / "checkpoint").read_bytes(), KEY, origin=ORIGIN).root.hex()
    told = f"  cosigned    5 entries, root {root}, by witness.example/w1: wrote {witness.head}"
    assert (status, out.splitlines()[-1].endswith(told)) == (0, True)
    cosigned = cosignature.verify(note.parse(witness.head.read_bytes()), witness.key)
    assert cosigned.time == (START + 60 * SECOND) // SECOND
    status, out, _ = run("cosign", log, witness.head, "--witness", witness.anchors)
    assert status == 0
    assert out.splitlines() == [
        f"wrote {log / 'cosigned'}, and checkpoint: 5 entries of 5, cosigned by",
        "  witness.example/w1  2026-05-28T20:27:40Z",
    ]
    assert (log / "checkpoint").read_bytes() == (log / "cosigned").read_bytes() == witness.head.read_bytes()
    # An auditor demands it, and is told who signed.
    audited = run("audit", log, "--witness", witness.anchors)
    assert audited[1].endswith("\n  cosigned by witness.example/w1 at 2026-05-28T20:27:40Z\n")
    # The log goes on, and its head is new; what was cosigned stays to be had.
    append(log, honest("second"))
    status, _, err = run("audit", log, "--witness", witness.anchors)
    assert (
        status,
        f"LEDGER_WITNESS: the witness has not cosigned this checkpoint, at {log / 'checkpoint'}: " in err,
    ) == (
        4,
        True,
    )
    document = json.loads(run("audit", log, "--cosigned", "--witness", witness.anchors, "--json")[1])
    assert (document["size"], [item["name"] for item in document["witnesses"]]) == (5, ["witness.example/w1"])
    assert run("prove", log, 2, "--cosigned", "-o", tmp_path / "2.tlog-proof")[0] == 0
    entry = tmp_path / "entry"
    entry.write_bytes(honest("first")[2])
    status, out, _ = run("verify", tmp_path / "2.tlog-proof", "--entry", entry, "--witness", witness.key.vkey)
    assert (status, out) == (
        0,
        f"in the ledger: entry 2 of 5 in {ORIGIN}\n  cosigned by witness.example/w1 at 2026-05-28T20:27:40Z\n",
    )


def test_a_cosignature_that_is_demanded_and_missing(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    assert run("prove", log, 2, "-o", tmp_path / "2.tlog-proof")[0] == 0
    (tmp_path / "entry").write_bytes(honest("first")[2])
    status, _, err = run(
        "verify", tmp_path / "2.tlog-proof", "--entry", tmp_path / "entry", "--witness", witness.anchors
    )
    assert (status, "LEDGER_WITNESS" in err) == (ExitCode.NOT_AUTHENTIC, True)


def test_a_witness_that_was_not_trusted_when_it_cosigned(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    assert witness.look(log)[0] == 0
    assert run("cosign", log, witness.head, "--witness", witness.anchors)[0] == 0
    assert run("prove", log, 2, "-o", tmp_path / "2.tlog-proof")[0] == 0
    (tmp_path / "entry").write_bytes(honest("first")[2])
    (anchor,) = anchors.load(witness.anchors.read_bytes()).anchors
    later = replace(anchor, not_before=moment(START + 61 * SECOND))
    (tmp_path / "later.json").write_bytes(anchors.TrustAnchors((later,)).encode())
    asked = ("verify", tmp_path / "2.tlog-proof", "--entry", tmp_path / "entry", "--witness")
    assert run(*asked, witness.anchors)[0] == 0
    status, _, err = run(*asked, tmp_path / "later.json")
    assert (status, "CHAIN_EXPIRED" in err) == (ExitCode.NOT_AUTHENTIC, True)


def test_a_receipt_carries_no_cosignatures(run: Run, witness: Witness, tmp_path: Path) -> None:
    (tmp_path / "receipt").write_bytes(bytes([0xD2]))
    status, _, err = run("verify", tmp_path / "receipt", "--leaf-hash", "00" * 32, "--witness", witness.anchors)
    assert (status, "--witness is for proofs" in err) == (ExitCode.USAGE, True)


def test_the_logs_own_key_is_no_witness(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    """Whatever it is called: nobody makes a cosignature with it, and nobody counts one."""
    own = cosignature.WitnessKey("witness.example/own", PRIVATE.public_key().public_bytes_raw())
    witness.key_file.write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    checkpoint = tlog.open_checkpoint((log / "checkpoint").read_bytes(), KEY, origin=ORIGIN)
    line = cosignature.sign(note.parse(checkpoint.note).claimed_text, key=own, time=1, signer=PRIVATE.sign)
    (tmp_path / "signed").write_bytes(checkpoint.note + line)
    for status, out, err in (
        witness.look(log),
        run("cosign", log, tmp_path / "signed", "--witness", own.vkey),
        run("audit", log, "--witness", own.vkey),
    ):
        assert (status, out, "LEDGER_WITNESS: the ledger's own key is no witness of it" in err) == (4, "", True)
        assert "`weighbridge ledger witness-key` makes one" in err
    assert not witness.head.exists()
    (anchor,) = anchors.load(witness.anchors.read_bytes()).anchors
    believed = anchors.TrustAnchors((replace(anchor, spki=own.spki, name=own.name, not_before=moment(0)),))
    signed = tlog.open_checkpoint(checkpoint.note + line, KEY, origin=ORIGIN)
    assert cosignature.verify(note.parse(signed.note), own).time == 1
    assert witnesses.cosignatures(signed, believed) == ()


def test_a_witness_cosigns_no_second_history(log: Path, witness: Witness, tmp_path: Path) -> None:
    witness.look(log)
    before = witness.head.read_bytes()
    status, _, err = witness.look(fork(tmp_path))
    assert (status, "LEDGER_FORK" in err) == (7, True)
    assert witness.head.read_bytes() == before


def test_what_sessions_do_keeps_no_witness_from_cosigning(log: Path, witness: Witness) -> None:
    append(log, [Host("not enrolled", at_ns=START + 30 * SECOND).window()])
    assert witness.look(log)[0] == ExitCode.INDETERMINATE
    assert cosignature.verify(note.parse(witness.head.read_bytes()), witness.key).text.splitlines()[1] == b"6"


def test_lines_of_several_witnesses(
    run: Run, log: Path, witness: Witness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bare lines are over the published head; cosignatures of one head gather, an older head changes nothing."""
    second = Witness(run, tmp_path, capsys, "w2")
    witness.look(log)
    older = tmp_path / "older"
    shutil.copy(witness.head, older)
    append(log, honest("second"))
    witness.look(log)
    second.look(log)
    line = second.head.read_bytes().splitlines(keepends=True)[-1]
    (tmp_path / "line").write_bytes(line)
    both = ("--witness", witness.anchors, "--witness", second.key.vkey)
    status, out, _ = run("cosign", log, witness.head, tmp_path / "line", older, *both)
    assert (status, "10 entries of 10" in out, out.count("witness.example/")) == (0, True, 2)
    status, out, _ = run("cosign", log, older, *both, "--json")
    document = json.loads(out)
    assert (status, document["size"], [item["name"] for item in document["witnesses"]]) == (
        0,
        10,
        ["witness.example/w1", "witness.example/w2"],
    )


def test_a_writer_is_not_overtaken(run: Run, log: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody appends, the published checkpoint is his alone; a ledger that is only open gets the lines."""
    monkeypatch.setattr("weighbridge.verifier.ledger.storage.PATIENCE", 0.01)
    witness.look(log)
    before = (log / "checkpoint").read_bytes()
    with Ledger.open(log, origin=ORIGIN, key=PRIVATE) as writing:
        with DirectoryStorage(log, PosixFiles()).exclusive():
            status, out, _ = run("cosign", log, witness.head, "--witness", witness.key.vkey)
        assert (status, "checkpoint" in out) == (0, False)
        assert (log / "checkpoint").read_bytes() == before
        status, out, _ = run("cosign", log, witness.head, "--witness", witness.key.vkey)
        assert (status, "checkpoint" in out) == (0, True)
        assert (log / "checkpoint").read_bytes().startswith(before)
        writing.append([b"entry"])
        assert "5 entries of 6" in run("cosign", log, witness.head, "--witness", witness.key.vkey)[1]


def test_refused_cosignatures(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    witness.look(log)
    stranger = cosignature.WitnessKey("witness.example/x", PRIVATE.public_key().public_bytes_raw()).vkey
    status, _, err = run("cosign", log, witness.head, "--witness", stranger)
    assert (status, "LEDGER_WITNESS" in err) == (4, True)
    ahead = fork(tmp_path, 7)
    witness.state.unlink()
    witness.look(ahead)
    status, _, err = run("cosign", log, witness.head, "--witness", witness.anchors)
    assert (status, "LEDGER_ROLLBACK" in err) == (7, True)
    # A witness that was shown another history has found it out.
    append(log, [Host().leaf("junk").encode()] * 20)
    status, _, err = run("cosign", log, witness.head, "--witness", witness.anchors)
    assert (status, "LEDGER_FORK" in err) == (7, True)
    assert not (log / "cosigned").exists()
    status, _, err = run("cosign", tmp_path / "nowhere", witness.head, "--witness", witness.anchors)
    assert status == ExitCode.ENVIRONMENT


def test_anchors_without_a_witness(run: Run, log: Path, witness: Witness, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_bytes(anchors.TrustAnchors(()).encode())
    assert run("cosign", log, log / "checkpoint", "--witness", empty)[0] == ExitCode.MALFORMED
    text = witness.anchors.read_text().replace("witness.example/w1", "two words")
    empty.write_text(text)
    assert run("cosign", log, log / "checkpoint", "--witness", empty)[0] == ExitCode.MALFORMED


# -- two heads ---------------------------------------------------------------------------------------------------------


def test_heads_that_agree(run: Run, log: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", log / "checkpoint"
    shutil.copy(new, old)
    assert run("compare", old, new) == (0, f"the same: 5 entries in {ORIGIN}\n", "")
    append(log, honest("second"))
    for pair in ((old, new), (new, old)):
        assert run("compare", *pair, "--log", log) == (0, f"consistent: 10 entries begin with the 5 in {ORIGIN}\n", "")
    document = json.loads(run("compare", old, new, "--log", log, "--json")[1])
    assert (document["schema"], document["relation"], document["sizes"]) == (
        "weighbridge/ledger-compare/v1",
        "grown",
        [5, 10],
    )


def test_heads_that_do_not(run: Run, log: Path, tmp_path: Path) -> None:
    other = fork(tmp_path, 7)
    first, second = log / "checkpoint", other / "checkpoint"
    status, out, err = run("compare", first, second, "--log", other)
    assert (status, out, "LEDGER_FORK" in err) == (7, "", True)
    # Without tiles, or with those of the smaller one, nobody can tell.
    for more in ((), ("--log", log)):
        status, _, err = run("compare", first, second, *more)
        assert (status, "EVIDENCE_ABSENT" in err) == (6, True)


def test_one_head_says_nothing(run: Run, log: Path, tmp_path: Path) -> None:
    assert run("compare", log / "checkpoint")[0] == ExitCode.USAGE
    (tmp_path / "evidence").write_text("{}")
    assert run("compare", tmp_path / "evidence")[0] == ExitCode.MALFORMED
