"""Readers that share no code with us, on our ledgers, good and forged: Go's note and tlog, tlog-scales, scitt-cose."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import cbor, merkle, note, receipt, tlog
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit

pytestmark = pytest.mark.peer

ORIGIN: Final = "ledger.example/windows"
PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY: Final = note.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
# Two full tiles and a partial one at the lowest level, one above; published first when there was one full tile.
SIZE: Final = 700
KEPT: Final = 300
ABSENT: Final = "no independent readers of the ledger: run scripts/setup --peers"


def entry(number: int) -> bytes:
    return b"entry %d" % number * (1 + number % 7)


@dataclass(frozen=True)
class Log:
    """A ledger as somebody serves it, the key that its readers trust, and the checkpoint that they kept."""

    directory: Path
    kept: Path
    key: note.NoteKey = KEY

    def change(self, name: str, change: Callable[[bytearray], object]) -> None:
        data = bytearray((self.directory / name).read_bytes())
        change(data)
        (self.directory / name).write_bytes(data)

    def publish(self, text: bytes, *, private: Ed25519PrivateKey = PRIVATE, key: note.NoteKey = KEY) -> None:
        (self.directory / "checkpoint").write_bytes(note.sign(text, key=key, signer=private.sign))

    @property
    def reader(self) -> LedgerReader:
        return LedgerReader.open(self.directory, key=self.key, origin=ORIGIN)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("served")
    return _written(folder, [entry(number) for number in range(SIZE)])


@pytest.fixture
def log(served: Log, tmp_path: Path) -> Log:
    """A copy, to be altered."""
    shutil.copytree(served.directory, tmp_path / "log")
    shutil.copy(served.kept, tmp_path / "kept")
    return Log(tmp_path / "log", tmp_path / "kept")


def _written(folder: Path, entries: list[bytes]) -> Log:
    with Ledger.create(folder / "log", origin=ORIGIN, key=PRIVATE) as ledger:
        ledger.append(entries[:17])
        (folder / "kept").write_bytes(ledger.append(entries[17:KEPT]).checkpoint_note)
        ledger.append(entries[KEPT:])
    shutil.rmtree(folder / "log/writer")
    return Log(folder / "log", folder / "kept")


# -- whom they ask -----------------------------------------------------------------------------------------------------


def _installed(root: Path, name: str) -> Path:
    command = root / ".peers" / name
    if not command.exists():
        pytest.skip(ABSENT)
    return command


def _ran(*command: object, stdin: str = "") -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def ours(log: Log) -> str:
    try:
        report = audit(log.directory, log.key, ORIGIN, earlier=log.kept.read_bytes())
    except WeighbridgeError as error:
        return f"refused: {error}"
    return f"ok: {report.size} entries of {ORIGIN}, which begin with all of the {report.consistent_with}"


@pytest.fixture(scope="module")
def go(root: Path) -> Callable[..., str]:
    command = _installed(root, "tlog/bin/ledger-audit")
    return lambda *arguments: _ran(command, *arguments)


@pytest.fixture(scope="module")
def scales(root: Path) -> Iterator[Callable[[Log], str]]:
    """One process for all questions: most of what one takes is its imports."""
    command = [str(_installed(root, "tlog/bin/python")), "-I", str(root / "tests/peers/tlog_scales_audit.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def ask(log: Log) -> str:
            question = {"key": log.key.vkey, "directory": str(log.directory), "kept": str(log.kept)}
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            return answers.readline().strip()

        yield ask
        questions.close()


@pytest.fixture(scope="module")
def tlog_tiles(root: Path) -> Path:
    return _installed(root, "tlog/bin/tlog-tiles")


# -- whole ledgers -----------------------------------------------------------------------------------------------------


def test_a_good_ledger(served: Log, go: Callable[..., str], scales: Callable[[Log], str]) -> None:
    expected = f"ok: {SIZE} entries of {ORIGIN}, which begin with all of the {KEPT}"
    assert ours(served) == expected
    assert go("log", served.key.vkey, served.directory, served.kept) == expected
    assert scales(served) == expected
    # Without anything kept, and of every size at which tiles change their shape.
    assert go("log", served.key.vkey, served.directory) == f"ok: {SIZE} entries of {ORIGIN}"


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512])
def test_any_size(size: int, tmp_path: Path, go: Callable[..., str]) -> None:
    with Ledger.create(tmp_path / "log", origin=ORIGIN, key=PRIVATE) as ledger:
        ledger.append([entry(number) for number in range(size)])
    assert go("log", KEY.vkey, tmp_path / "log") == f"ok: {size} entries of {ORIGIN}"


def _flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 1

    return change


def _entry_and_its_hash(log: Log) -> None:
    """An entry and its leaf hash: the tile above contradicts them."""
    name, changed = "tile/entries/000", b"entry X"
    old = tlog.parse_bundle((log.directory / name).read_bytes(), width=256)
    (log.directory / name).write_bytes(tlog.encode_bundle([changed, *old[1:]]))
    log.change("tile/0/000", lambda data: data.__setitem__(slice(0, 32), merkle.leaf_hash(changed)))


def _of_another_key(log: Log) -> None:
    """A stranger signs the same tree, under the same name."""
    head = log.reader.checkpoint
    key = note.NoteKey(ORIGIN, STRANGER.public_key().public_bytes_raw())
    log.publish(tlog.Checkpoint(ORIGIN, head.size, head.root).encode(), private=STRANGER, key=key)


def _of_another_origin(log: Log) -> None:
    """The right key signs a checkpoint of another ledger: its name is in the text, not in the signature line."""
    head = log.reader.checkpoint
    log.publish(tlog.Checkpoint("other.example/windows", head.size, head.root).encode())


def _shortened(log: Log) -> None:
    """The whole directory is put back: everything that is served fits together, and there was more."""
    head = (log.directory / "checkpoint").read_bytes()
    shutil.copy(log.kept, log.directory / "checkpoint")
    log.kept.write_bytes(head)


def _forked(log: Log) -> None:
    """A second history under the same key, whole and signed, which differs in one entry that was there before."""
    shutil.rmtree(log.directory)
    (log.directory.parent / "other").mkdir()
    other = _written(log.directory.parent / "other", [entry(number + (number == 100)) for number in range(SIZE)])
    shutil.move(other.directory, log.directory)


def _changed(name: str, change: Callable[[bytearray], object]) -> Callable[[Log], None]:
    return lambda log: log.change(name, change)


FORGERIES: Final[dict[str, tuple[Code, Callable[[Log], object]]]] = {
    "an entry": (Code.LEDGER_INCONSISTENT, _changed("tile/entries/001", _flip(9))),
    "the last entry": (Code.LEDGER_INCONSISTENT, _changed("tile/entries/002.p/188", _flip(-1))),
    "an entry and its hash": (Code.LEDGER_INCONSISTENT, _entry_and_its_hash),
    "a bundle cut short": (
        Code.LEDGER_MALFORMED,
        _changed("tile/entries/001", lambda data: data.__delitem__(slice(-3, None))),
    ),
    "a bundle that is missing": (Code.LEDGER_INCONSISTENT, lambda log: (log.directory / "tile/entries/001").unlink()),
    "a leaf hash": (Code.LEDGER_INCONSISTENT, _changed("tile/0/001", _flip(40))),
    "a leaf hash of the partial tile": (Code.LEDGER_INCONSISTENT, _changed("tile/0/002.p/188", _flip(0))),
    "a hash further up": (Code.LEDGER_INCONSISTENT, _changed("tile/1/000.p/2", _flip(32))),
    "a tile cut short": (
        Code.LEDGER_MALFORMED,
        _changed("tile/0/001", lambda data: data.__delitem__(slice(-32, None))),
    ),
    "a tile that is missing": (Code.LEDGER_INCONSISTENT, lambda log: (log.directory / "tile/1/000.p/2").unlink()),
    "the root": (Code.LEDGER_SIGNATURE, _changed("checkpoint", _flip(30))),
    "the size": (Code.LEDGER_SIGNATURE, _changed("checkpoint", lambda data: data.__setitem__(slice(23, 26), b"699"))),
    "the signature": (Code.LEDGER_SIGNATURE, _changed("checkpoint", _flip(-6))),
    "another key": (Code.LEDGER_SIGNATURE, _of_another_key),
    "another origin": (Code.LEDGER_ORIGIN, _of_another_origin),
    "a shortened ledger": (Code.LEDGER_INCONSISTENT, _shortened),
    "a fork": (Code.LEDGER_INCONSISTENT, _forked),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_ledger(forgery: str, log: Log, go: Callable[..., str], scales: Callable[[Log], str]) -> None:
    code, forge = FORGERIES[forgery]
    forge(log)
    assert ours(log).startswith(f"refused: {code.value}: ")
    for answer in (go("log", log.key.vkey, log.directory, log.kept), scales(log)):
        assert answer.startswith("refused: "), answer


# -- offline proofs ----------------------------------------------------------------------------------------------------


def test_offline_proofs(served: Log, tmp_path: Path, go: Callable[..., str], tlog_tiles: Path) -> None:
    file, content = tmp_path / "proof", tmp_path / "entry"
    for index in (0, 255, 256, 511, SIZE - 1):
        file.write_bytes(served.reader.proof(index).encode())
        content.write_bytes(entry(index))
        assert go("proof", KEY.vkey, file, content) == f"ok: entry {index} of {SIZE} of {ORIGIN}"
    # The other one's proof is ours, byte for byte, and the entry that it finds.
    generated = _ran(tlog_tiles, "gen-proof", served.directory, SIZE - 1)
    assert f"{generated}\n".encode() == file.read_bytes()
    assert _ran(tlog_tiles, "get-leaf", "--check", served.directory, 300).encode() == entry(300)


def test_forged_offline_proofs(served: Log, tmp_path: Path, go: Callable[..., str]) -> None:
    file, content = tmp_path / "proof", tmp_path / "entry"
    good = served.reader.proof(300)
    content.write_bytes(entry(300))
    stranger = note.NoteKey(ORIGIN, STRANGER.public_key().public_bytes_raw()).vkey
    renamed = note.NoteKey("other.example/windows", KEY.public).vkey
    for key, proof in (
        (stranger, good),
        (renamed, good),
        (KEY.vkey, tlog.Proof(301, good.path, good.checkpoint_note)),
        (KEY.vkey, tlog.Proof(300, good.path[:-1], good.checkpoint_note)),
        (KEY.vkey, tlog.Proof(300, (bytes(32), *good.path[1:]), good.checkpoint_note)),
        (KEY.vkey, tlog.Proof(300, good.path, served.kept.read_bytes())),
        (KEY.vkey, served.reader.proof(299)),
    ):
        file.write_bytes(proof.encode())
        assert go("proof", key, file, content).startswith("refused: ")


# -- receipts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The ledger's public key and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (("ledger.pem", PRIVATE), ("stranger.pem", STRANGER)):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / name).write_bytes(pem)
    return folder / "ledger.pem", folder / "stranger.pem"


@pytest.fixture(scope="module")
def scitt(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, bytes, Path], dict[str, object]]:
    command = _installed(root, "scitt-cose/bin/scitt-cose")
    file = tmp_path_factory.mktemp("receipts") / "receipt"

    def ask(data: bytes, content: bytes, pem: Path) -> dict[str, object]:
        file.write_bytes(data)
        said = _ran(
            *(command, "--json", "--receipt", file, "--receipt-log-pubkey", pem, "--leaf-entry-hex", content.hex())
        )
        return cast("dict[str, object]", json.loads(said)["receipt"])

    return ask


def _receipt(log: Log, index: int) -> bytes:
    reader = log.reader
    proof = receipt.Inclusion(index, reader.inclusion_proof(index))
    return receipt.sign_inclusion(reader.checkpoint, reader.leaf_hash(index), proof, signer=PRIVATE.sign)


def _holds(data: bytes, content: bytes, key: note.NoteKey = KEY) -> bool:
    """What we say ourselves."""
    try:
        receipt.verify_inclusion(receipt.parse(data), merkle.leaf_hash(content), key, origin=ORIGIN)
    except WeighbridgeError:
        return False
    return True


def _with_proof(data: bytes, size: int, index: int, path: tuple[bytes, ...]) -> bytes:
    values = cast("list[cbor.CborValue]", cbor.decode(data[1:], limit=4096, what="receipt"))
    values[1] = {396: {-1: [cbor.encode([size, index, list(path)])]}}
    return b"\xd2" + cbor.encode(values)


Scitt = Callable[[bytes, bytes, Path], dict[str, object]]


def test_receipts(served: Log, scitt: Scitt, pems: tuple[Path, Path]) -> None:
    root = served.reader.checkpoint.root.hex()
    for index in (0, 256, SIZE - 1):
        answer = scitt(_receipt(served, index), entry(index), pems[0])
        assert (answer["ok"], answer["errors"]) == (True, [])
        assert (answer["root"], answer["tree_size"], answer["leaf_index"]) == (root, SIZE, index)


def test_forged_receipts(served: Log, scitt: Scitt, pems: tuple[Path, Path]) -> None:
    good, path = _receipt(served, 300), served.reader.inclusion_proof(300)
    stranger = note.NoteKey(ORIGIN, STRANGER.public_key().public_bytes_raw())
    for data, content, pem, key in (
        (good, entry(301), pems[0], KEY),
        (good, entry(300), pems[1], stranger),
        (_receipt(served, 301), entry(300), pems[0], KEY),
        (_with_proof(good, SIZE, 301, path), entry(300), pems[0], KEY),
        (_with_proof(good, SIZE, 300, (bytes(32), *path[1:])), entry(300), pems[0], KEY),
        (good.replace(ORIGIN.encode(), b"ledger.example/Windows", 1), entry(300), pems[0], KEY),
        (good[:-1] + bytes([good[-1] ^ 1]), entry(300), pems[0], KEY),
        (good[:-1], entry(300), pems[0], KEY),
        (good + b"\0", entry(300), pems[0], KEY),
    ):
        assert scitt(data, content, pem)["ok"] is False
        assert not _holds(data, content, key)


def test_what_only_a_signed_size_shows(tmp_path: Path, scitt: Scitt, pems: tuple[Path, Path]) -> None:
    """By RFC 9942 alone, the receipt of the last of three entries is one of the last of two as well; not by ours."""
    with Ledger.create(tmp_path / "log", origin=ORIGIN, key=PRIVATE) as ledger:
        ledger.append([entry(number) for number in range(3)])
    good = _receipt(Log(tmp_path / "log", tmp_path / "kept"), 2)
    moved = _with_proof(good, 2, 1, Log(tmp_path / "log", tmp_path / "kept").reader.inclusion_proof(2))
    answer = scitt(moved, entry(2), pems[0])
    assert (answer["ok"], answer["tree_size"], answer["leaf_index"]) == (True, 2, 1)
    assert _holds(good, entry(2))
    assert not _holds(moved, entry(2))


def test_receipts_of_consistency(root: Path, served: Log, pems: tuple[Path, Path]) -> None:
    python = _installed(root, "scitt-cose/bin/python")
    reader = served.reader
    old = tlog.open_checkpoint(served.kept.read_bytes(), KEY, origin=ORIGIN)
    signed = receipt.sign_consistency(old, reader.checkpoint, reader.consistency_proof(KEPT), signer=PRIVATE.sign)
    roots = (old.root.hex(), reader.checkpoint.root.hex())
    cases = [
        (signed, *roots, pems[0]),
        (signed, "00" * 32, roots[1], pems[0]),
        (signed, roots[0], "00" * 32, pems[0]),
        (signed, *roots, pems[1]),
        (signed[:-1] + bytes([signed[-1] ^ 1]), *roots, pems[0]),
    ]
    questions = [
        json.dumps({"receipt": data.hex(), "old_root": before, "new_root": after, "pem": pem.read_text()})
        for data, before, after, pem in cases
    ]
    answers = _ran(python, "-I", root / "tests/peers/scitt_cose_growth.py", stdin="\n".join(questions)).splitlines()
    assert answers[0] == f"ok: {SIZE} entries, which begin with all of the {KEPT}"
    assert [answer.partition(":")[0] for answer in answers[1:]] == ["refused"] * 4


# -- what they are -----------------------------------------------------------------------------------------------------


def test_the_auditor_is_the_one_of_this_checkout(root: Path, go: Callable[..., str]) -> None:
    """It was compiled of this source, which is formatted as Go's is, by a tool chain whose tlog checks its tiles."""
    assert go().startswith("refused: usage")
    tools = _installed(root, "tlog/lib")
    (gofmt,) = tools.glob("python*/site-packages/go/bin/gofmt")
    source = root / "tests/peers/ledger_audit.go"
    assert not _ran(gofmt, "-l", source)
    compiled = root / ".peers/tlog/bin/ledger-audit.go"
    assert compiled.read_bytes() == source.read_bytes(), "run scripts/setup --peers"
