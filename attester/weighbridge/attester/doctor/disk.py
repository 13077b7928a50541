"""Where the attester keeps its state, what protects a model's directory, and whether the verifier can be reached."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from typing import TYPE_CHECKING, Final

from cryptography import x509

from weighbridge.attester.doctor.findings import Area, Finding, fail, fault, guarded, ok, skip, warn
from weighbridge.attester.doctor.host import Unreadable, printable
from weighbridge.attester.durable import write_fault
from weighbridge.attester.keys import load_channel, load_serving
from weighbridge.attester.spool import DEFAULT_MAX_BYTES
from weighbridge.attester.weights.directory import resolved, walk
from weighbridge.attester.weights.hashing import open_found
from weighbridge.attester.weights.verity import kernel_verity
from weighbridge.attester.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.attester.doctor.host import Host

__all__ = ["MODEL_AREA", "STATE_AREA", "VERIFIER_AREA"]

_DIRECTORY, _DISK, _KEYS = "state.directory", "state.disk", "state.keys"
_PROTECTION, _REACHABLE = "model.protection", "verifier.reachable"

_NOT_NAMED: Final = "no --state was given"
_MOUNTS: Final = "proc/self/mountinfo"
_MOUNTS_MAX: Final = 1024 * 1024
# Gone with the power, with the container, or with the network.
_FLEETING: Final = {
    "tmpfs": "its content is gone after a restart",
    "ramfs": "its content is gone after a restart",
    "overlay": "its content is gone with the container",
}
_FAR: Final = frozenset({"nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "ceph"})
# A few windows; and the spool's whole bound with what it leaves to others.
_SPACE_MIN: Final = 64 * 1024 * 1024
_SPACE_GOOD: Final = DEFAULT_MAX_BYTES + 1024 * 1024 * 1024
# A header is synced before each seal: a window has seconds.
_SYNC_SLOW: Final = 0.5
_BLOCK: Final = b"\0" * 4096
_DAY: Final = 86_400
_EXPIRES_SOON: Final = 14


def _state(host: Host) -> Iterator[Finding]:
    state = host.state
    if state is None:
        for check in STATE_AREA.ids:
            yield skip(check, _NOT_NAMED, "Give --state DIR.")
        return
    directory = _directory(state)
    yield directory
    if not state.is_dir():
        yield skip(_DISK, "there is no directory")
        yield skip(_KEYS, "there is no directory")
        return
    yield _disk(host, state)
    yield guarded(_KEYS, lambda: _keys(host, state))


def _directory(state: Path) -> Finding:
    make = f"weighbridge-attester init --state {state}"
    try:
        status = state.stat()
    except FileNotFoundError:
        return fail(_DIRECTORY, f"{state} does not exist", make)
    except OSError as error:
        return fail(
            _DIRECTORY, f"{state} cannot be looked at: {error.strerror or error}", "Check the path and its owner."
        )
    if not stat.S_ISDIR(status.st_mode):
        return fail(_DIRECTORY, f"{state} is not a directory", f"Move it away; then {make}")
    mode = stat.S_IMODE(status.st_mode)
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        return fail(
            _DIRECTORY,
            f"{state} cannot be written by this user (mode {mode:04o}, owner {status.st_uid})",
            "Run this as the attester's user, or give the directory to it.",
        )
    if mode & stat.S_IRWXO or mode & stat.S_IWGRP:
        return warn(_DIRECTORY, f"{state} is open to others (mode {mode:04o})", f"chmod 700 {state}")
    return ok(_DIRECTORY, f"{state}, mode {mode:04o}")


def _disk(host: Host, state: Path) -> Finding:
    kind = _file_system(host, state)
    try:
        system = os.statvfs(state)
        took = _sync(state)
    except OSError as error:
        return fault(_DISK, write_fault(state, error))
    return _judged(kind, free=system.f_bavail * system.f_frsize, took=took)


def _judged(kind: str, *, free: int, took: float) -> Finding:
    found = f"{kind}, {_size(free)} free, a sync takes {took * 1000:.1f} ms"
    if free < _SPACE_MIN:
        return fail(_DISK, found, f"Free at least {_size(_SPACE_GOOD)}: what cannot be sent waits here.")
    if kind in _FLEETING:
        return warn(
            _DISK, f"{found}: {_FLEETING[kind]}", "Keep it on a disk: an undelivered window would be lost for good."
        )
    if kind in _FAR:
        return warn(_DISK, f"{found}: a file system of another machine", "Keep it on a disk of this machine.")
    if free < _SPACE_GOOD:
        return warn(
            _DISK,
            found,
            f"The spool takes up to {_size(DEFAULT_MAX_BYTES)}: free {_size(_SPACE_GOOD)}, or give run --spool-max.",
        )
    if took > _SYNC_SLOW:
        return warn(_DISK, found, "Each window waits for a sync before it is sealed: use a quicker disk.")
    return ok(_DISK, found)


def _sync(state: Path) -> float:
    """Seconds to bring a block to the disk; the file has no name and goes when it is closed."""
    with tempfile.TemporaryFile(dir=state) as file:
        began = time.perf_counter()
        file.write(_BLOCK)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began


def _file_system(host: Host, state: Path) -> str:
    """The kind of file system beneath ``state``, by the kernel's table of mounts (proc(5)), found by device number."""
    table = host.read(_MOUNTS, limit=_MOUNTS_MAX)
    if isinstance(table, Unreadable):
        return "unknown file system"
    device = state.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in table.decode("utf-8", "replace").splitlines():
        words, _, rest = line.partition(" - ")
        fields, kind = words.split(), rest.split()
        if len(fields) > 2 and fields[2] == wanted and kind:  # noqa: PLR2004 - the third field is major:minor
            return printable(kind[0])
    return "unknown file system"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _keys(host: Host, state: Path) -> Finding:
    load_serving(state)
    channel = load_channel(state)
    leaf = x509.load_pem_x509_certificates(channel.certificate)[0]
    left = (leaf.not_valid_after_utc.timestamp() - host.wall()) / _DAY
    until = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    again = f"Have the verifier's operator sign {state / 'channel.csr'} again: weighbridge admit."
    if left <= 0:
        return fail(_KEYS, f"the channel's certificate ended on {until}", again)
    if left < _EXPIRES_SOON:
        return warn(_KEYS, f"the channel's certificate ends on {until}", again)
    return ok(_KEYS, f"serving and channel key; certificate until {until}")


def _model(host: Host) -> Iterator[Finding]:
    model = host.model
    if model is None:
        yield skip(_PROTECTION, "no --model was given", "Give --model DIR to see what the kernel can enforce there.")
        return
    yield guarded(_PROTECTION, lambda: _protection(host, model))


def _protection(host: Host, model: Path) -> Finding:
    root = resolved(model)
    files = walk(root)
    if not files:
        return fail(_PROTECTION, f"{model} has no files", "Name the model's directory.")
    if host.kernel.devices.root_hash(root.stat().st_dev) is not None:
        return ok(_PROTECTION, f"dm-verity beneath {model}")
    states: list[str] = []
    for file in files:
        handle = open_found(file)
        try:
            states.append(kernel_verity(handle, where=file.path, ioctl=host.kernel.ioctl).state)
        finally:
            os.close(handle)
    enabled = states.count("enabled")
    if enabled == len(states):
        return ok(_PROTECTION, f"fs-verity on all of {counted(enabled, 'file')}")
    if "unsupported" in states:
        return warn(
            _PROTECTION,
            "neither dm-verity nor fs-verity: kernel or file system cannot",
            "Nothing keeps a file from changing after it was measured. Use ext4 (tune2fs -O verity), btrfs or f2fs, "
            "with CONFIG_FS_VERITY; or a dm-verity image.",
        )
    return warn(
        _PROTECTION,
        f"fs-verity can be enabled, and is on {enabled} of {counted(len(states), 'file')}",
        f"weighbridge-attester verity enable {model}",
    )


def _verifier(host: Host) -> Iterator[Finding]:
    if host.verifier is None:
        yield skip(_REACHABLE, "no --verifier was given", "Give --verifier HOST:PORT.")
        return
    name = f"{host.verifier[0]}:{host.verifier[1]}"
    try:
        host.connect(host.verifier)
    except OSError as error:
        yield fail(
            _REACHABLE,
            f"{name}: {error.strerror or error}",
            "Is the verifier running, and does the firewall let TCP through? Sessions that run go on into the spool.",
        )
        return
    yield ok(_REACHABLE, f"{name} takes TCP connections; whose they are, `run` finds out")


STATE_AREA: Final = Area("state", (_DIRECTORY, _DISK, _KEYS), _state)
MODEL_AREA: Final = Area("model", (_PROTECTION,), _model)
VERIFIER_AREA: Final = Area("verifier", (_REACHABLE,), _verifier)
