"""``weighbridge reference sign``: the host set that follows; and what ``learn`` shares with it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.host_set import UNFIT_PCRS, AcceptedFile, FileKind, HostSet, SignedHostSet
from weighbridge.verifier import host_set, learning
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import owner_key, reference_show
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, usage, write
from weighbridge.verifier.commands.reference_show import read_host_set
from weighbridge.verifier.keys import open_signing_key, sign_es256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["add_validity", "configure_sign", "previous_set", "register", "sign_content"]

_DAYS_MAX: Final = 3650
_Value = tuple[int | FileKind, bytes]


def add_validity(parser: argparse.ArgumentParser) -> None:
    """Add what every signed host set says, and how it is signed."""
    parser.add_argument(
        "--days", required=True, metavar="N", type=_days, help="for how long the set is valid, from now"
    )
    parser.add_argument("--note", metavar="TEXT", type=given.name, help="for people; one line")
    parser.add_argument(
        "--attester",
        metavar="PATTERN",
        action="append",
        default=[],
        help="files with such a path, and no others, are the attester's code: binary, interpreter, modules (several "
        "times)",
    )
    owner_key.add_signing(parser)


# -- sign -------------------------------------------------------------------------------------------------------------


def configure_sign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reference sign`` to ``parser``."""
    parser.description = (
        "Sign the set that follows SET: with values and files put in or taken out, and valid from now on. It replaces "
        "SET wherever verifiers look for it: -o may name SET itself."
    )
    parser.add_argument("previous", metavar="SET", help="the owner's newest set of this class")
    what = "PCR=HEX, sha256:HEX or verity:sha256:HEX"
    parser.add_argument(
        "--accept", metavar="WHAT", action="append", default=[], type=_value, help=f"put in: {what} (several times)"
    )
    parser.add_argument(
        "--drop", metavar="WHAT", action="append", default=[], type=_value, help=f"take out: {what} (several times)"
    )
    parser.add_argument(
        "--number", metavar="N", type=given.number, help="higher than ever before (default: one more than SET has)"
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe SET though another key signed it (several times)",
    )
    add_validity(parser)
    parser.set_defaults(run=_run_sign)


def _run_sign(arguments: argparse.Namespace) -> Outcome | int:
    key = open_signing_key(arguments.key)
    trusted = load_anchors(arguments.anchors) if arguments.anchors else None
    before = previous_set(arguments.previous, key, trusted)
    number: int = arguments.number or before.number + 1
    if number <= before.number:
        return usage(f"SET is number {before.number}: this set has a higher one", command="reference sign")
    try:
        made = _changed(before, arguments.accept, arguments.drop)
    except KeyError as error:
        return usage(f"SET does not accept {error.args[0]}: nothing to drop", command="reference sign")
    now = datetime.now(UTC).replace(microsecond=0)
    patterns: list[str] = arguments.attester
    marked = [replace(file, attester=learning.matches(file.path, patterns)) for file in made.files]
    made = replace(
        made,
        number=number,
        issued_ns=nanoseconds(now),
        not_before_ns=nanoseconds(now),
        not_after_ns=nanoseconds(now + arguments.days),
        files=tuple(marked) if patterns else made.files,
        note=arguments.note or before.note,
    )
    return sign_content(made, key, arguments.output, head="", told=[], also={})


def _changed(before: HostSet, accept: Sequence[_Value], drop: Sequence[_Value]) -> HostSet:
    """``before`` with values and files put in and taken out. Raises :class:`KeyError` for what is not there to go."""
    pcrs = {index: set(values) for index, values in before.pcrs.items()}
    files = {(file.kind, file.digest): file for file in before.files}
    for place, value in drop:
        if isinstance(place, FileKind):
            if files.pop((place, value), None) is None:
                raise KeyError(f"{place}:{value.hex()}")
        elif value in pcrs.get(place, ()):
            pcrs[place].remove(value)
        else:
            raise KeyError(f"{place}={value.hex()}")
    for place, value in accept:
        if isinstance(place, FileKind):
            files.setdefault((place, value), AcceptedFile(place, value))
        else:
            pcrs.setdefault(place, set()).add(value)
    return replace(
        before,
        pcrs={index: tuple(sorted(values)) for index, values in sorted(pcrs.items()) if values},
        files=learning.order(files.values()),
    )


# -- both -------------------------------------------------------------------------------------------------------------


def previous_set(path: str, key: ec.EllipticCurvePrivateKey, trusted: TrustAnchors | None) -> HostSet:
    """The set in ``path``, signed by this key or by one that the anchors name: nobody signs what a stranger wrote."""
    data, signed = read_host_set(path)
    own = signed.message.claimed_kid == cose.thumbprint(key.public_key())
    if trusted is not None and not own and trusted.select("host-owner"):
        return host_set.verify(data, anchors=trusted).content
    owner_key.check_own(signed.message, key, where=path)
    return signed.claimed


def sign_content(
    content: HostSet,
    key: ec.EllipticCurvePrivateKey,
    target: Path,
    *,
    head: str,
    told: Sequence[str],
    also: strict.JsonObject,
) -> Outcome:
    """Sign ``content`` into the file ``target``.

    Args:
        content: what to sign.
        key: the owner's.
        target: replaced in one step.
        head: printed before.
        told: lines printed behind.
        also: more members of the document.

    Raises:
        MalformedEvidence: the set contradicts itself, or is too large.
        EnvironmentFault: the file cannot be written.
    """
    data = content.sign(kid=cose.thumbprint(key.public_key()), signer=lambda signed: sign_es256(key, signed))
    write(target, data, doing="writing the host set")
    digest = SignedHostSet.parse(data).digest.hex()
    lines = [
        f"signed set {content.number} of {content.owner} for {content.name}",
        f"  validity  {_shown(content.not_before_ns)} to {_shown(content.not_after_ns)}",
        *reference_show.content_lines(content),
        f"  set       {target}, sha256 {digest}",
        *told,
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/reference-sign/v1",
        "owner": content.owner,
        "name": content.name,
        "number": content.number,
        "registers": len(content.pcrs),
        "files": len(content.files),
        "attester": sum(file.attester for file in content.files),
        "digest": digest,
        **also,
    }
    return Outcome(head + "\n".join(lines) + "\n", document)


def _shown(at_ns: int) -> str:
    return strict.time_encode(moment(at_ns))


def _value(text: str) -> _Value:
    """``PCR=HEX``, or a file as IMA names it."""
    index, separator, digits = text.partition("=")
    if separator:
        return register(index), given.digest(digits)
    kind, _, digits = text.rpartition(":")
    if kind not in set(FileKind):
        raise argparse.ArgumentTypeError("write PCR=HEX, sha256:HEX or verity:sha256:HEX")
    return FileKind(kind), given.digest(digits)


def register(text: str) -> int:
    """A PCR in which a value can be expected."""
    index = given.decimal(text, what="the register", limit=limits.PCRS_MAX - 1)
    if index in UNFIT_PCRS:
        raise argparse.ArgumentTypeError(f"no value can be expected in PCR {index}")
    return index


def _days(text: str) -> timedelta:
    days = given.decimal(text, what="the number of days", limit=_DAYS_MAX)
    if days == 0:
        raise argparse.ArgumentTypeError("a set is valid for a day, at least")
    return timedelta(days=days)
