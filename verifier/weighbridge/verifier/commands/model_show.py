"""``weighbridge model show | diff``: manifests and reference sets as people read them. Decides nothing."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.manifest_diff import DifferenceKind, diff
from weighbridge.proto.reference_set import SignedSet
from weighbridge.proto.statement import Statement
from weighbridge.verifier import reference_set
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, manifest_of, read, read_manifest
from weighbridge.verifier.commands.text import LINES, counted, cut, plain, rest, short, size_of, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from weighbridge.policy.values.owner_sets import OwnerSet
    from weighbridge.proto.manifest import FileEntry
    from weighbridge.proto.manifest_diff import Difference
    from weighbridge.proto.reference_set import ReferenceSet

__all__ = ["configure_diff", "configure_show"]

_WORDS: Final = {
    DifferenceKind.FILE_MISSING: ("file", "only in A"),
    DifferenceKind.FILE_UNEXPECTED: ("file", "only in B"),
    DifferenceKind.FORMAT: ("file", "of another format"),
    DifferenceKind.SIZE: ("file", "of another size"),
    DifferenceKind.CONTENT: ("content", "changed"),
    DifferenceKind.HEADER: ("header", "changed"),
    DifferenceKind.TENSOR_MISSING: ("tensor", "only in A"),
    DifferenceKind.TENSOR_UNEXPECTED: ("tensor", "only in B"),
    DifferenceKind.TENSOR_CHANGED: ("tensor", "changed"),
    DifferenceKind.TENSOR_LAYOUT: ("tensor", "of another type or shape"),
}


# -- show -------------------------------------------------------------------------------------------------------------


def configure_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``model show`` to ``parser``."""
    parser.description = (
        "Print a manifest or a reference set. Without --anchors nothing of a set is verified, and the first line says "
        "so; a manifest is not signed at all: what counts is its digest."
    )
    parser.add_argument("file", metavar="FILE", help="a manifest in JSON or a reference set; - for standard input")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="verify a set by these keys, purposes model-owner and statement-issuer (several times)",
    )
    parser.add_argument("--at", metavar="TIME", type=given.time, default=None, help="whether valid then (default: now)")
    parser.add_argument("--tensors", action="store_true", help="of a manifest: list tensors instead of files")
    parser.add_argument("--all", action="store_true", help=f"print everything, not only the first {LINES} lines")
    parser.set_defaults(run=_run_show)


def _run_show(arguments: argparse.Namespace) -> Outcome:
    data = read(arguments.file, limit=limits.MANIFEST_JSON_MAX)
    most = None if arguments.all else LINES
    if data[:1] == b"\xd2":
        at: datetime = arguments.at or datetime.now(UTC)
        return _show_set(data, arguments.anchors, at, most)
    if data.lstrip(b" \t\r\n")[:1] == b"{":
        return _show_manifest(manifest_of(data, arguments.file), most, tensors=arguments.tensors)
    raise MalformedEvidence(
        Code.NOT_JSON,
        "neither a manifest nor a reference set",
        where=arguments.file,
        hint="name what `weighbridge-attester measure -o` or `weighbridge model sign` wrote",
    )


def _show_manifest(manifest: Manifest, most: int | None, *, tensors: bool) -> Outcome:
    kinds = Counter(file.kind for file in manifest.files)
    lines = [
        "UNVERIFIED: a manifest is not signed; compare its digest with what you trust",
        "",
        f"model      {plain(manifest.name)}",
        f"digest     {manifest.digest.hex()}",
        f"files      {len(manifest.files)}, {size_of(manifest.size)}: "
        + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        f"tensors    {manifest.tensor_count} in {counted(manifest.shard_count, 'range')} hashed by themselves",
        *_dtypes(manifest),
        f"algorithm  {manifest.algorithm}",
    ]
    if manifest.ignored:
        lines.append(f"ignored    {', '.join(map(plain, manifest.ignored))}")
    lines += ["", *(_tensor_table(manifest, most) if tensors else _file_table(manifest.files, most))]
    document: strict.JsonObject = {
        "schema": "weighbridge/model-show/v1",
        "kind": "manifest",
        "verified": False,
        "name": manifest.name,
        "digest": manifest.digest.hex(),
        "algorithm": manifest.algorithm,
        "size": manifest.size,
        "tensors": manifest.tensor_count,
        "ignored": list(manifest.ignored),
        "files": [
            {
                "path": file.path,
                "size": file.size,
                "kind": file.kind,
                "digest": file.digest.hex(),
                "tensors": len(file.tensors),
            }
            for file in manifest.files
        ],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _dtypes(manifest: Manifest) -> Iterator[str]:
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for part in (part for file in manifest.files for part in file.tensors):
        sizes[part.dtype] += part.size
        counts[part.dtype] += 1
    for number, (dtype, size) in enumerate(sizes.most_common()):
        yield f"{'' if number else 'dtypes':<9}  {plain(dtype)}: {size_of(size)} in {counted(counts[dtype], 'tensor')}"


def _file_table(files: Sequence[FileEntry], most: int | None) -> list[str]:
    """All files by path, or the largest."""
    chosen = files if most is None else sorted(files, key=lambda file: (-file.size, file.path))[:most]
    rows = [
        (size_of(file.size), str(len(file.tensors) or ""), file.kind, file.digest.hex()[:16], plain(file.path))
        for file in chosen
    ]
    left = len(files) - len(chosen)
    return table(("size", "tensors", "kind", "digest", "path"), rows, right=2) + rest(left, "smaller file")


def _tensor_table(manifest: Manifest, most: int | None) -> list[str]:
    tensors = [(file.path, part) for file in manifest.files for part in file.tensors]
    chosen = tensors if most is None else tensors[:most]
    rows = [
        (
            size_of(part.size),
            plain(part.dtype),
            str(list(part.shape)),
            part.digest.hex()[:16],
            plain(f"{path}: {part.name}"),
        )
        for path, part in chosen
    ]
    left = len(tensors) - len(chosen)
    return table(("size", "dtype", "shape", "digest", "file: tensor"), rows, right=1) + rest(left, "more tensor")


def _show_set(data: bytes, anchors: Sequence[str], at: datetime, most: int | None) -> Outcome:
    verified = reference_set.verify(data, anchors=load_anchors(anchors)).values if anchors else None
    content = SignedSet.parse(data).claimed
    if verified is None:
        head = "UNVERIFIED: no signature was checked; anybody can write these bytes (give --anchors)"
        not_before, not_after = moment(content.not_before_ns), moment(content.not_after_ns)
    else:
        head = f"VERIFIED: signed by {plain(content.owner)}, every statement by the issuer that is named"
        not_before, not_after = verified.not_before, verified.not_after
    word = "NOT YET VALID" if at < not_before else "EXPIRED" if at > not_after else "valid"
    models = list(_model_lines(content, verified))
    revoked = [
        f"  {model.manifest.hex()}  {strict.time_encode(moment(model.at_ns))}  {plain(model.reason)}"
        for model in content.revoked
    ]
    lines = [
        head,
        "",
        f"owner      {plain(content.owner)}",
        f"number     {content.number}",
        f"issued     {strict.time_encode(moment(content.issued_ns))}",
        f"validity   {strict.time_encode(not_before)} to {strict.time_encode(not_after)}: {word}",
        f"set        sha256 {sha256(data).hex()}",
        "",
        f"accepted   {counted(len(content.models), 'model')}",
        *cut(models, most),
        f"revoked    {counted(len(content.revoked), 'model')}",
        *cut(revoked, most),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/model-show/v1",
        "kind": "reference-set",
        "verified": verified is not None,
        "owner": content.owner,
        "number": content.number,
        "digest": sha256(data).hex(),
        "not_before": strict.time_encode(not_before),
        "not_after": strict.time_encode(not_after),
        "valid": word == "valid",
        "models": [
            {"manifest": model.manifest.hex(), "name": model.name, "statements": _statements(content, verified, index)}
            for index, model in enumerate(content.models)
        ],
        "revoked": [
            {
                "manifest": model.manifest.hex(),
                "reason": model.reason,
                "at": strict.time_encode(moment(model.at_ns)),
            }
            for model in content.revoked
        ],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _statements(content: ReferenceSet, verified: OwnerSet | None, index: int) -> list[strict.JsonValue]:
    """The statements about one model: verified ones with their issuer, others with ``null`` there."""
    if verified is not None:
        return [item.document() for item in verified.models[index].statements]
    parsed = [Statement.parse(data, where=f"statement {n}") for n, data in enumerate(content.models[index].statements)]
    return [
        {
            "issuer": None,
            "type": item.type,
            "date": None if item.date is None else strict.time_encode(item.date),
            "digest": item.digest.hex(),
        }
        for item in parsed
    ]


def _model_lines(content: ReferenceSet, verified: OwnerSet | None) -> Iterator[str]:
    for index, model in enumerate(content.models):
        yield f"  {model.manifest.hex()}  {plain(model.name)}"
        for item in _statements(content, verified, index):
            if isinstance(item, dict):
                issuer = "somebody (UNVERIFIED)" if item["issuer"] is None else plain(str(item["issuer"]))
                yield f"    {plain(str(item['type']))}, by {issuer}, {item['date'] or 'undated'}"


# -- diff -------------------------------------------------------------------------------------------------------------


def configure_diff(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``model diff`` to ``parser``."""
    parser.description = (
        "Compare two manifests. Exit 0 when they are of the same model, 5 when they differ. Nothing but the two files "
        "is read."
    )
    parser.add_argument("a", metavar="A", help="a manifest in JSON")
    parser.add_argument("b", metavar="B", help="a manifest in JSON")
    parser.add_argument("--all", action="store_true", help=f"print everything, not only the first {LINES} lines")
    parser.set_defaults(run=_run_diff)


def _run_diff(arguments: argparse.Namespace) -> Outcome:
    a, b = (read_manifest(path) for path in (arguments.a, arguments.b))
    found = diff(a, b)
    counts = Counter(item.kind for item in found)
    document: strict.JsonObject = {
        "schema": "weighbridge/model-diff/v1",
        "equal": not found,
        "a": {"name": a.name, "digest": a.digest.hex()},
        "b": {"name": b.name, "digest": b.digest.hex()},
        "counts": {kind.value: count for kind, count in sorted(counts.items())},
        "differences": [dict(item.document()) for item in found],
    }
    if not found:
        text = f"EQUAL: both are {plain(a.name)}, {a.digest.hex()}\n"
        return Outcome(text, document)
    files = {item.path for item in found if item.path}
    paths = {file.path for manifest in (a, b) for file in manifest.files}
    lines = [
        f"DIFFERENT: {len(files)} of {counted(len(paths), 'file')}",
        *(f"  {counted(counts[kind], what, form='6')} {how}" for kind, (what, how) in _WORDS.items() if counts[kind]),
        f"A  {a.digest.hex()}  {plain(a.name)}",
        f"B  {b.digest.hex()}  {plain(b.name)}",
        "",
        *cut(list(_difference_lines(found)), None if arguments.all else LINES),
    ]
    return Outcome("\n".join(lines) + "\n", document, ExitCode.DENIED)


def _difference_lines(found: Iterable[Difference]) -> Iterator[str]:
    """A line per difference under a line per file."""
    for path, items in groupby(found, key=lambda item: item.path):
        yield plain(path) if path else "the whole model"
        for item in items:
            place = "" if item.tensor is None else f"{plain(item.tensor)}: "
            if item.begin is not None:
                place += f"bytes {item.begin} to {item.end}: "
            yield f"  {place}{_what(item)}"


def _what(item: Difference) -> str:
    word = item.kind.value.replace("_", " ").replace("missing", "only in A").replace("unexpected", "only in B")
    values = [f"A {short(item.expected)}"] if item.expected is not None else []
    values += [f"B {short(item.got)}"] if item.got is not None else []
    return ", ".join([word, *values])
