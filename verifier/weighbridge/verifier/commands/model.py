"""``weighbridge model key | trust | sign | revoke | show | diff``: an owner's word about models; manifests."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, NotAuthentic, PolicyDenied
from weighbridge.proto.reference_set import AcceptedModel, ReferenceSet, RevokedModel, SignedSet
from weighbridge.proto.statement import Statement
from weighbridge.verifier import reference_set
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import model_show, owner_key
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, read_manifest, usage, write
from weighbridge.verifier.commands.owner_key import Role
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.keys import open_signing_key, sign_es256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["configure"]

_ROLES: Final = (
    Role("--owner", "model-owner", "believe its reference sets"),
    Role("--issuer", "statement-issuer", "believe its statements about models"),
)
_EPILOG: Final = """\
an owner's key, and the document by which others believe it:
  weighbridge model key "Acme Models" -o owner.pem --anchors owner.json

believe somebody who evaluates models:
  weighbridge model trust lab.pub.pem --issuer "Evaluation Lab" -o lab.json

accept a model for half a year, with an evaluation that somebody else has signed:
  weighbridge model sign model.json --statement evaluation.dsse.json --key owner.pem --owner "Acme Models" \\
      --number 1 --valid-until 2027-06-30T00:00:00Z -o models.set

take it back; every verifier that looks at models.set closes its gates at the next window:
  weighbridge model revoke models.set DIGEST --reason "weights leaked" --key owner.pem -o models.set

look at a manifest or a set, and compare two models tensor by tensor:
  weighbridge model show models.set --anchors owner.json
  weighbridge model diff model-a.json model-b.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    parser.epilog, parser.formatter_class = f"examples:\n\n{_EPILOG}", argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    owner_key.configure_key(
        verbs.add_parser("key", help="make an owner's key, and the anchors document for it"),
        command="model",
        purpose="model-owner",
        signs="reference sets",
        example="Acme Models",
    )
    owner_key.configure_trust(
        verbs.add_parser("trust", help="make an anchors document for somebody else's public key"),
        _ROLES,
        command="model",
        also=" Statements count in sets that were signed while their issuer's key was believed.",
    )
    _configure_sign(verbs.add_parser("sign", help="sign a reference set: accepted and revoked models, validity"))
    _configure_revoke(verbs.add_parser("revoke", help="sign the set that follows, with models taken back"))
    model_show.configure_show(verbs.add_parser("show", help="print a manifest or a reference set as a table"))
    model_show.configure_diff(
        verbs.add_parser("diff", help="print in which files, shards and tensors two models differ")
    )
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


# -- sign -------------------------------------------------------------------------------------------------------------


def _configure_sign(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sign a reference set. It replaces every earlier one of its owner: with --previous, what that one accepts and "
        "has revoked is carried over. A statement goes to the models that it is about; whether its signature is good, "
        "whoever reads the set decides by its own anchors."
    )
    parser.add_argument("manifests", nargs="*", metavar="MANIFEST", help="accepted models: what `measure` wrote")
    parser.add_argument(
        "--owner", metavar="NAME", type=given.name, help="as in the anchors (default: that of --previous)"
    )
    parser.add_argument(
        "--number",
        metavar="N",
        type=given.number,
        help="higher than ever before (default: one more than --previous has)",
    )
    parser.add_argument(
        "--valid-until", required=True, metavar="TIME", type=given.date, help="such as 2027-06-30T00:00:00Z"
    )
    parser.add_argument("--valid-from", metavar="TIME", type=given.date, help="default: now")
    parser.add_argument(
        "--statement",
        metavar="FILE",
        action="append",
        default=[],
        help="a DSSE envelope with an in-toto statement or a CycloneDX ML-BOM about one of the models (several times)",
    )
    parser.add_argument(
        "--revoke",
        metavar="DIGEST=REASON",
        action="append",
        default=[],
        type=_revocation,
        help="take a model back (several times)",
    )
    parser.add_argument("--previous", metavar="SET", help="the set that this one replaces")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="believe --previous though another key signed it (several times)",
    )
    owner_key.add_signing(parser)
    parser.set_defaults(run=_run_sign)


def _run_sign(arguments: argparse.Namespace) -> Outcome | int:
    key = open_signing_key(arguments.key)
    before = None if arguments.previous is None else _previous(arguments.previous, key, arguments.anchors)
    owner: str | None = arguments.owner or (None if before is None else before.owner)
    number: int | None = arguments.number or (None if before is None else before.number + 1)
    if owner is None or number is None:
        return usage("--owner and --number are needed where there is no --previous", command="model sign")
    if before is not None and (owner != before.owner or number <= before.number):
        return usage(
            f"--previous is number {before.number} of {before.owner}: this set has its owner and a higher number",
            command="model sign",
        )
    now = datetime.now(UTC).replace(microsecond=0)
    if arguments.valid_until < (arguments.valid_from or now):
        return usage("--valid-until is earlier than the set begins to be valid", command="model sign")
    accepted = {} if before is None else {model.manifest: model for model in before.models}
    revoked = {} if before is None else {model.manifest: model for model in before.revoked}
    for path in arguments.manifests:
        manifest = read_manifest(path)
        kept = accepted.get(manifest.digest)
        accepted[manifest.digest] = AcceptedModel(
            manifest.digest, manifest.name, () if kept is None else kept.statements
        )
    for path in arguments.statement:
        _attach(accepted, read(path, limit=limits.STATEMENT_MAX), path)
    made = ReferenceSet(
        owner=owner,
        number=number,
        issued_ns=nanoseconds(now),
        not_before_ns=nanoseconds(arguments.valid_from or now),
        not_after_ns=nanoseconds(arguments.valid_until),
        models=_sorted(accepted.values()),
        revoked=tuple(sorted(revoked.values(), key=lambda model: model.manifest)),
    )
    return _signed(_without(made, arguments.revoke, at=now), key, arguments.output)


def _attach(accepted: dict[bytes, AcceptedModel], data: bytes, path: str) -> None:
    """Put a statement to the models that it is about."""
    statement = Statement.parse(data, where=path)
    about = [model for model in accepted.values() if model.manifest.hex() in statement.subjects]
    if not about:
        raise NotAuthentic(
            Code.STATEMENT_SUBJECT,
            "the statement is about none of the models",
            where=path,
            expected=", ".join(digest.hex() for digest in sorted(accepted)) or "a MANIFEST",
            got=", ".join(sorted(statement.subjects)) or "no digest",
            hint="its subject is the manifest's digest, as `weighbridge model show MANIFEST` prints it",
        )
    for model in about:
        if data not in model.statements:
            accepted[model.manifest] = replace(model, statements=(*model.statements, data))


# -- revoke -----------------------------------------------------------------------------------------------------------


def _configure_revoke(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sign the set that follows SET, in which the models are revoked. Its validity stays that of SET. Put it in the "
        "place of the old one wherever verifiers look for it: -o may name SET itself."
    )
    parser.add_argument("previous", metavar="SET", help="the owner's newest set")
    parser.add_argument("models", nargs="+", metavar="DIGEST", type=given.digest, help="manifest digests")
    parser.add_argument(
        "--reason", required=True, type=given.reason, help="why; it stands in every verdict that refuses"
    )
    owner_key.add_signing(parser)
    parser.set_defaults(run=_run_revoke)


def _run_revoke(arguments: argparse.Namespace) -> Outcome:
    key, now = open_signing_key(arguments.key), datetime.now(UTC).replace(microsecond=0)
    before = _previous(arguments.previous, key, ())
    following = replace(before, number=before.number + 1, issued_ns=nanoseconds(now))
    revoked = [(digest, arguments.reason) for digest in arguments.models]
    return _signed(_without(following, revoked, at=now), key, arguments.output)


# -- both -------------------------------------------------------------------------------------------------------------


def _previous(path: str, key: ec.EllipticCurvePrivateKey, anchors: Sequence[str]) -> ReferenceSet:
    """The set in ``path``, signed by this key or by one that the anchors name: nobody signs what a stranger wrote."""
    data = read(path, limit=limits.REFERENCE_SET_MAX + 1)
    if anchors:
        return reference_set.authenticate(data, anchors=load_anchors(anchors)).content
    signed = SignedSet.parse(data)
    owner_key.check_own(signed.message, key, where=path)
    return signed.claimed


def _without(content: ReferenceSet, revoked: Sequence[tuple[bytes, str]], *, at: datetime) -> ReferenceSet:
    """``content`` with models taken back. What was revoked before stays so, for the reason given then."""
    gone = {model.manifest: model for model in content.revoked}
    for model in content.models:
        if model.manifest in gone:
            raise PolicyDenied(
                Code.MODEL_REVOKED,
                "the previous set has revoked this model",
                where=model.name,
                got=model.manifest,
                hint="a revoked model stays revoked; without --previous, the set is the first of a new beginning",
            )
    for digest, reason in revoked:
        gone.setdefault(digest, RevokedModel(digest, reason, nanoseconds(at)))
    return replace(
        content,
        models=tuple(model for model in content.models if model.manifest not in gone),
        revoked=tuple(sorted(gone.values(), key=lambda model: model.manifest)),
    )


def _signed(content: ReferenceSet, key: ec.EllipticCurvePrivateKey, target: Path) -> Outcome:
    data = content.sign(kid=cose.thumbprint(key.public_key()), signer=lambda signed: sign_es256(key, signed))
    write(target, data, doing="writing the reference set")
    digest = SignedSet.parse(data).digest.hex()
    statements = sum(len(model.statements) for model in content.models)
    text = (
        f"signed set {content.number} of {content.owner}: "
        f"{counted(len(content.models), 'model')} with {counted(statements, 'statement')}, "
        f"{len(content.revoked)} revoked\n"
        f"  valid   {_shown(content.not_before_ns)} to {_shown(content.not_after_ns)}\n"
        f"  set     {target}, sha256 {digest}\n"
    )
    document: strict.JsonObject = {
        "schema": "weighbridge/model-sign/v1",
        "owner": content.owner,
        "number": content.number,
        "models": len(content.models),
        "statements": statements,
        "revoked": len(content.revoked),
        "digest": digest,
    }
    return Outcome(text, document)


def _sorted(models: Iterable[AcceptedModel]) -> tuple[AcceptedModel, ...]:
    return tuple(sorted(models, key=lambda model: model.manifest))


def _shown(at_ns: int) -> str:
    return strict.time_encode(moment(at_ns).replace(microsecond=0))


def _revocation(text: str) -> tuple[bytes, str]:
    digest, separator, reason = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("write DIGEST=REASON")
    return given.digest(digest), given.reason(reason)
