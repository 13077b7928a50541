"""``weighbridge-attester model sign | verify``: OpenSSF model signatures over a directory."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from weighbridge.attester import model_signing
from weighbridge.attester.commands.progress import Progress
from weighbridge.attester.durable import read_file, write_file
from weighbridge.attester.model_signing import (
    CertifiedSigner,
    KeylessSigner,
    KeySigner,
    TrustedIdentity,
    TrustedRoots,
    VerifiedModel,
)
from weighbridge.attester.weights.directory import resolved
from weighbridge.attester.wording import counted
from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import ExitCode, MalformedEvidence
from weighbridge.proto.manifest import check_path
from weighbridge.proto.options import UsageFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.attester.model_signing import Signer, SigningKey, Trust
    from weighbridge.proto.model_signing import Statement

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
A signature names every file of the directory by its digest. It is read and written as OpenSSF Model Signing v1.0: what
`model_signing sign` made is verified here, and what is signed here is accepted there.
"""
_SIGN_EPILOG: Final = """\
examples:
  weighbridge-attester model sign models/minilm --private-key signer.key -o minilm.sig
  weighbridge-attester model sign models/minilm --private-key signer.key --certificate signer.pem --chain ca.pem \\
      -o models/minilm/model.sig

Left out, unless --include-git is given: .git .gitattributes .github .gitignore. The signature says what was left out.
"""
_VERIFY_EPILOG: Final = """\
examples:
  weighbridge-attester model verify models/minilm --signature minilm.sig --public-key signer.pub
  weighbridge-attester model verify models/minilm --signature models/minilm/model.sig --root ca.pem --json
  weighbridge-attester model verify models/minilm --signature model.sig --trusted-root trusted_root.json \\
      --identity owner@models.example --issuer https://accounts.example

exit status:
  0 the directory holds exactly what was signed   3 malformed signature   4 not authentic, or files differ
  8 a file cannot be read, or changed meanwhile
"""
_SCHEMA: Final = "weighbridge/model-signature/v1"
_ROOTS_MAX: Final = 4 * 1024 * 1024
# What fits on a screen; --json lists everything.
_LINES_MAX: Final = 20
_MEGABYTE: Final = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of ``model`` and their arguments to ``parser``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    sign = _action(actions, "sign", "sign every file of a model's directory", _SIGN_EPILOG)
    sign.add_argument(
        "--private-key", metavar="PEM", type=Path, required=True, help="the signer's key, on a NIST curve"
    )
    sign.add_argument("--certificate", metavar="PEM", type=Path, help="the key's certificate, for mode certificate")
    sign.add_argument(
        "--chain",
        metavar="PEM",
        type=Path,
        action="append",
        default=[],
        help="certificates between that and the root (several times)",
    )
    sign.add_argument(
        "--method",
        choices=("files", "shards"),
        default="files",
        help="a digest per file, or per 64 MiB of each; `model_signing verify` takes the first only (default: files)",
    )
    sign.add_argument(
        "--include-git", action="store_true", help="sign Git's files too: model_signing will not see them"
    )
    sign.add_argument("--allow-symlinks", action="store_true", help="follow links within DIR, and say so")
    sign.add_argument("-o", "--output", metavar="FILE", type=_path, required=True, help="write the signature to FILE")
    verify = _action(actions, "verify", "verify a model's directory against its signature", _VERIFY_EPILOG)
    verify.add_argument("--signature", metavar="FILE", type=_path, required=True, help="the signature")
    trust = verify.add_mutually_exclusive_group(required=True)
    trust.add_argument("--public-key", metavar="PEM", type=Path, help="the signer's key, for mode key")
    trust.add_argument(
        "--root",
        metavar="PEM",
        type=Path,
        action="append",
        help="certificates at which the signer's chain may end, for mode certificate (several times)",
    )
    trust.add_argument("--trusted-root", metavar="JSON", type=Path, help="Sigstore's trusted root, for mode keyless")
    verify.add_argument("--identity", metavar="NAME", help="whose signature is believed, for mode keyless")
    verify.add_argument("--issuer", metavar="URL", help="which OpenID provider must have said who that is")
    verify.add_argument(
        "--at",
        metavar="TIME",
        type=_time,
        help="when certificates must be valid, such as 2026-01-31T12:00:00Z; a signature proves no time (default: now)",
    )
    for action in (sign, verify):
        action.add_argument(
            "--ignore",
            metavar="PATH",
            type=_ignored,
            action="append",
            default=[],
            help="a file or directory in DIR to leave out, relative to DIR (several times)",
        )
        action.add_argument("--json", action="store_true", help="print one JSON document with every resource")


def run(args: argparse.Namespace) -> int:
    """Sign or verify, print the result.

    Raises:
        WeighbridgeError: as :func:`weighbridge.attester.model_signing.sign` and ``verify``, or for a file of the
            command line that cannot be read or written.
    """
    return _sign(args) if args.action == "sign" else _verify(args)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage] - no public name
    name: str,
    text: str,
    epilog: str,
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("directory", metavar="DIR", type=Path, help="the model's directory; every file below it counts")
    return action


def _path(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("name a file")
    return Path(text)


def _time(text: str) -> datetime:
    try:
        return strict.time_decode(text, what="the time")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _ignored(text: str) -> str:
    path = text.removesuffix("/")
    try:
        check_path(path, where="--ignore")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{text!r}: name a path below DIR, relative to it") from error
    return path


def _sign(args: argparse.Namespace) -> int:
    if args.chain and args.certificate is None:
        raise UsageFault("--chain without --certificate")
    directory: Path = args.directory
    output: Path = args.output
    key = model_signing.load_signing_key(
        _read(args.private_key, "private key"),
        certificate=None if args.certificate is None else _read(args.certificate, "certificate"),
        chain=b"\n".join(_read(path, "certificate chain") for path in args.chain),
    )
    git = () if args.include_git else model_signing.GIT_PATHS
    with Progress(sys.stderr, "hashed") as progress:
        bundle, statement = model_signing.sign(
            directory,
            key,
            method=args.method,
            ignore=(*args.ignore, *git, *_within(directory, output)),
            allow_symlinks=args.allow_symlinks,
            progress=progress,
        )
    write_file(output, bundle, mode=0o644)
    if args.json:
        _print_json({**_describe(statement), "signer": _describe_key(key), "signature": str(output)})
        return ExitCode.AFFIRMED
    signer = key.certificates[0].subject.rfc4514_string() if key.certificates else _sha256(_thumbprint(key))
    rows = [
        ("model", statement.model_name),
        ("signer", signer),
        *_summary(statement),
        ("ignored", _listed(statement.serialization.ignore_paths)),
        ("signature", str(output)),
    ]
    _print_rows(rows)
    return ExitCode.AFFIRMED


def _verify(args: argparse.Namespace) -> int:
    if len({value is None for value in (args.trusted_root, args.identity, args.issuer)}) != 1:
        raise UsageFault("--trusted-root, --identity and --issuer belong together")
    directory: Path = args.directory
    signature: Path = args.signature
    data = read_file(signature, limit=limits.MODEL_SIGNATURE_MAX, what="signature")
    trust = _trust(args)
    with Progress(sys.stderr, "hashed") as progress:
        verified = model_signing.verify(
            data,
            directory,
            trust,
            at=datetime.now(UTC) if args.at is None else args.at,
            ignore=(*args.ignore, *_within(directory, signature)),
            progress=progress,
        )
    if args.json:
        _print_json(_document(verified))
        return ExitCode.AFFIRMED
    statement = verified.statement
    rows = [
        ("model", statement.model_name),
        *_signer_rows(verified.signer),
        *_summary(statement),
        ("bytes", f"{verified.size / _MEGABYTE:.1f} MB, all read"),
        ("ignored", _listed(sorted({*statement.serialization.ignore_paths, *verified.ignored}))),
        ("unsigned", _listed(verified.left_out)),
    ]
    _print_rows(rows)
    resources = statement.resources
    for resource in resources[:_LINES_MAX]:
        sys.stdout.write(f"  {resource.digest.hex()}  {_shown(resource.name)}\n")
    if len(resources) > _LINES_MAX:
        sys.stdout.write(f"  … and {len(resources) - _LINES_MAX} more; --json lists all\n")
    return ExitCode.AFFIRMED


def _trust(args: argparse.Namespace) -> Trust:
    if args.trusted_root is not None:
        return TrustedIdentity(args.identity, args.issuer, args.trusted_root)
    if args.public_key is not None:
        return model_signing.load_public_key(_read(args.public_key, "public key"))
    roots: Sequence[Path] = args.root
    found = [model_signing.load_roots(read_file(path, limit=_ROOTS_MAX, what="root")) for path in roots]
    return TrustedRoots(tuple(certificate for certificates in found for certificate in certificates))


def _read(path: Path, what: str) -> bytes:
    return read_file(path, limit=limits.MODEL_SIGNATURE_CERTS_MAX * 2 * limits.CERT_MAX, what=what)


def _within(directory: Path, signature: Path) -> tuple[str, ...]:
    """The signature's own path where it lies in the directory: it cannot name itself."""
    root, real = resolved(directory), resolved(signature)
    return (real.relative_to(root).as_posix(),) if real.is_relative_to(root) else ()


def _signer_rows(signer: Signer) -> list[tuple[str, str]]:
    match signer:
        case KeySigner():
            return [("signer", f"the holder of the trusted key, {_sha256(signer.thumbprint)}")]
        case CertifiedSigner():
            return [
                ("signer", signer.subject),
                ("issuer", signer.issuer),
                ("root", signer.root),
                ("valid", f"{signer.not_before:%Y-%m-%d} to {signer.not_after:%Y-%m-%d}, judged at {_utc(signer.at)}"),
                ("certificate", _sha256(signer.fingerprint)),
            ]
        case KeylessSigner():
            return [
                ("signer", signer.identity),
                ("issuer", signer.issuer),
                ("signed", f"between {_utc(signer.not_before)} and {_utc(signer.not_after)}"),
                ("certificate", _sha256(signer.fingerprint)),
            ]
        case _:
            assert_never(signer)


def _summary(statement: Statement) -> list[tuple[str, str]]:
    how = statement.serialization
    count = len(statement.files())
    shards = f", {counted(len(statement.resources), 'shard')}" if how.method == "shards" else ""
    return [
        ("resources", f"{counted(count, 'file')}{shards}, {how.algorithm}"),
        ("digest", _sha256(statement.root)),
    ]


def _document(verified: VerifiedModel) -> strict.JsonObject:
    return {
        **_describe(verified.statement),
        "signer": _describe_signer(verified.signer),
        "ignored": list(verified.ignored),
        "unsigned": list(verified.left_out),
        "bytes": verified.size,
    }


def _describe_signer(signer: Signer) -> strict.JsonObject:
    described: strict.JsonObject = {"key": signer.thumbprint.hex()}
    if isinstance(signer, KeySigner):
        return {"mode": "key", **described}
    described["certificate"] = signer.fingerprint.hex()
    described["issuer"] = signer.issuer
    described["not_before"] = strict.time_encode(signer.not_before)
    described["not_after"] = strict.time_encode(signer.not_after)
    if isinstance(signer, KeylessSigner):
        return {"mode": "keyless", "identity": signer.identity, **described}
    return {
        "mode": "certificate",
        "subject": signer.subject,
        "serial": f"{signer.serial:x}",
        "root": signer.root,
        "judged_at": strict.time_encode(signer.at),
        **described,
    }


def _describe(statement: Statement) -> strict.JsonObject:
    how = statement.serialization
    resources: list[strict.JsonValue] = [
        {"name": resource.name, "digest": resource.digest.hex()} for resource in statement.resources
    ]
    return {
        "schema": _SCHEMA,
        "model": statement.model_name,
        "digest": statement.root.hex(),
        "method": how.method,
        "algorithm": how.algorithm,
        "allow_symlinks": how.allow_symlinks,
        "ignored_by_signer": list(how.ignore_paths),
        "resources": resources,
    }


def _describe_key(key: SigningKey) -> strict.JsonObject:
    mode = "certificate" if key.certificates else "key"
    return {"mode": mode, "key": _thumbprint(key).hex()}


def _thumbprint(key: SigningKey) -> bytes:
    return cose.thumbprint(key.key.public_key())


def _sha256(digest: bytes) -> str:
    return f"sha256 {digest.hex()}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_LINES_MAX])
    return f"{shown}, and {len(paths) - _LINES_MAX} more" if len(paths) > _LINES_MAX else shown or "nothing"


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    for name, value in rows:
        sys.stdout.write(f"{name:<12}{_shown(value)}\n")


def _shown(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _print_json(document: strict.JsonObject) -> None:
    sys.stdout.write(strict.json_encode(document, indent=2).decode() + "\n")
