"""Writes the figures of docs/assurance.md that the repository holds, and measures those that a run takes.

Usage:
    assurance.py              write what stands between the marks of docs/assurance.md
    assurance.py --check      say which of it is out of date, and exit 1 if any is
    assurance.py --measure    run the tests behind genuine evidence and faults, and print how many passed and failed

What is written comes from the manifests of the corpus, from the tables by which tests judge genuine evidence, and from
the document's own table of faults. With --measure, the environment variable WEIGHBRIDGE_VECTORS names the captured
evidence; without it those tests are skipped, and that is printed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import check_skips
import spec_coverage

from weighbridge.proto.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "assurance.md"
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# Each outcome of a case counts as one of three.
_REFUSED: Final = frozenset({"denied", "refused"})
_UNDECIDED: Final = frozenset({"held", "indeterminate"})
_MARK: Final = "<!-- made by scripts/assurance.py: {} -->"
_END: Final = "<!-- end -->"


@dataclasses.dataclass(frozen=True, slots=True)
class Genuine:
    """One kind of genuine evidence: the test that judges all of it, and the tables that say what has to come of it."""

    kind: str
    module: str
    tests: tuple[str, ...]
    outcomes: Callable[[Any], Iterable[object]]
    """Of the module: what has to come of each piece; a `Code`, or what holds one, where it has to be refused."""


GENUINE: Final = (
    Genuine(
        "reports of NVIDIA's GPUs and switches, with their chains",
        "unit/verifier/gpu/test_captured.py",
        ("test_reports_with_their_chains", "test_evidence_files"),
        lambda it: [*(expected for _, _, expected in it.PAIRS), *it.EVIDENCE.values()],
    ),
    Genuine(
        "NVIDIA's reference manifests",
        "unit/verifier/gpu/rim/test_recorded_rims.py",
        ("test_recorded",),
        lambda it: [expected for _, expected in it.TABLE.values()],
    ),
    Genuine(
        "certificates of TPMs and their makers",
        "unit/verifier/tpm/test_vendor_certificates.py",
        ("test_recorded_certificates",),
        lambda it: it.OUTCOMES.values(),
    ),
    Genuine(
        "quotes of TPMs, up to the nonce, which is none of ours",
        "unit/verifier/tpm/test_recorded_quotes.py",
        ("test_recorded_quotes",),
        # Signature and kind are looked at before the nonce is.
        lambda it: [None if code is Code.TPM_NONCE else code for _, code, _ in it.OUTCOMES.values()],
    ),
    Genuine(
        "reports of SEV-SNP and TDX from Azure",
        "unit/verifier/tee/test_recorded_azure.py",
        ("test_outcomes",),
        lambda it: it.OUTCOMES.values(),
    ),
    Genuine(
        "logs of firmware",
        "unit/proto/eventlog/test_real_logs.py",
        ("test_a_boot_log_leads_to_the_machines_registers", "test_a_log_of_the_old_format_is_refused"),
        lambda it: [*(value for _, _, value in it.BOOT_LOGS), *(Code.LOG_SHA1_ONLY for _ in it.SHA1_ONLY)],
    ),
)


def corpus() -> str:
    """Cases per row, and what has to come of them."""
    counted: dict[str, Counter[str]] = {row.number: Counter() for row in spec_coverage.rows()}
    whole: Counter[str] = Counter()
    stages: set[str] = set()
    for fields in _manifests():
        outcome = fields["outcome"]
        kind = "refused" if outcome in _REFUSED else "undecided" if outcome in _UNDECIDED else "accepted"
        whole[kind] += 1
        stages.add(fields["id"].partition("/")[0])
        for row in re.findall(r"A[0-9]{2}", fields["rows"]):
            counted[row][kind] += 1
    kinds = ("refused", "undecided", "accepted")
    numbers = ", ".join(f"{whole[kind]} {kind}" for kind in kinds)
    table = [
        f"{whole.total()} cases of {len(stages)} stages: {numbers}. *Undecided* are windows that are held or",
        "indeterminate: they open no gate and accuse nobody.",
        "",
        "| row | attack | cases | refused | undecided | accepted |",
        "|---|---|---|---|---|---|",
    ]
    for row in spec_coverage.rows():
        of = counted[row.number]
        table.append(f"| {row.number} | {row.attack} | {of.total()} | {' | '.join(str(of[kind]) for kind in kinds)} |")
    return "\n".join(table)


def genuine() -> str:
    """Pieces of genuine evidence, and what has to come of them."""
    table = ["| evidence | pieces | accepted | refused by rule, and the codes | test |", "|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    for it in GENUINE:
        outcomes = list(it.outcomes(_load(it.module)))
        codes = Counter(code for code in map(_refusal, outcomes) if code is not None)
        accepted = len(outcomes) - codes.total()
        total.update(pieces=len(outcomes), accepted=accepted, refused=codes.total())
        named = ", ".join(f"`{code}` {count}" for code, count in sorted(codes.items()))
        tests = ", ".join(f"`tests/{it.module}::{test}`" for test in it.tests)
        table.append(f"| {it.kind} | {len(outcomes)} | {accepted} | {codes.total()}: {named} | {tests} |")
    table.append(f"| all | {total['pieces']} | {total['accepted']} | {total['refused']} | |")
    return "\n".join(table)


def faults(text: str) -> str:
    """How many faults and tests the document's table has."""
    rows = fault_rows(text)
    tests = {test for _, _, named in rows for test in named}
    return f"{len(rows)} faults, {len(tests)} tests."


def fault_rows(text: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """The table of faults: fault, what must hold, the tests as file and function."""
    section = text.partition("\n## Faults\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(fault.strip(), holds.strip(), TEST.findall(tests)) for fault, holds, tests in lines[1:]]


def _manifests() -> list[dict[str, str]]:
    paths = sorted((ROOT / "tests" / "vectors").glob("*/*/manifest.yaml"))
    return [dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines()) for path in paths]


def _refusal(expected: object) -> str | None:
    """The code with which a piece has to be refused; ``None`` if it is accepted."""
    code = getattr(expected, "code", expected)
    return code.value if isinstance(code, Code) else None


def _load(name: str) -> Any:  # noqa: ANN401 - a module of tests
    for folder in (ROOT / "tests", ROOT / "scripts"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    path = ROOT / "tests" / name
    spec = importlib.util.spec_from_file_location(f"assurance_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for their module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def render(text: str) -> str:
    """The document with what stands between its marks made anew."""
    for name, made in (("corpus", corpus()), ("genuine", genuine()), ("faults", faults(text))):
        begin = _MARK.format(name)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(_END)
        if not found or not ended:
            raise ValueError(f"{TARGET.name}: no place for {name}")
        text = f"{before}{begin}\n\n{made}\n\n{_END}{after}"
    return text


def measure() -> int:
    """Run the tests that the figures rest on. Returns the exit status."""
    named = {
        "genuine evidence": [f"tests/{it.module}::{test}" for it in GENUINE for test in it.tests],
        "faults": sorted({f"{path}::{test}" for _, _, tests in fault_rows(TARGET.read_text()) for path, test in tests}),
    }
    status = 0
    for what, nodes in named.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "junit.xml"
            command = [sys.executable, "-Im", "pytest", "-q", f"--junitxml={report}", *nodes]
            ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            skipped = len(check_skips.skips_in(report)) if report.exists() else 0
        lines = ran.stdout.strip().splitlines() or ["nothing ran"]
        status = status or ran.returncode
        for line in [line for line in lines if line.startswith(("FAILED ", "ERROR "))]:
            print(f"{what}: {line}")
        print(f"{what}: {len(nodes)} tests: {lines[-1]}")
        if skipped:
            print(f"{what}: {skipped} skipped: what they need is not here")
    return status


def main(arguments: list[str]) -> int:
    """Write, compare or measure. Returns the exit status."""
    if arguments == ["--measure"]:
        return measure()
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    old = TARGET.read_text(encoding="utf-8")
    new = render(old)
    if not arguments:
        TARGET.write_text(new, encoding="utf-8")
        return 0
    if new != old:
        print("docs/assurance.md is out of date: run scripts/assurance.py and commit what it writes")
    return 0 if new == old else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
