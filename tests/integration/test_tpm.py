"""The TPM's way through, on a real TPM 2.0 implementation: enrol, quote, certify, sign, and every way it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tpm2_pytss as tss
from cryptography import x509

from fakes.tpm_proxy import TpmProxy
from weighbridge.attester.tpm import faults, pcrs
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import PLATFORM, Manufactured, Swtpm, manufacture
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import HashAlgorithm, digest
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection
from weighbridge.proto.tpm.templates import attestation_key_template
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.verifier.anchors import Anchor, TrustAnchors, default
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk, activated
from weighbridge.verifier.tpm.certify import VerifiedTelemetryKey, boot_policy_of, verify_telemetry_key
from weighbridge.verifier.tpm.continuity import check_continuity
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import verify_ek
from weighbridge.verifier.tpm.quote import VerifiedQuote, verify_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
QUOTED = PcrSelection.of(SHA256, range(16))
BOOT = PcrSelection.of(SHA256, range(8))
OURS = b"H" * 32
UNIQUE = b"U" * 32
MEASURED = {SHA256: b"m" * 32, SHA384: b"m" * 48}
TPM_CC_QUOTE = 0x158
TPM_CC_SIGN = 0x15D
TPM_CC_PCR_READ = 0x17E
TPM_RC_RETRY = 0x922
TPM_RC_PCR_CHANGED = 0x128


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manufactured:
    return manufacture(tmp_path_factory.mktemp("tpm") / "made")


@pytest.fixture
def emulator(made: Manufactured) -> Iterator[Swtpm]:
    with Swtpm(made) as running:
        yield running


@pytest.fixture
def tpm(emulator: Swtpm) -> Iterator[Tpm]:
    with Tpm.open(emulator.tcti) as opened:
        yield opened


def anchors(made: Manufactured, platform: str = PLATFORM) -> TrustAnchors:
    root = x509.load_der_x509_certificate(made.root)
    return TrustAnchors((Anchor.from_certificate("tpm-ek-root", root, platform=platform, source="a test"),))


def enrol(tpm: Tpm, made: Manufactured) -> VerifiedAk:
    endorsement = tpm.endorsement_key()
    ek = verify_ek(
        public.parse(endorsement.public),
        endorsement.certificate,
        (*endorsement.intermediates, made.intermediate),
        anchors(made),
        at=datetime.now(UTC),
    )
    parent = tpm.attestation_parent()
    ak = AttestationKey(public.parse(tpm.attestation_key()), None if parent is None else public.parse(parent))
    secret = os.urandom(32)
    credential = make_credential(ek, ak.public.name, secret)
    answer = tpm.activate_credential(credential.id_object, credential.encrypted_secret)
    return activated(ek, ak, secret=secret, answer=answer)


def quoted(tpm: Tpm, ak: VerifiedAk) -> VerifiedQuote:
    return verify_quote(tpm.quote(QUOTED, OURS), ak, qualifying_data=OURS, selection=QUOTED)


def certified(tpm: Tpm, ak: VerifiedAk, telemetry_key: bytes) -> VerifiedTelemetryKey:
    attest, signature = tpm.certify_telemetry_key(OURS)
    return verify_telemetry_key(
        attest=attest,
        signature=signature,
        public=public.parse(telemetry_key),
        ak=ak,
        qualifying_data=OURS,
        boot_policy=boot_policy_of(quoted(tpm, ak), BOOT),
    )


def fault(code: Code, operation: Callable[[], object]) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        operation()
    assert caught.value.code is code
    assert caught.value.hint
    return caught.value


# a session


def test_a_session_from_the_certificate_to_the_signature(tpm: Tpm, made: Manufactured) -> None:
    assert tpm.active_banks() == (SHA256, SHA384)
    tpm.extend(15, MEASURED)
    ak = enrol(tpm, made)
    assert (ak.platform, ak.provenance) == (PLATFORM, "ek-credential")
    first = quoted(tpm, ak)
    assert first.pcrs[15] == digest(SHA256, bytes(32), MEASURED[SHA256])
    assert dict(first.pcrs) == dict(tpm.read_pcrs(QUOTED))
    verified = certified(tpm, ak, tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT))
    message = cose.sign(b"header", kid=verified.thumbprint, typ="t", signer=tpm.sign)
    assert cose.verify(cose.parse(message, typ="t", limit=1_000, what="x"), verified.key) == b"header"
    time.sleep(0.002)
    second = quoted(tpm, ak)
    check_continuity(first=first, previous=first, current=second)
    assert second.clock <= tpm.read_clock().clock


def test_emulated_is_not_a_platform_that_anyone_trusts_by_default(tpm: Tpm, made: Manufactured) -> None:
    endorsement = tpm.endorsement_key()
    with pytest.raises(NotAuthentic) as caught:
        verify_ek(
            public.parse(endorsement.public),
            endorsement.certificate,
            (made.intermediate,),
            default(),
            at=datetime.now(UTC),
        )
    assert caught.value.code is Code.CHAIN_UNTRUSTED


def test_an_rsa_endorsement_key(emulator: Swtpm, made: Manufactured) -> None:
    """Where the TPM has no certificate for a P-384 key, and the vendor did not persist the RSA key either."""
    with tss.ESAPI(emulator.tcti) as esapi:
        esapi.nv_undefine_space(esapi.tr_from_tpmpublic(0x01C00016), tss.ESYS_TR.PLATFORM)
    with Tpm.open(emulator.tcti) as tpm:
        persisted = tpm.endorsement_key()
        assert len(persisted.certificate) > 900
        enrol(tpm, made)
    with tss.ESAPI(emulator.tcti) as esapi:
        handle = esapi.tr_from_tpmpublic(0x81010001)
        esapi.evict_control(tss.ESYS_TR.OWNER, handle, 0x81010001)
    with Tpm.open(emulator.tcti) as tpm:
        assert tpm.endorsement_key() == persisted
        enrol(tpm, made)


def test_another_key_where_the_endorsement_key_should_be(emulator: Swtpm, made: Manufactured) -> None:
    with tss.ESAPI(emulator.tcti) as esapi:
        esapi.evict_control(tss.ESYS_TR.OWNER, esapi.tr_from_tpmpublic(0x81010016), 0x81010016)
        template, _ = tss.TPM2B_PUBLIC.unmarshal(sized(attestation_key_template()))
        handle, *_ = esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, tss.ESYS_TR.OWNER)
        esapi.evict_control(tss.ESYS_TR.OWNER, handle, 0x81010016)
        esapi.flush_context(handle)
    with Tpm.open(emulator.tcti) as tpm:
        enrol(tpm, made)


def test_a_chain_stored_in_the_tpm(emulator: Swtpm, made: Manufactured) -> None:
    """TCG EK Credential Profile §2.2.1.5.2: cut up over several indices, and padded."""
    chain = made.intermediate + made.root + b"\xff" * 20
    attributes = tss.TPMA_NV.OWNERWRITE | tss.TPMA_NV.OWNERREAD | tss.TPMA_NV.AUTHREAD | tss.TPMA_NV.NO_DA
    with tss.ESAPI(emulator.tcti) as esapi:
        for number, start in enumerate(range(0, len(chain), 1_500)):
            part = chain[start : start + 1_500]
            area = tss.TPMS_NV_PUBLIC(
                nvIndex=0x01C00100 + number, nameAlg=tss.TPM2_ALG.SHA256, attributes=attributes, dataSize=len(part)
            )
            index = esapi.nv_define_space(b"", tss.TPM2B_NV_PUBLIC(area))
            for offset in range(0, len(part), 512):
                esapi.nv_write(index, part[offset : offset + 512], offset, tss.ESYS_TR.OWNER)
    with Tpm.open(emulator.tcti) as tpm:
        assert tpm.endorsement_key().intermediates == (made.intermediate, made.root)


def test_a_tpm_without_any_certificate(emulator: Swtpm) -> None:
    with tss.ESAPI(emulator.tcti) as esapi:
        for index in (0x01C00016, 0x01C00002):
            esapi.nv_undefine_space(esapi.tr_from_tpmpublic(index), tss.ESYS_TR.PLATFORM)
    with Tpm.open(emulator.tcti) as tpm:
        assert "Pin" in fault(Code.TPM_FAILED, tpm.endorsement_key).hint


def test_the_attestation_key_is_the_same_every_time(emulator: Swtpm) -> None:
    keys: set[bytes] = set()
    for _ in range(3):
        with Tpm.open(emulator.tcti) as tpm:
            keys.add(tpm.attestation_key())
    assert len(keys) == 1


def test_only_an_emulator_is_started_by_its_client(tpm: Tpm) -> None:
    tpm.startup()
    assert len(tpm.attestation_key()) == 88


def test_each_session_has_its_own_telemetry_key(tpm: Tpm) -> None:
    keys = [tpm.create_telemetry_key(unique=bytes([n]) * 32, boot=BOOT) for n in (1, 2, 1)]
    assert keys[0] == keys[2] != keys[1]


def test_a_credential_for_another_tpm(tpm: Tpm, made: Manufactured) -> None:
    fault(Code.TPM_FAILED, lambda: tpm.activate_credential(b"\0" * 70, b"\0" * 100))
    with pytest.raises(EnvironmentFault):
        tpm.activate_credential(bytes(5_000), bytes(5_000))
    enrol(tpm, made)


# PCRs


def test_extending_needs_every_active_bank(tpm: Tpm) -> None:
    for digests in ({}, {SHA256: b"m" * 32}, {**MEASURED, HashAlgorithm.SHA1: b"m" * 20}, {**MEASURED, SHA384: b"m"}):
        with pytest.raises(ValueError, match="digest"):
            tpm.extend(15, digests)


def test_banks_that_are_not_active_are_not_read(tpm: Tpm) -> None:
    """A47: the TPM would quote an empty selection without a word."""
    absent = PcrSelection((PcrBank(HashAlgorithm.SHA1, (0,)),))
    assert "active" in fault(Code.TPM_FAILED, lambda: tpm.read_pcrs(absent)).message
    fault(Code.TPM_FAILED, lambda: tpm.quote(absent, OURS))
    with pytest.raises(ValueError, match="one bank"):
        tpm.read_pcrs(PcrSelection(()))


def test_the_boot_pcrs_hold_the_telemetry_key(tpm: Tpm, made: Manufactured) -> None:
    ak = enrol(tpm, made)
    telemetry_key = tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
    certified(tpm, ak, telemetry_key)
    tpm.extend(15, MEASURED)
    assert len(tpm.sign(b"header")) == 64
    tpm.extend(4, MEASURED)
    assert "boot PCRs changed" in fault(Code.TPM_FAILED, lambda: tpm.sign(b"header")).message
    with pytest.raises(NotAuthentic) as caught:
        certified(tpm, ak, telemetry_key)
    assert caught.value.code is Code.TELEMETRY_KEY_POLICY


# resets


def test_a_power_cycle_ends_the_session(tpm: Tpm, emulator: Swtpm, made: Manufactured) -> None:
    """A49: the PCRs are extended to the same values again; the counts, the clock and the telemetry key tell."""
    tpm.extend(15, MEASURED)
    ak = enrol(tpm, made)
    first = quoted(tpm, ak)
    telemetry_key = tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
    emulator.power_cycle()
    fault(Code.TPM_RESET, lambda: tpm.sign(b"header"))
    tpm.startup()
    fault(Code.TPM_RESET, lambda: tpm.sign(b"header"))
    fault(Code.TPM_RESET, lambda: tpm.certify_telemetry_key(OURS))
    tpm.extend(15, MEASURED)
    second = quoted(tpm, ak)
    assert second.pcrs == first.pcrs
    assert second.reset_count == first.reset_count + 1
    with pytest.raises(NotAuthentic) as caught:
        check_continuity(first=first, previous=first, current=second)
    assert caught.value.code is Code.TPM_RESET
    assert tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT) != telemetry_key


def test_state_copied_back(emulator: Swtpm, made: Manufactured, tmp_path: Path) -> None:
    """A75: counters as before, PCRs as before; the telemetry key is gone with the NULL hierarchy's seed."""
    emulator.snapshot(tmp_path / "copy")
    with Tpm.open(emulator.tcti) as tpm:
        tpm.extend(15, MEASURED)
        ak = enrol(tpm, made)
        first = quoted(tpm, ak)
        telemetry_key = tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
    # The copy is from before the first start: started again it counts to the same number.
    emulator.restore(made.state)
    with Tpm.open(emulator.tcti) as tpm:
        tpm.extend(15, MEASURED)
        second = quoted(tpm, ak)
        assert (second.pcrs, second.reset_count, second.firmware) == (first.pcrs, first.reset_count, first.firmware)
        again = tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
        assert public.parse(again).auth_policy == public.parse(telemetry_key).auth_policy
        assert public.parse(again).spki() != public.parse(telemetry_key).spki()
        attest, signature = tpm.certify_telemetry_key(OURS)
        with pytest.raises(NotAuthentic) as caught:
            verify_telemetry_key(
                attest=attest,
                signature=signature,
                public=public.parse(telemetry_key),
                ak=ak,
                qualifying_data=OURS,
                boot_policy=boot_policy_of(second, BOOT),
            )
        assert caught.value.code is Code.TELEMETRY_KEY_MISMATCH
    emulator.restore(tmp_path / "copy")
    with Tpm.open(emulator.tcti) as tpm:
        assert tpm.read_clock().reset_count > first.reset_count


def test_state_that_lives_on(made: Manufactured, tmp_path: Path) -> None:
    """Stopped in order, the clock stays safe; the process may come and go, the TPM is the same."""
    keys: set[bytes] = set()
    for _ in range(2):
        with Swtpm(made, state=tmp_path / "state") as running, Tpm.open(running.tcti) as tpm:
            keys.add(tpm.attestation_key())
            assert tpm.read_clock().safe
            tpm.close()
            tpm.close()
    assert len(keys) == 1


# faults


def test_one_owner_at_a_time(tpm: Tpm, emulator: Swtpm) -> None:
    started = time.monotonic()
    fault(Code.TPM_BUSY, lambda: Tpm.open(emulator.tcti))
    assert time.monotonic() - started < 1
    assert tpm.active_banks()


def test_another_programs_client(emulator: Swtpm) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(emulator.tcti.removeprefix("swtpm:path="))
        started = time.monotonic()
        fault(Code.TPM_BUSY, lambda: Tpm.open(emulator.tcti))
        assert time.monotonic() - started < 5
    Tpm.open(emulator.tcti).close()


def test_the_emulator_dies_and_comes_back(tpm: Tpm, emulator: Swtpm) -> None:
    tpm.attestation_key()
    emulator.kill()
    for operation in (tpm.read_clock, lambda: tpm.quote(QUOTED, OURS), tpm.read_clock):
        fault(Code.TPM_ABSENT, operation)
    tpm.close()
    fault(Code.TPM_ABSENT, lambda: Tpm.open(emulator.tcti))
    emulator.start()
    with Tpm.open(emulator.tcti) as again:
        assert again.active_banks()
    with pytest.raises(RuntimeError, match="closed"):
        tpm.read_clock()


def test_no_tpm_at_all() -> None:
    for tcti in ("device:/dev/weighbridge-has-none", "device:/dev/null", "swtpm:path=/nonexistent/s", "mssim:"):
        fault(Code.TPM_ABSENT, partial(Tpm.open, tcti))


def test_what_a_dead_client_left_is_flushed(emulator: Swtpm, made: Manufactured) -> None:
    """Three objects and three sessions: the TPM is full."""
    esapi = tss.ESAPI(emulator.tcti)
    template, _ = tss.TPM2B_PUBLIC.unmarshal(sized(attestation_key_template()))
    none = tss.ESYS_TR.NONE
    for _ in range(3):
        esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, tss.ESYS_TR.OWNER)
        esapi.start_auth_session(none, none, tss.TPM2_SE.POLICY, None, tss.TPM2_ALG.SHA256)
    esapi.close()
    with Tpm.open(emulator.tcti) as tpm:
        enrol(tpm, made)


def test_nothing_leaks(tpm: Tpm, made: Manufactured) -> None:
    """Far more rounds than there are slots; failures too must flush their sessions."""
    for round_ in range(6):
        enrol(tpm, made)
        tpm.create_telemetry_key(unique=bytes([round_]) * 32, boot=BOOT)
        tpm.certify_telemetry_key(OURS)
        tpm.sign(b"header")
        fault(Code.TPM_FAILED, lambda: tpm.activate_credential(b"\0" * 70, b"\0" * 100))
        tpm.extend(0, MEASURED)
        fault(Code.TPM_FAILED, lambda: tpm.sign(b"header"))


def test_threads_share_it(tpm: Tpm, made: Manufactured) -> None:
    ak = enrol(tpm, made)
    tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                tpm.extend(8 + number, MEASURED)
                quoted(tpm, ak)
                tpm.sign(b"header")
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.fixture
def proxy(emulator: Swtpm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpmProxy]:
    target = Path(emulator.tcti.removeprefix("swtpm:path="))
    with TpmProxy(tmp_path_factory.mktemp("p") / "s", target) as running:
        yield running


def test_patience(proxy: TpmProxy) -> None:
    """TPM_RC_RETRY is answered by trying again: five times by the TSS, then by us."""
    with Tpm.open(proxy.tcti) as tpm:
        tpm.attestation_key()
        proxy.inject(TPM_CC_QUOTE, TPM_RC_RETRY, 12)
        assert tpm.quote(QUOTED, OURS).pcr_values
        assert proxy.seen.count(TPM_CC_QUOTE) == 13


def test_patience_has_an_end(proxy: TpmProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_PATIENCE", 0.05)
    with Tpm.open(proxy.tcti) as tpm:
        tpm.attestation_key()
        proxy.inject(TPM_CC_QUOTE, TPM_RC_RETRY, 1_000)
        fault(Code.TPM_BUSY, lambda: tpm.quote(QUOTED, OURS))


def test_a_pcr_that_moves_between_policy_and_signature(proxy: TpmProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any PCR does that, IMA's for one: it is tried again, but not for ever."""
    monkeypatch.setattr(pcrs, "PATIENCE", 0.2)
    with Tpm.open(proxy.tcti) as tpm:
        tpm.create_telemetry_key(unique=UNIQUE, boot=BOOT)
        proxy.inject(TPM_CC_SIGN, TPM_RC_PCR_CHANGED, 3)
        assert len(tpm.sign(b"header")) == 64
        proxy.inject(TPM_CC_SIGN, TPM_RC_PCR_CHANGED, 10_000)
        fault(Code.TPM_BUSY, lambda: tpm.sign(b"header"))


def extend_by_another(pcr: int) -> bytes:
    """TPM2_PCR_Extend of the SHA-256 bank, with the empty password."""
    authorisation = u32(0x40000009) + sized(b"") + b"\0" + sized(b"")
    body = u32(pcr) + u32(len(authorisation)) + authorisation + u32(1) + u16(SHA256) + b"x" * 32
    return u16(0x8002) + u32(10 + len(body)) + u32(0x182) + body


@pytest.mark.parametrize("code", [TPM_CC_QUOTE, TPM_CC_PCR_READ], ids=["quote", "read"])
def test_pcrs_that_move_while_they_are_quoted(proxy: TpmProxy, made: Manufactured, code: int) -> None:
    """The values are those that were signed: the ones before the quote, or the ones after it."""
    with Tpm.open(proxy.tcti) as tpm:
        ak = enrol(tpm, made)
        proxy.precede(code, extend_by_another(10), 1_000)
        values = {quoted(tpm, ak).pcrs[10] for _ in range(3)}
        assert len(values) == 3


def test_two_registers_that_move(proxy: TpmProxy, made: Manufactured) -> None:
    """One before the quote, one after it: each of the signed values was seen in another read."""
    with Tpm.open(proxy.tcti) as tpm:
        ak = enrol(tpm, made)
        proxy.precede(TPM_CC_QUOTE, extend_by_another(10), 1)
        proxy.precede(TPM_CC_PCR_READ, extend_by_another(11), 4)
        assert quoted(tpm, ak).pcrs[11] != bytes(32)


def test_pcrs_that_never_hold_still(proxy: TpmProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several commands read them, and between any two they move: there is nothing that a quote could be about."""
    monkeypatch.setattr(pcrs, "PATIENCE", 0.2)
    with Tpm.open(proxy.tcti) as tpm:
        tpm.attestation_key()
        proxy.restless = lambda: extend_by_another(10)
        assert "--boot-logs" in fault(Code.TPM_BUSY, lambda: tpm.quote(QUOTED, OURS)).hint
        fault(Code.TPM_BUSY, lambda: tpm.read_pcrs(QUOTED))
        # One command reads these.
        assert len(tpm.read_pcrs(BOOT)) == 8


# the emulator


def test_manufacturing_is_done_once_and_never_by_halves(tmp_path: Path) -> None:
    first = manufacture(tmp_path / "tpm")
    assert manufacture(tmp_path / "tpm") == first
    (tmp_path / "tpm" / "made").unlink()
    second = manufacture(tmp_path / "tpm")
    assert second.root != first.root


def test_without_the_tools(tmp_path: Path, made: Manufactured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install" in fault(Code.TOOL_MISSING, lambda: manufacture(tmp_path / "tpm")).hint
    off = Swtpm(made)
    assert "apt-get install" in fault(Code.TOOL_MISSING, off.start).hint
    off.close()


def test_tools_that_fail(tmp_path: Path, made: Manufactured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("swtpm", "swtpm_setup", "swtpm_localca"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fault(Code.COMMAND_FAILED, lambda: manufacture(tmp_path / "tpm"))
    broken = Swtpm(made)
    with pytest.raises(EnvironmentFault) as caught:
        broken.start()
    assert caught.value.code is Code.TPM_FAILED
    broken.close()


def test_starting_twice_is_misuse(emulator: Swtpm) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        emulator.start()


def test_it_dies_with_its_parent(made: Manufactured) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from weighbridge.attester.tpm.emulator import Manufactured, Swtpm\n"
        "s = Swtpm(Manufactured(pathlib.Path(sys.argv[1]), b'', b''))\n"
        "s.start()\n"
        "print(s._process.pid, s._run, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-I", "-c", code, str(made.state)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        child, folder = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while _alive(int(child)):
        assert time.monotonic() < deadline, "the emulator outlived its parent"
        time.sleep(0.01)
    shutil.rmtree(folder)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"
