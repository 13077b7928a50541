"""The demonstration: six acts in one terminal, on real weights, a real TPM implementation, and emulated GPUs.

Exit 0 only if every act ended as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import io
import json
import shlex
import shutil
import ssl
import struct
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from line import CuttableLine
from rogue import ForgetfulLog, Rogue
from stage import AUDIENCE, BIN, Attester, CommandFailed, Host, Stage, command

from weighbridge.attester.tpm.device import Tpm
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, WeighbridgeError
from weighbridge.verifier import result_token
from weighbridge.verifier.anchors import load
from weighbridge.verifier.result_token import ResultToken

_TEXTS: Final = Path(__file__).resolve().parent / "texts.txt"
_WINDOWS: Final = 8
_HELD: Final = 2
# For machines that are slow, or busy: none of the waits below takes this long on one that is neither.
_PATIENCE_S: Final = 120.0
_WIDTH: Final = 80
_ERROR_MAX: Final = 280


class ActFailed(AssertionError):
    """An act did not end as it should."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an act ended: the outcome in a word or two, and what showed it."""

    outcome: str
    shown_by: str


Act = Callable[[Stage], Awaitable[Result]]


def say(line: str) -> None:
    """A progress line."""
    print(line, flush=True)


def say_error(text: str) -> None:
    """An error, in lines that fit a terminal; a long one is cut at a word, and shows it."""
    text = textwrap.shorten(text, _ERROR_MAX, placeholder=" …")
    say(textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False))


def expect(condition: object, what: str) -> None:
    """Require ``condition``."""
    if not condition:
        raise ActFailed(what)


def progress(document: dict[str, Any]) -> None:
    """One line per window, as its verdict arrives."""
    if document.get("schema", "").startswith("weighbridge/attester-window"):
        verdict: dict[str, Any] = document["verdict"] or {}
        line = f"    window {document['seq']:>2}  {document['status']:<8}  {document['tokens_in'] or 0:>4} tokens in"
        for denial in verdict.get("denials", []):
            if document["status"] == "denied":
                line += f"\n      {denial['code']}: {denial['message']}"
        say(line)
    elif document.get("kind") in {"line-restored", "unheard"}:
        say(f"    {document['kind']}: {document['message']}")


# -- 1: an honest session ----------------------------------------------------------------------------------------------


async def honest(stage: Stage) -> Result:
    """The declared weights run, and only they; a relying party gets in by the token; the bundle convinces offline."""
    host = stage.hosts["honest"]
    port_file = host.directory / "port"
    affirmed = Waiting(lambda document: document.get("status") == "affirmed", _WINDOWS)
    attester = await Attester.start(
        [
            *stage.options(host),
            "--port-file", port_file,
            *stage.server("--self-drive", _TEXTS, "--rate", "6", "--port-file", port_file),
        ],
        affirmed.watch,
    )  # fmt: skip
    token = await wait_for_token(stage, host, attester)
    say(f"    token     status {token.status}: model {token.model.hex()[:16]}…, ledger index {token.ledger_index}")
    answered = await asyncio.to_thread(ask_pinned, port_file, token)
    say(f"    gate      asked the attested server (pinned to the token's cnf): {answered} tokens embedded")
    with contextlib.suppress(WeighbridgeError):
        token.require_upstream(sha256(b"some other server's key"))
        raise ActFailed("a server that was not attested was accepted")
    await affirmed.until(attester, f"{_WINDOWS} windows affirmed")
    attester.process.terminate()
    status = await attester.wait(_PATIENCE_S)
    expect(status == 0, f"the attester ended with {status}: {attester.errors[-3:]}")
    await check_bundle(stage, token.session.hex())
    return Result("admitted", f"{_WINDOWS} windows and more affirmed; bundle accepted offline")


class Waiting:
    """Shows progress, and counts the reports of a kind until there are enough of them."""

    def __init__(self, wanted: Callable[[dict[str, Any]], bool], count: int) -> None:
        self._wanted = wanted
        self._missing = count
        self._enough = asyncio.Event()

    def watch(self, document: dict[str, Any]) -> None:
        """One report of the attester."""
        progress(document)
        if self._wanted(document):
            self._missing -= 1
        if self._missing <= 0:
            self._enough.set()

    async def until(self, attester: Attester, what: str) -> None:
        """Wait until there are enough."""
        ended = asyncio.create_task(attester.process.wait())
        enough = asyncio.create_task(self._enough.wait())
        await asyncio.wait({ended, enough}, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, enough):
            task.cancel()
        expect(self._enough.is_set(), f"not yet {what}: {attester.errors[-3:]}")


async def wait_for_token(stage: Stage, host: Host, attester: Attester) -> ResultToken:
    """The first token, verified as a relying party does."""
    key = next(anchor for anchor in load(stage.anchors.read_bytes()).anchors if anchor.purpose == "verifier")
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        text = read_token(host)
        if text is not None:
            trusted = cose.load_p256(key.spki, what="verifier")
            return result_token.verify(text, trusted, audience=AUDIENCE, at=datetime.now(UTC))
        expect(attester.process.returncode is None, f"the attester ended: {attester.errors[-3:]}")
        await asyncio.sleep(0.05)
    raise ActFailed("no token came")


def read_token(host: Host) -> str | None:
    """The newest result token, if there is one."""
    try:
        return (host.state / "token").read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def ask_pinned(port_file: Path, token: ResultToken) -> int:
    """Embed a text at the attested server, whose TLS key must be the one that the token names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # No authority vouches for the key: the attested session does, and it is compared below.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = port_file.read_text().strip()
    connection = http.client.HTTPSConnection(f"127.0.0.1:{port}", context=context, timeout=10)
    connection.connect()
    if not isinstance(connection.sock, ssl.SSLSocket):
        raise ActFailed("the server does not speak TLS")
    der = connection.sock.getpeercert(binary_form=True) or b""
    spki = (
        x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    token.require_upstream(sha256(spki))
    connection.request("POST", "/embed", json.dumps({"texts": ["Who weighs the weigher?"]}))
    tokens: int = json.loads(connection.getresponse().read())["tokens"]
    connection.close()
    return tokens


async def check_bundle(stage: Stage, session: str) -> None:
    """The proof bundle is accepted with this demonstration's anchors, and refused without, or under production."""
    bundle = stage.out / "session.wb"
    await command("weighbridge", "export", stage.state, session, "-o", bundle, *stage.judging(), check=True)
    trials: tuple[tuple[list[str | Path], ExitCode, str], ...] = (
        (["--anchors", stage.anchors], ExitCode.AFFIRMED, "this demonstration's anchors"),
        ([], ExitCode.NOT_AUTHENTIC, "the default anchors"),
        (["--anchors", stage.anchors, "--policy", "production"], ExitCode.DENIED, "the production policy"),
    )
    for options, wanted, why in trials:
        done = await command("weighbridge", "verify", "bundle", bundle, *options)
        say(f"    bundle    {why}: exit {done.status}, {wanted.name.lower().replace('_', ' ')}")
        expect(done.status == wanted, f"verify bundle with {why}: exit {done.status}, not {wanted}\n{done.err}")


# -- 2: one bit --------------------------------------------------------------------------------------------------------


async def one_bit(stage: Stage) -> Result:
    """One bit of one tensor is changed after the weights were declared."""
    host = stage.hosts["one-bit"]
    directory = host.directory / "model"
    shutil.copytree(stage.model, directory)
    weights = directory / "model.safetensors"
    name, offset = first_value(weights, "encoder.layer.0.attention.self.query.weight")
    with weights.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    say(f"    flipped one bit of {name}")
    attester = await Attester.start(
        [*stage.options(host), "--windows", "2", *stage.server("--model", directory)], progress
    )
    status = await attester.wait(_PATIENCE_S)
    refusal = " ".join(attester.errors)
    say_error(last_error(attester))
    expect(status == ExitCode.DENIED, f"exit {status}, not {ExitCode.DENIED}: {refusal}")
    for needed in (Code.WEIGHTS_MISMATCH.value, "model.safetensors", name):
        expect(needed in refusal, f"the refusal does not name {needed}: {refusal}")
    return Result("refused", f"{Code.WEIGHTS_MISMATCH}: model.safetensors, …{name[-36:]}")


def first_value(path: Path, suffix: str) -> tuple[str, int]:
    """The name of a tensor, and where its first byte is in the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    name = next(key for key in sorted(header) if key.endswith(suffix))
    return name, 8 + length + header[name]["data_offsets"][0]


def last_error(attester: Attester) -> str:
    """The error line that the attester ended with."""
    return next((line for line in reversed(attester.errors) if "error:" in line), "no error line")[:300]


# -- 3: another model --------------------------------------------------------------------------------------------------


async def another_model(stage: Stage) -> Result:
    """The declared weights are measured, then another model is loaded as well; the attester is started again."""
    host = stage.hosts["another-model"]
    other = host.directory / "other"
    other.mkdir()
    (other / "weights.bin").write_bytes(hashlib.sha256(b"another model").digest() * 64)
    attester = await Attester.start(
        [
            *stage.options(host),
            "--windows", "6",
            *stage.server("--self-drive", _TEXTS, "--rate", "6", "--also", other, "--also-in-window", "2"),
        ],
        progress,
    )  # fmt: skip
    status = await attester.wait(_PATIENCE_S)
    expect(status == ExitCode.DENIED, f"exit {status}: {attester.errors[-3:]}")
    codes = denied_codes(attester)
    expect(Code.MODEL_UNDECLARED.value in codes, f"refused, but by {codes}")
    say("    the attester is started again, without a reset of the TPM")
    again = await Attester.start([*stage.options(host), "--windows", "2", *stage.server()], progress)
    status = await again.wait(_PATIENCE_S)
    say_error(last_error(again))
    expect(status == ExitCode.DENIED, f"exit {status}: {again.errors[-3:]}")
    expect(Code.SUBJECT_FAILED.value in " ".join(again.errors), f"refused, but by {last_error(again)}")
    say("    and once more, with a log that begins today")
    with Tpm.open(host.tpm.tcti) as tpm:
        try:
            await Rogue.open(stage, host, tpm=tpm, log=ForgetfulLog(tpm))
        except WeighbridgeError as error:
            say_error(str(error))
            expect(error.code is Code.BASELINE_UNEXPLAINED, f"refused, but by {error}")
        else:
            raise ActFailed("a log that begins today was accepted")
    return Result("refused", f"{Code.MODEL_UNDECLARED}; restart: {Code.SUBJECT_FAILED}, {Code.BASELINE_UNEXPLAINED}")


def denied_codes(attester: Attester) -> set[str]:
    """The codes of all denials that the verifier answered."""
    return {denial["code"] for line in attester.lines if line.get("verdict") for denial in line["verdict"]["denials"]}


# -- 4: a reset --------------------------------------------------------------------------------------------------------


async def reset(stage: Stage) -> Result:
    """The TPM is reset in mid-session and its registers brought back to the same values; then its state is copied."""
    shown: list[Code] = []
    for name, how in (("reset", "reset"), ("copied", "reset, with its state copied back")):
        host = stage.hosts[name]
        host.tpm.stop()
        before = host.directory / "state-before"
        host.tpm.snapshot(before)
        host.tpm.start()
        tpm = Tpm.open(host.tpm.tcti)
        log = ForgetfulLog(tpm)
        log.load(stage.manifest)
        rogue = await Rogue.open(stage, host, tpm=tpm, log=log)
        try:
            await good_windows(rogue, 2)
            first = rogue.tpm.read_clock()
            tpm.close()
            if name == "reset":
                host.tpm.power_cycle()
            else:
                host.tpm.restore(before)
            rogue.tpm = rogue.log.tpm = Tpm.open(host.tpm.tcti)
            now = rogue.tpm.read_clock()
            rogue.replay_log()
            key = rogue.new_telemetry_key()
            rogue.reseal()
            say(f"    TPM {how}: resetCount {first.reset_count} -> {now.reset_count}, PCR 15 at its good value again")
            shown.append(await refused(rogue, "signed by a new key in the old one's name"))
            shown.append(await refused(rogue, "signed by a new key in its own name", signer=key))
        finally:
            await rogue.line.disconnect()
            rogue.tpm.close()
    expect(shown == [Code.COSE_SIGNATURE, Code.TELEMETRY_KEY_MISMATCH] * 2, f"refused, but by {shown}")
    return Result("refused", "the telemetry key died: COSE_SIGNATURE, TELEMETRY_KEY_MISMATCH")


async def good_windows(rogue: Rogue, count: int) -> None:
    """Windows before the tampering: they must be affirmed, or the refusal after it would show nothing."""
    outcomes: list[str] = []
    # On a machine that stops for seconds a window may come too late, and is held: the next one is fresh again.
    while outcomes.count("affirmed") < count and len(outcomes) < 5 * count:
        answer = await rogue.window()
        outcomes.append(json.loads(answer.verdict)["outcome"])
        say(f"    window {answer.seq:>2}  {outcomes[-1]}")
        expect(outcomes[-1] != "denied", f"an honest window was denied: {answer.verdict[:400]!r}")
    expect(outcomes.count("affirmed") == count, f"honest windows were {outcomes}")


async def refused(rogue: Rogue, what: str, *, signer: bytes | None = None) -> Code:
    """The code by which the next window is refused; ``signer`` is whom it names as the key that signed."""
    seq = rogue.seq
    try:
        answer = await rogue.window(signer=signer)
    except WeighbridgeError as error:
        say(f"    window {seq:>2}  refused   {what}\n      {error.code}: {error.message}")
        return error.code
    verdict = json.loads(answer.verdict)
    expect(verdict["outcome"] == "denied", f"the tampered window was {verdict['outcome']}")
    first = verdict["denials"][0]
    say(f"    window {seq:>2}  denied    {what}\n      {first['code']}: {first['message']}")
    return Code(first["code"])


# -- 5: another GPU ----------------------------------------------------------------------------------------------------


async def another_gpu(stage: Stage) -> Result:
    """One GPU is exchanged between two windows for another genuine one."""
    host = stage.hosts["another-gpu"]
    with Tpm.open(host.tpm.tcti) as tpm:
        log = ForgetfulLog(tpm)
        log.load(stage.manifest)
        rogue = await Rogue.open(stage, host, tpm=tpm, log=log)
        try:
            await good_windows(rogue, 2)
            rogue.swap_gpu(0, host)
            rogue.reseal()
            code = await refused(rogue, "with another genuine GPU of the same vendor in place of one")
        finally:
            await rogue.line.disconnect()
    expect(code is Code.GPU_UNEXPECTED, f"refused, but by {code}")
    return Result("refused", code.value)


# -- 6: the line is cut ------------------------------------------------------------------------------------------------


async def cut_line(stage: Stage) -> Result:
    """The line to the verifier is cut: the token expires; restored, the held windows arrive, and fresh ones go on."""
    host = stage.hosts["cut-line"]
    line = CuttableLine(stage.port)
    await line.start()
    spooled = Waiting(lambda document: document.get("status") == "spooled", _HELD)
    fresh = Waiting(lambda document: document.get("status") == "affirmed", 1)
    watch: Callable[[dict[str, Any]], None] = progress

    def on_line(document: dict[str, Any]) -> None:
        watch(document)

    attester = await Attester.start(
        [*stage.options(host, port=line.port), *stage.server("--self-drive", _TEXTS, "--rate", "6")], on_line
    )
    try:
        await wait_for_token(stage, host, attester)
        await asyncio.sleep(1.5)
        last = await newest(host)
        watch = spooled.watch
        line.cut()
        say("    the line is cut")
        expired = await expiry(stage, last)
        say(f"    the token expired {expired:.1f} s after the line was cut")
        await spooled.until(attester, "windows in the spool")
        watch = fresh.watch
        line.restore()
        say("    the line is restored")
        await fresh.until(attester, "a fresh window after the cut")
        attester.process.terminate()
        status = await attester.wait(_PATIENCE_S)
    finally:
        await line.stop()
    expect(status == 0, f"the attester ended with {status}: {attester.errors[-3:]}")
    return await compare_records(stage, attester)


async def compare_records(stage: Stage, attester: Attester) -> Result:
    """What the attester sealed and what the verifier recorded are the same windows; those of the cut were held."""
    summary = attester.lines[-1]
    listed = json.loads((await command("weighbridge", "sessions", stage.state, "--json", check=True)).out)["sessions"]
    (recorded,) = [row for row in listed if row["session"] == summary["session"]]
    expect(recorded["state"] == "closed", f"the session is {recorded['state']}")
    expect(recorded["windows"] == summary["sealed"], f"{summary['sealed']} sealed, {recorded['windows']} recorded")
    expect(summary["lost"] == summary["backlog"] == 0, f"windows were lost: {summary}")
    held = sorted(row["seq"] for row in attester.lines if row.get("status") == "held")
    expect(len(held) >= _HELD, f"only {held} were held")
    say(f"    windows {held[0]}-{held[-1]} were held; {recorded['windows']} sealed, as many recorded, none lost")
    return Result("held, then fresh", "what was sealed meanwhile is held and recorded, none lost")


async def newest(host: Host) -> str:
    """The newest token, as soon as there is one."""
    deadline = time.monotonic() + _PATIENCE_S
    while (text := read_token(host)) is None:
        expect(time.monotonic() < deadline, "no token came")
        await asyncio.sleep(0.02)
    return text


async def expiry(stage: Stage, text: str) -> float:
    """Seconds until the relying party's check of a token fails for its age."""
    key = next(anchor for anchor in load(stage.anchors.read_bytes()).anchors if anchor.purpose == "verifier")
    trusted = cose.load_p256(key.spki, what="verifier")
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE_S:
        try:
            result_token.verify(text, trusted, audience=AUDIENCE, at=datetime.now(UTC))
        except WeighbridgeError as error:
            expect(error.code is Code.TOKEN_EXPIRED, f"refused, but by {error.code}")
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    raise ActFailed("the token did not expire")


# -- all ---------------------------------------------------------------------------------------------------------------

ACTS: Final[tuple[tuple[str, str, Act], ...]] = (
    ("honest", "an honest session", honest),
    ("one-bit", "one bit of one tensor changed", one_bit),
    ("another-model", "another model loaded as well", another_model),
    ("reset", "TPM reset, and its state copied back", reset),
    ("another-gpu", "one GPU exchanged", another_gpu),
    ("cut-line", "the line to the verifier cut", cut_line),
)
_HOSTS: Final = ("honest", "one-bit", "another-model", "reset", "copied", "another-gpu", "cut-line")


async def play(out: Path, chosen: list[str]) -> int:
    """Play the acts and print the table; the exit status."""
    began = time.monotonic()
    say("setting the stage: a verifier, emulated hosts (insecure-emulated: no production policy accepts them)")
    stage = await Stage.build(out, _HOSTS)
    say(f"  model {stage.manifest.name}: {stage.manifest.size / 1e6:.0f} MB, manifest {stage.manifest.digest.hex()}")
    rows: list[tuple[str, str, Result | None, float]] = []
    try:
        await stage.start_verifier()
        for number, (name, title, act) in enumerate(ACTS, 1):
            if chosen and name not in chosen:
                continue
            say(f"\nact {number}: {title}")
            start = time.monotonic()
            result = None
            try:
                result = await act(stage)
            except (ActFailed, CommandFailed, WeighbridgeError, TimeoutError) as error:
                say(f"    NOT AS IT SHOULD: {type(error).__name__}: {error}")
            rows.append((str(number), title, result, time.monotonic() - start))
    finally:
        await stage.stop()
    return table(rows, out, time.monotonic() - began)


def table(rows: list[tuple[str, str, Result | None, float]], out: Path, seconds: float) -> int:
    """Print how each act ended."""
    say(f"\n{'act':<4}{'what happened':<40}{'outcome':<22}{'time':>7}")
    for number, title, result, took in rows:
        outcome, shown = (result.outcome, result.shown_by) if result else ("FAILED", "see above")
        say(f"{number:<4}{title:<40}{outcome:<22}{took:>6.1f}s\n      {shown}")
    good = all(result for _, _, result, _ in rows)
    say(f"\n{len(rows)} acts in {seconds:.0f} s. Everything that was judged is in {out}:")
    tool, bundle, anchors = (
        shlex.quote(str(path)) for path in (BIN / "weighbridge", out / "session.wb", out / "anchors.json")
    )
    say(f"  {tool} verify bundle \\\n      {bundle} --anchors {anchors}")
    say("That is exit 0. Without these anchors it is exit 4; with --policy production as well, exit 5.")
    return ExitCode.AFFIRMED if good else ExitCode.INTERNAL


def main() -> int:
    """Parse the arguments and play."""
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything is written (made anew)")
    parser.add_argument(
        "--act", action="append", default=[], choices=[name for name, _, _ in ACTS], help="only this act"
    )
    arguments = parser.parse_args()
    out: TextIO = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # What the terminal cannot show is shown escaped.
        out.reconfigure(errors="backslashreplace")
    try:
        return asyncio.run(play(arguments.out.resolve(), arguments.act))
    except WeighbridgeError as error:
        print(f"demo: error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except CommandFailed as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return ExitCode.INTERNAL
    except OSError as error:
        print(f"demo: error: {error}\nhint: can {arguments.out} be written?", file=sys.stderr)
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return ExitCode.ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main())
