"""What there is to write rules about is found by its path, and a wrong path is answered with the one that was meant."""

from __future__ import annotations

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.authoring.library_docs import library_rules
from weighbridge.policy.authoring.reference_docs import Library, NoSuchPath, Place, find, markdown, type_of


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("input", "input"),
        ("input.gpus", "input.gpus"),
        ("input.gpus[]", "input.gpus[]"),
        ("input.gpus[_].revocation", "input.gpus[].revocation"),
        ("input.gpus.revocation", "input.gpus[].revocation"),
        (" gpus[0].manifests.owner ", "input.gpus[].manifests[].owner"),
        ("platform.tee.kind", "input.platform.tee.kind"),
        ("data.reference", "data.reference"),
        ("reference.models", "data.reference.models"),
        ("data.reference.models.name", "data.reference.models[].name"),
        ("data.reference.models.abcdef", "data.reference.models[]"),
        ("data.reference.models[model.manifest].statements[_].date", "data.reference.models[].statements[].date"),
        ("data.reference.gpu_measurements.x", "data.reference.gpu_measurements[]"),
    ],
)
def test_paths_are_found_as_people_write_them(path: str, found: str) -> None:
    place = find(path)
    assert isinstance(place, Place)
    assert place.path == found


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("input.gpus.revocaton", "input.gpus[].revocation"),
        ("input.gps", "input.gpus"),
        ("gps", "gpus"),
        ("inputs", "input"),
        ("data.references", "data.reference"),
        ("data.reference.model", "data.reference.models"),
        ("lib.denail", "lib.denial"),
        ("data.weighbridge.lib.owne", "lib.owned"),
        ("zzz", "there are input, data.reference, data.author, lib"),
        ("input.zzz", f"there are {', '.join(doc.shape().members)}"),
        ("lib.zzz", ""),
        ("input..gpus", "write it as in a rule, such as input.gpus[].identity"),
        ("input.gpus[[0]]", "write it as in a rule, such as input.gpus[].identity"),
    ],
)
def test_a_wrong_path_is_answered_with_what_was_meant(path: str, hint: str) -> None:
    with pytest.raises(NoSuchPath) as caught:
        find(path)
    assert caught.value.hint == hint


@pytest.mark.parametrize(("path", "said"), [("input.work.requests.x", "integer"), ("input.window[0]", "object")])
def test_what_has_nothing_inside_says_what_it_is(path: str, said: str) -> None:
    with pytest.raises(NoSuchPath, match=rf"nothing inside input\.\S+: it is {said}"):
        find(path)


@pytest.mark.parametrize("path", ["data.author", "data.author.x"])
def test_the_authors_own_data_are_known_to_him_alone(path: str) -> None:
    with pytest.raises(NoSuchPath, match=r"data\.json"):
        find(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("input.gpus", "list of objects"),
        ("input.gpus.conflicts", "list of integers"),
        ("input.gpus.driver", "text or null"),
        ("input.gpus.signed_feature", "word or null"),
        ("input.gpus.reported_in_window", "true or false"),
        ("data.reference.gpu_measurements", "table of lists of text"),
        ("data.reference.models", "table of objects"),
        ("data.reference.unchecked", "table of text"),
    ],
)
def test_types_are_in_words(path: str, words: str) -> None:
    place = find(path)
    assert isinstance(place, Place)
    assert type_of(place.shape) == words


def test_the_library_says_what_its_rules_are_for() -> None:
    rules = {rule.name: rule for rule in library_rules()}
    assert rules["denial"].call == "lib.denial(code, device, message, expected, got, hint)"
    assert rules["owned"].kind == "function"
    assert rules["fresh"].kind == "rule"
    assert rules["remarks"].kind == "set"
    assert all(rule.doc and rule.section and not rule.doc.startswith("-") for rule in rules.values())
    found = find("lib.owned")
    assert isinstance(found, Library)
    assert [rule.name for rule in found.rules] == ["owned"]


def test_markdown_has_every_member_once_in_its_table() -> None:
    text = markdown()
    assert text.count("\n### `input.gpus[]`\n") == 1
    for name in doc.shape().members:
        assert text.split("### `input.")[0].count(f"\n| `{name}` |") == 1
    assert "`input.platform`" in markdown("data.reference.hosts")
    assert markdown("input.window").startswith("### `input.window`\n")
    assert markdown("input.window.seq").count("\n| `seq` | integer |") == 1
    assert "| `lib.denial(" in markdown("lib")
    assert "``" not in text
