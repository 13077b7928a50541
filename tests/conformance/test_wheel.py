"""What a user installs: the wheel, in a fresh environment, with the base dependencies alone."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PARTS = ("attester", "verifier", "policy", "proto")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without fetching anything."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-Im", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(root: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment with the wheel and requirements/base.lock, no more."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = home / "lib" / version / "site-packages"
    # Copied from where they are installed already, so that this test needs no network.
    locked = re.findall(r"^([A-Za-z0-9._-]+)==", (root / "requirements" / "base.lock").read_text(), re.MULTILINE)
    for name in locked:
        _copy_distribution(name, site)
    command = [
        sys.executable,
        "-Im",
        "pip",
        f"--python={home / 'bin' / 'python'}",
        "install",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=120)
    return home / "bin"


def _copy_distribution(name: str, site: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or []:
        source = Path(str(distribution.locate_file(file)))
        if ".." in file.parts or not source.is_file():
            continue  # commands, which the library does not need
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def test_holds_every_source_and_data_file_and_nothing_else(root: Path, wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *PARTS],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=60,
    )
    files = {Path(name) for name in listed.stdout.decode().split("\0") if name}
    expected = {
        Path(*file.parts[1:]).as_posix() for file in files if file.parts[1] == "weighbridge" and (root / file).exists()
    }
    assert inside == expected
    for part in PARTS:
        assert f"weighbridge/{part}/py.typed" in inside


def test_describes_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
        assert any(entry.endswith(".dist-info/licenses/LICENSE") for entry in archive.namelist())
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


@pytest.mark.parametrize("part", ["proto", "policy", "verifier"])
def test_base_imports_without_extras(installed: Path, part: str) -> None:
    code = (
        f"import sys, weighbridge.{part} as it; assert 'site-packages' in it.__file__; assert 'grpc' not in sys.modules"
    )
    ran = subprocess.run([installed / "python", "-Ic", code], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_command_works_without_extras(installed: Path, option: str) -> None:
    ran = subprocess.run([installed / "weighbridge", option], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_attester_without_its_extra_says_what_to_install(installed: Path) -> None:
    command = [str(installed / "weighbridge-attester"), "--version"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ran.stderr
    assert ran.returncode == 0 or "weighbridge[attester]" in ran.stderr
