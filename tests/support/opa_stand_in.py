"""A program that answers as `opa` does on the command line, by OPA's own library: `python -I -S opa_stand_in.py`.

It knows `version` and as much of `eval` as Weighbridge uses, and refuses everything else, so that a flag which `opa`
does not have, or one that is left out, shows. Arguments: the library's directory, then those of `opa`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

VERSION = "1.20.2"
FLAGS = {"--stdin-input", "--strict-builtin-errors"}
SHELL = {"LC_CTYPE", "OLDPWD", "PWD", "SHLVL", "_"}  # what Python and a shell add to an empty environment
VALUED = {"--capabilities", "--format", "--data"}


class Opa:
    """One engine of the library."""

    def __init__(self, directory: str) -> None:
        self.library = ctypes.CDLL(f"{directory}/opa_bindings/libopabridge.so")
        text, handle = ctypes.c_char_p, ctypes.c_uint64
        self.library.OpaNew.restype = handle
        for name, arguments in (
            ("OpaAddPolicy", [text, text]),
            ("OpaAddData", [text, text]),
            ("OpaEvalQuery", [text, text, ctypes.c_int, ctypes.c_int]),
        ):
            function = getattr(self.library, name)
            function.argtypes, function.restype = [handle, *arguments], ctypes.c_void_p
        self.handle = self.library.OpaNew()

    def call(self, name: str, *arguments: object) -> dict[str, Any]:
        """One answer; ends as `opa eval` does when that is an error."""
        answer: dict[str, Any] = json.loads(ctypes.string_at(getattr(self.library, name)(self.handle, *arguments)))
        if "error" in answer:
            fail(answer["error"]["message"])
        return answer


def fail(text: str) -> NoReturn:
    """Report the first error that a message of the library is about, as `opa eval --format json` does."""
    found = re.search(r"([\w.]+):([0-9]+)(?::[0-9]+)?: (?:(\w+_error): )?([^\n]*)", text)
    error: dict[str, Any] = {"message": text, "code": "eval_internal_error"}
    if found:
        file, row, code, message = found.groups()
        error = {
            "message": message,
            "code": code or "rego_error",
            "location": {"file": file, "row": int(row), "col": 1},
        }
    _ = sys.stdout.write(json.dumps({"errors": [error]}))
    sys.exit(2)


def without(capabilities: str, sources: dict[str, str]) -> None:
    """OPA's compiler refuses what the capabilities do not name; the library has no such option."""
    known = {builtin["name"] for builtin in json.loads(Path(capabilities).read_text())["builtins"]}
    for name, source in sources.items():
        for row, line in enumerate(source.split("\n"), 1):
            for called in re.findall(r"\b([a-z_0-9]+\.[a-z0-9_.]+)\(", line.partition("#")[0]):
                if called not in known and not called.startswith(("lib.", "data.")):
                    fail(f"{name}:{row}: rego_type_error: undefined function {called}")


def evaluate(directory: str, arguments: list[str]) -> None:
    """`opa eval`."""
    flags, data, values, queries = set[str](), list[str](), dict[str, str](), list[str]()
    rest = iter(arguments)
    for argument in rest:
        if argument in FLAGS:
            flags.add(argument)
        elif argument == "--data":
            data.append(next(rest))
        elif argument in VALUED:
            values[argument] = next(rest)
        elif argument.startswith("-"):
            sys.exit(f"Error: unknown flag: {argument}")
        else:
            queries.append(argument)
    if len(queries) != 1 or flags != FLAGS or values.get("--format") != "json" or dict(os.environ).keys() - SHELL:
        sys.exit(1)
    sources = {name: Path(name).read_text() for name in data if name.endswith(".rego")}
    without(values["--capabilities"], {**sources, "query": queries[0]})
    opa = Opa(directory)
    for name, source in sources.items():
        opa.call("OpaAddPolicy", name.encode(), source.encode())
    for name in data:
        if name.endswith(".json"):
            opa.call("OpaAddData", b"", Path(name).read_bytes())
    result = opa.call("OpaEvalQuery", queries[0].encode(), sys.stdin.buffer.read(), 0, 0)["result"]
    _ = sys.stdout.write(json.dumps({"result": result} if result else {}, indent=2))


if __name__ == "__main__":
    place, verb, *others = sys.argv[1:]
    if verb == "version":
        _ = sys.stdout.write(f"Version: {VERSION}\nBuild Commit: none\nGo Version: none\nRego Version: v1\n")
    elif verb == "eval":
        evaluate(place, others)
    else:
        sys.exit(f"Error: unknown command {verb!r}")
