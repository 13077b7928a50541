"""How acts are told: progress lines, what is expected of them, and waiting for what attesters report."""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from stage import AUDIENCE, Attester, Host, Stage, command

from weighbridge.proto import cose
from weighbridge.verifier import result_token
from weighbridge.verifier.anchors import load

if TYPE_CHECKING:
    from weighbridge.verifier.result_token import ResultToken

__all__ = [
    "PATIENCE_S",
    "Act",
    "ActFailed",
    "Result",
    "Waiting",
    "expect",
    "last_error",
    "progress",
    "read_token",
    "say",
    "say_error",
    "say_long",
    "say_why",
    "session_of",
    "wait_for_token",
    "why",
    "why_code",
]

# For machines that are slow, or busy: none of the waits takes this long on one that is neither.
PATIENCE_S: Final = 120.0
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
        await asyncio.wait({ended, enough}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, enough):
            task.cancel()
        expect(self._enough.is_set(), f"not yet {what}: {attester.errors[-3:]}")


async def wait_for_token(stage: Stage, host: Host, attester: Attester) -> ResultToken:
    """The first token, verified as a relying party does."""
    key = next(anchor for anchor in load(stage.anchors.read_bytes()).anchors if anchor.purpose == "verifier")
    deadline = time.monotonic() + PATIENCE_S
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


async def why(stage: Stage, session: str, *wanted: str, window: int | None = None) -> None:
    """Say why the session's windows were refused, as ``weighbridge policy explain`` tells a person: one sentence.

    Args:
        stage: whose verifier judged it.
        session: as hex.
        wanted: what the sentence must name.
        window: which one, where several are refused.
    """
    done = await command(
        "weighbridge", "policy", "explain", stage.state, "--session", session,
        "--anchors", stage.anchors, "--manifest", stage.manifest_file, "--manifest", stage.adapter_file,
        *([] if window is None else ["--window", str(window)]), "--json",
    )  # fmt: skip
    say_why(done.out, done.err, *wanted)


def say_why(out: str, err: str, *wanted: str) -> None:
    """Of an explanation the sentence that names all that is ``wanted``."""
    document: dict[str, Any] = json.loads(out or "{}")
    told = [reason["sentence"] for window in document.get("windows", []) for reason in window["reasons"]]
    chosen = [one for one in told if all(word in one for word in wanted)]
    expect(chosen, f"no explanation names {wanted}: {told} {err}")
    say_long(f"why: {chosen[0]}")


async def why_code(code: str, *wanted: str) -> None:
    """Say what a refusal stands for that is in no record: of no session, or of a window of nobody knows whom."""
    done = await command("weighbridge", "policy", "explain", "--code", code, "--json", check=True)
    document: dict[str, Any] = json.loads(done.out)
    holds = "; ".join(item["holds"] for item in document["invariants"])
    expect(holds and all(word in holds for word in wanted), f"the explanation does not name {wanted}: {holds}")
    say_long(f"why: no policy was asked, since this holds always: {holds}")


def say_long(text: str) -> None:
    """A sentence, in lines that fit a terminal."""
    say(textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False))


def session_of(attester: Attester) -> str:
    """The session of the windows that the attester reported, as hex."""
    sessions = [str(line["session"]) for line in attester.lines if line.get("session")]
    expect(sessions, f"no session was reported: {attester.lines[-3:]}")
    return sessions[-1]


def last_error(attester: Attester) -> str:
    """The error line that the attester ended with."""
    return next((line for line in reversed(attester.errors) if "error:" in line), "no error line")[:300]
