"""Ledgers and evidence in the buckets of a real server: who may what, two writers, the server gone and back."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support import object_storage
from weighbridge.proto import merkle, note
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.verifier import cli
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit
from weighbridge.verifier.ledger.bucket import Bucket, Patience, require_conditions
from weighbridge.verifier.ledger.bucket_content import BucketContents
from weighbridge.verifier.ledger.contents import Content
from weighbridge.verifier.ledger.s3 import S3Address, S3Objects
from weighbridge.verifier.ledger.source import open_source
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.object_storage import ObjectStorage

pytestmark = pytest.mark.peer

ORIGIN: Final = "ledger.example/windows"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTE_KEY: Final = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw())
HASTY: Final = Patience(tries=2, seconds=2, first_pause=0.01)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    if not object_storage.PROGRAM.exists():
        pytest.skip(object_storage.ABSENT)
    with object_storage.running(tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    become(server, monkeypatch, "writer")


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """A prefix of this test's own."""
    return f"s3://public/{request.node.originalname}"


def become(server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    for name, value in server.environment(who=who).items():
        monkeypatch.setenv(name, value)


def bucket(address: str, *, patience: Patience | None = None) -> Bucket:
    return Bucket(S3Objects(S3Address.parse(address)), patience=patience)


def batch(tag: str, count: int = 10) -> list[bytes]:
    return [f"{tag} {number}".encode() for number in range(count)]


def code_of(error: pytest.ExceptionInfo[WeighbridgeError]) -> Code:
    return error.value.code


def test_a_public_bucket_is_a_log(
    server: ObjectStorage, address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its files are read by anybody, with what caches need to be told; and by whoever may, with credentials."""
    with Ledger.create(bucket(address), origin=ORIGIN, key=KEY) as ledger:
        ledger.append(batch("first", 250))
        ledger.append(batch("second", 20))
    web = server.endpoint + address.removeprefix("s3:/")
    for where in (address, web):
        assert cli.main(["ledger", "audit", where, "--key", NOTE_KEY.vkey]) == 0
        assert "270 entries" in capfd.readouterr().out
        assert cli.main(["ledger", "prove", where, "260", "--key", NOTE_KEY.vkey]) == 0
        assert "index 260" in capfd.readouterr().out
    line = http.client.HTTPConnection(urlsplit(web).netloc, timeout=10)
    told: dict[str, tuple[str | None, str | None]] = {}
    for name in ("checkpoint", "tile/0/000", "tile/entries/001.p/14"):
        line.request("GET", f"{urlsplit(web).path}/{name}")
        response = line.getresponse()
        assert (response.status, bool(response.read())) == (200, True)
        told[name] = response.headers["Content-Type"], response.headers["Cache-Control"]
    line.close()
    assert told == {
        "checkpoint": ("text/plain; charset=utf-8", "no-cache"),
        "tile/0/000": ("application/octet-stream", "public, max-age=31536000, immutable"),
        "tile/entries/001.p/14": ("application/octet-stream", "public, max-age=31536000, immutable"),
    }
    become(server, monkeypatch, "reader")
    assert audit(open_source(address), NOTE_KEY, ORIGIN).size == 270


def test_what_witnesses_cosign_is_published_there(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Beside the checkpoint and, while nobody writes, in it; the writer's next head takes its place all the same."""
    ledger = Ledger.create(bucket(address), origin=ORIGIN, key=KEY)
    ledger.append(batch("first"))
    key, anchors, head = tmp_path / "w1.pem", tmp_path / "w1.json", tmp_path / "w1.head"
    name, vkey = "witness.example/w1", ("--key", NOTE_KEY.vkey)

    def run(*arguments: object, status: int = 0) -> str:
        assert cli.main(["ledger", *map(str, arguments)]) == status
        return capfd.readouterr().out

    run("witness-key", name, "-o", key, "--anchors", anchors)
    watched = ("--state", tmp_path / "state", "--key-file", key, "--name", name, "-o", head, "--once")
    # These entries are no leaves: it says so, and cosigns that the log only grew.
    run("witness", address, *vkey, *watched, status=6)
    for _ in range(2):
        said = run("cosign", address, head, *vkey, "--witness", anchors)
        assert said.startswith(f"wrote {address}/cosigned, and checkpoint: 10 entries of 10")
        assert "cosigned by witness.example/w1" in run("audit", address, *vkey, "--witness", anchors)
    ledger.take_up()
    ledger.append(batch("second"))
    ledger.close()
    said = run("cosign", address, head, *vkey, "--witness", anchors)
    assert said.startswith(f"wrote {address}/cosigned: 10 entries of 20")
    assert "20 entries" in run("audit", address, *vkey)
    assert "10 entries" in run("audit", address, *vkey, "--cosigned", "--witness", anchors)


def test_who_may_not_is_told(server: ObjectStorage, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for who, where, expected in (
        ("reader", address, Code.STORAGE_FORBIDDEN),
        ("nobody", address, Code.STORAGE_FORBIDDEN),
        ("writer", "s3://no-such-bucket/x", Code.STORAGE_ABSENT),
    ):
        become(server, monkeypatch, who)
        with pytest.raises(EnvironmentFault) as caught:
            Ledger.create(bucket(where), origin=ORIGIN, key=KEY)
        assert code_of(caught) is expected
        with pytest.raises(EnvironmentFault) as caught:
            LedgerReader.open(open_source(where), key=NOTE_KEY, origin=ORIGIN)
        assert code_of(caught) is (Code.FILE_UNREADABLE if who == "reader" else expected)


def test_the_server_writes_on_conditions(address: str) -> None:
    storage = bucket(address)
    require_conditions(storage)
    assert not storage.names("writer/")


def test_writers_at_once(address: str) -> None:
    """Nobody gives them turns: each append that was told to have succeeded is in the ledger once, and no other."""
    Ledger.create(bucket(address), origin=ORIGIN, key=KEY).close()
    appended: list[tuple[int, list[bytes]]] = []

    def work(number: int) -> None:
        with Ledger.open(bucket(address), origin=ORIGIN, key=KEY) as ledger:
            for turn in range(8):
                entries = batch(f"{number} {turn}", 1 + turn * 10)
                while True:
                    try:
                        ledger.take_up()
                        appended.append((ledger.append(entries).first_index, entries))
                        break
                    except EnvironmentFault as error:
                        assert error.code is Code.LEDGER_LOCKED  # noqa: PT017 - overtaken, and again

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flat = [entry for _, entries in sorted(appended) for entry in entries]
    report = audit(open_source(address), NOTE_KEY, ORIGIN)
    assert report.size == len(flat) == 3 * sum(1 + turn * 10 for turn in range(8))
    assert report.root == merkle.root([merkle.leaf_hash(entry) for entry in flat])


def test_the_server_is_gone_and_back(server: ObjectStorage, address: str) -> None:
    """Nothing is lost of what was told to be kept; the same objects go on when it is there again."""
    ledger = Ledger.create(bucket(address, patience=HASTY), origin=ORIGIN, key=KEY)
    contents = BucketContents(bucket(f"{address}/content", patience=HASTY))
    ledger.append(batch("before"))
    kept = contents.put_all([Content(b"before" * 100)], entry=0)[0]
    server.stop()
    for work in (
        lambda: ledger.append(batch("gone")),
        lambda: contents.put_all([Content(b"gone")], entry=10),
        ledger.take_up,
        lambda: BucketContents(bucket(f"{address}/content", patience=HASTY)).get(kept, entry=3),
    ):
        with pytest.raises(EnvironmentFault) as caught:
            work()
        assert code_of(caught) is Code.STORAGE_UNREACHABLE
    server.start()
    ledger.take_up()
    assert ledger.append(batch("back")).first_index == 10
    again = contents.put_all([Content(b"back" * 100), Content(b"before" * 100)], entry=10)
    reader = BucketContents(bucket(f"{address}/content"))
    assert reader.get(kept, entry=3) == b"before" * 100
    assert reader.get(again[0], entry=12) == b"back" * 100
    assert audit(open_source(address), NOTE_KEY, ORIGIN).size == 20
    ledger.close()


def test_a_verifier_keeps_ledger_and_evidence_there(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Made by `init`, had by two processes at once, read by whoever has its directory; nothing of it is in STATE."""
    state = tmp_path / "state"
    assert cli.main(["init", str(state), "--origin", ORIGIN, "--ledger-storage", address]) == 0
    assert f"{address}/ledger" in capfd.readouterr().out
    assert (state / "ledger-storage").read_text() == f"{address}\n"
    assert not {path.name for path in state.iterdir()} & {"ledger", "content"}
    records = [
        Record.note("junk", session=bytes(16), seq=None, received_ns=number, verdict=b'{"n":%d}' % number)
        for number in range(1, 7)
    ]
    with Deployment.open(state) as one, Deployment.open(state) as other:
        for number, record in enumerate(records):
            committed = (one, other)[number % 2].archive.commit(record, None)
            assert committed.index == number
        assert one.archive.records.record(5) == records[5]
        assert other.archive.latest() is not None
    with Deployment.reading(state) as (read, reader):
        assert [read.record(index) for index in range(reader.checkpoint.size)] == records
    with pytest.raises(EnvironmentFault) as caught:
        Deployment.open(state, ledger_storage=S3Address.parse(f"{address}-else"))
    assert code_of(caught) is Code.STATE_CORRUPT
    # Another verifier does not take what is there for its own.
    assert cli.main(["init", str(tmp_path / "second"), "--origin", ORIGIN, "--ledger-storage", address]) == 8
    assert "there is a ledger already" in capfd.readouterr().err
    assert not (tmp_path / "second").exists()
