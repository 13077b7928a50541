"""``weighbridge-attester run``: one session, from hardware to the wire."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, final

from weighbridge.attester.boot import IMA_PCR
from weighbridge.attester.clock import SystemClock
from weighbridge.attester.commands import gpu_arguments, telemetry_arguments, tpm_arguments, values
from weighbridge.attester.commands.manifest_file import read_manifest
from weighbridge.attester.configuration import Devices, SessionConfig, Surroundings
from weighbridge.attester.durable import read_file
from weighbridge.attester.keys import load_authority, load_channel, load_serving
from weighbridge.attester.offload import Worker
from weighbridge.attester.replicas import Replicas
from weighbridge.attester.report import Notice
from weighbridge.attester.session import AttesterSession
from weighbridge.attester.spool import DEFAULT_MAX_BYTES
from weighbridge.attester.telemetry import sparkline
from weighbridge.attester.telemetry.power_seen import power_lines
from weighbridge.attester.trust import TrustedVerifiers
from weighbridge.attester.wording import counted, size_of
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode

if TYPE_CHECKING:
    from collections.abc import Generator

    from weighbridge.attester.client import Transport
    from weighbridge.attester.keys import ChannelKey
    from weighbridge.attester.report import Observer, SessionSummary, WindowReport
    from weighbridge.attester.tpm.options import TpmOptions
    from weighbridge.proto.collateral import Collateral

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
The command is started with WEIGHBRIDGE_WORKLOAD (the socket through which it has to load its model and report its
work), WEIGHBRIDGE_TLS_CERT and WEIGHBRIDGE_TLS_KEY (the serving key named in every window) and, if asked for,
WEIGHBRIDGE_PORT_FILE in its environment; its output goes to standard error. Without a command, `run` waits for a server
that connects to DIR/workload.sock. SIGINT or SIGTERM ends the session in good order. The newest result token is in
DIR/token.

examples:
  weighbridge-attester run --verifier verifier.example:8443 --verifier-ca ca.pem --verifier-key anchors.json \\
      --manifest minilm.json --state /var/lib/weighbridge --tenant acme --audience gate.example \\
      --tcti device:/dev/tpmrm0 --gpu nvml -- python server.py

  # the server may also load what these name, and nothing else
  weighbridge-attester run … --adapter style.json --adapter draft.json -- python server.py

  # without hardware: nothing of this is believed by a production policy
  weighbridge-attester run … --tcti swtpm:path=/tmp/tpm.sock --gpu emulated:1 --gpu-vendor vendor -- python server.py
"""

_FILE_MAX: Final = 2 * 1024 * 1024
_INDENT: Final = "    "
_SCHEMA_WINDOW: Final = "weighbridge/attester-window/v1"
_SCHEMA_NOTICE: Final = "weighbridge/attester-notice/v1"
_SCHEMA_SUMMARY: Final = "weighbridge/attester-summary/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run`` to ``parser``."""
    verifier = parser.add_argument_group("verifier")
    verifier.add_argument(
        "--verifier",
        metavar="HOST:PORT",
        type=values.place,
        action="append",
        required=True,
        help="where the verifier listens (several times: its replicas; any that answers will do)",
    )
    verifier.add_argument(
        "--verifier-ca", metavar="FILE", type=Path, required=True, help="PEM: who certifies the verifier's TLS key"
    )
    verifier.add_argument(
        "--verifier-key",
        metavar="FILE",
        type=Path,
        required=True,
        help="anchors document (entries of purpose verifier), or one public key in PEM: who signs the terms",
    )
    verifier.add_argument("--certificate", metavar="FILE", type=Path, help="PEM (default: DIR/channel.pem)")
    verifier.add_argument(
        "--wait-for-verifier",
        action="store_true",
        help="at the start, wait for a verifier that cannot be reached (default: exit 8)",
    )
    session = parser.add_argument_group("session")
    session.add_argument("--state", metavar="DIR", type=Path, required=True, help="the attester's state directory")
    session.add_argument("--manifest", metavar="FILE", type=Path, required=True, help="the declared model's manifest")
    session.add_argument(
        "--adapter",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="the manifest of what else may be loaded, such as a LoRA adapter (several times)",
    )
    session.add_argument("--tenant", required=True, help="the tenant, as the verifier knows it")
    session.add_argument("--audience", required=True, help="whom the result tokens are for")
    session.add_argument("--windows", metavar="N", type=values.positive, help="end after N windows (default: go on)")
    session.add_argument("--port-file", metavar="FILE", type=Path, help="where the inference server writes its port")
    session.add_argument(
        "--spool-max",
        metavar="BYTES",
        type=values.spool,
        default=DEFAULT_MAX_BYTES,
        help="what windows may take on the disk while the verifier cannot be reached, such as 20GiB (default: "
        f"{size_of(DEFAULT_MAX_BYTES)}, a week of 8 GPUs)",
    )
    hardware = parser.add_argument_group("hardware")
    hardware.add_argument("--tcti", required=True, help="device:/dev/tpmrm0, or swtpm:path=SOCKET for an emulator")
    hardware.add_argument(
        "--log-pcr", metavar="N", type=values.pcr, default=15, help="the log's register (default: 15)"
    )
    hardware.add_argument(
        "--pinned-ak", action="store_true", help="the verifier has pinned the attestation key: show nothing for it"
    )
    tpm_arguments.configure(parser)
    hardware.add_argument(
        "--seed", metavar="N", type=values.seed, help="seed of emulated sensors and of the delays before reconnecting"
    )
    gpu_arguments.configure(parser)
    telemetry_arguments.configure(parser)
    parser.add_argument(
        "--answer-timeout",
        metavar="S",
        type=values.positive,
        default=30,
        help="seconds to wait for a verdict (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document per window")


def run(args: argparse.Namespace) -> int:
    """Run the session to its end.

    Raises:
        WeighbridgeError: see :class:`weighbridge.attester.session.AttesterSession`.
    """
    state: Path = args.state
    observer = _Printer(sys.stdout, sys.stderr, as_json=args.json)
    # Everything that can be wrong with files is found before a device or the network is touched.
    trusted = TrustedVerifiers.load(read_file(args.verifier_key, limit=_FILE_MAX, what="verifier's key"))
    authority = load_authority(args.verifier_ca)
    manifest, *adapters = (read_manifest(path) for path in (args.manifest, *args.adapter))
    serving = load_serving(state)
    channel = load_channel(state, certificate=args.certificate)
    platform = tpm_arguments.tpm_options(args), tpm_arguments.collateral(args)
    config = SessionConfig(
        state=state,
        tenant=args.tenant,
        audience=args.audience,
        model=manifest,
        adapters=tuple(adapters),
        serving=serving,
        peer=channel.peer,
        version=metadata.version("weighbridge"),
        log_pcr=args.log_pcr,
        pinned=args.pinned_ak,
        command=args.command,
        port_file=args.port_file,
        windows=args.windows,
        spool_bytes=args.spool_max,
        patient=args.wait_for_verifier,
    )
    with ExitStack() as open_devices:
        worker = open_devices.enter_context(Worker())
        devices, watching = _open_devices(args, platform, open_devices, observer)
        rng = random.Random(args.seed)  # noqa: S311 - jitter, not a secret
        transport = _transport(args, authority, channel, rng)

        async def whole() -> SessionSummary:
            session = AttesterSession(
                config,
                devices,
                transport,
                trusted=trusted,
                surroundings=Surroundings(clock=SystemClock(), rng=rng, offload=worker),
                observer=watching,
            )
            return await _until_signal(session)

        summary = asyncio.run(whole())
    observer.summary(summary)
    return ExitCode.AFFIRMED


def _transport(args: argparse.Namespace, authority: bytes, channel: ChannelKey, rng: random.Random) -> Transport:
    # Here and not at the top: gRPC logs failed handshakes to standard error unless it is told not to before it is
    # loaded. We say what failed ourselves; the server that we launch is not to hear of it.
    quiet = "GRPC_VERBOSITY" not in os.environ
    if quiet:
        os.environ["GRPC_VERBOSITY"] = "ERROR"
    try:
        with _installed():
            from weighbridge.attester.client import GrpcTransport, Timeouts  # noqa: PLC0415
    finally:
        if quiet:
            del os.environ["GRPC_VERBOSITY"]
    timeouts = Timeouts(answer=args.answer_timeout)
    places = [
        GrpcTransport(place, authority=authority, channel=channel, timeouts=timeouts)
        for place in dict.fromkeys(args.verifier)
    ]
    return places[0] if len(places) == 1 else Replicas(places, rng)


@contextmanager
def _installed() -> Generator[None]:
    """What is imported here needs more than the base installation."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            f"cannot load {error.name or 'a library'}: {error}",
            hint="pip install 'weighbridge[attester]'; for the TPM also apt-get install libtss2-dev",
        ) from error


async def _until_signal(session: AttesterSession) -> SessionSummary:
    """Run ``session``; the first signal ends it in good order, the second at once."""
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    asked = False

    def interrupt() -> None:
        nonlocal asked
        if asked and running is not None:
            running.cancel()
        asked = True
        session.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await session.run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _open_devices(
    args: argparse.Namespace, platform: tuple[TpmOptions, Collateral], stack: ExitStack, observer: _Printer
) -> tuple[Devices, Observer]:
    # Here and not at the top: the other verbs must work on hosts without the TSS.
    with _installed():
        from weighbridge.attester.tpm.device import Tpm  # noqa: PLC0415

    tpm = stack.enter_context(Tpm.open(args.tcti, platform[0]))
    if args.tcti.startswith("swtpm:"):
        observer.notice(Notice("emulated", f"INSECURE: the TPM is emulated ({args.tcti}); platform insecure-emulated"))
    with _installed():
        gpus = gpu_arguments.open_gpus(args, stack, observer)
        telemetry = telemetry_arguments.open_telemetry(args, gpus, stack)
    boot, runtime = tpm_arguments.boot_logs(args, observer)
    if runtime is not None:
        tpm.follow(IMA_PCR, runtime)
    devices = Devices(
        tpm=tpm,
        gpus=gpus.source,
        telemetry=telemetry,
        boot=boot,
        runtime=runtime,
        collateral=platform[1],
    )
    return devices, gpus.observer


@final
class _Printer:
    """Progress: lines for people, or one JSON document per event on standard output."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._json = as_json

    def window(self, report: WindowReport) -> None:
        """See :meth:`weighbridge.attester.report.Observer.window`."""
        work = report.work
        if self._json:
            self._document(
                {
                    "schema": _SCHEMA_WINDOW,
                    "session": report.session.hex(),
                    "seq": report.seq,
                    "status": report.status,
                    "requests": None if work is None else work.requests,
                    "tokens_in": None if work is None else work.tokens_in,
                    "tokens_out": None if work is None else work.tokens_out,
                    "token_expires": None if report.token_expires is None else strict.time_encode(report.token_expires),
                    "backlog": report.backlog,
                    "verdict": report.verdict,
                }
            )
            return
        served = ""
        if work is not None:
            served = f"  {counted(work.requests, 'request')}, {work.tokens_in}+{work.tokens_out} tokens"
        waiting = f"  ({report.backlog} waiting)" if report.backlog else ""
        self._line(f"window {report.seq:>5}  {report.status:<13}{served}{waiting}")
        for denial in report.denials if report.status in {"denied", "indeterminate"} else ():
            self._line(f"    {_printable(denial.code)}: {_printable(denial.text)}")
            if denial.hint:
                self._line(f"    hint: {_printable(denial.hint)}")
        if self._out.isatty():
            columns = shutil.get_terminal_size().columns - len(_INDENT) - 1
            for line in power_lines(report.power, columns=columns, levels=sparkline.levels()):
                self._line(_INDENT + line)

    def notice(self, notice: Notice) -> None:
        """See :meth:`weighbridge.attester.report.Observer.notice`."""
        if self._json:
            self._document({"schema": _SCHEMA_NOTICE, "kind": notice.kind, "message": notice.message})
        self._err.write(f"{notice.kind}: {_printable(notice.message)}\n")
        self._err.flush()

    def summary(self, summary: SessionSummary) -> None:
        """Print how the session ended."""
        if self._json:
            self._document(
                {
                    "schema": _SCHEMA_SUMMARY,
                    "session": summary.session.hex(),
                    "sealed": summary.sealed,
                    "affirmed": summary.affirmed,
                    "held": summary.held,
                    "indeterminate": summary.indeterminate,
                    "lost": summary.lost,
                    "losses": [lost.document() for lost in summary.losses],
                    "backlog": summary.backlog,
                    "verifier": summary.verifier,
                }
            )
            return
        closed = "closed" if summary.verifier is not None else "not closed: the verifier is out of reach"
        unsettled = f"{summary.indeterminate} indeterminate, " if summary.indeterminate else ""
        self._line(
            f"session {summary.session.hex()} {closed}: {counted(summary.sealed, 'window')}, {summary.affirmed} "
            f"affirmed, {summary.held} held, {unsettled}{summary.lost} lost, {summary.backlog} waiting"
        )
        for lost in summary.losses:
            self._line(f"    lost: {lost}")

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def _document(self, document: object) -> None:
        self._line(strict.json_encode(document).decode())


def _printable(text: str) -> str:
    """One line of ``text``, which is the verifier's or a policy's author's, that cannot steer a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]
