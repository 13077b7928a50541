"""Every parser has a target, every target its properties, and a short run of each finds nothing.

The long run is ``scripts/fuzz``: it has the same targets, and a fuzzer that sees which branches an input reached.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from fuzz import catalogue, composite, seeding
from fuzz.changes import CHANGES
from fuzz.exempt import EXEMPT
from fuzz.parsers import parsers
from fuzz.specs import Workshop
from fuzz.target import Broken, Target
from fuzz.unsigned import UNSIGNED
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fuzz.composite import Composite

# Those that are no parser by their name: listeners and what they hand on, files, and steps that are done at once.
ENTRANCES: Final = {
    "verifier.http_server:HttpServer",
    "verifier.http_service:HttpService",
    "verifier.result_service:ResultService",
    "verifier.procedure:authenticate",
    "verifier.settings.layers:load",
}
QUICK: Final = tuple(name for name, spec in catalogue.SPECS.items() if not spec.slow)
MADE: Final = {"window": "windows", "enrolment proof": "enrolments", "bundle": "bundles"}
INPUTS: Final = 16
PROGRAMS: Final = 150


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    with Workshop() as made:
        yield made


@pytest.fixture(scope="module")
def targets(shop: Workshop) -> dict[str, Target]:
    return {target.name: target for target in catalogue.load(shop, QUICK)}


@pytest.fixture(scope="module")
def composites(shop: Workshop) -> dict[str, Composite]:
    return composite.composites(shop, catalogue.COMPOSITES)


# -- which there are ---------------------------------------------------------------------------------------------------


def test_every_parser_has_a_target_or_a_reason_for_none(root: Path) -> None:
    found = parsers(root)
    assert found - catalogue.SPECS.keys() - EXEMPT.keys() == set(), "new parsers: add a row to tests/fuzz/parsers_*.py"
    assert catalogue.SPECS.keys() - found == ENTRANCES
    assert EXEMPT.keys() - found == set()
    assert EXEMPT.keys() & catalogue.SPECS.keys() == set()


def test_a_new_parser_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "proto" / "weighbridge" / "proto"
    folder.mkdir(parents=True)
    (folder / "new.py").write_text("class A:\n    @classmethod\n    def parse(cls, data: bytes) -> 'A': ...\n")
    (folder / "other.py").write_text("def parse(value: int) -> int: ...\ndef _parse(data: bytes) -> None: ...\n")
    assert parsers(tmp_path) == {"proto.new:A.parse"}


# -- each of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_parser_takes_its_seeds_and_refuses_the_damaged(targets: dict[str, Target], name: str) -> None:
    """A28, A70: in its own words, in time, and what it takes has one encoding."""
    target = targets[name]
    first, *others = target.seeds
    assert target.accepts(first)
    for data in (*others, *seeding.damaged(target, count=INPUTS)):
        target.accepts(data)


def test_what_is_remembered_of_earlier_calls_hides_no_seeds(shop: Workshop) -> None:
    for _ in range(2):
        (target,) = catalogue.load(shop, ["proto.spdm.opaque:parse"])
        assert target.seeds


def test_what_does_not_hold_is_told() -> None:
    def run(data: bytes) -> bytes:
        if not data:
            raise IndexError
        if data == b"no":
            raise MalformedEvidence(Code.TRUNCATED, "too short")
        return data[:1]

    target = Target(name="any", run=run, seeds=(b"a",), again=lambda value: value)
    assert target.accepts(b"a")
    assert not target.accepts(b"no")
    with pytest.raises(IndexError):
        target.accepts(b"")
    with pytest.raises(Broken, match="other bytes"):
        target.accepts(b"ab")


# -- the composite appraiser -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.COMPOSITES)
def test_no_mutation_is_admitted_but_of_unsigned_bytes(composites: dict[str, Composite], name: str) -> None:
    made, chosen = composites[name], random.Random(name)
    assert made.check(b"")
    for _ in range(PROGRAMS if name == "windows" else PROGRAMS // 3):
        made.check(chosen.randbytes(chosen.randrange(48)))


def test_windows_that_are_refused_are_mutated_as_well(composites: dict[str, Composite]) -> None:
    refused = [base for base in composites["windows"].bases if base.said is None]
    assert len(refused) == len(composite.REFUSED_CASES)


def test_an_admission_of_what_nobody_signed_is_told(composites: dict[str, Composite]) -> None:
    made = composites["windows"]
    honest = next(base for base in made.bases if base.said is not None)
    lax = composite.Composite([replace(honest, judge=lambda _: honest.said)], lambda data: data)
    program = next(bytes([n]) * 24 for n in range(256) if lax.mutated(bytes([n]) * 24)[1] != honest.data)
    with pytest.raises(Broken, match="a mutation of what is signed"):
        lax.check(program)
    denied = next(base for base in made.bases if base.said is None)
    lax = composite.Composite([replace(denied, judge=lambda _: honest.said)], lambda data: data)
    with pytest.raises(Broken, match="refusal into an admission"):
        lax.check(b"")


@pytest.mark.parametrize(("message", "what"), CHANGES)
def test_what_is_unsigned_can_be_changed(composites: dict[str, Composite], message: str, what: str) -> None:
    """The list has nothing too much: each of it differs in something that is admitted, and says the same."""
    made = composites[MADE[message]]
    change = CHANGES[message, what]
    changed = [(base, change(base.data)) for base in made.bases if base.said is not None]
    changed = [(base, data) for base, data in changed if data != base.data]
    assert changed, "nothing here has any of it"
    base, data = changed[0]
    assert made.signed_by(data, base)
    assert made.says_no_more(base.judge(data), base)


def test_all_that_is_unsigned_is_changed_by_a_test() -> None:
    assert CHANGES.keys() == {(message, what) for message, listing in UNSIGNED.items() for what in listing}


def test_the_published_list_is_the_one_that_is_held_to(root: Path) -> None:
    text = (root / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("\n## 14. Unsigned bytes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    listed = {(message, what) for message, what in rows if message != "message"}
    assert listed == {(message, what) for message, listing in UNSIGNED.items() for what in listing}
