"""The TPM's checks, on a TPM whose answers are written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes.doctor_host import Paper, PaperTpm, put
from fakes.soft_tpm import SoftTpm, derive_key
from weighbridge.attester.doctor.findings import Finding, Status
from weighbridge.attester.doctor.running import diagnose
from weighbridge.attester.doctor.tpm import AREA
from weighbridge.attester.doctor.tpm_commands import TpmAsked
from weighbridge.attester.spool import Spools
from weighbridge.attester.tpm.options import AkChoice
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.proto.tpm import public

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
AUTHREAD = 1 << 18
SHA1, SHA256, SHA384, SM3 = 0x04, 0x0B, 0x0C, 0x12


@pytest.fixture(scope="module")
def certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A maker's CA")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=9000))
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)


@pytest.fixture
def paper(tmp_path: Path, certificate: bytes) -> Paper:
    """A host in order; the certificate is padded as makers do."""
    made = Paper(tmp_path, ak=SoftTpm().attestation_key())
    made.tpm.nv[0x01C00016] = (AUTHREAD, certificate + b"\xff" * 700)
    return made


def look(paper: Paper, **changes: object) -> dict[str, Finding]:
    report = diagnose(paper.host(**changes), areas=[AREA])
    assert [finding.id for finding in report.findings] == list(AREA.ids)
    return {finding.id: finding for finding in report.findings}


def test_a_tpm_in_order(paper: Paper) -> None:
    found = look(paper)
    assert {finding.status for finding in found.values()} == {OK}
    assert all(not finding.todo for finding in found.values())
    assert found["tpm.maker"].found == "Infineon SLB9672, firmware 15.23.0.0, TPM 2.0 revision 1.59"
    assert found["tpm.ek"].found == "0x01c00016 (H-3, P-384): by CN=A maker's CA, until 2044-08-22"
    assert found["tpm.clock"].found.endswith("reset 5, restart 0")
    assert found["tpm.ak"].found.startswith("endorsement: 000b")
    # The connection is closed before the key is made, and what made it after.
    assert paper.made[0].closed


def test_nothing_is_sent_that_changes_a_tpm(paper: Paper) -> None:
    look(paper)
    assert set(paper.tpm.seen) <= {0x14E, 0x169, 0x17A, 0x17E, 0x181}


@pytest.mark.parametrize(
    ("files", "found", "todo"),
    [((), "there is no TPM", "Switch the TPM"), (("dev/tpm0",), "there is /dev/tpm0 and no /dev/tpmrm0", "TPM 1.2")],
)
def test_no_tpm(paper: Paper, files: tuple[str, ...], found: str, todo: str) -> None:
    for name in files:
        put(paper.root, name)

    def absent(_: str) -> PaperTpm:
        raise EnvironmentFault(Code.TPM_ABSENT, "no TPM there")

    said = look(paper, open_channel=absent)
    assert said["tpm.device"].status is FAIL
    assert said["tpm.device"].found.startswith(found)
    assert todo in said["tpm.device"].todo
    assert {finding.status for check, finding in said.items() if check != "tpm.device"} == {SKIP}


def test_a_tpm_that_may_not_be_opened(paper: Paper) -> None:
    put(paper.root, "dev/tpmrm0")

    def denied(_: str) -> PaperTpm:
        raise EnvironmentFault(Code.TPM_ABSENT, "no permission to use the TPM", where="/dev/tpmrm0", hint="Join tss.")

    finding = look(paper, open_channel=denied)["tpm.device"]
    assert (finding.status, finding.todo) == (FAIL, "Join tss.")
    assert finding.found == "TPM_ABSENT: no permission to use the TPM (/dev/tpmrm0)"


def test_a_tpm_that_answers_nonsense(paper: Paper) -> None:
    paper.tpm.broken[0x17A] = None
    found = look(paper)
    assert found["tpm.device"].status is OK
    assert found["tpm.maker"].status is FAIL
    assert found["tpm.maker"].found.startswith("TPM_FAILED")
    assert found["tpm.ak"].status is SKIP
    assert paper.tpm.closed


@pytest.mark.parametrize(
    ("property_", "value", "check", "status", "words"),
    [
        (0x100, int.from_bytes(b"1.2\0"), "tpm.maker", FAIL, "TPM 1.2"),
        (0x105, int.from_bytes(b"XYZ\0"), "tpm.maker", OK, "XYZ SLB9672"),
        (0x105, int.from_bytes(b"A\x1b[0"), "tpm.maker", OK, r"A\x1b[0 SLB9672"),
        (0x200, 1 << 9, "tpm.lockout", WARN, "locked out"),
        (0x20E, 3, "tpm.lockout", OK, "not locked out: 3 wrong passwords of 32"),
        (0x200, 1 << 1, "tpm.ak", FAIL, "has a password"),
        (0x201, 0b1011, "tpm.ak", FAIL, "hierarchy is disabled"),
    ],
)
def test_properties(paper: Paper, property_: int, value: int, check: str, status: Status, words: str) -> None:
    paper.tpm.properties[property_] = value
    finding = look(paper)[check]
    assert finding.status is status
    assert words in finding.found
    assert bool(finding.todo) is (status is not OK)


def test_libtpms_is_an_emulator_also_behind_a_device(paper: Paper) -> None:
    paper.tpm.properties |= {0x105: int.from_bytes(b"IBM\0"), 0x106: int.from_bytes(b"SW  "), 0x107: 0}
    finding = look(paper)["tpm.maker"]
    assert finding.status is WARN
    assert finding.found.endswith("an emulator")


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_a_clock_of_another_rate(paper: Paper, rate: float) -> None:
    paper.rate = rate
    assert look(paper)["tpm.clock"].status is WARN


def test_an_unsafe_clock(paper: Paper) -> None:
    paper.tpm.safe = 0
    finding = look(paper)["tpm.clock"]
    assert finding.status is WARN
    assert finding.found.startswith("not safe after a power failure")


def test_a_reset_while_looking(paper: Paper) -> None:
    def sleep(seconds: float) -> None:
        paper.now_ns += int(seconds * 1e9)
        paper.tpm.resets += 1

    assert look(paper, sleep=sleep)["tpm.clock"].status is FAIL


@pytest.mark.parametrize(
    ("banks", "silent", "status", "words"),
    [
        ({SHA256: range(24), SHA1: range(24)}, set[int](), OK, "sha1, sha256"),
        ({SHA384: range(24)}, set[int](), FAIL, "no SHA-256 bank; active: sha384"),
        ({SHA256: range(0)}, set[int](), FAIL, "no SHA-256 bank; active: none"),
        ({SHA256: range(24), SM3: range(24)}, set[int](), FAIL, "cannot extend sm3"),
        ({SHA256: range(24), 0x27: range(24)}, set[int](), FAIL, "cannot extend 0x0027"),
        ({SHA256: range(16)}, set[int](), WARN, "lacks PCR 16, 17"),
        ({SHA256: range(24), SHA384: range(24)}, {SHA384}, WARN, "does not extend sha384"),
        ({SHA256: range(24), SHA384: range(24)}, {SHA256, SHA384}, WARN, "PCRs 0 to 7 of sha256 are zero"),
    ],
)
def test_banks(paper: Paper, banks: dict[int, range], silent: set[int], status: Status, words: str) -> None:
    paper.tpm.banks, paper.tpm.silent = banks, silent
    finding = look(paper)["tpm.banks"]
    assert finding.status is status
    assert words in finding.found


def test_no_endorsement_certificate(paper: Paper) -> None:
    paper.tpm.nv.clear()
    finding = look(paper)["tpm.ek"]
    assert finding.status is WARN
    assert "--pinned-ak" in finding.todo


def test_a_certificate_that_the_attester_does_not_use(paper: Paper, certificate: bytes) -> None:
    paper.tpm.nv = {0x01C0000A: (AUTHREAD, certificate)}
    finding = look(paper)["tpm.ek"]
    assert finding.status is WARN
    assert "L-2, P-256" in finding.found


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x30\x82\x00\x80" + bytes(128), b"\x30\x82\x10\x00"])
def test_a_certificate_that_cannot_be_read_beside_a_good_one(paper: Paper, content: bytes) -> None:
    paper.tpm.nv[0x01C00002] = (0, content)
    finding = look(paper)["tpm.ek"]
    assert finding.status is WARN
    assert "0x01c00002 (L-1, RSA-2048): " in finding.found
    assert "by CN=A maker's CA" in finding.found


def test_more_indices_than_one_answer_holds(paper: Paper, certificate: bytes) -> None:
    paper.tpm.nv = {0x01800000 + n: (AUTHREAD, b"") for n in range(100)} | {0x01C00016: (AUTHREAD, certificate)}
    assert look(paper)["tpm.ek"].status is OK


@pytest.mark.parametrize(
    ("index", "content", "vendor", "status", "words"),
    [
        (0x01C10000, b"", "Google", WARN, "Google Compute Engine"),
        (0x01400001, b"HCLA" + bytes(1220) + b"\x02\0\0\0" + bytes(99), "", WARN, "Azure confidential VM on SEV-SNP"),
        (0x01400001, b"HCLA" + bytes(1220) + b"\x04\0\0\0" + bytes(99), "", WARN, "Azure confidential VM on TDX"),
        (0x01400001, b"HCLA", "", WARN, "a TEE of unknown type"),
        (0x01400001, b"else", "", WARN, "something else than an HCL report"),
        (None, b"", "Microsoft Corporation", WARN, "the firmware says Microsoft Corporation"),
        (None, b"", "Dell Inc.", OK, "is what counts (ek-credential); the firmware says Dell"),
    ],
)
def test_kinds_of_hosts(
    paper: Paper, index: int | None, content: bytes, vendor: str, status: Status, words: str
) -> None:
    if index is not None:
        paper.tpm.nv[index] = (0, content)
    if vendor:
        put(paper.root, "sys/class/dmi/id/sys_vendor", f"{vendor}\n")
    finding = look(paper)["tpm.kind"]
    assert finding.status is status
    assert words in finding.found


@pytest.mark.parametrize(
    ("index", "content", "option"),
    [(0x01C10002, b"", "gce"), (0x01400001, b"HCLA", "handle:0x81000003")],
)
def test_a_cloud_names_its_own_key(paper: Paper, index: int, content: bytes, option: str) -> None:
    paper.tpm.nv[index] = (0, content)
    assert f"--ak {option}," in look(paper)["tpm.kind"].todo
    found = look(paper, ak=AkChoice.parse(option))
    assert found["tpm.kind"].status is found["tpm.ak"].status is OK
    assert found["tpm.ak"].found.startswith(f"{option}: 000b")
    assert paper.asked == AkChoice.parse(option)


def test_a_key_below_the_storage_root_key_is_not_made(paper: Paper) -> None:
    assert look(paper, ak=AkChoice("srk"))["tpm.ak"].status is SKIP
    assert paper.asked is None


def test_a_refused_command_is_a_finding_of_its_check(paper: Paper) -> None:
    paper.tpm.codes[0x169] = [0x149] * 20
    found = look(paper)
    assert "TPM refuses" in found["tpm.ek"].found
    assert found["tpm.ak"].status is OK


def test_patience_is_had_and_ends(paper: Paper) -> None:
    paper.tpm.codes[0x181] = [0x922, 0x90A]
    assert look(paper)["tpm.clock"].status is OK
    paper.tpm.codes[0x181] = [0x922] * 40
    paper.tpm.closed = False
    assert look(paper)["tpm.clock"].found.startswith("TPM_BUSY")


def test_without_the_tss_no_key(paper: Paper) -> None:
    def missing(_: str, __: AkChoice) -> object:
        raise ModuleNotFoundError("No module named 'tpm2_pytss'", name="tpm2_pytss")

    finding = look(paper, open_tpm=missing)["tpm.ak"]
    assert finding.status is FAIL
    assert "tpm2_pytss" in finding.found
    assert "libtss2-dev" in finding.todo


def test_a_state_directory_without_sessions(paper: Paper, tmp_path: Path) -> None:
    assert look(paper, state=tmp_path / "state")["tpm.ak"].status is OK


def signed_terms(ak: bytes) -> bytes:
    key = derive_key("verifier")
    thumbprint = cose.thumbprint(key.public_key())
    digest = bytes(32)
    terms = Terms(
        session=bytes(16),
        tenant="t",
        audience="a",
        verifier=thumbprint,
        ak=ak,
        telemetry_key=digest,
        cnf=digest,
        peer=digest,
        kem=None,
        model=digest,
        evidence=("telemetry", "tpm", "workload"),
        gpus=(),
        bank=11,
        pcrs=(0, 15),
        boot_pcrs=(0,),
        log_pcr=15,
        period_ns=10**9,
        gpu_every=1,
        spot_every=0,
        lateness_ns=0,
        prev=digest,
        issued_ns=0,
    )
    # The signature was verified when the terms arrived; it is not looked at again.
    return SignedTerms.sign(terms, lambda _: bytes(63) + b"\x01").raw


@pytest.mark.parametrize(
    ("same", "status", "words"), [(True, OK, "as in the undelivered"), (False, WARN, "is not the one")]
)
def test_the_key_of_sessions_that_wait(paper: Paper, tmp_path: Path, same: bool, status: Status, words: str) -> None:
    ak = sha256(public.parse(paper.ak).spki()).digest() if same else bytes(32)
    Spools(tmp_path / "state" / "spool").create(bytes(16), signed_terms(ak), prev=bytes(32), challenge=bytes(32))
    finding = look(paper, state=tmp_path / "state")["tpm.ak"]
    assert finding.status is status
    assert words in finding.found


def test_a_damaged_session_is_said(paper: Paper, tmp_path: Path) -> None:
    put(tmp_path, "state/spool/" + "00" * 16 + "/session", b"junk")
    finding = look(paper, state=tmp_path / "state")["tpm.ak"]
    assert finding.status is FAIL
    assert finding.found.startswith("STATE_CORRUPT")


@given(command=st.sampled_from([0x17A, 0x181, 0x17E, 0x169, 0x14E]), body=st.binary(max_size=200))
def test_answers_of_any_bytes_are_faults_of_this_machine(command: int, body: bytes) -> None:
    tpm = PaperTpm(nv={0x01C00002: (AUTHREAD, bytes(600))}, broken={command: body})
    asked = TpmAsked(tpm, sleep=lambda _: None)
    for question in (
        lambda: asked.properties(0x100, 10),
        lambda: asked.handles(0x01000000),
        asked.banks,
        asked.clock,
        lambda: asked.pcr(SHA256, range(8)),
        lambda: asked.nv_read(0x01C00002),
    ):
        try:
            question()
        except EnvironmentFault as error:
            assert error.code is Code.TPM_FAILED  # noqa: PT017 - it may also be an answer
