"""The arguments by which policies written for other verifiers are asked beside ours: docs/policy-adapters.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.policy import policy_set
from weighbridge.policy.adapters.module import PROFILES, VALUES, ForeignModule
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.commands.outcome import read

if TYPE_CHECKING:
    import argparse

    from weighbridge.policy.policy_set import PolicySet

__all__ = ["add_foreign", "is_foreign", "with_foreign"]

_HINT = f"such as --foreign nvidia:policy.rego; profiles: {', '.join(PROFILES)}"


def add_foreign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    group = parser.add_argument_group("policies written for other verifiers, which must consent as well")
    group.add_argument(
        "--foreign",
        metavar="PROFILE:FILE",
        action="append",
        default=[],
        help=f"ask this one beside --policy; PROFILE is {', '.join(PROFILES)} (several times)",
    )
    group.add_argument(
        "--foreign-v0",
        metavar="PROFILE:FILE",
        action="append",
        default=[],
        help="the same, written in the Rego of before OPA 1.0",
    )
    group.add_argument(
        "--foreign-values", metavar="FILE", help="a JSON object: what query_reference_value gives to them"
    )


def is_foreign(arguments: argparse.Namespace) -> bool:
    """Whether any of the arguments was given."""
    return bool(arguments.foreign or arguments.foreign_v0 or arguments.foreign_values is not None)


def with_foreign(policy: PolicySet, arguments: argparse.Namespace) -> PolicySet:
    """``policy`` with the named policies beside it.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``: an argument is not ``PROFILE:FILE``.
        PolicyDenied: ``POLICY_INVALID``: a file breaks a bound, two have one name, or the values are no JSON object.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    files = [
        *(_file(given, v0=False) for given in arguments.foreign),
        *(_file(given, v0=True) for given in arguments.foreign_v0),
    ]
    if arguments.foreign_values is not None:
        files.append((VALUES, read(arguments.foreign_values, limit=policy_set.DATA_MAX)))
    return policy_set.with_files(policy, files) if files else policy


def _file(given: str, *, v0: bool) -> tuple[str, bytes]:
    profile, colon, path = given.partition(":")
    if profile not in PROFILES or not colon or not path:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not PROFILE:FILE", where="--foreign-v0" if v0 else "--foreign", got=given, hint=_HINT
        )
    text = read(path, limit=policy_set.SOURCE_MAX)
    return ForeignModule.given(profile, Path(path).name, text, v0=v0).name, text
