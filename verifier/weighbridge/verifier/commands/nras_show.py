"""What ``weighbridge verify nras`` tells of an answer, and of what it was held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.bundle_reports import RecordedReports
    from weighbridge.verifier.gpu.nras import ComparedDevice, VerifiedNras, WitnessedDevice

__all__ = ["ENROLMENT", "Held", "outcome"]

ENROLMENT: Final = "enrolment"
_SCHEMA: Final = "weighbridge/verify-nras/v1"
_STATEMENT: Final = "the service said so over this nonce; a witness admits nothing by itself"
_EMULATED: Final = "the service is emulated: anybody can make one"


@dataclass(frozen=True, slots=True)
class Held:
    """What the service's word was held against: ``devices`` are those of ``recorded`` of which the service spoke."""

    recorded: RecordedReports
    devices: tuple[ComparedDevice, ...]

    @property
    def when(self) -> str:
        """``the enrolment`` or ``window 2``."""
        return f"the {ENROLMENT}" if self.recorded.seq is None else f"window {self.recorded.seq}"

    @property
    def silent(self) -> int:
        """Of how many of the session's devices the service does not speak."""
        return len(self.recorded.devices) - len(self.devices)


def outcome(said: VerifiedNras, *, named: bool, held: Held | None = None) -> Outcome:
    """What is told of ``said``, and the exit status: 5 or 6.

    Args:
        said: verified.
        named: whether the devices were compared with the caller's.
        held: what it was held against, where that is a recorded session.
    """
    differences = () if held is None else tuple(found for device in held.devices for found in device.differences)
    against = bool(said.contradictions or differences)
    warnings = [*said.warnings, *([_EMULATED] if said.platform == EMULATED_PLATFORM else [])]
    unproven = _unproven(named=named, held=held)
    code = Code.NRAS_CONTRADICTS if against else Code.UNPROVEN
    head = "REFUSED" if against else "INDETERMINATE"
    reason = (
        "the service speaks against a device"
        if said.contradictions
        else "the service says what the reports do not"
        if against
        else f"corroborates: {_STATEMENT}"
    )
    lines = [
        f"{head}: {code.value}: {reason}",
        f"  issuer   {said.issuer}, claims {said.version}, platform {said.platform}",
        *([] if held is None else _window_lines(held, said)),
        f"  nonce    {said.nonce.hex()}",
        *([] if held is None else [f"  hashed   {_derivation(held)}"]),
        f"  valid    {strict.time_encode(said.issued)} to {strict.time_encode(said.expires)}",
        *(f"  {device.name:<8} {_line(device)}" for device in said.devices),
        *([] if held is None else [f"  {device.name:<8} {_agreement(device)}" for device in held.devices]),
        *(f"  against  {found}" for found in said.contradictions),
        *(f"  differs  {found}" for found in differences),
        *(f"  warning  {text}" for text in warnings),
        *(f"  unproven {text}" for text in unproven),
    ]
    document: strict.JsonObject = {
        "schema": _SCHEMA,
        "result": "refused" if against else "indeterminate",
        "code": code.value,
        "says": "contradicts" if against else "corroborates",
        "platform": said.platform,
        "issuer": said.issuer,
        "version": said.version,
        "nonce": said.nonce.hex(),
        "issued": strict.time_encode(said.issued),
        "expires": strict.time_encode(said.expires),
        "sha256": said.digest.hex(),
        "claims": dict(said.claims),
        "devices": {device.name: dict(device.claims) for device in said.devices},
        "contradictions": [
            {"claim": found.claim, "expected": found.expected, "got": found.got} for found in said.contradictions
        ],
        "held_against": None if held is None else _document(held),
        "differences": [{"claim": found.claim, "said": found.said, "read": found.read} for found in differences],
        "warnings": list(warnings),
        "not_verified": list(unproven),
    }
    text = "".join(f"{_printable(line)}\n" for line in lines)
    return Outcome(text, document, ExitCode.DENIED if against else ExitCode.INDETERMINATE)


def _document(held: Held) -> strict.JsonObject:
    recorded = held.recorded
    return {
        "session": recorded.session.hex(),
        "window": recorded.seq,
        "received_at": strict.time_encode(recorded.received),
        "outcome": recorded.outcome,
        "hashed": recorded.hashed.hex(),
        "derivation": _derivation(held),
        "devices": {
            device.name: {
                "identity": device.report.identity.hex(),
                "kind": device.report.kind,
                "measurements": device.measured,
                "agrees": list(device.agreed),
            }
            for device in held.devices
        },
        "not_spoken_of": held.silent,
    }


def _window_lines(held: Held, said: VerifiedNras) -> list[str]:
    recorded = held.recorded
    after = (said.issued - recorded.received).total_seconds()
    asked = f"{abs(after):.0f} s {'after' if after >= 0 else 'before'}"
    return [
        f"  session  {recorded.session.hex()}, {held.when}, recorded as {recorded.outcome}",
        f"           received {strict.time_encode(recorded.received)}; the service answered {asked} that",
    ]


def _derivation(held: Held) -> str:
    """What was hashed to the nonce: docs/protocol.md §3."""
    made = "its qualifying data" if held.recorded.seq is None else "the digest of its header"
    return f'["weighbridge/v1/gpu", h\'{held.recorded.hashed.hex()}\'] in CBOR: D("gpu", H) of {held.when}, H is {made}'


def _agreement(device: ComparedDevice) -> str:
    agreed = ", ".join(device.agreed) or "nothing"
    return f"is {device.report.kind} {device.report.identity.hex()[:16]}…; the report agrees on {agreed}"


def _unproven(*, named: bool, held: Held | None) -> Sequence[str]:
    return (
        *(() if named else ("that the devices are yours: name their chains, --chain FILE",)),
        *(() if held is None else _unproven_of(held)),
        "whether the service's own certificates are revoked",
        "confidential mode: no claim says that it is on",
        "secboot and dbgstat: they follow measres, and rest on no evidence of their own",
    )


def _unproven_of(held: Held) -> Sequence[str]:
    absent = [device.name for device in held.devices if device.measured == "absent"]
    return (
        f"that {held.when} is admitted: `weighbridge verify bundle` judges it",
        "that the service was given these reports: it names none, and a host may have several signed over one nonce",
        *([f"the measurements of {', '.join(absent)}: not all manifests were at hand here"] if absent else []),
        *(
            [f"{held.silent} of {counted(len(held.recorded.devices), 'device')}: the service was not asked"]
            if held.silent
            else []
        ),
    )


def _line(device: WitnessedDevice) -> str:
    claims = device.claims
    told = ", ".join(
        f"{claim} {value if isinstance(value := claims[claim], str) else strict.json_encode(value).decode()}"
        for claim in ("hwmodel", "measres", "secboot", "dbgstat")
        if claim in claims
    )
    return f"{told or 'nothing'}, serial number {device.ueid or 'not told'}"


def _printable(line: str) -> str:
    """Claims are whatever their issuer wrote: no escape sequence reaches a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
