"""What can be changed in one module: run by the environment that has cosmic-ray, which knows the changes.

Prints one JSON document per line and change: operator, line, the definition it is in, the line before and after, and
the whole module as changed. Nothing is written to disk. Left out, and counted in a last line, is what cannot make a
difference to what runs: annotations, what stands below ``if TYPE_CHECKING``, ``is None`` against ``== None``, and the
decorators that only type checkers read.
"""

from __future__ import annotations

import ast
import difflib
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cosmic_ray import plugins  # pyright: ignore[reportMissingModuleSource] # in an environment of its own
from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingModuleSource] # in an environment of its own
from cosmic_ray.ast.ast_query import ASTQuery  # pyright: ignore[reportMissingModuleSource] # in an environment of its own
from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingModuleSource] # in an environment of its own

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[tuple[int, int], tuple[int, int]]

_CHECKED_ONLY: Final = {"final", "overload", "override"}


def main(path: Path) -> int:
    """Print the changes of one module; the exit status."""
    source = path.read_text(encoding="utf-8")
    never, tree, left_out = list(_never_run(source)), get_ast(source), Counter[str]()
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        places = ((node, *span) for node in ast_nodes(tree) for span in operator.mutation_positions(node))
        for occurrence, (node, start, end) in enumerate(places):
            if any(first <= start and end <= last for first, last in never):
                left_out["never run"] += 1
                continue
            changed = mutate_code(source, operator, occurrence)
            if changed is None or changed == source:
                left_out["no change"] += 1
                continue
            before, after = _lines(source, changed)
            if not _is_python(changed):
                left_out["no Python"] += 1
                continue
            if _same(name, before, after) or _operators(source) == _operators(changed):
                left_out["the same by meaning"] += 1
                continue
            found = {
                "operator": name.removeprefix("core/"), "line": start[0], "end": end[0],
                "definition": ASTQuery(node).get_definition_name() or "",
                "before": before, "after": after, "source": changed,
            }  # fmt: skip
            print(json.dumps(found), flush=True)
    print(json.dumps({"left_out": left_out}))
    return 0


def _never_run(source: str) -> Iterator[Span]:
    """Where annotations are, and what only type checkers see: lines from 1, columns from 0, in characters."""
    lines = source.splitlines()

    def span(node: ast.expr | ast.stmt) -> Span:
        def column(line: int, offset: int) -> int:
            return len(lines[line - 1].encode()[:offset].decode())

        end_line, end_offset = node.end_lineno or node.lineno, node.end_col_offset or 0
        return (node.lineno, column(node.lineno, node.col_offset)), (end_line, column(end_line, end_offset))

    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.arg(annotation=ast.expr() as noted) | ast.AnnAssign(annotation=noted):
                yield span(noted)
            case ast.FunctionDef(returns=ast.expr() as noted) | ast.AsyncFunctionDef(returns=ast.expr() as noted):
                yield span(noted)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield span(node)
            case _:
                pass


def _operators(source: str) -> Counter[str]:
    """How often there is what changes change: the star and the slash in a signature are no arithmetic."""
    return Counter(
        ast.dump(node) if isinstance(node, (ast.Constant, ast.Name)) else type(node).__name__
        for node in ast.walk(ast.parse(source))
    )


def _is_python(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            compile(source, "changed", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _lines(source: str, changed: str) -> tuple[str, str]:
    said = list(difflib.ndiff(source.splitlines(), changed.splitlines()))
    before = " ".join(line[2:].strip() for line in said if line.startswith("- "))
    after = " ".join(line[2:].strip() for line in said if line.startswith("+ "))
    return before.strip(), after.strip()


def _same(operator: str, before: str, after: str) -> bool:
    """Whether a change is none: no class of ours says that it equals ``None``."""
    if operator.endswith("RemoveDecorator"):
        return before.removeprefix("@") in _CHECKED_ONLY
    if operator.endswith(("Operator_Is_Eq", "Operator_IsNot_NotEq")):
        return after.replace("== None", "is None").replace("!= None", "is not None") == before
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
