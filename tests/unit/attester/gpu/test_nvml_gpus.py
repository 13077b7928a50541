"""GPUs through NVML: ``pynvml`` itself, over a library that signs, refuses, lies and hangs as it is told."""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fakes.nvml_shim import (
    CERTIFICATE,
    COUNT,
    HANDLE,
    IN_USE,
    LOST,
    NOT_SUPPORTED,
    REPORT,
    SET_READY,
    SETTINGS,
    STATE,
    UNKNOWN,
    ShimDevice,
    ShimHost,
    build,
    loaded,
)
from gpu_support import AT, NONCE, emulated_anchors, vector_report, wheel_bytes
from weighbridge.attester.gpu import GpuSource
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.nvml import NvmlGpus
from weighbridge.attester.gpu.nvml_errors import ERRORS
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.spdm.evidence import gpus_binding
from weighbridge.verifier.gpu import verify_gpus

QUICK = 0.3
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def gpus() -> EmulatedGpus:
    return EmulatedGpus.create(3)


@pytest.fixture
def host(library: Path, gpus: EmulatedGpus) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(library, gpus)) as running:
        yield running


@pytest.fixture
def source(host: ShimHost) -> Iterator[NvmlGpus]:
    assert host.ready == 0
    opened = NvmlGpus.open(timeout_s=5)
    yield opened
    opened.close()


def fault(operation: Callable[[], object], code: Code) -> EnvironmentFault:
    """The fault that ``operation`` ends in, which says what to do."""
    with pytest.raises(EnvironmentFault) as caught:
        operation()
    assert caught.value.code is code, caught.value
    assert caught.value.hint
    return caught.value


def patiently(operation: Callable[[], _T]) -> _T:
    """What ``operation`` returns when the driver has come back."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return operation()
        except EnvironmentFault as late:
            if late.code is not Code.GPU_TIMEOUT or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


# -- as it should be ---------------------------------------------------------------------------------------------------


def test_reports_of_all_devices_verify(source: NvmlGpus, gpus: EmulatedGpus) -> None:
    typed: GpuSource = source
    assert typed.identities() == gpus.identities()
    evidence = typed.attest(NONCE)
    assert sorted(item.claimed_identity for item in evidence) == list(gpus.identities())
    assert {item.chain for item in evidence} == {device.keys.chain for device in gpus.devices}
    verified = verify_gpus(
        evidence,
        nonce=NONCE,
        anchors=emulated_anchors(gpus.vendor),
        at=AT,
        expected=frozenset(typed.identities()),
    )
    assert len(verified) == 3


def test_every_nonce_is_signed_anew(source: NvmlGpus) -> None:
    first, second = source.attest(NONCE), source.attest(bytes(32))
    assert {item.report[4:36] for item in first} == {NONCE}
    assert {item.report[4:36] for item in second} == {bytes(32)}
    with pytest.raises(ValueError, match="32 bytes"):
        source.attest(bytes(31))


def test_the_order_of_devices_does_not_matter(host: ShimHost, source: NvmlGpus, gpus: EmulatedGpus) -> None:
    host.order.reverse()
    evidence = source.attest(NONCE)
    assert sorted(item.claimed_identity for item in evidence) == list(gpus.identities())
    other = NvmlGpus.open(timeout_s=5)
    assert other.identities() == source.identities()
    assert gpus_binding(evidence[::-1]) == gpus_binding(evidence)
    other.close()


def test_devices_are_asked_at_the_same_time(host: ShimHost, source: NvmlGpus) -> None:
    host.delays[REPORT] = 0.4
    begun = time.monotonic()
    source.attest(NONCE)
    assert time.monotonic() - begun < 0.8


def test_nothing_is_set(host: ShimHost, source: NvmlGpus) -> None:
    source.attest(NONCE)
    source.cc_state()
    assert host.count(SET_READY) == 0
    source.accept_work()
    assert (host.ready, host.count(SET_READY)) == (1, 1)


def test_it_is_shut_down(host: ShimHost) -> None:
    NvmlGpus.open(timeout_s=5).close()
    assert (host.calls[0][0], host.calls[-1][0]) == ("nvmlInit", "nvmlShutdown")


def test_genuine_certificates_of_nvidias_sample(library: Path, nvidia_wheel: Path) -> None:
    """What NVIDIA got from NVML is taken as it is: certificates in PEM, and a report over its nonce."""
    report = bytes.fromhex(wheel_bytes(nvidia_wheel, "samples/hopperAttestationReport.txt").decode())
    pem = wheel_bytes(nvidia_wheel, "samples/hopperCertChain.txt")
    with loaded(ShimHost(library, [ShimDevice.recorded(report, pem)])):
        source = NvmlGpus.open(timeout_s=5)
        (evidence,) = source.attest(NONCE)
        assert evidence.report == report
        assert len(evidence.chain) == 5
        # It is a recording: it cannot answer another question.
        assert "does not bear the nonce" in str(fault(lambda: source.attest(bytes(32)), Code.GPU_FAILED))
        source.close()


def test_a_blackwell_report(library: Path, vectors_dir: Path) -> None:
    folder = vectors_dir / "nvidia" / "attsdk-testdata-sample_attestation_data-gpu"
    report = vector_report(vectors_dir, f"{folder.name}/blackwellAttestationReport.txt")
    pem = (folder / "blackwellCertChain.txt").read_bytes()
    with loaded(ShimHost(library, [ShimDevice.recorded(report, pem)])):
        source = NvmlGpus.open(timeout_s=5)
        (evidence,) = source.attest(report[4:36])
        assert evidence.report == report
        source.close()


# -- the host's word ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("multi", "name"), [(0, "none"), (1, "protected_pcie"), (2, "nvle")])
def test_what_the_driver_says(host: ShimHost, source: NvmlGpus, multi: int, name: str) -> None:
    host.multi, host.tools = multi, multi % 2
    state = source.cc_state()
    assert state is not None
    assert state.to_cbor() == [2, "on", multi % 2 == 1, name]


def test_what_it_says_is_read_each_time(host: ShimHost, source: NvmlGpus) -> None:
    host.feature = 0
    assert source.cc_state() == CcState(environment=2, feature="off", dev_tools=False, multi_gpu="none")
    host.feature = 1
    assert source.cc_state() == CcState(environment=2, feature="on", dev_tools=False, multi_gpu="none")


@pytest.mark.parametrize("call", [STATE, SETTINGS])
@pytest.mark.parametrize("number", [3, 13, 25])
def test_a_driver_that_is_older_than_the_question(host: ShimHost, source: NvmlGpus, call: str, number: int) -> None:
    host.errors[call] = number
    assert source.cc_state() is None
    # And it attests, if it can.
    assert len(source.attest(NONCE)) == 3


@pytest.mark.parametrize(
    "settings",
    [(2, 1, 0, 3), (2, 0, 0, 0), (1, 1, 0, 0), (2, 1, 1, 0)],
    ids=["mode", "feature", "environment", "tools"],
)
def test_unknown_or_contradictory_words_are_no_word(
    host: ShimHost, source: NvmlGpus, settings: tuple[int, int, int, int]
) -> None:
    host.settings = settings
    fault(source.cc_state, Code.GPU_FAILED)


@pytest.mark.parametrize("changes", [{"feature": 2}, {"tools": 7}, {"environment": 256}])
def test_numbers_without_a_meaning(host: ShimHost, source: NvmlGpus, changes: dict[str, int]) -> None:
    for name, value in changes.items():
        setattr(host, name, value)
    fault(source.cc_state, Code.GPU_FAILED)


# -- what keeps it from beginning --------------------------------------------------------------------------------------


def test_without_the_package() -> None:
    found = fault(
        lambda: NvmlGpus.open(load=lambda: importlib.import_module("weighbridge.no_such_module")), Code.TOOL_MISSING
    )
    assert "weighbridge[attester]" in found.hint


def test_another_module_of_that_name() -> None:
    assert "NVML 13" in str(fault(lambda: NvmlGpus.open(load=lambda: pytest), Code.GPU_FAILED))


def test_without_a_driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = ShimHost(library, [])
    with loaded(host):
        monkeypatch.setenv("FAKE_NVML_SOCKET", str(library.parent / "nobody"))
        assert "modprobe" in fault(NvmlGpus.open, Code.GPU_ABSENT).hint


def test_confidential_computing_is_off(host: ShimHost) -> None:
    host.feature = 0
    found = fault(NvmlGpus.open, Code.GPU_CC_MODE)
    assert "--set-cc-mode=on" in found.hint
    # Not asked for what would be refused without a reason, and nothing is left open.
    assert host.count(CERTIFICATE) == 0
    assert host.calls[-1][0] == "nvmlShutdown"


def test_no_gpu(host: ShimHost) -> None:
    host.order.clear()
    fault(NvmlGpus.open, Code.GPU_ABSENT)
    host.order.extend([0] * 65)
    fault(NvmlGpus.open, Code.GPU_FAILED)


def test_one_gpu_twice(host: ShimHost) -> None:
    host.order[1] = 0
    assert "certificates of one" in str(fault(NvmlGpus.open, Code.GPU_FAILED))


@pytest.mark.parametrize("call", ["nvmlInit", STATE, COUNT, HANDLE, "nvmlDeviceGetUUID", CERTIFICATE])
@pytest.mark.parametrize("number", [4, 15, 999])
def test_a_call_that_fails_at_the_beginning(host: ShimHost, call: str, number: int) -> None:
    host.errors[call] = number
    found = fault(lambda: NvmlGpus.open(timeout_s=1), Code.GPU_FAILED)
    assert f"NVML {number}" in str(found)
    if call != "nvmlInit":
        assert host.calls[-1][0] == "nvmlShutdown"


# -- what goes wrong later ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(set(ERRORS) - {10, 19, 3, 999}))
def test_every_error_says_what_to_do(host: ShimHost, source: NvmlGpus, number: int) -> None:
    host.errors[REPORT, 1] = number
    code = Code.GPU_ABSENT if number in {9, 12, 28} else Code.GPU_FAILED
    found = fault(lambda: source.attest(NONCE), code)
    assert found.message == f"{REPORT}: {ERRORS[number].text} (NVML {number})"
    assert found.where == "GPU 1 (GPU-00000000-0000-0000-0000-000000000001)"
    assert found.hint == ERRORS[number].todo


@pytest.mark.parametrize("number", [NOT_SUPPORTED, UNKNOWN])
@pytest.mark.parametrize("call", [REPORT, CERTIFICATE])
def test_a_refusal_without_a_reason_is_explained(host: ShimHost, source: NvmlGpus, call: str, number: int) -> None:
    host.errors[call, 2] = number
    assert "confidential computing" in fault(lambda: source.attest(NONCE), Code.GPU_FAILED).hint
    del host.errors[call, 2]
    host.feature = 0
    host.errors[call] = number
    assert "--set-cc-mode=on" in fault(lambda: source.attest(NONCE), Code.GPU_CC_MODE).hint


def test_a_gpu_that_is_lost_takes_the_others_with_it(host: ShimHost, source: NvmlGpus) -> None:
    """All or nothing: seven of eight GPUs are not sent as if they were all."""
    host.errors[REPORT, 0] = LOST
    assert "fell off the bus" in str(fault(lambda: source.attest(NONCE), Code.GPU_FAILED))
    host.errors.clear()
    assert len(source.attest(NONCE)) == 3


@pytest.mark.parametrize("number", [10, IN_USE])
def test_what_is_temporary_is_asked_for_again(host: ShimHost, source: NvmlGpus, number: int) -> None:
    host.errors[REPORT, 1] = [number, number]
    assert len(source.attest(NONCE)) == 3
    assert host.count(REPORT) == 5


@pytest.mark.parametrize(("number", "code"), [(10, Code.GPU_TIMEOUT), (IN_USE, Code.GPU_FAILED)])
def test_what_was_called_temporary_and_stays(host: ShimHost, number: int, code: Code) -> None:
    source = NvmlGpus.open(timeout_s=QUICK * 2)
    host.errors[REPORT] = number
    fault(lambda: source.attest(NONCE), code)
    source.close()


@pytest.mark.parametrize("length", [0, 8193, 2**32 - 1, 5, 35])
def test_lengths_that_cannot_be(host: ShimHost, source: NvmlGpus, length: int) -> None:
    """None, more than there is room for, and too few to bear the nonce that was asked for."""
    host.devices[1].report_size = length
    assert fault(lambda: source.attest(NONCE), Code.GPU_FAILED).where.startswith("GPU 1")


def test_a_report_that_is_cut_short_is_for_the_verifier_to_refuse(host: ShimHost, source: NvmlGpus) -> None:
    """What a device says is sent as it is, once it bears the nonce."""
    host.devices[1].report_size = 4000
    assert sorted(len(item.report) for item in source.attest(NONCE)) == [4000, 4129, 4129]


@pytest.mark.parametrize("length", [0, 5121, 2**32 - 1, 100])
def test_lengths_of_certificates_that_cannot_be(host: ShimHost, source: NvmlGpus, length: int) -> None:
    host.devices[1].chain_size = length
    found = fault(lambda: source.attest(NONCE), Code.GPU_FAILED)
    assert found.where.startswith("GPU 1")


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: pem[:0],
        lambda pem: b"\0" * len(pem),
        lambda pem: b"x" + pem,
        lambda pem: pem + b"x",
        lambda pem: pem.replace(b"MII", b"M I", 1),
        lambda pem: pem[: pem.index(b"-----END")],
        lambda pem: pem[: pem.index(b"-----BEGIN", 5)],
        lambda pem: re.sub(rb"(?<=-\n).{9}", b"AAAAAAAAA", pem, count=2),
        lambda pem: pem * 2,
    ],
)
def test_what_is_no_chain(host: ShimHost, source: NvmlGpus, change: Callable[[bytes], bytes]) -> None:
    host.devices[0].chain = change(host.devices[0].chain)
    found = fault(lambda: source.attest(NONCE), Code.GPU_FAILED)
    assert found.where.startswith("GPU 0")


def test_the_end_of_a_c_string_may_be_counted_in(host: ShimHost, source: NvmlGpus) -> None:
    host.devices[0].chain += b"\0"
    assert len(source.attest(NONCE)) == 3


def test_a_replayed_report(host: ShimHost, source: NvmlGpus, gpus: EmulatedGpus) -> None:
    old = gpus.devices[2].attest(bytes(32)).report
    host.devices[2].sign = lambda _: old
    found = fault(lambda: source.attest(NONCE), Code.GPU_FAILED)
    assert found.where.startswith("GPU 2")
    assert "nonce" in found.message


def test_another_gpu_in_its_place(host: ShimHost, source: NvmlGpus, gpus: EmulatedGpus) -> None:
    host.devices[1] = ShimDevice.of(EmulatedH100.make(gpus.vendor), 1)
    assert "another GPU's" in fault(lambda: source.attest(NONCE), Code.GPU_FAILED).message


# -- a driver that hangs -----------------------------------------------------------------------------------------------


def test_a_call_that_does_not_come_back(host: ShimHost) -> None:
    source = NvmlGpus.open(timeout_s=QUICK)
    host.delays[REPORT, 1] = 60
    begun = time.monotonic()
    found = fault(lambda: source.attest(NONCE), Code.GPU_TIMEOUT)
    assert time.monotonic() - begun < QUICK * 5
    assert found.where == "GPU 1 (GPU-00000000-0000-0000-0000-000000000001)"
    # Nothing more is asked of such a driver, and no second thread is sent after the first.
    asked, threads = len(host.calls), threading.active_count()
    for operation in (lambda: source.attest(NONCE), source.cc_state):
        assert "earlier call" in fault(operation, Code.GPU_TIMEOUT).message
    source.close()
    assert len(host.calls) == asked
    assert threading.active_count() <= threads


def test_a_driver_that_comes_back_is_used_again(host: ShimHost) -> None:
    source = NvmlGpus.open(timeout_s=QUICK)
    host.delays[REPORT, 1] = QUICK * 2
    fault(lambda: source.attest(NONCE), Code.GPU_TIMEOUT)
    host.delays.clear()
    evidence = patiently(lambda: source.attest(bytes(32)))
    # What came late is not taken for what was asked since.
    assert {item.report[4:36] for item in evidence} == {bytes(32)}
    source.close()


@pytest.mark.parametrize("call", ["nvmlInit", STATE, HANDLE, CERTIFICATE])
def test_a_driver_that_hangs_at_the_beginning(host: ShimHost, call: str) -> None:
    host.delays[call] = 60
    fault(lambda: NvmlGpus.open(timeout_s=QUICK), Code.GPU_TIMEOUT)
