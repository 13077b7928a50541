"""Logs for those who watch one: leaves of made-up sessions, histories that diverge, and a server of static files."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weighbridge.proto import note
from weighbridge.proto.digest import sha256
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.record import NO_DIGEST, Kind, Leaf

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

ORIGIN = "ledger.example/windows"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = note.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
SECOND = 10**9
START = 1_780_000_000 * SECOND
POLICY = sha256(b"a policy")


@dataclass
class Host:
    """A session as its leaves tell of it: each entry that it makes is the next one of an honest session."""

    name: str = "a session"
    policy: bytes = POLICY
    at_ns: int = START
    seq: int = 0
    previous: bytes | None = None
    session: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.session = sha256(self.name.encode())[:16]

    def enrol(self) -> bytes:
        """The entry of its enrolment."""
        return self.leaf("enrolment").encode()

    def window(self) -> bytes:
        """The entry of its next window, ten seconds later."""
        self.at_ns += 10 * SECOND
        digest = self.digest(self.seq)
        made = self.leaf("window", seq=self.seq, window=digest, previous=self.previous, policy=self.policy)
        self.seq, self.previous = self.seq + 1, digest
        return made.encode()

    def windows(self, count: int) -> list[bytes]:
        """The entries of as many windows."""
        return [self.window() for _ in range(count)]

    def close(self) -> bytes:
        """The entry of its closing."""
        return self.leaf("closing", seq=self.seq).encode()

    def digest(self, seq: int) -> bytes:
        """H of its window ``seq``."""
        return sha256(b"%s %d" % (self.name.encode(), seq))

    def leaf(
        self,
        kind: Kind,
        *,
        seq: int | None = None,
        window: bytes | None = None,
        previous: bytes | None = None,
        policy: bytes = NO_DIGEST,
    ) -> Leaf:
        """A leaf of it, as a test wants it."""
        return Leaf(
            kind=kind,
            session=self.session,
            seq=seq,
            received_ns=self.at_ns,
            window=window,
            evidence=None if window is None else sha256(window),
            record=sha256(b"record"),
            previous=previous,
            collateral=NO_DIGEST,
            policy=policy,
        )


def honest(name: str = "a session", windows: int = 3, *, at_ns: int = START) -> list[bytes]:
    """The entries of a session from its enrolment to its closing."""
    host = Host(name, at_ns=at_ns)
    return [host.enrol(), *host.windows(windows), host.close()]


def write(directory: Path, *batches: Sequence[bytes], key: Ed25519PrivateKey = PRIVATE) -> Path:
    """A log in ``directory``, each of ``batches`` appended at once."""
    with Ledger.create(directory, origin=ORIGIN, key=key) as ledger:
        for batch in batches:
            ledger.append(batch)
    return directory


def append(directory: Path, entries: Sequence[bytes]) -> None:
    """Let the log grow."""
    with Ledger.open(directory, origin=ORIGIN, key=PRIVATE) as ledger:
        ledger.append(entries)


@dataclass
class Server:
    """What a server of a log's files is to do, and what it was asked for."""

    directory: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    # Instead of files: status, headers, and bytes that come one after the other.
    answer: tuple[int, dict[str, str], list[bytes]] | None = None
    # Seconds between those.
    pause: float = 0
    stopped: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def served(directory: Path) -> Generator[Server]:
    """``directory`` behind plain HTTP on this machine."""
    server = Server(directory)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append(self.path)
            if server.answer is not None:
                with contextlib.suppress(OSError):
                    self.say(*server.answer)
                return
            file = server.directory / self.path.removeprefix("/log/")
            data = file.read_bytes() if file.is_file() else None
            status = 404 if data is None else 200
            body = b"there is no such page" if data is None else data
            self.say(status, {"Content-Length": str(len(body))}, [body])

        def say(self, status: int, headers: dict[str, str], chunks: list[bytes]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk)
                server.stopped.wait(server.pause)
            if "Content-Length" not in headers:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the library
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.address = f"http://127.0.0.1:{http.server_port}/log"
        try:
            yield server
        finally:
            server.stopped.set()
            http.shutdown()
            thread.join()
