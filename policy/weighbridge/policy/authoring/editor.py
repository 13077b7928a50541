"""Files for the tools that authors have beside ours: OPA's own checks, Regal, editors. Decides nothing.

They lie beside a policy, in directories whose names begin with a dot: no verb takes them for a policy's own files.

===================================  ===================================================================================
``.weighbridge/schemas/``            JSON Schema of ``input`` and of ``data.reference``
``.weighbridge/capabilities.json``   the builtins that policies and their tests may call
``.weighbridge/library/``            the library as it is in force, to look up and to resolve ``data.weighbridge.lib``
``.weighbridge/README.md``           how to use them
``.regal/config.yaml``               Regal without the rules that contradict how policies are written here
===================================  ===================================================================================
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from weighbridge.policy import document
from weighbridge.policy.authoring.builtins import capabilities
from weighbridge.policy.document.json_schema import json_schema
from weighbridge.policy.values.reference_shape import reference_shape
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

__all__ = ["generated", "input_schema", "library", "reference_schema", "write_editor_files"]

_PLACE: Final = ".weighbridge"
_LIBRARY: Final = "lib.rego"


def input_schema() -> strict.JsonObject:
    """JSON Schema of what policies see as ``input``."""
    return json_schema(document.shape(), title="The input of a Weighbridge policy: one window")


def reference_schema() -> strict.JsonObject:
    """JSON Schema of what policies see as ``data.reference``."""
    return json_schema(reference_shape(), title="The reference values that a Weighbridge policy compares with")


def generated() -> Mapping[str, bytes]:
    """The files that are made from the types, by their paths in the package's ``rego``."""
    made = {
        "schemas/input.json": input_schema(),
        "schemas/reference.json": reference_schema(),
        "capabilities.json": capabilities(),
    }
    return {name: strict.json_encode(value, indent=2) + b"\n" for name, value in made.items()}


def library() -> bytes:
    """The library's module."""
    return _rego().joinpath(_LIBRARY).read_bytes()


def write_editor_files(directory: Path) -> tuple[Path, ...]:
    """Put the files into ``directory``, which exists; those of an older version are replaced.

    A ``.regal/config.yaml`` that is there already is left as it is: it is the author's own.

    Returns:
        What was written.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``.
    """
    files = {f"{_PLACE}/{name}": data for name, data in generated().items()}
    files[f"{_PLACE}/library/{_LIBRARY}"] = library()
    files[f"{_PLACE}/README.md"] = _shipped("editor.md")
    if not (directory / ".regal" / "config.yaml").exists():
        files[".regal/config.yaml"] = _shipped("regal.yaml")
    return tuple(_write(directory / name, data) for name, data in files.items())


def _write(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _ = path.write_bytes(data)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE, f"cannot write: {(error.strerror or '').lower()}", where=str(path)
        ) from error
    return path


def _rego() -> Traversable:
    return resources.files("weighbridge.policy").joinpath("rego")


def _shipped(name: str) -> bytes:
    return _rego().joinpath("editor").joinpath(name).read_bytes()
