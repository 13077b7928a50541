"""Which functions take bytes or text from outside: found in the syntax trees, so that none is forgotten.

A parser is a public function or method that takes ``bytes`` or ``str`` first and whose name begins with a verb of
reading. What has been decoded already (:data:`~weighbridge.proto.cbor.CborValue`, JSON values) came through one of
these.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ROOMS", "parsers"]

ROOMS: Final = ("attester", "verifier", "policy", "proto")
_NAMES: Final = (
    r"(parse|read|decode|load|open|unpack|decompress|from|recognise|detect|claimed|authenticate|verify|split|trim"
    r"|elements|authorities|kind_of)(_.*|\d*)|\w+_(decode|from_cbor)"
    r"|header_length|one|unpack_head|feed|pem_certificates|issuer_of|confirm|jwk_thumbprint"
)
_VERBS: Final = re.compile(_NAMES)
# Most files have none, and need not be taken apart.
_VERB: Final = re.compile(rf"def ({_NAMES})\(")
_OUTSIDE: Final = frozenset({"bytes", "str", "bytes | str", "str | bytes", "memoryview"})


def parsers(root: Path) -> frozenset[str]:
    """The parsers of all rooms, as ``room.module:Class.function``."""
    return frozenset(name for room in ROOMS for name in _of_room(root / room / "weighbridge" / room, room))


def _of_room(folder: Path, room: str) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        if not path.stem.endswith(("_pb2", "_pb2_grpc")):
            inner = path.relative_to(folder).with_suffix("").parts
            module = ".".join((room, *(part for part in inner if part != "__init__")))
            text = path.read_text(encoding="utf-8")
            if _VERB.search(text):
                yield from (f"{module}:{name}" for name in _of_body(ast.parse(text).body, ""))


def _of_body(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _of_body(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _VERBS.fullmatch(node.name):
            first = [
                argument for argument in node.args.posonlyargs + node.args.args if argument.arg not in {"self", "cls"}
            ]
            if first and first[0].annotation is not None and ast.unparse(first[0].annotation) in _OUTSIDE:
                yield prefix + node.name
