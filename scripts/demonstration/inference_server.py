"""The demonstration's inference server: MiniLM embeddings over HTTPS on the loopback interface.

Started by ``weighbridge-attester run -- python scripts/demonstration/inference_server.py …``, which gives it the
workload socket (``WEIGHBRIDGE_WORKLOAD``) and the serving key made on this host (``WEIGHBRIDGE_TLS_KEY``,
``WEIGHBRIDGE_TLS_CERT``). It has the attester measure the model, and only then loads it, through a guard.

``POST /embed`` with ``{"texts": […]}`` answers ``{"digest", "texts", "tokens", "dimensions"}``: the digest is SHA-256
over the vectors as little-endian float32. The headers ``Weighbridge-Salt`` and ``Weighbridge-Commitment`` are the
client's receipt: commitment = D("work", salt, SHA-256(request body), SHA-256(response body)).

With ``--self-drive FILE --rate N`` it also works without clients: in every window the next N lines of FILE, as one
batch, begun by the attester's tick and reported before the window ends. What it counts depends on the window's number
alone, not on how busy the machine is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.loading import guarded_safetensors
from weighbridge.attester.workload.client import WorkloadClient, WorkloadError, commit, new_salt
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, MalformedEvidence, WeighbridgeError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from types import FrameType

    from minilm import MiniLM

    from weighbridge.attester.workload.client import LoadedModel

# The name under which adapters are logged.
ADAPTER: Final = "style"
_BODY_MAX: Final = 1024 * 1024
_TEXTS_MAX: Final = 64
_REQUEST_TIMEOUT_S: Final = 10.0


class Embedder:
    """The model and the attester it reports to; one batch at a time."""

    def __init__(self, model: MiniLM, attester: WorkloadClient) -> None:
        self._base = self._model = model
        self._attester = attester
        self._adapter: LoadedModel | None = None
        self._lock = threading.Lock()

    def adapt(self, directory: Path) -> None:
        """Serve with the adapter in ``directory``, in the place of the one before: unloaded, measured, handed over.

        Raises:
            GuardError: it is not what was measured.
            WorkloadError: the attester is gone, or cannot measure it.
        """
        if self._adapter is not None:
            self._attester.unload(self._adapter.recnum)
        self._adapter = self._attester.load(directory, name=ADAPTER, guarded=True)
        tensors = guarded_safetensors(directory / "adapter_model.safetensors", self._attester, self._adapter)
        with self._lock:
            self._model = self._base.adapted(tensors)

    def answer(self, request: bytes) -> Answer:
        """Embed the texts of a request body, and report it before it is answered.

        Raises:
            ValueError: for a body that is JSON, but no request.
            MalformedEvidence: for a body that is not JSON.
        """
        texts = _texts(request)
        with self._lock:
            embeddings = self._model.embed(texts)
        tokens = sum(embeddings.tokens)
        digest = hashlib.sha256(embeddings.vectors.astype("<f4").tobytes()).hexdigest()
        document = {"digest": digest, "texts": len(texts), "tokens": tokens, "dimensions": embeddings.vectors.shape[1]}
        body = json.dumps(document).encode() + b"\n"
        salt = new_salt()
        commitment = commit(salt, request, body)
        self._attester.done(commitment, tokens_in=tokens, tokens_out=0, batch=len(texts))
        return Answer(body, salt, commitment)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response body, the salt of its commitment, and the commitment."""

    body: bytes
    salt: bytes
    commitment: bytes


def _texts(request: bytes) -> list[str]:
    document = strict.json_decode(request, what="body")
    texts = document.get("texts") if isinstance(document, dict) else None
    if not isinstance(texts, list) or not 0 < len(texts) <= _TEXTS_MAX:
        raise ValueError(f"the body is not an object with 1 to {_TEXTS_MAX} texts")
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) != len(texts):
        raise ValueError("a text is not a text")
    return plain


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "weighbridge-demonstration"
    sys_version = ""
    timeout = _REQUEST_TIMEOUT_S
    embedder: Embedder

    def do_POST(self) -> None:
        """Answer ``POST /embed``."""
        length = self._length()
        if self.path != "/embed":
            self._refuse(HTTPStatus.NOT_FOUND, "there is only /embed")
        elif length is None:
            self._refuse(HTTPStatus.BAD_REQUEST, f"a body has at most {_BODY_MAX} bytes, and says its length")
        else:
            self._embed(self.rfile.read(length))

    def _length(self) -> int | None:
        try:
            return strict.decimal(self.headers.get("Content-Length", ""), what="Content-Length", limit=_BODY_MAX)
        except MalformedEvidence:
            return None

    def _embed(self, request: bytes) -> None:
        try:
            answer = self.embedder.answer(request)
        except (ValueError, MalformedEvidence) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except WorkloadError as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"not attested: {error}")
        else:
            receipt = {"Weighbridge-Salt": answer.salt.hex(), "Weighbridge-Commitment": answer.commitment.hex()}
            self._send(HTTPStatus.OK, answer.body, receipt)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True
        self._send(status, json.dumps({"error": reason}).encode() + b"\n", {"Connection": "close"})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: what clients ask is nobody else's business."""


class Server(ThreadingHTTPServer):
    """HTTPS with a thread per connection; the handshake is the thread's too, so that no client can hold up others."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._context = context

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Wrap the connection, then handle it."""
        if isinstance(request, tuple):
            raise TypeError("a datagram on a stream socket")
        request.settimeout(_REQUEST_TIMEOUT_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except (OSError, TimeoutError):
            pass  # the client is gone, slow, or speaks no TLS

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's
        """Report in one line; the other connections go on."""
        print(f"inference server: {sys.exc_info()[1]!r}", file=sys.stderr)


def self_drive(
    embedder: Embedder,
    attester: WorkloadClient,
    texts: Sequence[str],
    *,
    rate: int,
    deed: tuple[int, Callable[[], object]] | None = None,
) -> None:
    """Embed ``rate`` texts per window until the attester is gone: window k takes those from k times ``rate`` on.

    ``deed`` is what is done in a window of that number: what the demonstration shows to be refused.
    """
    while True:
        try:
            seq = attester.next_tick()
            if seq is None:
                continue
            if deed is not None and seq >= deed[0]:
                deed[1]()
                deed = None
            batch = [texts[(seq * rate + index) % len(texts)] for index in range(rate)]
            embedder.answer(json.dumps({"texts": batch}).encode())
            attester.ticked(seq)
        except WorkloadError:
            return


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="MiniLM embeddings over HTTPS, beside an attester")
    parser.add_argument("--model", type=Path, help="the model's directory (default: the packaged MiniLM)")
    parser.add_argument("--name", default="all-MiniLM-L6-v2", help="the name to log the model under")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it is served")
    parser.add_argument("--self-drive", type=Path, metavar="FILE", help="embed lines of FILE in every window")
    parser.add_argument("--rate", type=int, default=8, help="texts per window with --self-drive (default: 8)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="serve with this adapter")
    parser.add_argument("--also", type=Path, metavar="DIR", help="with --self-drive: load another model as well")
    parser.add_argument(
        "--swap-adapter", type=Path, metavar="DIR", help="with --self-drive: serve with this one instead"
    )
    parser.add_argument("--in-window", type=int, default=2, metavar="N", help="when (default: window 2)")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.rate <= _TEXTS_MAX:
        parser.error(f"--rate takes 1 to {_TEXTS_MAX}")
    return arguments


def _deed(
    arguments: argparse.Namespace, embedder: Embedder, attester: WorkloadClient
) -> tuple[int, Callable[[], object]] | None:
    also: Path | None = arguments.also
    swapped: Path | None = arguments.swap_adapter
    if also is not None:
        return arguments.in_window, lambda: attester.load(also, name=also.name)
    if swapped is not None:
        return arguments.in_window, lambda: embedder.adapt(swapped)
    return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(os.environ["WEIGHBRIDGE_TLS_CERT"], os.environ["WEIGHBRIDGE_TLS_KEY"])
    return context


def _publish(port: int, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(f"{port}\n")
    temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the attester is gone or SIGTERM comes."""
    started = time.monotonic()
    arguments = _arguments(argv)
    # numpy reads these when it is imported. One thread: steadier than two that share the machine with the attester.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    from minilm import MiniLM, packaged_model  # noqa: PLC0415 - only now

    directory: Path = arguments.model or packaged_model()
    try:
        attester = WorkloadClient.connect(ticks=arguments.self_drive is not None)
        loaded = attester.load(directory, name=arguments.name, guarded=True)
        embedder = Embedder(MiniLM.load_guarded(directory, attester, loaded), attester)
        if arguments.adapter is not None:
            embedder.adapt(arguments.adapter)
    except (WorkloadError, WeighbridgeError, OSError) as error:
        print(f"inference server: error: {error}", file=sys.stderr)
        return ExitCode.ENVIRONMENT
    server = Server(_context(), type("BoundHandler", (Handler,), {"embedder": embedder}))
    port = server.server_address[1]
    if arguments.port_file is not None:
        _publish(port, arguments.port_file)
    if arguments.self_drive is not None:
        texts = [line for line in arguments.self_drive.read_text(encoding="utf-8").splitlines() if line.strip()]
        drive = threading.Thread(
            target=self_drive,
            args=(embedder, attester, texts),
            kwargs={"rate": arguments.rate, "deed": _deed(arguments, embedder, attester)},
            daemon=True,
        )
        drive.start()

    # Shutting down waits for the loop that the main thread runs, so it must not be called from it.
    def stop(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print(
        f"inference server: model {loaded.digest[:16]}… on https://127.0.0.1:{port} "
        f"after {time.monotonic() - started:.2f} s",
        file=sys.stderr,
    )
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    attester.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
