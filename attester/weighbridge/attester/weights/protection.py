"""Measuring a model together with what the kernel enforces beneath it, for the log to say.

The files are found once; the content is hashed and the kernel is asked of the very files that were found, so that the
two statements are of the same bytes.

>>> measure_protected(Path("models/minilm")).protection  # doctest: +SKIP
'none'
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fcntl import ioctl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.attester.weights.directory import changed, resolved, unreadable, walk
from weighbridge.attester.weights.dm_verity import DeviceMapper
from weighbridge.attester.weights.hashing import check_same, cores, open_found
from weighbridge.attester.weights.measurement import measure
from weighbridge.attester.weights.verity import KernelVerity, file_digest, kernel_verity
from weighbridge.proto.digest import D

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.attester.weights.directory import FoundFile
    from weighbridge.attester.weights.verity import Ioctl
    from weighbridge.proto.manifest import Algorithm, Manifest
    from weighbridge.proto.measurement_log import Protection

__all__ = ["Kernel", "Measured", "file_verity", "measure_protected", "protection_of", "verity_root"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is asked of the kernel; another one stands in for it in tests."""

    ioctl: Ioctl = ioctl
    devices: DeviceMapper = field(default_factory=DeviceMapper)


@dataclass(frozen=True, slots=True)
class Measured:
    """A manifest, and what the kernel enforced beneath all of its files. ``root`` is ``None`` without protection."""

    manifest: Manifest
    protection: Protection
    root: bytes | None


def measure_protected(
    directory: Path,
    *,
    name: str | None = None,
    algorithm: Algorithm = "sha256",
    ignore: Sequence[str] = (),
    kernel: Kernel | None = None,
) -> Measured:
    """Measure a model, without a cache, and find out what the kernel enforces beneath it.

    Args:
        directory: as for :func:`~weighbridge.attester.weights.measurement.measure`.
        name: as there.
        algorithm: as there.
        ignore: as there.
        kernel: who is asked; the one that we run on by default.

    Raises:
        EnvironmentFault: as there.
        MalformedEvidence: as there.
    """
    root = resolved(directory)
    found = walk(root, ignore=ignore)
    manifest = measure(directory, name=name, algorithm=algorithm, ignore=ignore)
    # Measuring finds the files by itself: one that came since is in the manifest, and the kernel would not be asked.
    if different := {file.path for file in found} ^ {file.path for file in manifest.files}:
        raise changed(min(different))
    protection, value = protection_of(root, found, kernel=kernel or Kernel())
    return Measured(manifest, protection, value)


def protection_of(directory: Path, files: Sequence[FoundFile], *, kernel: Kernel) -> tuple[Protection, bytes | None]:
    """What the kernel enforces beneath *all* of ``files``, and the root hash that names it.

    ``dm-verity`` when directory and files lie on one such device; ``fs-verity`` when the kernel enforces of each file
    the digest that its content has here.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED`` when a file is no longer the one that was found; ``WEIGHTS_UNREADABLE``.
    """
    devices = {file.identity[0] for file in files} | {directory.stat().st_dev}
    if len(devices) == 1 and (root := kernel.devices.root_hash(*devices)) is not None:
        return "dm-verity", root
    if not files or not all(_asked(file, kernel).state == "enabled" for file in files):
        return "none", None
    with ThreadPoolExecutor(cores(), thread_name_prefix="verity") as pool:
        found = list(pool.map(partial(file_verity, kernel=kernel), files))
    if not all(said.digest == digest for said, digest in found):
        return "none", None
    return "fs-verity", verity_root([(file.path, digest) for file, (_, digest) in zip(files, found, strict=True)])


def verity_root(digests: Sequence[tuple[str, bytes]]) -> bytes:
    """What names the fs-verity digests of a model's files: ``D("verity", [[path, digest] …])``, in the order given."""
    return D("verity", [[path, digest] for path, digest in digests])


def file_verity(file: FoundFile, *, kernel: Kernel) -> tuple[KernelVerity, bytes]:
    """What the kernel says of a file, and the fs-verity digest that its content has.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED``, ``WEIGHTS_UNREADABLE`` or ``FILE_UNREADABLE``.
    """
    handle = open_found(file)
    try:
        said = kernel_verity(handle, where=file.path, ioctl=kernel.ioctl)
        digest = file_digest(handle, file.size)
        check_same(handle, file)
    except OSError as error:
        raise unreadable(file.path, error.strerror or str(error)) from error
    finally:
        os.close(handle)
    return said, digest


def _asked(file: FoundFile, kernel: Kernel) -> KernelVerity:
    handle = open_found(file)
    try:
        return kernel_verity(handle, where=file.path, ioctl=kernel.ioctl)
    finally:
        os.close(handle)
