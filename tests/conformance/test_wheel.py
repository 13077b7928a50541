"""What a user installs: the wheel, in a fresh environment, with the base dependencies alone."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
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
    return build(root, tmp_path_factory.mktemp("dist"))


def build(source: Path, out: Path, *, umask: int = 0o022, **environment: str) -> Path:
    command = [sys.executable, "-Im", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    settings = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600", **environment}
    subprocess.run(command, check=True, capture_output=True, timeout=300, umask=umask, env=settings)
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
    expected = {Path(*file.parts[1:]).as_posix() for file in files_of(root, *PARTS) if file.parts[1] == "weighbridge"}
    assert inside == expected
    for part in PARTS:
        assert f"weighbridge/{part}/py.typed" in inside


def files_of(root: Path, *parts: str) -> list[Path]:
    """What git would commit of them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *parts],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return [Path(name) for name in listed.stdout.decode().split("\0") if name and (root / name).exists()]


def test_is_the_same_to_the_byte_wherever_and_whenever_it_is_built(root: Path, wheel: Path, tmp_path: Path) -> None:
    """Another folder, order and age of its files, other modes and umask, language, time zone and order of hashing."""
    copied = tmp_path / "of another name"
    for file in reversed(files_of(root, *PARTS, "pyproject.toml", "LICENSE", "README.md", ".gitignore")):
        target = copied / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, target)
        # Whether a file can be executed is in the repository; who may read it is not.
        target.chmod(0o700 if os.access(root / file, os.X_OK) else 0o600)
        os.utime(target, (981173106, 981173106))
    again = build(copied, tmp_path / "out", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="1")
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_script_prints_the_digest_of_the_wheel_of_the_last_commit(root: Path, tmp_path: Path) -> None:
    """Twice, with another umask and in another time zone: what is told to the world is what anybody builds."""
    said: list[str] = []
    for folder, umask, zone in (("one", 0o022, "UTC"), ("two", 0o077, "Asia/Tokyo")):
        command = [str(root / "scripts" / "wheel"), str(tmp_path / folder)]
        environment = {**os.environ, "TZ": zone}
        ran = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300, umask=umask, env=environment
        )
        (built,) = (tmp_path / folder).iterdir()
        assert ran.stdout == f"{hashlib.sha256(built.read_bytes()).hexdigest()}  {built.name}\n"
        said.append(ran.stdout)
    assert said[0] == said[1]


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
