"""The process in which policies are evaluated. A program, not a module: run as ``python -I -S -B worker.py``.

Policies can crash every Rego engine (recursion ends in SIGSEGV, a doubling string in SIGABRT) and occupy it for ever,
so they run here: with an empty environment, without a working directory, without the right to open files, to write
them, or to start processes, within an address-space limit, and with a CPU limit set anew for each request. The
parent holds the wall clock. When the parent dies, its end of the pipe closes and this process ends at the next read,
or at the CPU limit if a policy is running. (``PR_SET_PDEATHSIG`` is not used: it fires when the *thread* that
spawned us ends.)

Frames are a 4-byte big-endian length and a body; the parent sends one at a time. Requests: ``L`` + 4-byte length + JSON
+ the data, JSON too, loads and answers with the syntax tree (or nothing, as asked), ``S`` gives that tree alone;
``D`` + 8-byte time + 2-byte length + query + input document evaluates; ``M`` + any number of such requests, each behind
a 4-byte length, evaluates all, and their results stand so in the answer; ``C`` and ``P`` give coverage and prints since
the last time, as JSON. Answers: ``R`` + result, ``E`` + text.
Arguments: directory of the engine's package, address-space bytes, CPU seconds, largest request.

Imports only the standard library: site-packages are not on the path but for the one directory named. ``opa_worker.py``
is the same for another engine, and takes everything from here but the engine.
"""

from __future__ import annotations

import json
import os
import resource
import sys

# A decision asks one query again and again; tools ask many, and each a few times.
QUERIES_MAX = 4

# Spelt out, since importing `typing` costs as much as importing the engine.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from regorus import Engine

# No coverage tool runs in a process without environment and site-packages: tests look at what the process does.
CLOCK = [0]
CHUNK = 1 << 18
HEADER = 4

# Not repeatable, or reaches outside; with the numbers of arguments. The checker refuses them by name; here they end in
# an error even so. (A JSON schema may name another by its address, which OPA then fetches.)
FORBIDDEN = {
    "crypto.x509.parse_and_verify_certificates": 1,
    "crypto.x509.parse_and_verify_certificates_with_options": 2,
    "http.send": 1,
    "io.jwt.decode_verify": 2,
    "io.jwt.encode_sign": 3,
    "io.jwt.encode_sign_raw": 3,
    "json.match_schema": 2,
    "json.verify_schema": 1,
    "net.lookup_ip_addr": 1,
    "opa.runtime": 0,
    "rand.intn": 2,
    "uuid.rfc4122": 1,
}


def forbid(name: str) -> Callable[..., object]:  # pragma: no cover - see above
    """A function that always raises, to stand in place of the builtin ``name``."""

    def raiser(*_: object) -> object:
        raise RuntimeError(f"{name} is not available to policies")

    return raiser


def receive(largest: int) -> bytes:  # pragma: no cover - see above
    """The body of the parent's next frame; ends the process when there is none, or when it is too long."""
    data = bytearray()
    size = HEADER
    while len(data) < size:
        more = os.read(0, CHUNK)
        if not more:
            os._exit(0)
        data += more
        if size == HEADER and len(data) >= size:
            size += int.from_bytes(data[:HEADER], "big")
            if size - HEADER > largest:
                os._exit(1)
    return bytes(memoryview(data)[HEADER:size])


def write(kind: bytes, body: bytes) -> None:  # pragma: no cover - see above
    """Answer the parent."""
    view = memoryview((len(body) + 1).to_bytes(HEADER, "big") + kind + body)
    while view:
        view = view[os.write(1, view) :]


def limit(memory: int, *, processes: bool) -> None:  # pragma: no cover - see above
    """Take from this process what no engine needs. ``processes``: whether threads may be started."""
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_STACK, 8 << 20),
        *(() if processes else ((resource.RLIMIT_NPROC, 0),)),
    ):
        resource.setrlimit(kind, (value, value))


def limit_cpu(seconds: int) -> None:  # pragma: no cover - see above
    """From now on at most ``seconds`` of CPU time; the soft limit only, so that it can be set again."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def serve(answer_to: Callable[[bytes], bytes], *, cpu: int, largest: int) -> NoReturn:  # pragma: no cover - see above
    """Serve requests until the parent closes the pipe; any failure answers once and ends the process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    while True:
        request = receive(largest)
        limit_cpu(cpu)
        try:
            answer = together(answer_to, request) if request[:1] == b"M" else answer_to(request)
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException; the engine is spoilt after it
            write(b"E", str(error)[:4096].encode("utf-8", "replace"))
            os._exit(1)
        write(b"R", answer)


def together(answer_to: Callable[[bytes], bytes], request: bytes) -> bytes:  # pragma: no cover - see above
    """The answers to the requests that a request ``M`` is made of."""
    answers: list[bytes] = []
    place = 1
    while place < len(request):
        begins = place + HEADER
        place = begins + int.from_bytes(request[place:begins], "big")
        answer = answer_to(request[begins:place])
        answers += [len(answer).to_bytes(HEADER, "big"), answer]
    return b"".join(answers)


def question(request: bytes) -> tuple[bytes, bytes]:  # pragma: no cover - see above
    """Query and input of a request ``D``, whose time becomes what the clock says."""
    CLOCK[0] = int.from_bytes(request[1:9], "big")
    split = 11 + int.from_bytes(request[9:11], "big")
    return request[11:split], request[split:]


def loading(request: bytes) -> tuple[dict[str, Any], str]:  # pragma: no cover - see above
    """What a request ``L`` says, and its data as they came: there may be much, and JSON in JSON would be escaped."""
    split = 5 + int.from_bytes(request[1:5], "big")
    return json.loads(request[5:split]), request[split:].decode()  # noqa: TID251 - written by the parent


def main(directory: str, *, memory: int, cpu: int, largest: int) -> NoReturn:  # pragma: no cover - see above
    """Serve with the engine regorus."""
    limit(memory, processes=False)
    limit_cpu(cpu)
    sys.path.append(directory)
    from regorus import Engine  # noqa: PLC0415 - only after the limits are in force

    sys.path.clear()
    engine = Engine()
    rules: dict[str, str] = {}

    def answer_to(request: bytes) -> bytes:
        match request[:1]:
            case b"D":
                query, document = question(request)
                engine.set_input_json(document.decode())
                answer = evaluate(engine, query.decode(), rules)
            case b"L":
                answer = load(engine, *loading(request))
            case b"S":
                answer = engine.get_ast_as_json()
            case b"C":
                answer = engine.get_coverage_report_as_json()
                engine.clear_coverage_data()
            case _:
                answer = json.dumps(engine.take_prints())
        return answer.encode()

    serve(answer_to, cpu=cpu, largest=largest)


def evaluate(engine: Engine, query: str, rules: dict[str, str]) -> str:  # pragma: no cover - see above
    """The answer to ``query``, from its second time on a rule of its own in ``rules``: that costs a third less.

    Lists only: an undefined rule reads ``"<undefined>"``, which is a text that other rules might have.
    """
    if not query.startswith("[") or (query not in rules and len(rules) >= QUERIES_MAX):
        return engine.eval_query_as_json(query)
    if query not in rules:
        rules[query] = ""
        return engine.eval_query_as_json(query)
    if not rules[query]:
        rules[query] = f"data.query{len(rules)}.value"
        package = rules[query].removeprefix("data.").removesuffix(".value")
        _ = engine.add_policy(package, f"package {package}\nvalue := {query}")
    value = engine.eval_rule_as_json(rules[query])
    if value == '"<undefined>"':
        return "{}"
    return f'{{"result":[{{"expressions":[{{"value":{value},"text":"","location":{{"row":1,"col":1}}}}]}}]}}'


def load(engine: Engine, request: dict[str, Any], data: str) -> str:  # pragma: no cover - see above
    """Load modules and reference data, replace what is not repeatable, answer with the syntax tree."""
    engine.set_policy_length_config(
        max_col=request["columns"], max_file_bytes=request["bytes"], max_lines=request["lines"]
    )
    engine.set_gather_prints(True)
    engine.set_enable_coverage(request.get("coverage", False))
    engine.set_rego_v0(request.get("v0", False))
    values = request.get("values", {})
    engine.add_extension("query_reference_value", 1, values.get)
    engine.add_extension("time.now_ns", 0, lambda: CLOCK[0])
    for name, arity in FORBIDDEN.items():
        engine.add_extension(name, arity, forbid(name))
    for name, text in request["modules"]:
        _ = engine.add_policy(name, text)
    engine.add_data_json(data)
    return engine.get_ast_as_json() if request.get("syntax", True) else ""


if __name__ == "__main__":  # pragma: no cover - see above
    directory, *numbers = sys.argv[1:]
    memory, cpu, largest = map(int, numbers)
    main(directory, memory=memory, cpu=cpu, largest=largest)
