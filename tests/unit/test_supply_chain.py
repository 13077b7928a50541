"""What is said of what we depend on: who needs it, what is in the bill of materials, what an audit tells."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dependency_audit
import locks
import pytest
import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dependency_audit import Accepted, MalformedListError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
LOCK = f"""\
alpha==1.0 \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
    # via
    #   beta
    #   weighbridge (../pyproject.toml)
beta==2.0.post1 \\
    --hash=sha256:{B}
    # via weighbridge (../pyproject.toml)
delta==4 \\
    --hash=sha256:{C}
    # via
    #   -r dev.in
    #   gamma
gamma==3 \\
    --hash=sha256:{C}
    # via -r dev.in
"""
TODAY = date(2026, 3, 1)
ACCEPTED = """\
[[accepted]]
id = "GHSA-1"
package = "alpha"
reason = "we never call what it is about"
until = 2026-03-31
"""
REPORT: dict[str, Any] = {
    "dependencies": [
        {
            "name": "alpha",
            "version": "1.0",
            "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": ["GHSA-1"]}],
        },
        {"name": "beta", "version": "2.0.post1", "vulns": []},
        {"name": "gamma", "version": "3", "vulns": [{"id": "PYSEC-2", "fix_versions": [], "aliases": []}]},
    ],
    "fixes": [],
}


def test_a_lock_says_who_asks_for_what() -> None:
    read = locks.parse(LOCK)
    assert read["alpha"] == locks.Locked("alpha", "1.0", (A, B), frozenset({"beta", "weighbridge"}))
    assert [release.name for release in locks.needed(read.values())] == ["alpha", "beta"]


@pytest.mark.parametrize("line", ["alpha>=1.0", "    --hash=md5:00", "-e .", "alpha==1.0", "https://example.org/a.whl"])
def test_a_lock_with_anything_else_is_refused(line: str) -> None:
    with pytest.raises(locks.MalformedLockError):
        locks.parse(f"{line}\n")


def test_the_bill_is_cyclonedx_of_every_locked_release_that_users_install(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    text = sbom.of_checkout()
    assert sbom.of_checkout() == text
    valid = JsonStrictValidator(SchemaVersion.V1_6).validate_str
    assert valid(text) is None
    bill = json.loads(text)
    base = locks.parse((root / "requirements" / "base.lock").read_text())
    required = {part["name"]: part["version"] for part in bill["components"] if part["scope"] == "required"}
    assert required == {name: release.version for name, release in base.items()}
    names = {part["name"] for part in bill["components"]}
    assert {"grpcio", "tpm2-pytss", "sigstore", "psycopg-binary"} <= names
    assert not names & {"pytest", "ruff", "pip-audit", "weighbridge"}
    hashes = [part["externalReferences"][0]["hashes"] for part in bill["components"]]
    assert all({item["alg"] for item in each} == {"SHA-256"} for each in hashes)
    # Nobody depends on what is not in it.
    refs = {part["bom-ref"] for part in (*bill["components"], bill["metadata"]["component"])}
    assert {ref for entry in bill["dependencies"] for ref in (entry["ref"], *entry.get("dependsOn", ()))} == refs
    bill["components"][0]["colour"] = "green"
    assert valid(json.dumps(bill)) is not None


def test_another_release_is_another_bill() -> None:
    project = {"name": "weighbridge", "version": "1", "description": "d", "license": "Apache-2.0"}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    releases = locks.needed(locks.parse(LOCK).values())
    one, two = (json.loads(sbom.bill(project, base, releases, at)) for base in (set[str](), {"alpha"}))
    assert one["serialNumber"] != two["serialNumber"]


def said(report: dict[str, Any], accepted: str = "", today: date = TODAY) -> tuple[list[str], int]:
    audit = dependency_audit.read_report(report, {"alpha", "beta"})
    return dependency_audit.tell(audit, dependency_audit.parse_accepted(accepted, {"alpha"}), today)


def test_an_advisory_is_told_with_whether_users_have_it() -> None:
    assert said(REPORT) == (
        [
            "not accepted: alpha 1.0 (which users install): PYSEC-1, GHSA-1; fixed in 1.1",
            "not accepted: gamma 3 (a tool of ours): PYSEC-2; no release fixes it",
        ],
        2,
    )


def test_one_that_is_accepted_is_until_its_last_day() -> None:
    assert said(REPORT, ACCEPTED)[0][0].startswith("accepted until 2026-03-31: alpha 1.0")
    assert said(REPORT, ACCEPTED)[1] == 1
    told, in_the_way = said(REPORT, ACCEPTED, date(2026, 4, 1))
    assert told[0].startswith("accepted no longer: alpha 1.0")
    assert in_the_way == 2


def test_one_that_nothing_says_any_more_is_told() -> None:
    clean = {"dependencies": [{"name": "alpha", "version": "1.0", "vulns": []}]}
    assert said(clean, ACCEPTED) == (["accepted, and nothing says it any more: alpha GHSA-1"], 0)


def test_a_release_that_the_source_does_not_know_is_not_audited() -> None:
    """pip-audit itself closes with *No known vulnerabilities found*."""
    unknown = {"dependencies": [{"name": "alpha", "skip_reason": "not found"}, REPORT["dependencies"][1]]}
    assert said(unknown, ACCEPTED) == (["not audited: 1 of 2 releases, which the source does not know"], 1)


@pytest.mark.parametrize(
    "text",
    [
        ACCEPTED.replace("alpha", "omega"),
        ACCEPTED.replace("we never call what it is about", "no"),
        ACCEPTED.replace("2026-03-31", '"for ever"'),
        ACCEPTED.replace("until = 2026-03-31\n", ""),
        ACCEPTED + ACCEPTED,
        "ignored = []\n",
        "[[accepted]\n",
    ],
)
def test_what_cannot_be_accepted(text: str) -> None:
    with pytest.raises(MalformedListError):
        dependency_audit.parse_accepted(text, {"alpha"})


def test_the_list_of_this_repository_is_one(root: Path) -> None:
    locked = {
        name
        for lock in dependency_audit.AUDITED
        for name in locks.parse((root / "requirements" / f"{lock}.lock").read_text())
    }
    text = dependency_audit.ACCEPTED.read_text(encoding="utf-8")
    assert all(isinstance(entry, Accepted) for entry in dependency_audit.parse_accepted(text, locked))


@pytest.mark.parametrize(
    ("arguments", "status"), [pytest.param([], 0, id="told"), pytest.param(["--strict"], 1, id="strict")]
)
def test_a_source_that_cannot_be_reached_is_told_and_holds_up_a_release_alone(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback\nConnectionError: nobody there")

    monkeypatch.setattr(subprocess, "run", silent)
    assert dependency_audit.main(arguments) == status
    assert capsys.readouterr().out == "told: not audited: unreachable: ConnectionError\n"


def test_a_source_that_hangs_is_waited_for_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, **given: Any) -> None:  # noqa: ANN401 - subprocess's own
        raise subprocess.TimeoutExpired([], given["timeout"])

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(UnreachableError, match=r"no answer within 120 s"):
        dependency_audit.ask([])
