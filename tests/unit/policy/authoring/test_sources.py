"""An author's files are found by their names, and nothing else is taken for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from weighbridge.policy.authoring import sources
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied

NOTHING: Final = Reference({}, {}, {})
MODULE: Final = "package weighbridge.policy\n"


def written(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULE if name.endswith(".rego") else "{}")
    return directory


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_each_file_is_what_its_name_says(tmp_path: Path) -> None:
    found = sources.collect(
        [
            written(
                tmp_path,
                "policy.rego",
                "more/other.rego",
                "policy_test.rego",
                "golden/a.golden.json",
                "data.json",
                "reference.json",
                "README.md",
                "notes.json",
                ".hidden/x.rego",
                "schemas/input.json",
            )
        ]
    )
    assert sorted(names(found.modules)) == ["other.rego", "policy.rego"]
    assert names(found.tests) == ["policy_test.rego"]
    assert names(found.golden) == ["a.golden.json"]
    assert (found.data, found.reference) == (tmp_path / "data.json", tmp_path / "reference.json")
    assert len(found.files) == 6


def test_a_module_of_any_name_is_one_when_it_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a.policy")
    assert names(sources.collect([tmp_path / "a.policy"]).modules) == ["a.policy"]


def test_policies_of_other_verifiers_have_a_folder(tmp_path: Path) -> None:
    written(tmp_path, "policy.rego", "foreign/nvidia/rp.rego", "foreign/veraison/v0/v.rego", "foreign/values.json")
    written(tmp_path, "foreign/README.md")
    found = sources.collect([tmp_path])
    assert names(found.modules) == ["policy.rego"]
    policy = found.policy(NOTHING)
    assert {module.name for module in policy.foreign} == {"foreign/nvidia/rp.rego", "foreign/veraison/v0/v.rego"}
    assert policy.foreign_values == {}
    assert policy.values is not None


def test_a_foreign_policy_of_no_known_verifier_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "policy.rego", "foreign/unknown/rp.rego")
    with pytest.raises(PolicyDenied, match="no policy of another verifier"):
        sources.collect([tmp_path]).policy(NOTHING)


@pytest.mark.parametrize("name", ["policy_test.rego", "one.golden.json"])
def test_tests_alone_are_of_the_policy_beside_them(tmp_path: Path, name: str) -> None:
    written(tmp_path, "policy.rego", "policy_test.rego", "one.golden.json", "two.golden.json", "data.json")
    found = sources.collect([tmp_path / name])
    assert names(found.modules) == ["policy.rego"]
    assert names(found.tests + found.golden) == [name]
    assert found.data == tmp_path / "data.json"


def test_golden_inputs_may_have_a_directory_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, "policy.rego", "data.json", "golden/a.golden.json", "golden/deep/b.golden.json")
    found = sources.collect([tmp_path / "golden" / "a.golden.json"])
    assert (names(found.modules), names(found.golden)) == (["policy.rego"], ["a.golden.json"])
    with pytest.raises(PolicyDenied):
        sources.collect([tmp_path / "golden" / "deep" / "b.golden.json"])


def test_the_policy_is_what_was_found(tmp_path: Path) -> None:
    found = sources.collect([written(tmp_path, "policy.rego", "policy_test.rego", "data.json")])
    policy = found.policy(NOTHING)
    assert ("policy.rego", MODULE.encode()) in policy.files
    assert ("data.json", b"{}") in policy.files
    assert not any(name.endswith("_test.rego") for name, _ in policy.files)
    assert [module.name for module in found.test_modules()] == ["policy_test.rego"]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ((), ""),
        (("notes.md",), ""),
        (("golden/a.golden.json",), ""),
        (("policy.rego", "data.json", "more/data.json"), ""),
        (("policy.rego", "reference.json", "more/reference.json"), ""),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path: Path, files: tuple[str, ...], named: str) -> None:
    written(tmp_path, *files)
    with pytest.raises(PolicyDenied) as refused:
        sources.collect([tmp_path / named])
    assert refused.value.code is Code.POLICY_INVALID
    assert refused.value.hint


def test_two_modules_of_one_name_are_refused(tmp_path: Path) -> None:
    found = sources.collect([written(tmp_path, "a/x.rego", "b/x.rego", "a/x_test.rego", "b/x_test.rego")])
    with pytest.raises(PolicyDenied, match=r"x\.rego"):
        found.policy(NOTHING)
    with pytest.raises(PolicyDenied, match=r"x_test\.rego"):
        found.test_modules()


def test_what_is_not_there_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as refused:
        sources.collect([tmp_path / "absent"])
    assert refused.value.code is Code.FILE_UNREADABLE


def test_what_vanished_meanwhile_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    found = sources.collect([written(tmp_path, "policy.rego", "policy_test.rego", "data.json")])
    for path in found.files:
        path.unlink()
    for reading in (found.test_modules, lambda: found.policy(NOTHING)):
        with pytest.raises(EnvironmentFault) as refused:
            reading()
        assert refused.value.code is Code.FILE_UNREADABLE


def test_far_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "policy.rego", *(f"{number}.golden.json" for number in range(4)))
    with monkeypatch.context() as patch:
        patch.setattr(sources, "GOLDEN_MAX", 3)
        with pytest.raises(PolicyDenied, match="too many"):
            sources.collect([tmp_path])
    monkeypatch.setattr(sources, "_ENTRIES_MAX", 3)
    with pytest.raises(PolicyDenied, match="too many"):
        sources.collect([tmp_path])
