"""``weighbridge model key | trust | sign | revoke | show | diff``: an owner's word about models; manifests."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied
from weighbridge.proto.manifest import check_name
from weighbridge.proto.reference_set import AcceptedModel, ReferenceSet, RevokedModel, SignedSet
from weighbridge.proto.statement import Statement
from weighbridge.verifier import reference_set
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import model_show
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, read_manifest, usage, write
from weighbridge.verifier.keys import create_signing_key, open_signing_key, sign_es256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["configure"]

_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
# Nanoseconds since 1970 have 63 bits.
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2261, 12, 31, 23, 59, 59, tzinfo=UTC)
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
    _configure_key(verbs.add_parser("key", help="make an owner's key, and the anchors document for it"))
    _configure_trust(verbs.add_parser("trust", help="make an anchors document for somebody else's public key"))
    _configure_sign(verbs.add_parser("sign", help="sign a reference set: accepted and revoked models, validity"))
    _configure_revoke(verbs.add_parser("revoke", help="sign the set that follows, with models taken back"))
    model_show.configure_show(verbs.add_parser("show", help="print a manifest or a reference set as a table"))
    model_show.configure_diff(
        verbs.add_parser("diff", help="print in which files, shards and tensors two models differ")
    )
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


def _add_signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", required=True, type=Path, metavar="PEM", help="the owner's private key, P-256")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="SET", help="the file to write")


# -- key --------------------------------------------------------------------------------------------------------------


def _configure_key(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a P-256 key for signing reference sets, and a trust-anchors document (purpose model-owner) for whoever "
        "wants to believe it. The name is the one that every set has to carry."
    )
    parser.add_argument("owner", metavar="OWNER", type=_name, help="the owner's name, such as 'Acme Models'")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="PEM", help="the private key")
    parser.add_argument("--anchors", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.set_defaults(run=_run_key)


def _run_key(arguments: argparse.Namespace) -> Outcome:
    now = datetime.now(UTC).replace(microsecond=0)
    key = create_signing_key(arguments.output)
    source = "exported by the owner that holds the private key"
    anchor = _anchor("model-owner", arguments.owner, cose.spki(key.public_key()), since=now, source=source)
    write(arguments.anchors, TrustAnchors((anchor,)).encode(), doing="writing the anchors")
    text = (
        f"made a key for {arguments.owner}\n"
        f"  key      {arguments.output} (keep it; whoever has it speaks for you)\n"
        f"  anchors  {arguments.anchors} (give it to verifiers: serve --anchors)\n"
        f"  sha256   {anchor.sha256} (compare it over another channel)\n"
    )
    document: strict.JsonObject = {"schema": "weighbridge/model-key/v1", "owner": anchor.name, "sha256": anchor.sha256}
    return Outcome(text, document)


def _anchor(purpose: Purpose, name: str, spki: bytes, *, since: datetime, source: str) -> Anchor:
    return Anchor(purpose, name, "weighbridge", spki, since, _FOREVER, source)


def _configure_trust(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a trust-anchors document for a public key. Whose key it is, nothing in it says: compare the fingerprint "
        "over another channel before you give the document to a verifier. Statements count in sets that were signed "
        "while their issuer's key was believed."
    )
    parser.add_argument("public_key", metavar="PEM", help="the public key: P-256 of an owner; or P-384, Ed25519")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--owner", metavar="NAME", type=_name, help="believe its reference sets")
    whose.add_argument("--issuer", metavar="NAME", type=_name, help="believe its statements about models")
    parser.add_argument(
        "--since", metavar="TIME", type=_time, default=_FIRST, help="believe nothing signed before (default: anything)"
    )
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.set_defaults(run=_run_trust)


def _run_trust(arguments: argparse.Namespace) -> Outcome:
    pem = read(arguments.public_key, limit=limits.CERT_MAX)
    try:
        key = load_pem_public_key(pem)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(
            Code.KEY_MALFORMED,
            "not a public key in PEM",
            where=arguments.public_key,
            hint="it begins: -----BEGIN PUBLIC KEY-----",
        ) from error
    issuer: str | None = arguments.issuer
    purpose: Purpose = "model-owner" if issuer is None else "statement-issuer"
    name: str = arguments.owner if issuer is None else issuer
    source = f"the file {Path(arguments.public_key).name}"
    anchor = _anchor(purpose, name, spki, since=arguments.since, source=source)
    write(arguments.output, TrustAnchors((anchor,)).encode(), doing="writing the anchors")
    text = (
        f"wrote {arguments.output}: {anchor.name}, {purpose}\n"
        f"  sha256   {anchor.sha256} (compare it over another channel)\n"
    )
    document: strict.JsonObject = {
        "schema": "weighbridge/model-trust/v1",
        "purpose": purpose,
        "name": anchor.name,
        "sha256": anchor.sha256,
    }
    return Outcome(text, document)


# -- sign -------------------------------------------------------------------------------------------------------------


def _configure_sign(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sign a reference set. It replaces every earlier one of its owner: with --previous, what that one accepts and "
        "has revoked is carried over. A statement goes to the models that it is about; whether its signature is good, "
        "whoever reads the set decides by its own anchors."
    )
    parser.add_argument("manifests", nargs="*", metavar="MANIFEST", help="accepted models: what `measure` wrote")
    parser.add_argument("--owner", metavar="NAME", type=_name, help="as in the anchors (default: that of --previous)")
    parser.add_argument(
        "--number", metavar="N", type=_number, help="higher than ever before (default: one more than --previous has)"
    )
    parser.add_argument("--valid-until", required=True, metavar="TIME", type=_time, help="such as 2027-06-30T00:00:00Z")
    parser.add_argument("--valid-from", metavar="TIME", type=_time, help="default: now")
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
    _add_signing(parser)
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
    _add_signing(parser)
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
    if signed.message.claimed_kid != cose.thumbprint(key.public_key()):
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            "the previous set is signed by another key",
            where=path,
            expected=cose.thumbprint(key.public_key()),
            got=signed.message.claimed_kid,
            hint="where you have changed keys, name the old one: --anchors",
        )
    cose.verify(signed.message, key.public_key())
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
        f"{model_show.counted(len(content.models), 'model')} with {model_show.counted(statements, 'statement')}, "
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


def _name(text: str) -> str:
    try:
        check_name(text, where="OWNER")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return text


def _time(text: str) -> datetime:
    at = given.time(text)
    if not _FIRST <= at <= _LAST:
        raise argparse.ArgumentTypeError(f"not between {_FIRST:%Y} and {_LAST:%Y}")
    return at


def _number(text: str) -> int:
    try:
        number = strict.decimal(text, what="the number", limit=2**53 - 1)
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error
    if number == 0:
        raise argparse.ArgumentTypeError("numbers begin with 1")
    return number


def _revocation(text: str) -> tuple[bytes, str]:
    digest, separator, reason = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("write DIGEST=REASON")
    return given.digest(digest), given.reason(reason)
