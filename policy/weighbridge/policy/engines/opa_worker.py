"""The same process for OPA itself: ``libopabridge.so`` of opa-golib-python-bindings. A program, not a module.

Frames, limits and arguments are those of ``worker.py`` beside it, with three differences, all of them Go's: it starts
threads, so that the right to start processes is left (there are still no files to be opened, and nothing in Rego that
starts one); it reserves about 1 GiB of addresses for itself, which the parent adds to the limit; and what is not
repeatable cannot be replaced in the engine, so that it is replaced in every query (``with http.send as …``).

The library's C functions are called directly, without the Python of its package, which asks for a newer one: documents
pass through as the bytes that they are. ``L`` compiles the modules, with OPA's own checks, and answers with nothing;
answers to ``D`` take the form of regorus's. There is no ``C``.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from weighbridge.policy.engines import worker
else:
    # The neighbour, which is on no path here.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is slower than all this
    import worker

    del sys.path[-1]

# Where stand-ins are registered, and how a stand-in is called.
PLACE = "weighbridge_engine."
STAND_IN = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p)
M_ARENA_MAX = -8  # malloc.h
ERROR = b'{"error":'


class Opa:  # pragma: no cover - as in worker.py
    """One engine of the library in ``directory``."""

    def __init__(self, directory: str) -> None:
        # One arena of the C library's memory for all of Go's threads: each would reserve 64 MiB of addresses.
        _ = ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        library = ctypes.CDLL(os.path.join(directory, "opa_bindings", "libopabridge.so"))  # noqa: PTH118 - as above
        text, handle = ctypes.c_char_p, ctypes.c_uint64
        library.OpaNew.restype = handle
        library.OpaFreeString.argtypes = [ctypes.c_void_p]
        library.OpaFreeString.restype = None
        for name, arguments in (
            ("OpaAddPolicy", [text, text]),
            ("OpaAddData", [text, text]),
            ("OpaRegisterBuiltin", [text, ctypes.c_int, STAND_IN]),
            ("OpaEvalQuery", [text, text, ctypes.c_int, ctypes.c_int]),
        ):
            function = getattr(library, name)
            function.argtypes, function.restype = [handle, *arguments], ctypes.c_void_p
        malloc = ctypes.CDLL(None).malloc
        malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        self.library, self.malloc = library, malloc
        self.handle = library.OpaNew()
        self.stand_in = STAND_IN(self.stood_in)
        self.suffix = ""
        self.prints: list[str] = []

    def call(self, name: str, *arguments: object) -> bytes:
        """The answer of one of the library's functions.

        Raises:
            RuntimeError: the engine reports an error; the text is its own.
        """
        pointer = getattr(self.library, name)(self.handle, *arguments)
        if not pointer:
            raise RuntimeError("the engine gives no answer")
        answer = ctypes.string_at(pointer)
        self.library.OpaFreeString(pointer)
        if answer.startswith(ERROR):
            error = json.loads(answer)["error"]  # noqa: TID251 - the engine's own words
            text = f"{error['code']}: {error['message']}"
            raise RuntimeError(text.replace(self.suffix, "").replace(PLACE, ""))
        return answer

    def stood_in(self, _handle: int, name: bytes, _arguments: bytes) -> int | None:
        """What the stand-in ``name`` gives; the engine frees the text."""
        builtin = name.decode().removeprefix(PLACE)
        value = {"result": worker.CLOCK[0]} if builtin == "time.now_ns" else {"error": f"{builtin} is not available"}
        data = json.dumps(value).encode() + b"\0"
        place: int | None = self.malloc(len(data))
        if place:
            ctypes.memmove(place, data, len(data))
        return place

    def load(self, request: dict[str, Any], data: str) -> bytes:
        """Load modules and data, compile them, and prepare the queries that are foretold."""
        for name, arity in {"time.now_ns": 0, **worker.FORBIDDEN}.items():
            _ = self.call("OpaRegisterBuiltin", f"{PLACE}{name}".encode(), arity, self.stand_in)
            self.suffix += f" with {name} as {PLACE}{name}"
        for name, source in request["modules"]:
            _ = self.call("OpaAddPolicy", name.encode(), source.encode())
        _ = self.call("OpaAddData", b"", data.encode())
        for query in request.get("queries") or ["true"]:
            try:
                _ = self.evaluate(query.encode(), b"{}")
            except RuntimeError as error:
                # Compiled it is; that an empty input is too little for the rules says nothing.
                if not str(error).startswith("eval_error:"):
                    raise
        return b""

    def evaluate(self, query: bytes, document: bytes) -> bytes:
        """The answer to one expression, in the form in which regorus answers."""
        answer = self.call("OpaEvalQuery", query + self.suffix.encode(), document, 0, 0)
        given: dict[str, list[Any] | None] = json.loads(answer)  # noqa: TID251 - the engine's own
        result = given["result"]
        for row in result or ():
            for expression in row["expressions"]:
                expression["text"] = expression["text"].removesuffix(self.suffix)
        self.prints += [f"{line['location']}: {line['message']}" for line in given["prints"] or ()]
        return json.dumps({} if result is None else {"result": result}, ensure_ascii=False).encode()


def main(directory: str, *, memory: int, cpu: int, largest: int) -> NoReturn:  # pragma: no cover - as in worker.py
    """Serve with OPA."""
    worker.limit(memory, processes=True)
    worker.limit_cpu(cpu)
    engine = Opa(directory)
    sys.path.clear()

    def answer_to(request: bytes) -> bytes:
        if request[:1] == b"L" and b"\0" in request[5:]:
            raise RuntimeError("a module holds a NUL character")
        match request[:1]:
            case b"L":
                return engine.load(*worker.loading(request))
            case b"D":
                engine.prints.clear()
                return engine.evaluate(*worker.question(request))
            case b"P":
                return json.dumps(engine.prints).encode()
            case _:
                raise RuntimeError("this engine keeps no account of lines")

    worker.serve(answer_to, cpu=cpu, largest=largest)


if __name__ == "__main__":  # pragma: no cover - as in worker.py
    place, *numbers = sys.argv[1:]
    bytes_, seconds, largest_ = map(int, numbers)
    main(place, memory=bytes_, cpu=seconds, largest=largest_)
