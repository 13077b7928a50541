"""The demonstration, whole: nine acts over the installed commands, and the table they end in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.untraced import untraced

pytestmark = pytest.mark.slow

# A minute and a quarter on a quiet machine; a busy one may take longer, and no verdict changes by it.
PATIENCE_S = 600
EXPECTED = [
    ("1", "an honest session", "admitted"),
    ("2", "one bit of one tensor changed", "refused"),
    ("3", "a fine-tuned model loaded as well", "refused"),
    ("4", "TPM reset, and its state copied back", "refused"),
    ("5", "one GPU exchanged", "refused"),
    ("6", "the driver of one GPU changed", "refused"),
    ("7", "the line to the verifier cut", "held, then fresh"),
    ("8", "a declared adapter swapped", "refused"),
    ("9", "the weights exchanged on the disk", "refused"),
]
SHOWN = {
    "1": "bundle accepted offline",
    "2": "WEIGHTS_MISMATCH: model.safetensors",
    "3": "WEIGHTS_MISMATCH: …, pooler.dense.bias; restart: SUBJECT_FAILED, …",
    "4": "COSE_SIGNATURE, TELEMETRY_KEY_MISMATCH",
    "5": "GPU_UNEXPECTED",
    "6": "GPU_MEASUREMENT_MISMATCH: measurement 22, of the driver",
    "7": "none lost",
    "8": "WEIGHTS_MISMATCH: adapter_model.safetensors, lora_A.weight",
    "9": "SPOT_WRONG, after",
}
# What `policy explain` says of each act's refusal: the reason that a person would give.
WHY = {
    "1": ["the GPU is not a genuine one", 'gpu.platform == "nvidia", and gpu.platform is "insecure-emulated"'],
    "2": ["what was loaded is, file by file and tensor by tensor, what was declared"],
    "3": [
        "model 'fine-tune' was loaded",
        "neither the attestation key nor a GPU has failed before",
        "the log accounts for everything since boot",
    ],
    "4": ["the window's header is signed by the session's key"],
    "5": ["1 of 2 devices are not enrolled", "the devices are exactly those that are enrolled"],
    "6": ["measurement 22", "reference_matches(gpu)", 'gpu.reference is "mismatch"', "wanted was"],
    "7": ["the window arrived under an old challenge", 'input.window.freshness is "held"'],
    "8": ["tensor changed in adapter_model.safetensors, tensor lora_A.weight"],
    "9": ["not answered from the bytes of the declared model", "from the model's bytes"],
}


@pytest.fixture(scope="module")
def played(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run of all acts, and where it wrote."""
    out = tmp_path_factory.mktemp("demo") / "out"
    acts = root / "scripts" / "demonstration" / "acts.py"
    command = [sys.executable, "-s", str(acts), "--out", str(out)]
    done = subprocess.run(command, env=untraced(), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return done, out


def test_every_act_ends_as_it_should(played: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = played
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stderr, "NOT AS IT SHOULD" in done.stdout) == ("", False)
    # Two lines for each act: what became of it, and below what showed it. Both fit a terminal of 80 columns.
    table = done.stdout.partition("\nact what happened")[2].splitlines()[1:19]
    assert max(map(len, table)) <= 80
    rows = [re.split(r"  +", re.sub(r"^(\d) +", r"\1  ", line)) for line in table[::2]]
    assert [tuple(row[:3]) for row in rows] == EXPECTED
    assert all(SHOWN[row[0]] in shown for row, shown in zip(rows, table[1::2], strict=True))
    assert all(re.fullmatch(r"[0-9.]+s", row[3]) for row in rows)


def test_it_says_which_windows_were_judged_how(played: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """A line per window while it plays; at least eight good ones in the honest session, some held ones in the last."""
    acts = played[0].stdout.split("\nact ")
    assert len(re.findall(r"^    window +\d+  affirmed", acts[1], re.MULTILINE)) >= 8
    assert len(re.findall(r"^    window +\d+  held", acts[7], re.MULTILINE)) >= 2
    assert "the token expired" in acts[7]
    assert re.search(r"measurement 22 \(.+\) is not what the driver's manifest says\n +expected .+, got .+\n", acts[6])


@pytest.mark.parametrize("act", WHY)
def test_each_refusal_says_why(played: tuple[subprocess.CompletedProcess[str], Path], act: str) -> None:
    """As ``weighbridge policy explain`` does, in lines that fit a terminal of 80 columns."""
    told = played[0].stdout.split("\nact ")[int(act)]
    lines = [line for line in told.splitlines() if line.startswith("    why: ")]
    assert lines, told
    assert max(map(len, lines)) <= 80
    words = " ".join(told.split())
    for wanted in WHY[act]:
        assert wanted in words


def test_its_bundle_is_good_for_whoever_believes_its_anchors(
    played: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """The command that it prints at the end, in a fresh process."""
    _, out = played
    command = [str(Path(sys.executable).parent / "weighbridge"), "verify", "bundle", str(out / "session.wb")]
    done = subprocess.run(
        [*command, "--anchors", str(out / "anchors.json")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ADMITTED: ")
