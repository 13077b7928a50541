"""``weighbridge baseline fit``: twelve runs or more of a GPU and a stack, as a baseline that its owner signs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, strict
from weighbridge.proto.baseline import BaselineSet, SignedBaselineSet
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic, PolicyDenied
from weighbridge.verifier import baseline_set
from weighbridge.verifier.baseline_watch import ACCEPT_DRIFT
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import owner_key
from weighbridge.verifier.commands.baseline_profile import profile_document, profile_lines, profile_summary, several
from weighbridge.verifier.commands.baseline_show import read_baseline
from weighbridge.verifier.commands.baseline_text import (
    NOT_WEIGHTS,
    NamedRun,
    device_of,
    devices_in_all,
    one_scope,
    percent,
    read_runs,
    wrapped,
)
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, usage, write
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.keys import open_signing_key, sign_es256
from weighbridge.verifier.telemetry.detector.drift import drift
from weighbridge.verifier.telemetry.study.fitting import RUNS_MIN, Settings, fit
from weighbridge.verifier.telemetry.study.readings import in_some, summarise, unit_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.profile import Gross, Profile
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["configure"]

_COMMAND: Final = "baseline fit"
_DAYS_MAX: Final = 3650
_PPM: Final = 1_000_000
_REASON_MIN: Final = 10
_CAUTION: Final = (
    "it learned what these runs were, whether good or not: sign it only for runs that you know to be honest"
)
_EPILOG: Final = f"""\
examples:
  weighbridge baseline fit run-*.wbr --owner "Acme Physics" --name gate --number 1 --days 90 \\
      --key physics.pem -o gate.baseline
  weighbridge baseline fit run-*.wbr --held-out later-*.wbr --merge gate.baseline --days 90 \\
      --key physics.pem -o gate.baseline

At least {RUNS_MIN} runs of the same GPU and the same stack: units of one run are dependent, so that only runs count. A
profile is fitted to each GPU that is in all of the runs. Thresholds are fixed before the held-out runs are looked at;
where those raise more false alarms than is claimed, it is said, and the thresholds are widened.

An existing SET is replaced by one of its owner, its name and a higher number, and by nothing else. With --anchors, the
key has to be that owner's.

Record runs on different days, from a cold start and a warm one: what they have in common is what is learned.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline fit`` to ``parser``."""
    parser.description = "Fit a baseline to runs of one stack, measure its false alarms on others, and sign it."
    parser.epilog = _EPILOG
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"recordings, .wbr; at least {RUNS_MIN}")
    parser.add_argument(
        "--held-out", metavar="RUN", nargs="+", default=[], help="further runs: false alarms are counted on them"
    )
    parser.add_argument("--owner", metavar="OWNER", type=given.name, help="as in the anchors")
    parser.add_argument("--name", metavar="NAME", type=given.name, help="of the line of baselines, such as gate")
    parser.add_argument(
        "--number", metavar="N", type=given.number, help="higher than ever before (default: one more than --merge has)"
    )
    parser.add_argument(
        "--merge",
        metavar="OLD",
        help="your set before: its owner and name, and what it has of other GPUs, models and drivers",
    )
    until = parser.add_mutually_exclusive_group(required=True)
    until.add_argument("--days", metavar="N", type=_days, help="for how long it is valid, from now")
    until.add_argument("--not-after", metavar="TIME", type=given.date, help="until when it is valid")
    note = parser.add_mutually_exclusive_group()
    note.add_argument("--note", metavar="TEXT", type=given.name, help="for people; one line")
    note.add_argument(
        "--accept-drift",
        metavar="REASON",
        type=_accepted,
        help="sign though a GPU has moved away from what --merge says of it, and say why it is meant",
    )
    owner_key.add_signing(parser)
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="sign nothing that these would not verify; also believe OLD though another key signed it (several times)",
    )
    parser.add_argument(
        "--all", action="store_true", help="print all of each GPU: what explains its power, and each promise apart"
    )
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A profile, and what it was before held-out runs contradicted it; the same where they did not.

    ``in_some`` are channels that only some of its runs have, so that no session has to.
    """

    profile: Profile
    before: Profile
    in_some: tuple[str, ...]


def _run(arguments: argparse.Namespace) -> Outcome | int:
    key = open_signing_key(arguments.key)
    trusted = load_anchors(arguments.anchors) if arguments.anchors else None
    before = None if arguments.merge is None else _previous(arguments.merge, key, trusted)
    place = _place(arguments, before)
    if isinstance(place, str):
        return usage(place, command=_COMMAND)
    owner, name, number = place
    now = datetime.now(UTC).replace(microsecond=0)
    until: datetime = arguments.not_after or now + arguments.days
    if until <= now:
        return usage("--not-after is in the past: nobody would believe it", command=_COMMAND)
    # What would fail in the end fails before the work: the key's owner, and what the file has now.
    if trusted is not None:
        _check_owner(trusted, key, owner)
    _check_replaced(arguments.output, owner=owner, name=name, number=number)
    every = read_runs([*arguments.runs, *arguments.held_out])
    runs, held_out = every[: len(arguments.runs)], every[len(arguments.runs) :]
    one_scope(every)
    fitted = _fit(runs, held_out, shown=not arguments.json)
    moved = _moved(before, [item.profile for item in fitted])
    if moved and arguments.accept_drift is None:
        raise PolicyDenied(
            Code.BASELINE_DRIFT,
            "further from the set before than measuring again explains: " + "; ".join(moved),
            where=str(arguments.merge),
            hint="find out what has changed; if it is meant, say so: --accept-drift REASON",
        )
    made = BaselineSet(
        owner=owner,
        name=name,
        number=number,
        issued_ns=nanoseconds(now),
        not_before_ns=nanoseconds(now),
        not_after_ns=nanoseconds(until),
        profiles=_united(before, [item.profile for item in fitted]),
        note=arguments.accept_drift or arguments.note or "",
    )
    thumbprint = cose.thumbprint(key.public_key())
    data = made.sign(kid=thumbprint, signer=lambda signed: sign_es256(key, signed))
    write(arguments.output, data, doing="writing the baseline")
    digest = SignedBaselineSet.parse(data).digest.hex()
    kept = len(made.profiles) - len(fitted)
    lines_of = profile_lines if arguments.all else profile_summary
    lines = [
        f"signed {plain(name)}, number {number}, of {plain(owner)}: {counted(len(fitted), 'GPU')}"
        + (f", and {counted(kept, 'profile')} of --merge" if kept else ""),
        f"  validity    {strict.time_encode(moment(made.not_before_ns))} to {strict.time_encode(until)}",
        f"  key         sha256 {thumbprint.hex()}",
        *([] if trusted is not None else [f"              (no --anchors: nobody checked that it is {plain(owner)}'s)"]),
        f"  set         sha256 {digest}",
        f"  file        {arguments.output}",
        *(line for words in moved for line in wrapped("accepted", words)),
        *(line for item in fitted for line in ("", *lines_of(item.profile), *_not_asked(item), *_widened(item))),
        "",
        *several(len(made.profiles)),
        *wrapped("BEWARE", _CAUTION),
        f"  {NOT_WEIGHTS}",
        *([] if arguments.all else [f"  … all of it: weighbridge baseline show {arguments.output} --all"]),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/baseline-fit/v1",
        "owner": owner,
        "name": name,
        "number": number,
        "key": thumbprint.hex(),
        "checked": trusted is not None,
        "digest": digest,
        "not_before": strict.time_encode(moment(made.not_before_ns)),
        "not_after": strict.time_encode(until),
        "runs": [run.digest.hex() for run in runs],
        "held_out": [run.digest.hex() for run in held_out],
        "kept": kept,
        "drift": [*moved],
        "profiles": [
            {
                **profile_document(item.profile),
                "in_some": [*item.in_some],
                "widened_from": _bounds_document(item) if _is_widened(item) else None,
            }
            for item in fitted
        ],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _fit(runs: Sequence[NamedRun], held_out: Sequence[NamedRun], *, shown: bool) -> list[_Fitted]:
    """A profile of each GPU that all of the runs have."""
    devices = devices_in_all([*runs, *held_out])
    periods = {item.device: item.period_ns for item in summarise(runs[0].recording)}
    learned = [run.recording for run in runs]
    found: list[_Fitted] = []
    with Progress("GPUs", len(devices), shown=shown) as progress:
        for device in devices:
            progress.note = device_of(device)
            settings = Settings(unit_ns=unit_length(periods[device]))
            profile = fit(learned, device, settings, held_out=[run.recording for run in held_out])
            # Bounds are frozen before they are checked: fitted again without the check, they are what they were.
            exceeded = profile.checked is not None and profile.checked.widened
            first = fit(learned, device, settings) if exceeded else profile
            found.append(_Fitted(profile, first, in_some(learned, profile)))
            progress.advance(1)
    return found


def _not_asked(item: _Fitted) -> Iterator[str]:
    """What sessions need not report, though some runs did."""
    if item.in_some:
        yield from wrapped(
            "BEWARE",
            f"only some of the runs have {', '.join(map(plain, item.in_some))}: sessions that leave it out are judged "
            "by the rest. Leave out the runs that lack it, or record them anew",
        )


def _is_widened(item: _Fitted) -> bool:
    return item.profile.checked is not None and item.profile.checked.widened


def _widened(item: _Fitted) -> Iterator[str]:
    """What was exceeded on held-out runs, and what became of it."""
    if not _is_widened(item):
        return
    yield "  EXCEEDED    held-out runs raised more false alarms than is claimed: widened to hold them"
    for old, new in zip(item.before.bounds, item.profile.bounds, strict=True):
        if old.limit != new.limit:
            yield f"              threshold {old.basis}: {old.limit / 1000:.2f}, now {new.limit / 1000:.2f}"
    if item.before.gross != item.profile.gross:
        yield f"              gross: {_shares(item.before.gross)}, now {_shares(item.profile.gross)}"
    if item.before.evidence_ppm != item.profile.evidence_ppm:
        first, now = _PPM / item.before.evidence_ppm, _PPM / item.profile.evidence_ppm
        yield f"              evidence: {first:,.0f}, now {now:,.0f} ({percent(item.profile.evidence_ppm)})"
    yield "              what it claims now was checked on no run: hold out others, and fit again"


def _shares(gross: Gross) -> str:
    return " / ".join(f"{limit / 10:g} %" for limit in (*gross.limits, gross.upper))


def _bounds_document(item: _Fitted) -> strict.JsonObject:
    return {
        "evidence_ppm": item.before.evidence_ppm,
        "limits_milli": {bound.basis: bound.limit for bound in item.before.bounds},
        "gross_limits_milli": [*item.before.gross.limits, item.before.gross.upper],
    }


def _place(arguments: argparse.Namespace, before: BaselineSet | None) -> tuple[str, str, int] | str:
    """Owner, name and number of the set to make, or what is wrong with the arguments."""
    owner: str | None = arguments.owner or (None if before is None else before.owner)
    name: str | None = arguments.name or (None if before is None else before.name)
    number: int | None = arguments.number or (None if before is None else before.number + 1)
    if owner is None or name is None or number is None:
        return "--owner, --name and --number are needed where there is no --merge"
    if before is not None and ((owner, name) != (before.owner, before.name) or number <= before.number):
        return (
            f"--merge is number {before.number} of {before.owner}, {before.name}: this set has its owner, its name and "
            "a higher number"
        )
    return owner, name, number


def _check_owner(trusted: TrustAnchors, key: ec.EllipticCurvePrivateKey, owner: str) -> None:
    """Require that ``trusted`` believe ``key`` of ``owner``: what it signs would be verified by nobody else.

    Raises:
        NotAuthentic: ``CHAIN_UNTRUSTED``.
    """
    thumbprint = cose.thumbprint(key.public_key())
    names = {anchor.name for anchor in trusted.select("baseline-owner") if sha256(anchor.spki) == thumbprint}
    if owner not in names:
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            "the key is another owner's" if names else "no anchor of purpose baseline-owner has this key",
            where="--owner" if names else "--key",
            expected=owner if names else None,
            got=", ".join(sorted(names)) if names else thumbprint,
            hint="name the key's owner as the anchors do" if names else "name the document with that key: --anchors",
        )


def _check_replaced(target: Path, *, owner: str, name: str, number: int) -> None:
    """Require that nothing is lost at ``target``: it is free, or has an earlier set of the same line.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``.
    """
    if not target.exists():
        return
    hint = "name another file with -o"
    try:
        there = read_baseline(str(target))[1].claimed
    except MalformedEvidence:
        found = "something that is no baseline set"
    else:
        if (there.owner, there.name) == (owner, name) and there.number < number:
            return
        found = f"number {there.number} of {there.owner}, {there.name}"
        if (there.owner, there.name) == (owner, name):
            hint = f"give it a higher number, --number {there.number + 1}, or {hint}"
    raise EnvironmentFault(
        Code.FILE_UNWRITABLE,
        "it exists already, and is not overwritten",
        where=str(target),
        expected=f"a number below {number} of {owner}, {name}",
        got=found,
        hint=hint,
    )


def _previous(path: str, key: ec.EllipticCurvePrivateKey, trusted: TrustAnchors | None) -> BaselineSet:
    """The set in ``path``, signed by this key or by one that the anchors name: nobody signs what a stranger wrote."""
    data, signed = read_baseline(path)
    if trusted is not None and signed.message.claimed_kid != cose.thumbprint(key.public_key()):
        return baseline_set.verify(data, anchors=trusted).content
    owner_key.check_own(signed.message, key, where=path)
    return signed.claimed


def _moved(before: BaselineSet | None, fitted: Sequence[Profile]) -> list[str]:
    """How far GPUs have moved from what the set before says of them, in words; by the bounds that verifiers keep."""
    found: list[str] = []
    for profile in fitted:
        subject = [item for item in (() if before is None else before.profiles) if _judges_alike(item, profile)]
        # As verifiers do: where none is of the driver, another driver's counts.
        same = [item for item in subject if item.scope.driver == profile.scope.driver] or subject
        if words := next((words for item in same if (words := drift(item, profile))), ()):
            found.append(f"{device_of(profile.device)}: {', '.join(words)}")
    return found


def _judges_alike(one: Profile, other: Profile) -> bool:
    """Whether both would judge the same sessions, but for the driver."""
    return (one.device, one.scope.model) == (other.device, other.scope.model)


def _united(before: BaselineSet | None, fitted: Sequence[Profile]) -> tuple[Profile, ...]:
    """Those that were fitted, and of the set before those that judge other sessions."""
    old = () if before is None else before.profiles
    kept = [
        item
        for item in old
        if not any(_judges_alike(item, profile) and item.scope.driver == profile.scope.driver for profile in fitted)
    ]
    return tuple(sorted([*kept, *fitted], key=lambda profile: profile.digest))


def _accepted(text: str) -> str:
    """The note by which verifiers see that a drift is meant."""
    reason = given.name(text)
    if len(reason.strip()) < _REASON_MIN:
        raise argparse.ArgumentTypeError(f"say why, in {_REASON_MIN} characters or more")
    return given.name(f"{ACCEPT_DRIFT} {reason}")


def _days(text: str) -> timedelta:
    days = given.decimal(text, what="the number of days", limit=_DAYS_MAX)
    if days == 0:
        raise argparse.ArgumentTypeError("a set is valid for a day, at least")
    return timedelta(days=days)
