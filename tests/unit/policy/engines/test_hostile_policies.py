"""Policies that mean harm, on every engine: each ends within its deadline, refuses, and the next decision is unharmed.

All are loaded past the checker, which refuses most of them by a name: what is shown here holds without it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.conformance import BenchEngine
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto.errors import PolicyDenied

PastChecker = Callable[..., PreparedPolicy]
QUICK: Final = Limits(load_seconds=3.0, decide_seconds=0.3, memory=256 * 1024 * 1024)
MARGIN: Final = 2.5  # seconds that a loaded machine may add to a deadline

_FOUR = "; ".join(f"some {name} in items" for name in "abcd")
_ITEMS = "[" + ", ".join(map(str, range(100))) + "]"


def _doubling(first: str, twice: str) -> str:
    """25 rules, each of twice the size of the one before."""
    return f"x0 := {first}\n\n" + "".join(f"x{i} := {twice.replace('X', f'x{i - 1}')}\n\n" for i in range(1, 26))


HOSTILE: Final = {
    "busy": f"items := {_ITEMS}\n\nallow if count([1 | {_FOUR}]) > 1\n",
    "busy in one builtin": "allow if count(numbers.range(1, 1000000000)) > 1\n",
    "a text that doubles": _doubling('"0123456789abcdef"', "concat(``, [X, X])") + "allow if count(x25) > 1\n",
    "a list that doubles": _doubling("[0, 1, 2, 3, 4, 5, 6, 7]", "array.concat(X, X)") + "allow if count(x25) > 1\n",
    "a number that shifts": "allow if bits.lsh(1, 100000000000) > 1\n",
    "powers": "allow if sprintf(`%1000000000d`, [1]) == `x`\n",
    "a function that calls itself": "f(x) := f(x + 1)\n\nallow if f(1)\n",
    "a rule that depends on itself": "x if y\n\ny if x\n\nallow if x\n",
    "a chain of rules": "".join(f"r{i} if r{i + 1}\n\n" for i in range(1000)) + "r1000 := 1\n\nallow if r0 == 2\n",
    "a chain of functions": "".join(f"f{i}(x) := f{i + 1}(x)\n\n" for i in range(1000))
    + "f1000(x) := x\n\nallow if f0(1) == 2\n",
    "a long answer": "deny contains y if { some i in numbers.range(1, 200000); y := sprintf(`%d 0123456789`, [i]) }\n",
    "a pattern that backtracks": 'allow if regex.match("^(a+)+$", concat("", ["' + "a" * 60 + '", "!"]))\n',
    "a pattern of patterns": 'allow if regex.match("((a{0,100}){0,100}){0,100}", "a")\n',
    "a panic": "allow if strings.count(``, ``) == 7\n",
}


@pytest.mark.parametrize("rules", HOSTILE.values(), ids=HOSTILE)
def test_it_ends_and_the_next_decision_is_unharmed(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput, rules: str
) -> None:
    harmless = past_checker(engine, "allow if input.window.seq == 3\n", replace(QUICK, decide_seconds=5.0))
    begun = time.monotonic()
    try:
        prepared = past_checker(engine, rules, QUICK)
    except WorkerFault:
        assert time.monotonic() - begun < QUICK.load_seconds + MARGIN, "refused by the engine, in time"
    else:
        for _ in range(2):
            begun = time.monotonic()
            decision = prepared.decide(good)
            assert time.monotonic() - begun < QUICK.decide_seconds + MARGIN
            assert decision.outcome != "allow"
            assert decision.denials
    assert harmless.decide(good).outcome == "allow"


@dataclass(frozen=True)
class Unbounded:
    """What is a module to a worker, and was never held to the bounds of one."""

    name: str
    text: bytes


BOMBS: Final = {
    "lists in lists": "[" * 40 + "1" + "]" * 40,
    "lists in lists, far deeper": "[" * 20_000 + "1" + "]" * 20_000,
    "objects in objects": '{"a": ' * 40 + "1" + "}" * 40,
    "sums in sums": "(1 + " * 4000 + "1" + ")" * 4000,
    "much text": "[" + ", ".join(['"0123456789abcdef"'] * 400_000) + "]",
}


@pytest.mark.parametrize("literal", BOMBS.values(), ids=BOMBS)
def test_a_parser_bomb_ends_at_the_load_deadline(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput, literal: str
) -> None:
    """Sent past the bounds on modules, which hold off every one of them."""
    limits = replace(QUICK, load_seconds=0.7)
    harmless = past_checker(engine, "allow if input.window.seq == 3\n", replace(QUICK, decide_seconds=5.0))
    text = f"package weighbridge.policy\n\nx := {literal}\n".encode()
    with pytest.raises(PolicyDenied):
        _ = PolicyModule("bomb.rego", text)
    begun = time.monotonic()
    with contextlib.suppress(WorkerFault):
        engine.bench([Unbounded("bomb.rego", text)], {}, limits).close()  # type: ignore[list-item] # to a worker it is one
    assert time.monotonic() - begun < limits.load_seconds + MARGIN
    assert harmless.decide(good).outcome == "allow"


FORBIDDEN: Final = {
    "http.send": 'http.send({"method": "get", "url": "http://127.0.0.1:9/"})',
    "net.lookup_ip_addr": "net.lookup_ip_addr(`localhost`)",
    "opa.runtime": "opa.runtime()",
    "rand.intn": "rand.intn(`a`, 2)",
    "uuid.rfc4122": "uuid.rfc4122(`a`)",
    "json.match_schema": 'json.match_schema({}, {"$ref": "http://127.0.0.1:9/"})',
    "json.verify_schema": 'json.verify_schema({"$ref": "http://127.0.0.1:9/"})',
    "io.jwt.decode_verify": "io.jwt.decode_verify(`a.b.c`, {})",
    "io.jwt.encode_sign": "io.jwt.encode_sign({}, {}, {})",
    "io.jwt.encode_sign_raw": "io.jwt.encode_sign_raw(`{}`, `{}`, `{}`)",
    "crypto.x509.parse_and_verify_certificates": "crypto.x509.parse_and_verify_certificates(`a`)",
}


WAYS: Final = {
    "in a rule": "NAME if CALL\n\n",
    "in a function": "fNAME(_) := CALL\n\nNAME if { every x in [1] { fNAME(x) } }\n\n",
    "under not": "NAME if not gNAME(1)\n\ngNAME(_) if { v := CALL; v }\n\n",
    "in a comprehension": "NAME if count([1 | CALL]) == 0\n\n",
}


def test_what_is_not_repeatable_or_reaches_outside_raises(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput
) -> None:
    tried = {f"r{n}": pair for n, pair in enumerate((name, way) for name in FORBIDDEN for way in WAYS)}
    rules = "".join(
        WAYS[way].replace("NAME", rule).replace("CALL", FORBIDDEN[name]) for rule, (name, way) in tried.items()
    )
    prepared = past_checker(engine, rules, replace(QUICK, decide_seconds=5.0))
    for rule, (name, way) in tried.items():
        prepared._query = f"[data.weighbridge.policy.{rule}, []]".encode()
        decision = prepared.decide(good)
        assert decision.outcome == "error", (name, way)
        assert f"{name} is not available" in decision.detail, (name, way)


def test_every_forbidden_builtin_is_tried_here() -> None:
    from weighbridge.policy.engines import worker  # noqa: PLC0415 - a program, looked at here for its table

    tried = {*FORBIDDEN, "crypto.x509.parse_and_verify_certificates_with_options"}
    assert tried == set(worker.FORBIDDEN), "the last is the first but one with options"


def test_time_is_the_receipt_time(past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput) -> None:
    """And moves with the document, in one loaded engine."""
    rules = "allow if format_int(time.now_ns(), 10) == input.received_ns\n"
    prepared = past_checker(engine, rules, replace(QUICK, decide_seconds=5.0))
    for day in (22, 23, 22):
        at, ns = doc.instant(datetime(2026, 11, day, tzinfo=UTC))
        assert prepared.decide(replace(good, received_at=at, received_ns=ns)).outcome == "allow"
