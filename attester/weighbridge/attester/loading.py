"""The loader guard: an inference server's own hands are checked, after the attester has measured.

Between measuring a file and mapping it, somebody may write to it or put another in its place. A guard reads each
tensor once, into the memory that the framework then uses, hashes what it read, and has the attester compare that with
what it measured: only then does the framework see it. The attester logs what was handed over, file by file, so that
the evidence says that the weights which ran went through a guard::

    with WorkloadClient.connect() as attester:
        model = attester.load(directory, name="minilm", guarded=True)
        tensors = guarded_safetensors(directory / "model.safetensors", attester, model)

:func:`install_guard` does the same beneath code that calls ``safetensors.safe_open`` or ``load_file`` by itself.

What a guard does not see: a file that is read by other means (``torch.load``, ``safetensors.numpy.load`` of bytes, a
GGUF reader), and whatever the process does to its tensors later. It is in the process that it guards: it keeps honest
code from loading what was not measured, and it is no witness against code that lies. See ``docs/loading.md``.

Needs neither a TPM nor its library; numpy and torch only when their tensors are asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, final

from weighbridge.attester.guard import Guard, GuardError
from weighbridge.attester.weights.layout import Span
from weighbridge.attester.weights.safetensors import LENGTH_SIZE, header_length, parse_header
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator
    from types import ModuleType, TracebackType

    from weighbridge.attester.workload.client import LoadedModel, WorkloadClient

__all__ = ["Framework", "GuardError", "GuardedFile", "guarded_bytes", "guarded_safetensors", "install_guard"]

# A tensor of one framework or the other; which, only its user knows.
Tensor = Any
Framework = Literal["numpy", "torch"]

_FRAMEWORKS: Final[dict[str, Framework]] = {
    "np": "numpy",
    "numpy": "numpy",
    "pt": "torch",
    "torch": "torch",
    "pytorch": "torch",
}
_METADATA: Final = "__metadata__"
_INT: Final = {"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"} | {
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}
_COMMON: Final = {**_INT, "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64", "BOOL": "bool"}
# What the frameworks call the types of a safetensors file. numpy has no other; torch has those of its version.
_TYPES: Final[dict[Framework, dict[str, str]]] = {
    "numpy": {**_COMMON, "BOOL": "bool_"},
    "torch": {
        **_COMMON,
        "BF16": "bfloat16",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2": "float8_e5m2",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "F8_E8M0": "float8_e8m0fnu",
    },
}


def guarded_safetensors(
    path: str | os.PathLike[str],
    client: WorkloadClient,
    load: LoadedModel | None = None,
    *,
    framework: str = "numpy",
    device: str | int = "cpu",
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in the order of the file, each compared with what was measured.

    Args:
        path: the file, by its path below the directory that was measured.
        client: a connection to the attester that measured it.
        load: which load; by default the newest that has this file.
        framework: ``numpy`` or ``torch``, or as safetensors calls them, ``np`` and ``pt``.
        device: where torch is to have the tensors.

    Raises:
        GuardError: see there. The attester has logged a mismatch by then.
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, of which nothing is logged.
        WorkloadError: the attester is gone.
    """
    with GuardedFile(path, client, load, framework=framework, device=device) as file:
        return file.get_tensors()


def guarded_bytes(path: str | os.PathLike[str], client: WorkloadClient, load: LoadedModel | None = None) -> bytes:
    """The content of a file of no tensor format (configuration, tokenizer), compared with what was measured.

    Raises:
        GuardError: see there; ``LOAD_UNGUARDED`` for a safetensors or GGUF file.
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, of which nothing is logged.
        WorkloadError: the attester is gone.
    """
    guard = Guard(Path(path), client, load, kind="plain")
    try:
        memory = guard.hand([Span.unnamed(0, guard.size)])[0]
    finally:
        guard.close()
    return bytes(memory)


@contextlib.contextmanager
def install_guard(client: WorkloadClient) -> Generator[None]:
    """Have ``safetensors.safe_open`` guarded in every module of this process that has it, until the context ends.

    ``load_file`` of ``safetensors.numpy`` and ``safetensors.torch`` opens by it. A file that lies below no directory
    which the attester measured is refused. Modules that are imported later get it too. Not thread-safe.

    Raises:
        EnvironmentFault: ``TOOL_MISSING`` without the safetensors library.
    """
    library = _library("safetensors", "safetensors")
    original = library.safe_open

    def safe_open(
        filename: str | os.PathLike[str],
        framework: str = "np",
        device: str | int = "cpu",
        *,
        backend: str = "mmap",  # noqa: ARG001 - safetensors' own ways of reading: a guard has one
    ) -> GuardedFile:
        return GuardedFile(filename, client, framework=framework, device=device)

    _exchange(original, safe_open)
    try:
        yield
    finally:
        _exchange(safe_open, original)


class GuardedFile:
    """A safetensors file with the interface of ``safetensors.safe_open``: use as a context manager.

    A tensor is read and compared whenever it is asked for, and kept by nobody: asked for twice, it is read twice.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        client: WorkloadClient,
        load: LoadedModel | None = None,
        *,
        framework: str = "numpy",
        device: str | int = "cpu",
    ) -> None:
        """Open a file and compare its header; the arguments are those of :func:`guarded_safetensors`."""
        self._path = Path(path)
        self._build = _builder(framework, device, self._path)
        self._guard = Guard(self._path, client, load, kind="safetensors")
        try:
            header = self._header()
            layout = parse_header(header, file_size=self._guard.size, where=str(self._path))
            self._spans = {span.name: span for span in layout.spans if span.name is not None}
            self._metadata = _metadata(header)
        except BaseException:
            self._guard.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell the attester that we are done. The tensors stay."""
        self._guard.close()

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._spans)

    def offset_keys(self) -> list[str]:
        """The tensors' names, in the order of the file."""
        return list(self._spans)

    def metadata(self) -> dict[str, str] | None:
        """What the header says beside the tensors."""
        return None if self._metadata is None else dict(self._metadata)

    def get_tensor(self, name: str) -> Tensor:
        """One tensor."""
        span = self._span(name)
        return self._build(span, self._guard.hand([span])[0])

    def get_tensors(self) -> dict[str, Tensor]:
        """All tensors, in the order of the file: read on all cores, compared at once."""
        memories = self._guard.hand(list(self._spans.values()))
        return {
            name: self._build(span, memory) for (name, span), memory in zip(self._spans.items(), memories, strict=True)
        }

    def get_slice(self, name: str) -> GuardedSlice:
        """One tensor, to take a part of: all of it is read and compared, since that is what there is a digest of."""
        return GuardedSlice(self, name, self._span(name))

    def _span(self, name: str) -> Span:
        span = self._spans.get(name)
        if span is None:
            raise KeyError(f"{self._path} has no tensor {name}")
        return span

    def _header(self) -> bytes:
        prefix = self._guard.read(0, min(LENGTH_SIZE, self._guard.size))
        try:
            size = LENGTH_SIZE + header_length(bytes(prefix), file_size=self._guard.size, where=str(self._path))
        except MalformedEvidence:
            # Not what was measured, since that had a header: say so by what there is.
            size = len(prefix)
        return bytes(self._guard.hand([Span.unnamed(0, size)])[0][LENGTH_SIZE:])


@final
@dataclass(frozen=True, slots=True)
class GuardedSlice:
    """A tensor of which a part is wanted; as ``safe_open(…).get_slice(…)`` gives."""

    file: GuardedFile
    name: str
    span: Span

    def get_shape(self) -> list[int]:
        """The whole tensor's shape."""
        return list(self.span.shape)

    def get_dtype(self) -> str:
        """Its type as safetensors calls it."""
        return self.span.dtype

    def __getitem__(self, index: object) -> Tensor:
        """The part, as a copy: the rest of the tensor is let go."""
        part = self.file.get_tensor(self.name)[index]
        return part.clone() if hasattr(part, "clone") else part.copy()


def _metadata(header: bytes) -> dict[str, str] | None:
    document = strict.json_decode(header, what="header")
    found = document.get(_METADATA) if isinstance(document, dict) else None
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else None


def _builder(framework: str, device: str | int, path: Path) -> Callable[[Span, bytearray], Tensor]:
    """What makes a framework's tensor of memory that is never copied, unless to another device."""
    known = _FRAMEWORKS.get(framework)
    if known is None:
        raise GuardError(
            Code.LOAD_UNGUARDED,
            f"no guard for the framework {framework!r}",
            file=path,
            hint=f"load as {' or '.join(sorted(_TYPES))}, and convert",
        )
    library = _library(known, known)
    types = _TYPES[known]

    def build(span: Span, memory: bytearray) -> Tensor:
        dtype: Any = getattr(library, types.get(span.dtype, ""), None)
        if dtype is None:
            raise GuardError(Code.LOAD_UNGUARDED, f"{known} has no type {span.dtype}", file=path, tensor=span.name)
        if not memory:
            return library.empty(span.shape, dtype=dtype)
        tensor = library.frombuffer(memory, dtype=dtype).reshape(span.shape)
        return tensor if known == "numpy" or device == "cpu" else tensor.to(device)

    return build


def _library(module: str, package: str) -> Any:  # noqa: ANN401 - a module that has no types here
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"cannot load {module}", where=module, hint=f"pip install {package}"
        ) from error


def _exchange(before: object, after: object) -> None:
    """Put ``after`` in the place of ``before`` in every module that has it under the name ``safe_open``."""
    modules: list[ModuleType | None] = list(sys.modules.values())
    for module in modules:
        if module is not None and getattr(module, "__dict__", {}).get("safe_open") is before:
            module.__dict__["safe_open"] = after
