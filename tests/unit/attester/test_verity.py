"""What the kernel enforces beneath a model: fs-verity's digests, dm-verity's root hash, every way of not knowing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kernel_verity import FakeKernel, reference_digest, verity_device
from fakes.models import write_model
from weighbridge.attester.weights import measure
from weighbridge.attester.weights.directory import walk
from weighbridge.attester.weights.dm_verity import DeviceMapper
from weighbridge.attester.weights.protection import (
    Kernel,
    file_verity,
    measure_protected,
    protection_of,
    verity_root,
)
from weighbridge.attester.weights.verity import KernelVerity, enable, file_digest, kernel_verity
from weighbridge.proto.cbor import CborValue
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.manifest import Algorithm, Manifest

# fsverity-utils 1.5, `fsverity digest`: of nothing, of "a", of the first 600,000 bytes of `yes weighbridge`.
PUBLISHED = {
    b"": "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
    b"a": "bce75948b9e7510293f8f2720412af9697c1479281323f3f220623fb8e94b557",
    (b"weighbridge\n" * 50_000)[:600_000]: "72661ae3d1128195d4f7127413086460f3583bab036c181e2d1672f7fa6ff791",
}
SALTED = "9769a8edeb941ea38b883d5231e2862156d8ba79be63c51e5c1395990cddeb44"
ROOT = "ab" * 32
TABLE = f"1 8:1 8:2 4096 4096 2048 1 sha256 {ROOT} {'cd' * 32}"


def digest_of(path: Path, *, salt: bytes = b"") -> bytes:
    handle = os.open(path, os.O_RDONLY)
    try:
        return file_digest(handle, path.stat().st_size, salt=salt)
    finally:
        os.close(handle)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def fake() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def kernel(fake: FakeKernel, tmp_path: Path) -> Kernel:
    return Kernel(ioctl=fake, devices=DeviceMapper(sys=tmp_path / "none", control=tmp_path / "none", ioctl=fake))


def enable_all(model: Path, fake: FakeKernel, *, but: str = "") -> None:
    for file in walk(model):
        if file.path != but:
            handle = os.open(file.real, os.O_RDONLY)
            assert enable(handle, where=file.path, ioctl=fake)
            os.close(handle)


# -- the digest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", PUBLISHED, ids=["nothing", "one byte", "two levels"])
def test_digest_is_the_published_one(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert digest_of(tmp_path / "file").hex() == PUBLISHED[data]
    assert reference_digest(data).hex() == PUBLISHED[data]
    if len(data) > 1:
        assert digest_of(tmp_path / "file", salt=b"\x01\x02").hex() == SALTED
        assert reference_digest(data, salt=b"\x01\x02").hex() == SALTED


@pytest.mark.parametrize(
    "size", [1, 4095, 4096, 4097, 128 * 4096 - 1, 128 * 4096, 128 * 4096 + 1, 128 * 128 * 4096 + 1]
)
def test_digest_at_the_edges_of_blocks_and_levels(tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert digest_of(tmp_path / "file") == reference_digest(data[:size])


@given(st.binary(max_size=9000), st.binary(max_size=32))
def test_digest_of_anything(tmp_path_factory: pytest.TempPathFactory, data: bytes, salt: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(data)
    assert digest_of(path, salt=salt) == reference_digest(data, salt=salt)


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("fsverity") is None, reason="no fsverity: run scripts/setup --peers")
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 600_000, 128 * 4096 + 1])
def test_digest_is_that_of_fsverity(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    for salt in (b"", os.urandom(5), os.urandom(32)):
        arguments = [] if not salt else [f"--salt={salt.hex()}"]
        command = ["fsverity", "digest", "--compact", *arguments, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert digest_of(path, salt=salt).hex() == done.stdout.strip()


def test_file_that_becomes_shorter_and_a_salt_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    handle = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(EnvironmentFault) as caught:
        file_digest(handle, 5001)
    assert caught.value.code == Code.WEIGHTS_CHANGED
    with pytest.raises(ValueError, match="32 bytes"):
        file_digest(handle, 5000, salt=bytes(33))
    os.close(handle)


# -- the kernel's answer -----------------------------------------------------------------------------------------------


def test_kernel_says_what_it_enforces(model: Path, fake: FakeKernel) -> None:
    handle = os.open(model / "config.json", os.O_RDONLY)
    assert kernel_verity(handle, where="config.json", ioctl=fake) == KernelVerity("not-enabled")
    assert enable(handle, where="config.json", ioctl=fake) is True
    assert enable(handle, where="config.json", ioctl=fake) is False
    expected = reference_digest((model / "config.json").read_bytes())
    assert kernel_verity(handle, where="config.json", ioctl=fake) == KernelVerity("enabled", expected)
    fake.algorithm = 2
    assert kernel_verity(handle, where="config.json", ioctl=fake) == KernelVerity("not-enabled")
    os.close(handle)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EOPNOTSUPP])
def test_kernel_or_file_system_without_it_is_a_value_and_no_error(model: Path, fake: FakeKernel, number: int) -> None:
    handle = os.open(model / "config.json", os.O_RDONLY)
    fake.fails = number
    assert kernel_verity(handle, where="config.json", ioctl=fake) == KernelVerity("unsupported")
    fake.fails = number
    with pytest.raises(EnvironmentFault) as caught:
        enable(handle, where="config.json", ioctl=fake)
    assert caught.value.code == Code.VERITY_UNSUPPORTED
    assert "tune2fs" in caught.value.hint
    os.close(handle)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.EBUSY, errno.EINVAL])
def test_other_errors_of_enabling_name_the_file(model: Path, fake: FakeKernel, number: int) -> None:
    handle = os.open(model / "config.json", os.O_RDONLY)
    fake.fails = number
    with pytest.raises(EnvironmentFault, match=r"config\.json") as caught:
        enable(handle, where="config.json", ioctl=fake)
    assert caught.value.code == Code.FILE_UNWRITABLE
    assert ("writing" in caught.value.hint) == (number == errno.ETXTBSY)
    os.close(handle)


def test_other_errors_of_measuring_are_faults(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    fake.fails = errno.EIO
    with pytest.raises(EnvironmentFault) as caught:
        protection_of(model, walk(model), kernel=kernel)
    assert caught.value.code == Code.FILE_UNREADABLE


def test_the_kernel_that_we_run_on_answers_one_of_the_three(model: Path) -> None:
    handle = os.open(model / "config.json", os.O_RDONLY)
    assert kernel_verity(handle, where="config.json").state in {"enabled", "not-enabled", "unsupported"}
    os.close(handle)
    assert measure_protected(model).protection in {"none", "fs-verity", "dm-verity"}


# -- fs-verity beneath a model -----------------------------------------------------------------------------------------


def test_all_files_enforced_is_fs_verity_and_its_root_names_them(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    enable_all(model, fake)
    measured = measure_protected(model, kernel=kernel)
    digests: list[CborValue] = [
        [file.path, reference_digest((model / file.path).read_bytes())] for file in measure(model).files
    ]
    assert measured.manifest == measure(model)
    assert (measured.protection, measured.root) == ("fs-verity", D("verity", digests))
    assert verity_root([("a", bytes(32))]) != verity_root([("b", bytes(32))])


def test_one_file_that_is_not_enforced_is_none(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    enable_all(model, fake, but="config.json")
    assert protection_of(model, walk(model), kernel=kernel) == ("none", None)
    fake.supported = False
    assert protection_of(model, walk(model), kernel=kernel) == ("none", None)
    assert protection_of(model, [], kernel=kernel) == ("none", None)


def test_kernel_that_enforces_another_digest_protects_nothing(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    enable_all(model, fake)
    fake.enabled[(model / "config.json").stat().st_ino] = bytes(32)
    assert protection_of(model, walk(model), kernel=kernel) == ("none", None)


def test_file_exchanged_since_it_was_found_is_refused(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    """A53: what the kernel says of another file is not said of this one."""
    found = walk(model)
    enable_all(model, fake)
    (model / "config.json").write_text('{"layers": 2}\n')
    with pytest.raises(EnvironmentFault) as caught:
        protection_of(model, found, kernel=kernel)
    assert caught.value.code == Code.WEIGHTS_CHANGED
    with pytest.raises(EnvironmentFault):
        file_verity(found[0], kernel=kernel)


@pytest.mark.parametrize("change", ["appears", "vanishes"])
def test_file_that_comes_or_goes_before_it_is_measured_is_refused(
    model: Path, fake: FakeKernel, kernel: Kernel, change: str
) -> None:
    """What is said of the kernel is said of exactly the files that the manifest names."""
    other = model / "adapter.bin"
    if change == "vanishes":
        other.write_bytes(b"x")
    enable_all(model, fake)

    def measured(directory: Path, *, name: str | None, algorithm: Algorithm, ignore: Sequence[str]) -> Manifest:
        if change == "vanishes":
            other.unlink()
        else:
            other.write_bytes(b"x")
        return measure(directory, name=name, algorithm=algorithm, ignore=ignore)

    with (
        mock.patch("weighbridge.attester.weights.protection.measure", measured),
        pytest.raises(EnvironmentFault) as refused,
    ):
        measure_protected(model, kernel=kernel)
    assert (refused.value.code, refused.value.where) == (Code.WEIGHTS_CHANGED, "adapter.bin")


def test_ignored_files_need_no_protection(model: Path, fake: FakeKernel, kernel: Kernel) -> None:
    (model / "notes.txt").touch()
    enable_all(model, fake, but="notes.txt")
    assert measure_protected(model, kernel=kernel).protection == "none"
    assert measure_protected(model, ignore=["notes.txt"], kernel=kernel).protection == "fs-verity"


# -- dm-verity ---------------------------------------------------------------------------------------------------------


def mapper(tmp_path: Path, fake: FakeKernel, device: int, **place: str) -> DeviceMapper:
    (tmp_path / "control").touch()
    (tmp_path / "cmdline").touch()
    return DeviceMapper(
        sys=verity_device(tmp_path, device, **place),
        cmdline=tmp_path / "cmdline",
        control=tmp_path / "control",
        ioctl=fake,
    )


def test_root_hash_is_the_tables(model: Path, tmp_path: Path, fake: FakeKernel) -> None:
    device = model.stat().st_dev
    fake.table = [("verity", TABLE)]
    kernel = Kernel(ioctl=fake, devices=mapper(tmp_path, fake, device))
    measured = measure_protected(model, kernel=kernel)
    assert (measured.protection, measured.root) == ("dm-verity", bytes.fromhex(ROOT))  # lenient: a constant
    assert kernel.devices.root_hash(device + 1) is None


@pytest.mark.parametrize(
    "table",
    [
        [],
        [("linear", "8:1 0")],
        [("verity", TABLE), ("verity", TABLE)],
        [("verity", f"{TABLE} 1 ignore_corruption")],
        [("verity", f"{TABLE} 2 panic_on_corruption check_at_most_once")],
        [("verity", TABLE.replace(ROOT, "ab" * 20))],
        [("verity", TABLE.replace(ROOT, "AB" * 32))],
        [("verity", "1 8:1")],
    ],
)
def test_tables_that_protect_nothing(tmp_path: Path, fake: FakeKernel, table: list[tuple[str, str]]) -> None:
    fake.table = table
    assert mapper(tmp_path, fake, 0x100).root_hash(0x100) is None


def test_options_that_do_no_harm_are_allowed(tmp_path: Path, fake: FakeKernel) -> None:
    fake.table = [("verity", f"{TABLE} 2 restart_on_corruption ignore_zero_blocks")]
    assert mapper(tmp_path, fake, 0x100).root_hash(0x100) == bytes.fromhex(ROOT)  # lenient: a constant


@pytest.mark.parametrize("uuid", ["CRYPT-LUKS2-00-model", "LVM-00", ""])
def test_other_devices_of_the_mapper_are_not_asked(tmp_path: Path, fake: FakeKernel, uuid: str) -> None:
    fake.table = [("verity", TABLE)]
    assert mapper(tmp_path, fake, 0x100, uuid=uuid).root_hash(0x100) is None
    assert fake.asked == []


def test_table_that_is_cut_or_cannot_be_read_protects_nothing(tmp_path: Path, fake: FakeKernel) -> None:
    fake.table = [("verity", TABLE)]
    fake.flags = 1 << 8
    devices = mapper(tmp_path, fake, 0x100)
    assert devices.root_hash(0x100) is None
    fake.flags, fake.fails = 0, errno.ENXIO
    assert devices.root_hash(0x100) is None
    fake.table = [("verity", "x" * 20_000)]
    assert devices.root_hash(0x100) is None


@pytest.mark.parametrize(
    ("name", "cmdline", "found"),
    [
        ("root", f"quiet roothash={ROOT}", True),
        ("usr", f"usrhash={ROOT} quiet", True),
        ("root", f"usrhash={ROOT}", False),
        ("model", f"roothash={ROOT}", False),
        ("root", f"roothash={ROOT} roothash={'cd' * 32}", False),
        ("root", f"roothash={ROOT} systemd.verity_root_options=ignore-corruption", False),
        ("root", "roothash=abcd", False),
        ("root", "", False),
    ],
)
@pytest.mark.parametrize("why", ["no control device", "not the superuser"])
def test_without_the_table_the_command_line_speaks_for_what_was_set_up_from_it(
    tmp_path: Path, fake: FakeKernel, name: str, cmdline: str, found: bool, why: str
) -> None:
    devices = mapper(tmp_path, fake, 0x100, name=name)
    (tmp_path / "cmdline").write_text(cmdline + "\n")
    if why == "no control device":
        (tmp_path / "control").unlink()
    else:
        fake.fails = errno.EPERM
    assert devices.root_hash(0x100) == (bytes.fromhex(ROOT) if found else None)  # lenient: a constant


def test_model_on_two_devices_is_on_none(model: Path, tmp_path: Path, fake: FakeKernel) -> None:
    fake.table = [("verity", TABLE)]
    kernel = Kernel(ioctl=fake, devices=mapper(tmp_path, fake, model.stat().st_dev))
    assert protection_of(Path("/proc"), walk(model), kernel=kernel) == ("none", None)
    assert protection_of(model, walk(model), kernel=kernel)[0] == "dm-verity"
