"""``weighbridge policy bundle sign | verify | show``: a policy as its author signs it, and as a verifier takes it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, PolicyDenied
from weighbridge.proto.policy_bundle import PolicyBundle, SignedPolicyBundle, is_file_name
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import owner_key
from weighbridge.verifier.commands.foreign import add_foreign, with_foreign
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, taken_for, write
from weighbridge.verifier.commands.text import counted, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.policy.authoring.sources import Sources
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["configure", "configure_key", "configure_trust"]

_ROLES: Final = (owner_key.Role("--author", "policy-author", "believe its policy bundles"),)
_DAYS: Final = 90
_DAYS_MAX: Final = 3650
_SHIPPED: Final = "weighbridge/"
_EPILOG: Final = """\
examples:
  weighbridge policy key "Acme Safety" -o author.pem --anchors author.json
  weighbridge policy bundle sign my-policy --owner "Acme Safety" --name gate --number 1 \\
      --key author.pem -o gate.policy
  weighbridge policy bundle verify gate.policy --anchors author.json
  weighbridge serve verifier/ … --policy-bundle gate.policy --anchors author.json

A bundle holds rules and the author's own data, never reference values: those are the relying party's.
A newer one in the file's place, with a higher number, judges from the next window on.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of ``policy bundle`` to ``parser``."""
    parser.description = "Sign a policy, verify it, show what is in it."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="bundle_verb", required=True, metavar="VERB")
    _configure_sign(verbs.add_parser("sign", help="check a policy, run its tests, and sign it"))
    _configure_verify(verbs.add_parser("verify", help="verify a bundle, and check and load its policy as serve does"))
    _configure_show(verbs.add_parser("show", help="print a bundle; nothing of it is verified"))
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


def configure_key(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy key``."""
    owner_key.configure_key(
        parser, command="policy", purpose="policy-author", signs="policy bundles", example="Acme Safety"
    )
    _add_common(parser)


def configure_trust(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy trust``."""
    owner_key.configure_trust(parser, _ROLES, command="policy")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    owner_key.add_tenant(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


# -- sign --------------------------------------------------------------------------------------------------------------


def _configure_sign(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check a policy, run the tests and golden inputs that lie with it, and sign its modules and data.json. Tests "
        "and reference values stay outside. It replaces every bundle of this owner, name and tenant with a lower "
        "number."
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE", help="a policy's directory, or its files")
    parser.add_argument("--owner", required=True, metavar="OWNER", type=given.name, help="as in the anchors")
    parser.add_argument("--name", required=True, metavar="NAME", type=given.name, help="of the policy, such as gate")
    parser.add_argument("--number", required=True, metavar="N", type=given.number, help="higher than ever before")
    parser.add_argument(
        "--tenant",
        metavar="TENANT",
        type=given.tenant,
        help="whose sessions it judges (default: those of every tenant that has none of its own)",
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=_days,
        default=timedelta(days=_DAYS),
        help=f"for how long it is valid, from now; then nothing is judged (default: {_DAYS})",
    )
    add_foreign(parser)
    parser.add_argument("--note", metavar="TEXT", type=given.name, help="for people; one line")
    parser.add_argument("--without-tests", action="store_true", help="sign it though nobody has run its tests")
    parser.add_argument("--key", required=True, type=Path, metavar="PEM", help="the author's private key, P-256")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="the file to write")
    parser.set_defaults(run=_run_sign)


def _run_sign(arguments: argparse.Namespace) -> Outcome:
    from weighbridge.policy.authoring.sources import collect  # noqa: PLC0415 - the engine's room, only here
    from weighbridge.policy.values.reference import Reference  # noqa: PLC0415
    from weighbridge.verifier.keys import open_signing_key, sign_es256  # noqa: PLC0415

    key = open_signing_key(arguments.key)
    sources = collect(arguments.paths)
    policy = with_foreign(sources.policy(Reference({}, {}, {})), arguments)
    _check(policy)
    tested = "none ran" if arguments.without_tests else _tested(sources)
    now = datetime.now(UTC).replace(microsecond=0)
    content = PolicyBundle(
        owner=arguments.owner,
        name=arguments.name,
        tenant=arguments.tenant,
        number=arguments.number,
        issued_ns=nanoseconds(now),
        not_before_ns=nanoseconds(now),
        not_after_ns=nanoseconds(now + arguments.days),
        files=_files(policy),
        note=arguments.note or "",
    )
    data = content.sign(kid=cose.thumbprint(key.public_key()), signer=lambda signed: sign_es256(key, signed))
    write(arguments.output, data, doing="writing the policy bundle")
    digest = SignedPolicyBundle.parse(data).digest
    lines = [
        f"signed number {content.number} of {plain(content.owner)}, {plain(content.name)}",
        *_content_lines(content),
        f"  policy    {policy.digest.hex()}",
        f"  tests     {tested}",
        f"  bundle    {arguments.output}, sha256 {digest.hex()}",
    ]
    return Outcome("\n".join(lines) + "\n", {**_document("sign", content, digest), "policy": policy.digest.hex()})


def _files(policy: PolicySet) -> tuple[tuple[str, bytes], ...]:
    """The author's own."""
    files = tuple(sorted((name, content) for name, content in policy.files if not name.startswith(_SHIPPED)))
    for name, _ in files:
        if not is_file_name(name):
            raise PolicyDenied(
                Code.POLICY_INVALID,
                "a file of this name cannot be signed",
                where=ascii(name),
                hint="up to 100 letters, digits, '.', '_' and '-', then .rego",
            )
    return files


def _check(policy: PolicySet) -> None:
    """Load ``policy`` as a verifier does, which refuses what the checker refuses."""
    from weighbridge.policy.engines.regorus import RegorusEngine  # noqa: PLC0415 - the engine, only here

    RegorusEngine().load(policy).close()


def _tested(sources: Sources) -> str:
    """What came of the tests beside the policy.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: one fails, or there is none.
    """
    from weighbridge.policy.authoring.golden import Golden  # noqa: PLC0415 - with the engine, only here
    from weighbridge.policy.authoring.testing import Suite, run  # noqa: PLC0415
    from weighbridge.verifier.commands.policy_test import reference_of  # noqa: PLC0415

    golden: list[tuple[str, Golden]] = []
    for path in sources.golden:
        with taken_for(path, what="a golden input", hint="`weighbridge policy test` names what is wrong with it"):
            golden.append((str(path), Golden.parse(read(path, limit=limits.JSON_MAX))))
    tried = sources.policy(reference_of(sources, None))
    report = run(Suite(tried, sources.test_modules(), tuple(golden)))
    if not report.passed:
        failed = report.failed
        raise PolicyDenied(
            Code.POLICY_INVALID,
            f"{counted(len(failed), 'test')} of {len(report.results)} failed" if failed else "there is no test",
            where=f"{failed[0].file} {failed[0].name}".strip() if failed else "",
            hint="`weighbridge policy test` says why; --without-tests signs it all the same"
            if failed
            else "write one (`weighbridge policy init` shows how), or say --without-tests",
        )
    return f"{counted(len(report.results), 'test')} passed"


# -- verify ------------------------------------------------------------------------------------------------------------


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Verify a bundle's signature and tenant, then check and load its policy as `weighbridge serve` does. Exit 0 "
        "when it would judge now, 3 malformed, 4 not authentic, 5 when its policy is refused or it is not valid at "
        "--at. That it is the newest, only a verifier that has seen others can say."
    )
    parser.add_argument("file", metavar="BUNDLE", help="a policy bundle; - for standard input")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        required=True,
        help="whose keys are believed, purpose policy-author (several times)",
    )
    parser.add_argument("--at", metavar="TIME", type=given.time, default=None, help="whether valid then (default: now)")
    parser.set_defaults(run=_run_verify)


def _run_verify(arguments: argparse.Namespace) -> Outcome:
    from weighbridge.policy.values.reference import Reference  # noqa: PLC0415 - the engine's room, only here
    from weighbridge.verifier import policy_bundle  # noqa: PLC0415

    data, _ = _read(arguments.file)
    verified = policy_bundle.verify(data, anchors=load_anchors(arguments.anchors))
    policy = verified.policy(Reference({}, {}, {}))
    _check(policy)
    at: datetime = arguments.at or datetime.now(UTC)
    word = "NOT YET VALID" if at < verified.not_before else "EXPIRED" if at > verified.not_after else "VERIFIED"
    content = verified.content
    lines = [
        f"{word}: number {content.number} of {plain(content.owner)}, {plain(content.name)}, by its author's word alone",
        *_content_lines(content, verified.not_before, verified.not_after),
        f"  policy    {policy.digest.hex()}",
        f"  bundle    sha256 {verified.digest.hex()}",
    ]
    document: strict.JsonObject = {
        **_document("verify", content, verified.digest),
        "policy": policy.digest.hex(),
        "not_before": strict.time_encode(verified.not_before),
        "not_after": strict.time_encode(verified.not_after),
        "valid": verified.valid(at),
    }
    return Outcome("\n".join(lines) + "\n", document, ExitCode.AFFIRMED if verified.valid(at) else ExitCode.DENIED)


# -- show --------------------------------------------------------------------------------------------------------------


def _configure_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print what a policy bundle says of itself, its files, or one of them. Nothing is verified."
    parser.add_argument("file", metavar="BUNDLE", help="a policy bundle; - for standard input")
    parser.add_argument("--source", metavar="NAME", help="print this file of it instead")
    parser.set_defaults(run=_run_show)


def _run_show(arguments: argparse.Namespace) -> Outcome:
    _, signed = _read(arguments.file)
    content = signed.claimed
    document = _document("show", content, signed.digest)
    if arguments.source is not None:
        found = dict(content.files).get(arguments.source)
        if found is None:
            raise PolicyDenied(
                Code.POLICY_INVALID,
                "the bundle has no such file",
                where=ascii(arguments.source),
                expected=", ".join(name for name, _ in content.files),
            )
        # Whatever it holds: nothing of it steers the terminal.
        text = found.decode(errors="replace")
        shown = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
        return Outcome(shown if shown.endswith("\n") else f"{shown}\n", {**document, "source": text})
    lines = [
        "UNVERIFIED: no signature was checked; anybody can write these bytes (policy bundle verify --anchors)",
        f"  number    {content.number} of {plain(content.owner)}, {plain(content.name)}",
        *_content_lines(content),
        f"  bundle    sha256 {signed.digest.hex()}",
    ]
    return Outcome("\n".join(lines) + "\n", document)


# -- all ---------------------------------------------------------------------------------------------------------------


def _read(path: str) -> tuple[bytes, SignedPolicyBundle]:
    data = read(path, limit=limits.POLICY_BUNDLE_MAX + 1)
    with taken_for(path, what="a policy bundle", hint="name a file that `weighbridge policy bundle sign` wrote"):
        return data, SignedPolicyBundle.parse(data)


def _content_lines(
    content: PolicyBundle, not_before: datetime | None = None, not_after: datetime | None = None
) -> Iterator[str]:
    begins, ends = not_before or moment(content.not_before_ns), not_after or moment(content.not_after_ns)
    yield f"  for       {'every tenant that has none of its own' if content.tenant is None else plain(content.tenant)}"
    yield f"  validity  {strict.time_encode(begins)} to {strict.time_encode(ends)}"
    if content.note:
        yield f"  note      {plain(content.note)}"
    rows = [(name, f"{len(data):,}", sha256(data).hex()) for name, data in content.files]
    head, *listed = table(("file", "bytes", "sha256"), rows, right=0)
    yield f"  files     {head}"
    yield from (f"            {line}" for line in listed)


def _document(verb: str, content: PolicyBundle, digest: bytes) -> strict.JsonObject:
    files: list[strict.JsonValue] = [
        {"name": name, "bytes": len(data), "sha256": sha256(data).hex()} for name, data in content.files
    ]
    return {
        "schema": f"weighbridge/policy-bundle-{verb}/v1",
        "owner": content.owner,
        "name": content.name,
        "tenant": content.tenant,
        "number": content.number,
        "digest": digest.hex(),
        "note": content.note,
        "files": files,
    }


def _days(text: str) -> timedelta:
    days = given.decimal(text, what="the number of days", limit=_DAYS_MAX)
    if days == 0:
        raise argparse.ArgumentTypeError("a policy is valid for a day, at least")
    return timedelta(days=days)
