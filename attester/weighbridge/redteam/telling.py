"""What was played, for people, for programs, and as a report that can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.redteam.attack import Status
from weighbridge.redteam.playing import ATTACKS, exit_status
from weighbridge.verifier.commands.text import counted, line, table

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.redteam.field import Target
    from weighbridge.redteam.playing import Played, Result

__all__ = ["Told"]

_SCHEMA: Final = "weighbridge/redteam/v1"
_MEANING: Final = {
    Status.ADMITTED: "taken for honest: a check is missing, or switched off",
    Status.HARMFUL: "refused, and a host that behaves was refused with it",
    Status.OTHERWISE: "refused, by another check than the one that is meant",
    Status.NOT_SHOWN: "its honest part was not accepted: the check was not reached",
    Status.NOT_PLAYED: "the line broke, or it took too long",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What was played against ``target``, begun at ``at``, in ``seconds``."""

    target: Target
    played: Played
    at: datetime
    seconds: float

    def text(self) -> str:
        """A table, what was not as expected, and what is left behind."""
        rows = [
            (result.attack.name, _rows(result), result.status.value, ", ".join(result.codes))
            for result in self.played.results
        ]
        lines = table(("attack", "rows", "came to", "by"), rows, right=0)
        lines += [f"  {text}" for text in self._strange()]
        return "\n".join([*lines, "", self._summary(), *self._apart(), *self._behind()]) + "\n"

    def document(self) -> strict.JsonObject:
        """The same for programs."""
        played = self.played
        return {
            "schema": _SCHEMA,
            "target": self.target.address,
            "tenant": self.target.tenant,
            "audience": self.target.audience,
            "relying_party": None if self.target.relying_party is None else self.target.relying_party.address,
            "gate": None if self.target.gate is None else self.target.gate.address,
            "at": strict.time_encode(self.at),
            "seconds": round(self.seconds),
            "exit": exit_status(played.results).value,
            "attacks": [_row(result) for result in played.results],
            "left_behind": {
                "sessions": [session.hex() for session in played.sessions],
                "failed_attestation_keys": [key.hex() for key in played.failed],
                "openings": played.openings,
                "windows": played.windows,
            },
        }

    def report(self) -> str:
        """The same as Markdown."""
        target = self.target
        lines = [
            f"# Red team: {target.address}",
            "",
            f"{strict.time_encode(self.at)}, tenant `{target.tenant}`, audience `{target.audience}`. {self._summary()}",
            "",
            "| attack | rows | what it does | came to | by | of | answered |",
            "|---|---|---|---|---|---|---|",
        ]
        for result in self.played.results:
            attack = result.attack
            cells = (
                attack.name,
                _rows(result),
                attack.does,
                result.status.value,
                ", ".join(f"`{code}`" for code in result.codes),
                f"the {attack.by}",
                _cell(result.message),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"- {text}" for text in (*self._strange(), *self._apart())), "", "## What is left behind", ""]
        return "\n".join([*lines, *(f"- {text}" for text in self._behind())]) + "\n"

    def _summary(self) -> str:
        results = self.played.results
        found = [f"{sum(result.status is status for result in results)} {status.value}" for status in Status]
        told = ", ".join(text for text in found if not text.startswith("0 "))
        return f"{counted(len(results), 'attack')} in {self.seconds:.0f} s: {told}."

    def _strange(self) -> list[str]:
        """One line for each that was not refused as expected."""
        return [_told(result) for result in self.played.results if result.status is not Status.REFUSED]

    def _behind(self) -> list[str]:
        played = self.played
        sessions, windows = counted(len(played.sessions), "session"), counted(played.windows, "window")
        openings = counted(played.openings, "opening")
        failed = counted(len(played.failed), "attestation key and its GPUs", "attestation keys and their GPUs")
        return [
            f"left behind: {sessions}, all over, with verdicts on {windows} in the ledger; {openings} asked for",
            f"remembered as failed: {failed}, which were made for this run and are not used again",
        ]

    def _apart(self) -> list[str]:
        """One line for each port that was not named: what is played there says nothing of this deployment."""
        named = {"relying-party": self.target.relying_party, "gate": self.target.gate}
        return [
            f"not attacked, without --{name}: {counted(sum(attack.needs == name for attack in ATTACKS), 'attack')}"
            for name, place in named.items()
            if place is None
        ]


def _told(result: Result) -> str:
    stage = f"{result.stage}: " if result.stage else ""
    return f"{result.attack.name}: {_MEANING[result.status]}: {stage}{line(result.message)}"


def _row(result: Result) -> strict.JsonObject:
    attack = result.attack
    return {
        "name": attack.name,
        "rows": list(attack.rows),
        "does": attack.does,
        "by": attack.by,
        "expected": [code.value for code in attack.expected],
        "status": result.status.value,
        "codes": list(result.codes),
        "message": result.message,
        "stage": result.stage or None,
        "milliseconds": round(result.seconds * 1000),
    }


def _rows(result: Result) -> str:
    return ", ".join(result.attack.rows) or "none"


def _cell(text: str) -> str:
    return line(text).replace("|", "\\|")
