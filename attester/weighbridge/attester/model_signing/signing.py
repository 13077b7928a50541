"""Signs a model's directory such that ``model_signing verify`` accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.attester.model_signing.algorithms import hint_of, scheme
from weighbridge.attester.model_signing.content import content_of, digests, ranges_of
from weighbridge.attester.weights.directory import resolved, unreadable
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import SHARD_SIZE
from weighbridge.proto.model_signing import (
    CertificateChain,
    KeyHint,
    Resource,
    Serialization,
    Statement,
    encode_bundle,
    pae,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from weighbridge.attester.model_signing.content import Content
    from weighbridge.attester.model_signing.keys import SigningKey
    from weighbridge.attester.weights.hashing import Progress
    from weighbridge.proto.model_signing import Method

__all__ = ["GIT_PATHS", "sign"]

# What the reference implementation leaves out whenever it is not told otherwise, when it signs and when it verifies: a
# signature that names these files is one that it refuses.
GIT_PATHS: Final = (".git", ".gitattributes", ".github", ".gitignore")


def sign(
    directory: Path,
    key: SigningKey,
    *,
    method: Method = "files",
    ignore: Iterable[str] = GIT_PATHS,
    allow_symlinks: bool = False,
    progress: Progress | None = None,
) -> tuple[bytes, Statement]:
    """The bundle that signs every file below ``directory`` with SHA-256, and the statement in it.

    Not stated by it: when it was made.

    Args:
        directory: the model's directory; its name is the model's.
        key: with what, and in which mode.
        method: ``files``, or ``shards`` of 64 MiB, which are hashed in parallel also within one file.
        ignore: paths below the directory that are left out with all below them; the bundle says so.
        allow_symlinks: links within the directory are followed, and the bundle says so; else there must be none.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, also for a link that is not allowed, or ``WEIGHTS_CHANGED``.
        MalformedEvidence: ``FIELD_RANGE`` for what the format or the method cannot name, ``TOO_LARGE``.
    """
    root = resolved(directory)
    shard_size = SHARD_SIZE if method == "shards" else None
    content = content_of(root, tuple(sorted(set(ignore))))
    if content.links and not allow_symlinks:
        raise unreadable(
            content.links[0], "reached through a symbolic link", hint="sign a copy without links, or --allow-symlinks"
        )
    if shard_size is not None:
        _check_shards(content)
    ranges = [part for file in content.files.values() for part in ranges_of(file, shard_size)]
    found = digests(content, ranges, algorithm="sha256", progress=progress)
    resources = [
        Resource(part.file.path, None, None, digest)
        if shard_size is None
        else Resource(part.file.path, part.begin, part.end, digest)
        for part, digest in zip(ranges, found, strict=True)
    ]
    how = Serialization(method, "sha256", allow_symlinks, content.ignore, shard_size)
    statement = Statement.build(root.name, how, resources)
    signature = key.key.sign(pae(statement.raw), scheme(key.key.public_key()))
    material = CertificateChain(key.certificates) if key.certificates else KeyHint(hint_of(key.key.public_key()))
    return encode_bundle(material, statement, signature), statement


def _check_shards(content: Content) -> None:
    """What the names of shards cannot say is refused, instead of left unsigned."""
    for path, file in content.files.items():
        reason = "an empty file has no shard" if not file.size else "a colon separates a shard's bounds"
        if not file.size or ":" in path:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                f"cannot be signed by shards: {reason}",
                where=path,
                hint="sign with --method files, or leave the file out",
            )
