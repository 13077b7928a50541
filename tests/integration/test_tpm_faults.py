"""Whatever goes wrong between us and the TPM, at whichever command: one fault, with its code, in bounded time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes.faulty_tcti import Faults, rc
from weighbridge.attester.tpm import faults as rules
from weighbridge.attester.tpm import transport
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import Manufactured, Swtpm, manufacture
from weighbridge.attester.tpm.options import AkChoice, TpmOptions
from weighbridge.attester.tpm.tcti import ChannelTcti
from weighbridge.attester.tpm.transport import Channel
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
QUOTED, BOOT = PcrSelection.of(SHA256, range(16)), PcrSelection.of(SHA256, range(8))
MEASURED = {SHA256: b"m" * 32, SHA384: b"m" * 48}
FLUSH = 0x165

METHODS: dict[str, Callable[[Tpm], object]] = {
    "endorsement_key": Tpm.endorsement_key,
    "endorsement": Tpm.endorsement,
    "attestation_key": Tpm.attestation_key,
    "attestation_parent": Tpm.attestation_parent,
    "activate_credential": lambda tpm: tpm.activate_credential(b"\0" * 70, b"\0" * 100),
    "create_telemetry_key": lambda tpm: tpm.create_telemetry_key(unique=b"U" * 32, boot=BOOT),
    "certify_telemetry_key": lambda tpm: tpm.certify_telemetry_key(b"H" * 32),
    "sign": lambda tpm: tpm.sign(b"header"),
    "active_banks": Tpm.active_banks,
    "extend": lambda tpm: tpm.extend(15, MEASURED),
    "read_pcrs": lambda tpm: tpm.read_pcrs(QUOTED),
    "read_clock": Tpm.read_clock,
    "quote": lambda tpm: tpm.quote(QUOTED, b"H" * 32),
}
# The codes of TPM 2.0 Part 2 §6.6 that a TPM in order may give to anybody, and what they are to us.
CODES = {
    "RETRY": (0x922, Code.TPM_BUSY),
    "YIELDED": (0x908, Code.TPM_BUSY),
    "TESTING": (0x90A, Code.TPM_BUSY),
    "NV_RATE": (0x920, Code.TPM_BUSY),
    "NV_UNAVAILABLE": (0x923, Code.TPM_BUSY),
    "OBJECT_MEMORY": (0x902, Code.TPM_BUSY),
    "SESSION_MEMORY": (0x903, Code.TPM_BUSY),
    "LOCKOUT": (0x921, Code.TPM_FAILED),
    "FAILURE": (0x101, Code.TPM_FAILED),
    "DISABLED": (0x120, Code.TPM_FAILED),
    "BAD_AUTH": (0x9A2, Code.TPM_FAILED),
    "COMMAND_CODE": (0x143, Code.TPM_FAILED),
    "INITIALIZE": (0x100, Code.TPM_RESET),
    "HANDLE": (0x18B, Code.TPM_RESET),
    "REFERENCE_H0": (0x910, Code.TPM_RESET),
    "of no TPM": (0xFFFFFFFF, Code.TPM_FAILED),
}
ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda _: b"",
    "half a header": lambda data: data[:5],
    "a header": lambda data: data[: min(10, len(data) - 1)],
    "all but a byte": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "far too long": lambda data: data + bytes(5_000),
    "garbage": lambda data: b"\xa5" * len(data),
}


def always(code: int, _: bytes) -> bytes:
    return rc(code)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manufactured:
    return manufacture(tmp_path_factory.mktemp("tpm") / "made")


@pytest.fixture
def emulator(made: Manufactured) -> Iterator[Swtpm]:
    with Swtpm(made) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PATIENCE", "_NV_PATIENCE"):
        monkeypatch.setattr(rules, name, 0.03)
    monkeypatch.setattr(transport, "_PATIENCE", 0.3)


def commands(tpm: Tpm, plan: Faults, method: str) -> int:
    """How many commands ``method`` gives when nothing is loaded but a session has begun."""
    plan.times = 0
    for _ in range(2):  # the first use of an endorsement key is answered with RETRY
        fresh(tpm)
        plan.arm()
        with contextlib.suppress(EnvironmentFault):  # the credential is none
            METHODS[method](tpm)
        plan.armed = False
    return len(plan.seen)


def attempt(tpm: Tpm, method: str) -> EnvironmentFault | None:
    started = time.monotonic()
    fault = None
    try:
        METHODS[method](tpm)
    except EnvironmentFault as error:
        fault = error
    assert time.monotonic() - started < 2
    assert fault is None or fault.hint
    return fault


def judge(plan: Faults, at: int, fault: EnvironmentFault | None, expected: Code) -> None:
    if plan.seen[at] == FLUSH:
        # What is only let go of may fail: the work was done, or failed before for a reason of its own.
        assert fault is None or fault.code in {expected, Code.TPM_FAILED}, (at, plan, fault)
    else:
        assert fault is not None, (at, plan)
        assert fault.code is expected, (at, plan, fault)


def forget(tpm: Tpm) -> None:
    tpm._esapi.call("disconnect", tpm._esapi._disconnect)
    tpm._forget()


def fresh(tpm: Tpm) -> None:
    """Nothing is loaded, nothing known, but a session has begun; and what a refused flush left is gone."""
    forget(tpm)
    tpm._endorsement_key = None
    tpm.create_telemetry_key(unique=b"U" * 32, boot=BOOT)
    forget(tpm)
    tpm.read_clock()


@pytest.mark.parametrize("method", METHODS)
def test_every_code_at_every_command(emulator: Swtpm, method: str) -> None:
    plan = Faults(unsent=True)
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        count = commands(tpm, plan, method)
        for number, expected in CODES.values():
            plan.instead = partial(always, number)
            for at in range(count):
                fresh(tpm)
                plan.at, plan.times = at, 1_000
                plan.arm()
                fault = attempt(tpm, method)
                plan.armed = False
                judge(plan, at, fault, expected)
        fresh(tpm)
        assert attempt(tpm, method) is None or method == "activate_credential"


@pytest.mark.parametrize("method", METHODS)
def test_every_broken_answer_at_every_command(emulator: Swtpm, method: str) -> None:
    """The connection is made anew by the next call; the session goes on, since the TPM does."""
    plan = Faults()
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        count = commands(tpm, plan, method)
        for instead in ANSWERS.values():
            plan.instead = instead
            for at in range(count):
                fresh(tpm)
                plan.at, plan.times = at, 1
                plan.arm()
                fault = attempt(tpm, method)
                plan.armed = False
                judge(plan, at, fault, Code.TPM_FAILED)
                assert len(tpm.sign(b"header")) == 64


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["hang", "cut"])
def test_every_silence_at_every_command(
    emulator: Swtpm, method: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_PATIENCE", 0.2)
    plan = Faults()
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        count = commands(tpm, plan, method)
        plan.hang, plan.cut = kind == "hang", kind == "cut"
        for at in range(count):
            fresh(tpm)
            plan.at, plan.times = at, 1
            plan.arm()
            fault = attempt(tpm, method)
            plan.armed = False
            judge(plan, at, fault, Code.TPM_BUSY if kind == "hang" else Code.TPM_ABSENT)
            assert len(tpm.sign(b"header")) == 64


def test_opening_under_faults(emulator: Swtpm) -> None:
    for name, (number, expected) in CODES.items():
        plan = Faults(instead=partial(always, number), unsent=True, times=1_000)
        plan.arm()
        with pytest.raises(EnvironmentFault) as caught:
            Tpm.open(emulator.tcti, carry=plan.carry)
        assert caught.value.code is expected, name
    Tpm.open(emulator.tcti).close()


def test_an_answer_to_another_question(emulator: Swtpm) -> None:
    """TPM2_GetCapability names in its answer what was asked: an answer of another kind is not taken for nothing."""
    plan = Faults(instead=lambda data: data[:11] + bytes(3) + b"\x06" + data[15:], code=0x17A)
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        for operation in (tpm.active_banks, tpm.endorsement_key):
            plan.arm()
            with pytest.raises(EnvironmentFault) as caught:
                operation()
            assert caught.value.code is Code.TPM_FAILED


def test_a_bank_of_an_unknown_hash(emulator: Swtpm) -> None:
    """Left out it could be extended by anybody; so it is not left out."""
    plan = Faults(instead=lambda data: data.replace(b"\0\x0b\3", b"\0\x12\3"), code=0x17A)
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        plan.arm()
        with pytest.raises(EnvironmentFault) as caught:
            tpm.active_banks()
        assert caught.value.got == "0x0012"


def test_what_breaks_before_there_is_a_connection(emulator: Swtpm) -> None:
    """The emulator is let go of: the next client finds it free."""

    def broken(_: Channel) -> ChannelTcti:
        raise MemoryError

    with pytest.raises(MemoryError):
        Tpm.open(emulator.tcti, carry=broken)
    Tpm.open(emulator.tcti).close()


def test_commands_are_given_inside_a_call(emulator: Swtpm) -> None:
    tpm = Tpm.open(emulator.tcti)
    tpm.close()
    with pytest.raises(RuntimeError, match="inside"):
        tpm._esapi.read_clock()


def test_below_the_storage_root_key(emulator: Swtpm, tmp_path: Path) -> None:
    """Making and loading the key are more commands, and a file: a failure leaves none, or one that is whole."""
    path, plan = tmp_path / "ak", Faults(unsent=True, instead=lambda _: rc(0x101))
    options = TpmOptions(ak=AkChoice("srk"), key_file=path)
    with Tpm.open(emulator.tcti, options, carry=plan.carry) as tpm:
        plan.times = 0
        plan.arm()
        tpm.attestation_key()
        count = len(plan.seen)
        public = tpm.attestation_key()
        for kept in (True, False):
            for at in range(count):
                forget(tpm)
                if not kept:
                    path.unlink(missing_ok=True)
                    tpm._ak_public = None
                plan.at, plan.times = at, 1_000
                plan.arm()
                fault = attempt(tpm, "attestation_key")
                plan.armed = False
                assert fault is None or fault.code is Code.TPM_FAILED
                assert (tpm.attestation_key() == public) is kept


def test_a_credential_is_not_sent_twice(emulator: Swtpm) -> None:
    """Of a command whose answer was lost it is not known whether it was carried out: whoever asked decides."""
    plan = Faults(instead=lambda data: data[:4], code=0x182)
    with Tpm.open(emulator.tcti, carry=plan.carry) as tpm:
        plan.arm()
        assert attempt(tpm, "extend") is not None
        assert len(plan.seen) == 1
        assert tpm.read_pcrs(QUOTED)[15] != bytes(32)
