"""Two engines on mutated inputs: shipped policies admit and refuse the same, whatever is missing or of another type.

The inputs are below what a document can be: raw JSON, from which one to four fields were taken, made null, retyped or
moved by one. In the suite a fixed sample; 20,000 with ``WEIGHBRIDGE_MUTATIONS=20000`` (docs/policy-engines.md has the
result). Where one engine ends in an error the other may deny; that one admits and the other does not, never happens.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from weighbridge.policy.authoring.examples import EXAMPLES, Example
from weighbridge.policy.engine import Limits, Prepared
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import SHIPPED, Shipped, shipped
from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.policy.engines.output import Output

SAMPLE: Final = 3_000
"""Inputs in the suite, over all shipped policies and all examples; each goes through both engines."""
LIMITS: Final = Limits(decide_seconds=10.0)
_OTHER: Final[tuple[strict.JsonValue, ...]] = (None, True, False, 0, 1, -1, 1.5, "", "x", [], [None], {}, {"x": 1})


def _inputs(example: Example, count: int, seed: str) -> Iterator[tuple[bytes, str]]:
    """Mutated inputs, each with what was done to it."""
    chance = random.Random(seed)
    whole = strict.json_decode(example.input.to_json(), what="document")
    for _ in range(count):
        value = copy.deepcopy(whole)
        done = [_mutate(value, chance) for _ in range(chance.randint(1, 4))]
        yield strict.json_encode(value), "; ".join(done)


def _mutate(value: strict.JsonValue, chance: random.Random) -> str:
    """Do one thing to one field, anywhere; the words for it."""
    place, path = value, "input"
    while isinstance(place, (dict, list)) and place:
        key = chance.choice(list(place) if isinstance(place, dict) else list(map(str, range(len(place)))))
        inner = place[key] if isinstance(place, dict) else place[int(key)]
        path += f".{key}"
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.85:
            place = inner
            continue
        kind = chance.randrange(4)
        changed = [None, copy.deepcopy(chance.choice(_OTHER)), _bumped(inner)][kind - 1]
        if isinstance(place, dict):
            place[key] = changed
        else:
            place[int(key)] = changed
        if kind == 0 and isinstance(place, dict):
            del place[key]
        elif kind == 0 and isinstance(place, list):
            del place[int(key)]
        return f"{path} removed" if kind == 0 else f"{path} = {changed!r}"[:80]
    return f"{path} left"


def _bumped(value: strict.JsonValue) -> strict.JsonValue:
    """``value``, a little other."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, *value[-1:], {}]
        case _:
            return {}


def _word(output: Output) -> str:
    return "allow" if output.outcome == "allow" else "deny" if output.outcome == "deny" else "error"


@pytest.mark.peer
def test_no_input_is_admitted_by_one_engine_and_refused_by_the_other(opa_library: Path) -> None:
    wanted = strict.decimal(os.environ.get("WEIGHBRIDGE_MUTATIONS", str(SAMPLE)), what="WEIGHBRIDGE_MUTATIONS")
    engines = RegorusEngine(), OpaGoEngine(opa_library)
    seen: Counter[str] = Counter()
    splits: list[str] = []
    share = -(-wanted // (len(EXAMPLES) * len(SHIPPED)))
    for name, example in EXAMPLES.items():
        for policy in SHIPPED:
            with ExitStack() as stack:
                loaded = [engine.load(shipped(policy, reference=example.reference), LIMITS) for engine in engines]
                prepared = [stack.enter_context(one) for one in loaded]
                _compare(prepared, example, (policy, name), share, seen=seen, splits=splits)
    print(dict(seen))  # noqa: T201 - for whoever runs it with -s
    assert splits == []
    assert seen.total() >= wanted
    assert seen["allow/allow"] > wanted // 20, "inputs that are still admitted, without which nothing is shown"
    assert seen["deny/deny"] > wanted // 2


def _compare(
    prepared: list[Prepared],
    example: Example,
    names: tuple[Shipped, str],
    count: int,
    *,
    seen: Counter[str],
    splits: list[str],
) -> None:
    for data, done in _inputs(example, count, "/".join(names)):
        outputs = [one._evaluate(data, example.input) for one in prepared if isinstance(one, PreparedPolicy)]
        regorus, opa = map(_word, outputs)
        seen[f"{regorus}/{opa}"] += 1
        if regorus == opa == "deny":
            same = set(outputs[0].denials) == set(outputs[1].denials)
            seen["the same reasons" if same else "other reasons"] += 1
        if "allow" in {regorus, opa} and regorus != opa:
            splits.append(f"{names[0]} on {names[1]} with {done}: regorus {regorus}, opa {opa}")
