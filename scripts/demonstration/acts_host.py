"""Acts about the host: its TPM, its GPUs, its line to the verifier."""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from line import CuttableLine
from rogue import ForgetfulLog, Rogue, change_driver, open_rogue, swap_gpu
from stage import AUDIENCE, TEXTS, Attester, Host, Stage, command
from telling import (
    PATIENCE_S,
    ActFailed,
    Result,
    Waiting,
    expect,
    progress,
    read_token,
    say,
    wait_for_token,
    why,
    why_code,
)

from weighbridge.attester.tpm.device import Tpm
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier import result_token
from weighbridge.verifier.anchors import load

if TYPE_CHECKING:
    from weighbridge.attester.client import Answer

__all__ = ["another_gpu", "changed_driver", "cut_line", "reset"]

_HELD: Final = 2


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
        rogue = await open_rogue(stage, host, tpm=tpm, log=log)
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
    # Both codes stand for the same: of a window that nobody is known to have signed, nothing more can be said.
    await why_code(Code.COSE_SIGNATURE, "signed by the session's key")
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
    return Code(denial_of(answer, what)["code"])


def denial_of(answer: Answer, what: str) -> dict[str, Any]:
    """Why a window was denied, in the first place."""
    verdict = json.loads(answer.verdict)
    expect(verdict["outcome"] == "denied", f"the tampered window was {verdict['outcome']}")
    first: dict[str, Any] = verdict["denials"][0]
    say(f"    window {answer.seq:>2}  denied    {what}\n      {first['code']}: {first['message']}")
    return first


async def another_gpu(stage: Stage) -> Result:
    """One GPU is exchanged between two windows for another genuine one."""
    host = stage.hosts["another-gpu"]
    with Tpm.open(host.tpm.tcti) as tpm:
        log = ForgetfulLog(tpm)
        log.load(stage.manifest)
        rogue = await open_rogue(stage, host, tpm=tpm, log=log)
        try:
            await good_windows(rogue, 2)
            swap_gpu(rogue, 0, host)
            code = await refused(rogue, "with another genuine GPU of the same vendor in place of one")
        finally:
            await rogue.line.disconnect()
    expect(code is Code.GPU_UNEXPECTED, f"refused, but by {code}")
    await why(stage, rogue.session.hex(), "the devices are exactly those that are enrolled")
    return Result("refused", code.value)


async def changed_driver(stage: Stage) -> Result:
    """One GPU signs a measurement that its maker's manifest does not have: its driver was changed."""
    host = stage.hosts["changed-driver"]
    with Tpm.open(host.tpm.tcti) as tpm:
        log = ForgetfulLog(tpm)
        log.load(stage.manifest)
        rogue = await open_rogue(stage, host, tpm=tpm, log=log)
        try:
            await good_windows(rogue, 2)
            change_driver(rogue, 1, host)
            denial = denial_of(await rogue.window(), "with a changed driver on one GPU, signed by that GPU")
        finally:
            await rogue.line.disconnect()
    say(f"      expected {json.loads(denial['expected'])[0][:16]}…, got {denial['got'][:16]}…")
    say(textwrap.fill(denial["hint"], 80, initial_indent="      ", subsequent_indent="        "))
    expect(denial["code"] == Code.GPU_MEASUREMENT_MISMATCH, f"refused, but by {denial}")
    told = " ".join(str(value) for value in denial.values())
    for word in ("measurement 22", "driver's manifest", "another build"):
        expect(word in told, f"the refusal does not name {word}: {told}")
    await why(stage, rogue.session.hex(), "measurement 22", "reference_matches(gpu)")
    return Result("refused", f"{Code.GPU_MEASUREMENT_MISMATCH}: measurement 22, of the driver")


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
        [*stage.options(host, port=line.port), *stage.server("--self-drive", TEXTS, "--rate", "6")], on_line
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
        status = await attester.wait(PATIENCE_S)
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
    await why(stage, summary["session"], 'input.window.freshness is "held"', window=held[0])
    return Result("held, then fresh", "what was sealed meanwhile is held and recorded, none lost")


async def newest(host: Host) -> str:
    """The newest token, as soon as there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while (text := read_token(host)) is None:
        expect(time.monotonic() < deadline, "no token came")
        await asyncio.sleep(0.02)
    return text


async def expiry(stage: Stage, text: str) -> float:
    """Seconds until the relying party's check of a token fails for its age."""
    key = next(anchor for anchor in load(stage.anchors.read_bytes()).anchors if anchor.purpose == "verifier")
    trusted = cose.load_p256(key.spki, what="verifier")
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        try:
            result_token.verify(text, trusted, audience=AUDIENCE, at=datetime.now(UTC))
        except WeighbridgeError as error:
            expect(error.code is Code.TOKEN_EXPIRED, f"refused, but by {error.code}")
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    raise ActFailed("the token did not expire")
