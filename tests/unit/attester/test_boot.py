"""The logs of a boot are read while they grow: whole records, and of the kernel's list what a quote is about."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from fakes.boot_logs import Boot
from weighbridge.attester import boot
from weighbridge.attester.boot import BootFiles, RuntimeList
from weighbridge.proto import limits
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import HashAlgorithm, digest
from weighbridge.verifier.boot.runtime import RuntimeLog

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
LOGS = "sys/kernel/security/tpm0/binary_bios_measurements", "run/log/systemd/tpm2-measure.log"
LIST = "sys/kernel/security/ima/binary_runtime_measurements"


class Host:
    """A directory that holds a boot's logs where Linux shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boot = Boot((SHA256, SHA384))
        for name in (*LOGS, LIST):
            (root / name).parent.mkdir(parents=True)

    def write(self) -> None:
        logs = self.boot.logs()
        for name, log in zip((*LOGS, LIST), (logs.firmware, logs.userspace, logs.runtime), strict=True):
            if log is not None:
                (self.root / name).write_bytes(log)

    def runs(self, *names: str) -> bytes:
        """Files that run; what PCR 10 is then."""
        for name in names:
            self.boot.measure(name, name.encode())
        self.write()
        return self.pcr10()

    def pcr10(self, bank: HashAlgorithm = SHA256) -> bytes:
        return self.boot.values[bank, 10]

    @property
    def list(self) -> RuntimeList:
        found = BootFiles(self.root).runtime()
        assert found is not None
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def fault(code: Code, hint: str) -> pytest.RaisesExc[EnvironmentFault]:
    return pytest.raises(EnvironmentFault, check=lambda error: error.code is code and hint in error.hint)


# firmware and systemd


def test_logs_are_read_as_they_are(host: Host) -> None:
    host.boot.firmware_begins()
    host.boot.systemd(11, "phase", "ready")
    host.write()
    logs = host.boot.logs()
    assert BootFiles(host.root).read() == BootLogs(firmware=logs.firmware, userspace=logs.userspace)


def test_a_host_without_logs(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert BootFiles(tmp_path).read() == BootLogs()
    assert BootFiles(tmp_path).runtime() is None


def test_a_record_that_is_being_written_is_left_out(host: Host) -> None:
    host.boot.systemd(11, "phase", "ready")
    whole = b"".join(host.boot.userspace)
    (host.root / LOGS[1]).write_bytes(whole + whole[:20])
    assert BootFiles(host.root).read().userspace == whole


def test_systemd_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a lock from the extension to the end of the record; a writer that hangs stops nobody."""
    host.boot.systemd(11, "phase", "ready")
    host.write()
    whole, path = b"".join(host.boot.userspace), host.root / LOGS[1]
    writer = os.open(path, os.O_RDWR | os.O_APPEND)
    fcntl.flock(writer, fcntl.LOCK_EX)

    def finish() -> None:
        time.sleep(0.1)
        os.write(writer, whole)
        fcntl.flock(writer, fcntl.LOCK_UN)

    thread = threading.Thread(target=finish)
    thread.start()
    assert BootFiles(host.root).read().userspace == whole * 2
    thread.join()
    fcntl.flock(writer, fcntl.LOCK_EX)
    monkeypatch.setattr(boot, "_LOCK_PATIENCE", 0.05)
    assert BootFiles(host.root).read().userspace == whole * 2
    os.close(writer)


def test_larger_than_a_message(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.boot.firmware_begins()
    host.write()
    monkeypatch.setattr(limits, "BOOT_LOG_MAX", 10)
    with fault(Code.TOO_LARGE, "--boot-logs none"):
        BootFiles(host.root).read()


@pytest.mark.parametrize("name", [*LOGS, LIST])
def test_what_may_not_be_read(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = Path.open

    def refuse(path: Path, mode: str) -> object:
        if str(path).endswith(name):
            raise PermissionError(13, os.strerror(13))
        return opening(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    files = BootFiles(host.root)
    with fault(Code.FILE_UNREADABLE, "CAP_DAC_READ_SEARCH"):
        (files.runtime if name == LIST else files.read)()


@pytest.mark.parametrize("name", [*LOGS, LIST])
def test_what_is_no_file(host: Host, name: str) -> None:
    (host.root / name).mkdir()
    files = BootFiles(host.root)
    with fault(Code.FILE_UNREADABLE, "root only"):
        (files.runtime if name == LIST else files.read)()


@pytest.mark.parametrize("name", [*LOGS, LIST])
def test_what_fails_while_it_is_read(host: Host, name: str) -> None:
    (host.root / name).symlink_to("/proc/self/mem")
    files = BootFiles(host.root)
    with fault(Code.FILE_UNREADABLE, "root only"):
        if name == LIST:
            host.list.since(0, b"?" * 32, SHA256)
        files.read()


# the kernel's list


def test_window_by_window(host: Host) -> None:
    """What is sent leads a verifier from quote to quote, though the list is always ahead of them."""
    listed, verified, offset = None, RuntimeLog.empty(), 0
    for names in (("boot_aggregate", "/init"), (), ("/usr/bin/python3", "/srv/serve.py"), ("/srv/more.py",)):
        quoted = host.runs(*names)
        host.runs("/bin/later")
        listed = listed or host.list
        data = listed.since(offset, quoted, SHA256)
        assert listed.since(offset, quoted, SHA256) == data
        verified = verified.extended(data, quoted=quoted, bank=SHA256)
        offset += len(data)
    assert verified.count == 8
    last = host.list.since(0, host.pcr10(), SHA256)
    assert last == (host.root / LIST).read_bytes()


def test_nothing_new_is_nothing(host: Host) -> None:
    quoted = host.runs("/init")
    listed = host.list
    size = len(listed.since(0, quoted, SHA256))
    (host.root / LIST).unlink()
    assert listed.since(size, quoted, SHA256) == b""
    with fault(Code.FILE_UNREADABLE, "root only"):
        listed.since(size, b"?" * 32, SHA256)


def test_an_entry_that_is_being_written_is_left_out(host: Host) -> None:
    quoted = host.runs("/init", "/usr/bin/python3")
    data = (host.root / LIST).read_bytes()
    for cut in range(len(data)):
        (host.root / LIST).write_bytes(data + data[:cut])
        assert host.list.since(0, quoted, SHA256) == data
    with fault(Code.RUNTIME_LOG, "Reboot"):
        host.list.since(0, b"?" * 32, SHA256)


@pytest.mark.parametrize("bank", [SHA256, SHA384])
def test_every_kind_of_entry(host: Host, bank: HashAlgorithm) -> None:
    """A violation extends ones; an entry of another register goes along; signatures and buffers are more fields."""
    host.boot.violate("/var/log/open")
    host.boot.measure("/etc/elsewhere", b"x", pcr=11)
    host.boot.measure("/usr/lib/signed.so", b"y", template=b"ima-sig")
    host.boot.measure("kexec-cmdline", b"ro quiet", template=b"ima-buf")
    quoted = host.runs("/init")
    data = host.list.since(0, host.pcr10(bank), bank)
    assert data == (host.root / LIST).read_bytes()
    assert (bank is SHA256) == (host.pcr10(bank) == quoted)


def test_the_original_template(host: Host) -> None:
    """Its data have no length, and its name is hashed as 256 bytes."""
    name, content = b"/init", b"c" * 20
    hashed = content + name.ljust(256, b"\0")
    head = (10).to_bytes(4, "little") + digest(HashAlgorithm.SHA1, hashed) + (3).to_bytes(4, "little") + b"ima"
    entry = head + content + len(name).to_bytes(4, "little") + name
    host.boot.extend(10, hashed)
    (host.root / LIST).write_bytes(entry + entry[:-1])
    assert host.list.since(0, host.pcr10(), SHA256) == entry


def test_an_offset_that_this_process_never_saw(host: Host) -> None:
    first = host.runs("/init")
    size = len((host.root / LIST).read_bytes())
    quoted = host.runs("/usr/bin/python3")
    assert host.list.since(size, first, SHA256) == b""
    assert host.list.since(size, quoted, SHA256) == (host.root / LIST).read_bytes()[size:]
    for offset in (1, size - 1, 10_000):
        with pytest.raises(ValueError, match="no entry begins"):
            host.list.since(offset, quoted, SHA256)


def test_a_register_that_the_list_does_not_explain(host: Host) -> None:
    host.runs("/init")
    host.boot.extend(10, b"by another program")
    with fault(Code.RUNTIME_LOG, "Reboot"):
        host.list.since(0, host.pcr10(), SHA256)


def test_more_than_a_message_carries(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = host.runs("/init", "/usr/bin/python3")
    monkeypatch.setattr(limits, "RUNTIME_LOG_MAX", 100)
    with fault(Code.TOO_LARGE, "measure less"):
        host.list.since(0, quoted, SHA256)


def test_few_places_are_kept_in_mind(host: Host) -> None:
    listed, offset = host.list if host.runs("/init") else None, 0
    assert listed is not None
    for number in range(20):
        offset += len(listed.since(offset, host.runs(f"/bin/{number}"), SHA256))
    assert len(listed._places) == 8
    assert offset == (host.root / LIST).stat().st_size


def test_what_the_register_held(host: Host) -> None:
    values = [bytes(32), *(host.runs(name) for name in ("/a", "/b", "/c", "/d"))]
    listed = host.list
    assert list(listed.after(values[0], SHA256)) == values[1:]
    listed.since(0, values[2], SHA256)
    assert list(listed.after(values[3], SHA256)) == values[4:]
    assert list(listed.after(values[1], SHA256)) == values[2:]
    assert list(listed.after(b"?" * 32, SHA256)) == []
