"""`weighbridge verify gpu`: what a person and a program are told of one device and of a host's, and the exit status."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fakes import rims
from fakes.ocsp_responder import AT as NOON
from fakes.ocsp_responder import DAY, Order, RevocableVendor, revocation_list
from gpu_support import NONCE, emulated_anchors, vector_report, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.attester.gpu.emulated_rims import Manifest, Validity, gpu_manifests
from weighbridge.proto import strict
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier import anchors
from weighbridge.verifier.appraisal import NOT_PROVEN
from weighbridge.verifier.cli import main
from weighbridge.verifier.collateral.describe import describe
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands.gpu_judgement import judge
from weighbridge.verifier.commands.gpu_verdict import Question
from weighbridge.verifier.gpu.recorded import load_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.proto.spdm.evidence import GpuEvidence

AT = "2026-06-01T12:00:00Z"
FRESH = bytes(range(200, 232))
GPU = "attsdk-testdata-sample_attestation_data-gpu"
COMMON = "attsdk-common"
SDK = "attsdk-testdata"
VENDOR = RevocableVendor.create()
LGV = "nvtrust-lgv"
assert strict.time_encode(NOON) == AT


@dataclass(frozen=True)
class Done:
    """What the command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value

    @property
    def codes(self) -> list[str]:
        """Of all reasons, the worst first."""
        return [item["code"] for item in self.document["reasons"]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process; at noon, unless told otherwise."""

    def command(*arguments: str | Path, at: str = AT) -> Done:
        status = main(["verify", "gpu", *map(str, arguments), "--at", at])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return command


def pem(chain: Sequence[bytes]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(item).public_bytes(Encoding.PEM) for item in chain)


def device_json(evidence: GpuEvidence, nonce: bytes | None = FRESH, arch: str = "HOPPER") -> dict[str, str]:
    """As NVIDIA's tools write it."""
    claimed = {} if nonce is None else {"nonce": nonce.hex()}
    return claimed | {
        "arch": arch,
        "evidence": base64.b64encode(evidence.report).decode(),
        "certificate": base64.b64encode(pem(evidence.chain)).decode(),
    }


@dataclass
class Site:
    """A revocable vendor's devices, what is published of them, and the files in which all of it is kept."""

    folder: Path
    vendor: RevocableVendor = VENDOR
    firmware: Firmware = field(default_factory=Firmware)
    platform: str = "insecure-emulated"

    def device(self, firmware: Firmware | None = None) -> EmulatedH100:
        return EmulatedH100.make(self.vendor.vendor, firmware=firmware or self.firmware)

    def evidence(self, *devices: GpuEvidence, nonce: bytes | None = FRESH) -> Path:
        path = self.folder / "evidence.json"
        path.write_text(json.dumps([device_json(item, nonce) for item in devices]))
        return path

    @property
    def anchors(self) -> Path:
        """Both roots of the vendor, believed as of ``platform``."""
        path = self.folder / "anchors.json"
        believed = [replace(anchor, platform=self.platform) for anchor in self.vendor.anchors.anchors[-2:]]
        path.write_bytes(anchors.default().with_anchors(believed).encode())
        return path

    def manifests(self, *made: Manifest, validity: Validity | None = None) -> list[bytes]:
        signer = self.vendor.vendor.rim_signer
        return [signer.issue(item, validity=validity) for item in made or gpu_manifests(self.firmware)]

    def store(self, chains: Sequence[tuple[bytes, ...]], files: Sequence[bytes], *orders: Order | None) -> Path:
        """A store with ``files`` and good answers about their signers and ``chains``; of these, as ordered."""
        items = [CollateralItem("rim", item) for item in files]
        items += [CollateralItem("ocsp", item) for rim in files for item in self.vendor.rim_responses(rim)]
        items += [CollateralItem("ocsp", item) for chain in chains for item in self.vendor.responses(chain, *orders)]
        store = CollateralStore.create(self.folder / "store")
        store.put(describe(item, where="a test") for item in items)
        return self.folder / "store"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Emulated devices that are believed as emulated ones."""
    return Site(tmp_path)


@pytest.fixture
def genuine(tmp_path: Path) -> Site:
    """The same, believed as if NVIDIA's: what only emulation leaves open is settled."""
    return Site(tmp_path, platform="nvidia")


# -- everything right ----------------------------------------------------------------------------------------------


def test_affirmed(genuine: Site, verify: Callable[..., Done]) -> None:
    devices = [genuine.device(), genuine.device()]
    sent = [device.attest(FRESH) for device in devices]
    store = genuine.store([item.chain for item in sent], genuine.manifests())
    arguments = (genuine.evidence(*sent), "--nonce", FRESH.hex(), "--collateral", store, "--anchors", genuine.anchors)
    done = verify(*arguments, "--json")
    assert (done.status, done.err, done.codes) == (ExitCode.AFFIRMED, "", [])
    document = done.document
    assert (document["schema"], document["result"]) == ("weighbridge/verify-gpu/v1", "affirmed")
    assert (document["exit_code"], document["code"]) == (0, None)
    assert (document["at"], document["nonce"]) == (AT, FRESH.hex())
    assert (document["gpus"], document["switches"], document["topology"]) == (2, 0, "not claimed")
    assert document["collateral"]["pieces"] == 2 + 2 * 3 + 2 * 3
    assert document["collateral"]["disbelieved"] == []
    first = document["devices"][0]
    assert (first["number"], first["result"], first["claimed_arch"]) == (1, "affirmed", "HOPPER")
    assert (first["error"], first["reasons"], first["findings"]) == (None, [], [])
    assert first["verified"]["identity"] == devices[0].identity.hex()
    assert first["report"]["sha256"] != document["devices"][1]["report"]["sha256"]
    measured = first["measurements"]
    assert (measured["status"], measured["compared"], measured["mismatches"]) == ("match", 34, [])
    assert [item["owner"] for item in measured["manifests"]] == ["driver", "vbios"]
    assert {item["signer"]["status"] for item in measured["manifests"]} == {"good"}
    revocation = first["revocation"]
    assert (revocation["status"], revocation["until"]) == ("good", strict.time_encode(NOON + DAY))
    assert len(revocation["certificates"]) == 3
    assert all(len(item["statements"]) == 1 for item in revocation["certificates"])
    done = verify(*arguments)
    assert done.status == ExitCode.AFFIRMED
    assert done.out.startswith("AFFIRMED: 2 GPUs: authentic, measured as its maker says, not revoked\n")
    assert "hint: " not in done.out


def test_what_it_does_not_prove_is_said(genuine: Site, verify: Callable[..., Done]) -> None:
    sent = genuine.device().attest(FRESH)
    store = genuine.store([sent.chain], genuine.manifests())
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--collateral", store, "--anchors", genuine.anchors)
    listed = verify(*arguments, "--json").document["not_proven"]
    assert listed[:2] == list(NOT_PROVEN[:2])
    assert any("confidential computing is on" in text for text in listed)
    assert any(text.startswith("issuance: ") for text in listed)
    assert any("left out" in text for text in listed)
    out = verify(*arguments).out
    assert all(text in out for text in listed)


def test_a_fabric(tmp_path: Path, verify: Callable[..., Done]) -> None:
    """Eight GPUs and four switches that name each other; one of them left out; one of them twice."""
    fabric = EmulatedFabric.create()
    sent = fabric.attest(FRESH)
    (tmp_path / "anchors.json").write_bytes(emulated_anchors(*fabric.vendors).encode())
    arguments = (tmp_path / "evidence.json", "--nonce", FRESH.hex(), "--anchors", tmp_path / "anchors.json")

    def outcome(devices: Sequence[GpuEvidence]) -> Done:
        (tmp_path / "evidence.json").write_text(json.dumps([device_json(item, arch="HOPPER") for item in devices]))
        return verify(*arguments, "--json")

    whole = outcome(sent)
    assert (whole.status, whole.document["topology"]) == (ExitCode.INDETERMINATE, "complete")
    assert (whole.document["gpus"], whole.document["switches"]) == (8, 4)
    assert not any("left out" in text for text in whole.document["not_proven"])
    # The file's word for what a switch is decides nothing.
    findings = [item["code"] for device in whole.document["devices"][8:] for item in device["findings"]]
    assert findings == ["GPU_FWID", "GPU_ARCH"] * 4
    for devices in (sent[1:], sent[:-1], sent[:8]):
        short = outcome(devices)
        assert (short.status, short.document["topology"]) == (ExitCode.NOT_AUTHENTIC, "wrong")
        assert (short.document["code"], short.codes[0]) == ("GPU_TOPOLOGY", "GPU_TOPOLOGY")
        assert {device["result"] for device in short.document["devices"]} == {"indeterminate"}
        told = " ".join(re.sub("[│├└─]", "", verify(*arguments).out).split())
        assert "hint Send the evidence of every GPU and every NVSwitch of the host" in told
    alone = outcome(sent[8:])
    assert (alone.status, alone.document["topology"]) == (ExitCode.INDETERMINATE, "not claimed")
    assert "GPU_MISSING" in alone.codes
    twice = outcome([*sent, sent[0]])
    assert (twice.status, twice.codes[0]) == (ExitCode.NOT_AUTHENTIC, "GPU_DUPLICATE")
    assert (twice.document["topology"], twice.document["gpus"]) == ("complete", 8)
    verify(*arguments)
    text = verify(*arguments).out
    assert "GPU_DUPLICATE: 1 and 13 are one device" in text
    assert "8 GPUs and 4 switches, 1 presented again" in text


def test_nothing_is_fetched_for_emulated_devices(site: Site, genuine: Site, verify: Callable[..., Done]) -> None:
    """That anything is missing is said, but no service has it."""
    for each, expected in ((site, False), (genuine, True)):
        arguments = (each.evidence(each.device().attest(FRESH)), "--nonce", FRESH.hex(), "--anchors", each.anchors)
        done = verify(*arguments)
        assert done.status == ExitCode.INDETERMINATE
        assert ("hint: weighbridge collateral fetch" in done.out) is expected


def test_a_switch_that_is_not_locked(tmp_path: Path, verify: Callable[..., Done]) -> None:
    fabric = EmulatedFabric.create(gpus=1, switches=1)
    unlocked = fabric.switches[0].attest(FRESH, forgery=Forgery(opaque={OpaqueType.LOCK_SWITCH_STATUS: bytes(2)}))
    listed = [device_json(fabric.gpus[0].attest(FRESH)), device_json(unlocked, arch="LS10")]
    (tmp_path / "evidence.json").write_text(json.dumps(listed))
    (tmp_path / "anchors.json").write_bytes(emulated_anchors(*fabric.vendors).encode())
    arguments = (tmp_path / "evidence.json", "--anchors", tmp_path / "anchors.json", "--nonce", FRESH.hex(), "--json")
    reasons = [item["code"] for item in verify(*arguments).document["devices"][1]["reasons"]]
    assert "GPU_MODE" in reasons
    assert "GPU_FWID" not in reasons


def test_one_gpu_of_a_fabric(tmp_path: Path, verify: Callable[..., Done]) -> None:
    """As a single report it is not refused for what was not presented, nor called complete."""
    fabric = EmulatedFabric.create(gpus=1, switches=1)
    sent = fabric.attest(FRESH)[0]
    (tmp_path / "report").write_bytes(sent.report)
    (tmp_path / "chain").write_bytes(pem(sent.chain))
    (tmp_path / "anchors.json").write_bytes(emulated_anchors(*fabric.vendors).encode())
    arguments = (tmp_path / "report", "--chain", tmp_path / "chain", "--anchors", tmp_path / "anchors.json")
    done = verify(*arguments, "--nonce", FRESH.hex(), "--json")
    assert (done.status, done.document["topology"]) == (ExitCode.INDETERMINATE, "not judged")
    assert "GPU_TOPOLOGY" in done.codes


def test_a_fabric_over_several_nonces(tmp_path: Path, verify: Callable[..., Done]) -> None:
    fabric = EmulatedFabric.create(gpus=1, switches=1)
    gpu, switch = fabric.attest(FRESH)[0], fabric.attest(FRESH[::-1])[1]
    listed = [device_json(gpu), device_json(switch, FRESH[::-1], "LS10")]
    (tmp_path / "evidence.json").write_text(json.dumps(listed))
    (tmp_path / "anchors.json").write_bytes(emulated_anchors(*fabric.vendors).encode())
    arguments = (tmp_path / "evidence.json", "--anchors", tmp_path / "anchors.json", "--json")
    done = verify(*arguments, "--nonce", "claimed")
    assert (done.status, done.document["topology"]) == (ExitCode.INDETERMINATE, "not judged")
    assert {"GPU_TOPOLOGY", "UNPROVEN"} <= set(done.codes)
    done = verify(*arguments, "--nonce", FRESH.hex())
    assert (done.status, done.codes[0]) == (ExitCode.NOT_AUTHENTIC, "GPU_NONCE")


# -- what leaves it open -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is otherwise than in a host that is affirmed, and what comes of it."""

    code: str
    status: ExitCode
    firmware: Firmware = field(default_factory=Firmware)
    forgery: Forgery = field(default_factory=Forgery)
    manifests: Callable[[tuple[Manifest, Manifest]], tuple[Manifest, ...]] = lambda made: made
    validity: Validity | None = None
    orders: tuple[Order | None, ...] = ()
    nonce: str = FRESH.hex()
    options: tuple[str, ...] = ()
    platform: str = "nvidia"
    also: tuple[str, ...] = ()
    said: str = ""


HALF = (NOON - timedelta(days=400), NOON - timedelta(days=1))
WRONG = bytes(47) + b"\1"
OPEN: dict[str, Case] = {
    "no driver's manifest": Case(
        "GPU_REFERENCE_ABSENT",
        ExitCode.INDETERMINATE,
        manifests=lambda made: made[1:],
        said="missing: NV_GPU_DRIVER_GH100_580.95.05: not at hand",
    ),
    "manifests that have ended": Case(
        "GPU_REFERENCE_ABSENT",
        ExitCode.INDETERMINATE,
        validity=Validity(*HALF),
        said="the newest issue at hand ended on 2026-05-31",
    ),
    "manifests of tomorrow": Case(
        "GPU_REFERENCE_ABSENT",
        ExitCode.INDETERMINATE,
        validity=Validity(NOON + DAY, NOON + 9 * DAY),
        said="the newest issue at hand begins on 2026-06-02",
    ),
    "a report without a board": Case(
        "GPU_REFERENCE_ABSENT",
        ExitCode.INDETERMINATE,
        forgery=Forgery(opaque={OpaqueType.PROJECT: None}),
        said="for want of a version",
    ),
    "a measurement in no manifest": Case(
        "GPU_UNCOVERED",
        ExitCode.INDETERMINATE,
        forgery=Forgery(measurements={60: WRONG}),
        said="not zero, and in no manifest: 59",
    ),
    "out of date": Case(
        "GPU_REVOCATION_UNKNOWN",
        ExitCode.INDETERMINATE,
        orders=(Order(this_update=NOON - 9 * DAY, next_update=NOON - DAY),),
        said="it is out of date whether its certificates are revoked",
    ),
    "unknown to the responder": Case(
        "GPU_REVOCATION_UNKNOWN", ExitCode.INDETERMINATE, orders=(Order(status="unknown"),), said="does not know"
    ),
    "no firmware digest": Case(
        "GPU_FWID", ExitCode.INDETERMINATE, forgery=Forgery(opaque={OpaqueType.FWID: None}), said="no digest to compare"
    ),
    "emulated": Case("PLATFORM_EMULATED", ExitCode.INDETERMINATE, platform="insecure-emulated", said="anybody can"),
    "the file's own nonce": Case("UNPROVEN", ExitCode.INDETERMINATE, nonce="claimed", said="the file's own word"),
    "a nonce that is published": Case("NONCE_DENIED", ExitCode.INDETERMINATE, nonce=NONCE.hex(), said="is published"),
    "a nonce that is a pattern": Case("NONCE_DENIED", ExitCode.INDETERMINATE, nonce="ab" * 32, said="or a pattern"),
    # -- what speaks against it
    "a measurement of the driver's": Case(
        "GPU_MEASUREMENT_MISMATCH",
        ExitCode.DENIED,
        forgery=Forgery(measurements={38: WRONG}),
        said="differs: 37, Measurement_37 of the driver",
    ),
    "a measurement of the VBIOS's": Case(
        "GPU_MEASUREMENT_MISMATCH",
        ExitCode.DENIED,
        forgery=Forgery(measurements={3: WRONG}),
        said="1 of 34 measurements are not the maker's: 2",
    ),
    "wrong, with a manifest missing": Case(
        "GPU_MEASUREMENT_MISMATCH",
        ExitCode.DENIED,
        forgery=Forgery(measurements={3: WRONG}),
        manifests=lambda made: made[1:],
        also=("GPU_REFERENCE_ABSENT",),
        said="mismatch: 11 of 12",
    ),
    "claimed by both": Case(
        "RIM_CONFLICT",
        ExitCode.DENIED,
        manifests=lambda made: (
            made[0],
            replace(made[1], active={**made[1].active, 22: made[0].active[22]}),
        ),
        said="claimed by both manifests: 22",
    ),
    "revoked": Case("GPU_REVOKED", ExitCode.DENIED, orders=(Order(status="revoked"),), said="device is revoked"),
    "on hold": Case("GPU_REVOKED", ExitCode.DENIED, orders=(None, Order(status="hold")), said="device is on hold"),
    # -- what is not authentic
    "another nonce": Case("GPU_NONCE", ExitCode.NOT_AUTHENTIC, forgery=Forgery(nonce=bytes(32)), said="another nonce"),
    "a signature": Case("GPU_SIG", ExitCode.NOT_AUTHENTIC, forgery=Forgery(signature=b"\1" * 96), said="verify"),
    "another architecture": Case(
        "GPU_ARCH", ExitCode.NOT_AUTHENTIC, options=("--arch", "GB100", "--arch", "LS_10"), said="GB100 or LS_10"
    ),
    "not a report": Case("GPU_REPORT_MALFORMED", ExitCode.MALFORMED, forgery=Forgery(flip=(46,)), said="MALFORMED"),
}


@pytest.mark.parametrize("name", OPEN)
def test_outcomes(tmp_path: Path, verify: Callable[..., Done], name: str) -> None:
    """One device is otherwise, and a second as it should be: it is told of, and does not hide the first."""
    case = OPEN[name]
    site = Site(tmp_path, platform=case.platform)
    signed = FRESH if case.nonce == "claimed" else bytes.fromhex(case.nonce)
    bad = site.device(case.firmware).attest(signed, forgery=case.forgery)
    good = site.device().attest(signed)
    files = site.manifests(*case.manifests(gpu_manifests(site.firmware)), validity=case.validity)
    store = site.store([bad.chain], files, *case.orders)
    for item in site.vendor.responses(good.chain):
        CollateralStore.open(store).put([describe(CollateralItem("ocsp", item), where="a test")])
    nonce = signed if case.nonce == "claimed" else None
    evidence = site.evidence(bad, good, nonce=nonce)
    options = ("--nonce", case.nonce, "--collateral", store, "--anchors", site.anchors, *case.options)
    done = verify(evidence, *options, "--json")
    assert (done.status, done.document["code"], done.err) == (case.status, case.code, "")
    assert set(case.also) <= set(done.codes)
    assert done.document["result"] == case.status.name.lower().replace("_", " ")
    assert len(done.document["devices"]) == 2
    text = verify(evidence, *options)
    assert text.status == case.status
    assert text.out.startswith(f"{done.document['result'].upper()}: {case.code}: ")
    assert case.said in text.out
    assert max(map(len, text.out.splitlines())) <= 100


def test_architectures_that_are_accepted(genuine: Site, verify: Callable[..., Done]) -> None:
    sent = genuine.device().attest(FRESH)
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--anchors", genuine.anchors)
    assert verify(*arguments, "--arch", "LS_10", "--arch", "GH100").status == ExitCode.INDETERMINATE
    assert verify(*arguments, "--arch", "LS10", "--arch", "GH100").status == ExitCode.INDETERMINATE
    done = verify(*arguments, "--arch", "GB100", "--arch", "LS10")
    assert done.status == ExitCode.NOT_AUTHENTIC
    assert "GB100 or LS_10" in done.out


def test_signer_that_was_revoked(genuine: Site, verify: Callable[..., Done]) -> None:
    """Its manifest is missing then, and it is said why."""
    sent = genuine.device().attest(FRESH)
    driver, vbios = genuine.manifests()
    (genuine.folder / "driver").write_bytes(driver)
    (genuine.folder / "vbios").write_bytes(vbios)
    files = ("--rim", genuine.folder / "driver", "--rim", genuine.folder / "vbios")
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--anchors", genuine.anchors, *files)
    asked = verify(*arguments, "--json")
    assert asked.status == ExitCode.INDETERMINATE
    messages = [item["message"] for item in asked.document["reasons"]]
    assert "nobody has said whether its manifests' signers are revoked" in messages
    answers = genuine.vendor.rim_responses(driver, Order(status="revoked"))
    (genuine.folder / "answer").write_bytes(answers[0])
    done = verify(*arguments, "--ocsp", genuine.folder / "answer")
    assert done.status == ExitCode.INDETERMINATE
    assert "missing: NV_GPU_DRIVER_GH100_580.95.05: its signer is revoked" in done.out
    assert "hint: weighbridge collateral fetch" in done.out


def test_list_that_revokes(genuine: Site, verify: Callable[..., Done]) -> None:
    sent = genuine.device().attest(FRESH)
    brom = x509.load_der_x509_certificate(sent.chain[1])
    crl = revocation_list(genuine.vendor.provisioner, {brom.serial_number: x509.ReasonFlags.key_compromise})
    (genuine.folder / "list").write_bytes(crl)
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--anchors", genuine.anchors)
    done = verify(*arguments, "--ocsp", genuine.folder / "list")
    assert (done.status, done.out.splitlines()[0]) == (
        ExitCode.DENIED,
        "DENIED: GPU_REVOKED: a certificate of the device is revoked",
    )


def test_many_differences_are_cut_for_people(genuine: Site, verify: Callable[..., Done]) -> None:
    wrong = {index + 1: WRONG for index in gpu_manifests(genuine.firmware)[0].active}
    sent = genuine.device().attest(FRESH, forgery=Forgery(measurements=wrong))
    several = tuple(rims.ZERO[:-1] + bytes([number]) for number in range(2, 8))
    driver, vbios = gpu_manifests(genuine.firmware)
    store = genuine.store([sent.chain], genuine.manifests(rims.with_hash(driver, 7, *several), vbios))
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--collateral", store, "--anchors", genuine.anchors)
    done = verify(*arguments)
    assert done.status == ExitCode.DENIED
    assert done.out.count("differs: ") == 8
    assert f"… {len(wrong) - 9} more that differ: --json has all" in done.out
    assert "… 2 more would be right" in done.out
    listed = verify(*arguments, "--json").document["devices"][0]["measurements"]["mismatches"]
    # Its video decoder is disabled.
    assert [item["index"] for item in listed] == sorted(index - 1 for index in wrong if index != 36)
    assert [len(item["expected"]) for item in listed][:2] == [6, 1]
    assert all(item["got"] == WRONG.hex() and item["causes"] for item in listed)


def test_manifests_that_are_nobodys(genuine: Site, verify: Callable[..., Done]) -> None:
    sent = genuine.device().attest(FRESH)
    for number, data in enumerate(rims.of_stranger(genuine.firmware)):
        (genuine.folder / str(number)).write_bytes(data)
    arguments = (genuine.evidence(sent), "--nonce", FRESH.hex(), "--anchors", genuine.anchors)
    done = verify(*arguments, "--rim", genuine.folder / "0", "--rim", genuine.folder / "1")
    assert done.status == ExitCode.INDETERMINATE
    assert done.out.count("not believed: ") == 2
    assert "RIM_CHAIN" in done.out


def test_what_the_file_claims_decides_nothing(genuine: Site, verify: Callable[..., Done]) -> None:
    sent = genuine.device().attest(FRESH)
    path = genuine.folder / "evidence.json"
    path.write_text(json.dumps([device_json(sent, FRESH[::-1], "BLACKWELL")]))
    store = genuine.store([sent.chain], genuine.manifests())
    arguments = ("--collateral", store, "--anchors", genuine.anchors, "--json")
    done = verify(path, "--nonce", FRESH.hex(), *arguments)
    assert done.status == ExitCode.AFFIRMED
    assert [item["code"] for item in done.document["devices"][0]["findings"]] == ["GPU_ARCH", "GPU_NONCE"]
    assert verify(path, "--nonce", "claimed", *arguments).document["code"] == "GPU_NONCE"


def test_a_file_that_claims_no_nonce(genuine: Site, verify: Callable[..., Done]) -> None:
    evidence = genuine.evidence(genuine.device().attest(FRESH), nonce=None)
    done = verify(evidence, "--nonce", "claimed", "--anchors", genuine.anchors)
    assert done.status == ExitCode.MALFORMED
    assert "FIELD_MISSING: the file claims no nonce" in done.out
    assert "--nonce HEX" in done.out


# -- NVIDIA's own ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sample(nvidia_wheel: Path) -> tuple[str, ...]:
    """NVIDIA's own report, inside its wheel."""
    samples = f"{nvidia_wheel}!verifier/samples"
    return (f"{samples}/hopperAttestationReport.txt", "--chain", f"{samples}/hopperCertChain.txt")


def test_a_sample_out_of_a_package(sample: tuple[str, ...], verify: Callable[..., Done]) -> None:
    done = verify(*sample, "--nonce", NONCE.hex().upper(), "--arch", "GH100")
    assert done.status == ExitCode.INDETERMINATE
    assert done.out.startswith("INDETERMINATE: GPU_REFERENCE_ABSENT: authentic, not known to be good")
    assert "0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07" in done.out
    assert "NONCE_DENIED" in done.out


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"--nonce": "00" * 32}, ExitCode.NOT_AUTHENTIC, "GPU_NONCE"),
        ({"--at": "2020-01-01T00:00:00Z"}, ExitCode.NOT_AUTHENTIC, "CHAIN_EXPIRED"),
        ({"--arch": "GB100"}, ExitCode.NOT_AUTHENTIC, "GPU_ARCH"),
    ],
)
def test_a_sample_that_is_refused(
    sample: tuple[str, ...], verify: Callable[..., Done], changes: dict[str, str], status: ExitCode, code: str
) -> None:
    options = {"--nonce": NONCE.hex(), "--at": AT} | changes
    flat = [item for name, value in options.items() if name != "--at" for item in (name, value)]
    done = verify(*sample, *flat, "--json", at=options["--at"])
    assert (done.status, done.document["code"], done.document["devices"][0]["error"]["code"]) == (status, code, code)
    assert done.document["devices"][0]["verified"] is None


@pytest.mark.parametrize("position", [0, 4, 36, 100, 3600, 4000, 4100])
def test_a_flipped_bit_exits_3_or_4(
    tmp_path: Path, nvidia_wheel: Path, sample: tuple[str, ...], verify: Callable[..., Done], position: int
) -> None:
    data = bytearray(wheel_report(nvidia_wheel))
    data[position] ^= 0x10
    (tmp_path / "report").write_text(data.hex())
    status = verify(tmp_path / "report", *sample[1:], "--nonce", NONCE.hex()).status
    assert status in {ExitCode.MALFORMED, ExitCode.NOT_AUTHENTIC}


EVIDENCE: dict[str, tuple[ExitCode, str]] = {
    # One of eight GPUs in protected-PCIe mode.
    f"{COMMON}/hopper_evidence.json": (ExitCode.NOT_AUTHENTIC, "GPU_TOPOLOGY"),
    f"{SDK}/evidence_hopper_590_12.json": (ExitCode.NOT_AUTHENTIC, "GPU_TOPOLOGY"),
    f"{COMMON}/hopper_evidence_cert_hold.json": (ExitCode.INDETERMINATE, "GPU_REFERENCE_ABSENT"),
    f"{COMMON}/switch_evidence_ls10.json": (ExitCode.INDETERMINATE, "GPU_REFERENCE_ABSENT"),
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_recorded_evidence(vectors_dir: Path, verify: Callable[..., Done], name: str) -> None:
    path = vectors_dir / "nvidia" / name
    done = verify(path, "--nonce", "claimed", "--json")
    assert (done.status, done.document["code"]) == EVIDENCE[name]
    (device,) = done.document["devices"]
    assert device["error"] is None
    assert {"UNPROVEN", "NONCE_DENIED"} <= set(done.codes)


def test_recorded_devices_of_one_host(tmp_path: Path, vectors_dir: Path, verify: Callable[..., Done]) -> None:
    """Two GPUs of one HGX and a switch of it, over one nonce but the switch's: the rest of the host is not there."""
    names = (*list(EVIDENCE)[:2], f"{COMMON}/switch_evidence_ls10.json")
    devices = [json.loads((vectors_dir / "nvidia" / name).read_text())[0] for name in names]
    (tmp_path / "evidence.json").write_text(json.dumps(devices))
    nonce = devices[0]["nonce"]
    done = verify(tmp_path / "evidence.json", "--nonce", nonce, "--json")
    assert [device["result"] for device in done.document["devices"]] == [
        "indeterminate",
        "indeterminate",
        "not authentic",
    ]
    assert (done.document["gpus"], done.document["switches"], done.document["topology"]) == (2, 0, "wrong")
    assert done.codes[:2] == ["GPU_NONCE", "GPU_TOPOLOGY"]
    assert done.status == ExitCode.NOT_AUTHENTIC


@pytest.mark.parametrize(
    ("report", "chain", "at", "manifests", "expected"),
    [
        (
            "go-nvtrust/attestationReport.txt",
            "go-nvtrust/gpuAkCertChain.txt",
            "2025-06-01T00:00:00Z",
            (f"{LGV}/Driver_RIM_test_no_gpu.swidtag", f"{LGV}/1010_0200_882_96005E0001_test_no_gpu.swidtag"),
            (ExitCode.INDETERMINATE, "match", 33, 0),
        ),
        (
            "go-nvtrust/attestationReport.txt",
            "go-nvtrust/gpuAkCertChain.txt",
            "2025-06-01T00:00:00Z",
            (
                f"{LGV}/Driver_RIM_test_no_gpu.swidtag",
                f"{LGV}/1010_0200_882_96005E0001_test_no_gpu.swidtag",
                # A newer issue of the same.
                "attsdk-testdata-sample_rims/NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml",
            ),
            (ExitCode.DENIED, "mismatch", 33, 4),
        ),
        (
            f"{SDK}/switchAttestationReport.txt",
            f"{SDK}/switchCertChain.txt",
            AT,
            (f"{SDK}/switchVBIOSRim_NV_SWITCH_BIOS_5612_0002_890_9610550001.xml",),
            (ExitCode.INDETERMINATE, "match", 31, 0),
        ),
        (
            f"{GPU}/blackwellAttestationReport.txt",
            f"{GPU}/blackwellCertChain.txt",
            AT,
            (),
            (ExitCode.INDETERMINATE, "absent", 0, 0),
        ),
    ],
)
def test_recorded_reports_with_manifests(
    vectors_dir: Path,
    verify: Callable[..., Done],
    report: str,
    chain: str,
    at: str,
    manifests: tuple[str, ...],
    expected: tuple[ExitCode, str, int, int],
) -> None:
    base = vectors_dir / "nvidia"
    nonce = spdm.parse(vector_report(vectors_dir, report)).nonce.hex()
    files = [item for name in manifests for item in ("--rim", base / name)]
    done = verify(base / report, "--chain", base / chain, "--nonce", nonce, *files, "--json", at=at)
    measured = done.document["devices"][0]["measurements"]
    assert (done.status, measured["status"], measured["compared"], len(measured["mismatches"])) == expected
    assert len(measured["manifests"]) == min(len(manifests), 2)


def test_a_byte_behind_a_genuine_signature(vectors_dir: Path, verify: Callable[..., Done]) -> None:
    """A28: a finding in a file; a live window refuses it."""
    folder = vectors_dir / "nvidia/coco-trustee"
    arguments = (folder / "hopper_coco_report1.txt", "--chain", folder / "hopper_coco_certs1.txt")
    done = verify(*arguments, "--nonce", "87d8e24ab336adafe228d49e83d745f6dba4ae505372b6a5704820856b343fec")
    assert done.status == ExitCode.INDETERMINATE
    assert "TRAILING_BYTES: 1 unsigned byte after the signature" in done.out


def test_no_serial_number_is_told(vectors_dir: Path, verify: Callable[..., Done]) -> None:
    """Neither the certificates' nor the numbers by which devices name each other."""
    for name in EVIDENCE:
        path = vectors_dir / "nvidia" / name
        (device,) = load_evidence(str(path))
        certificates = [x509.load_der_x509_certificate(item) for item in device.chain]
        named = [
            str(attribute.value).lower()
            for certificate in certificates
            for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)
        ]
        numbers = [f"{certificate.serial_number:x}" for certificate in certificates]
        opaque = spdm.parse(device.report).opaque
        pdis = [value.hex()[:16] for kind in (OpaqueType.SWITCH_PDI,) if (value := opaque.get(kind)) is not None]
        assert len(named) == 2
        for options in ((), ("--json",)):
            out = verify(path, "--nonce", "claimed", *options).out.lower()
            assert [text for text in (*named, *(text[2:] for text in named), *numbers, *pdis) if text in out] == []


# -- how it reads ------------------------------------------------------------------------------------------------------

GOLDEN = """\
NOT AUTHENTIC: GPU_NONCE: device 2: report was signed for another nonce
evidence.json: 2 GPUs, 1 refused, at 2026-06-01T12:00:00Z
├─ nonce         <digest>
├─ collateral    2 manifests and 12 statements on revocation, digest <digest>
├─ device 1: GPU GH100: DENIED
│  ├─ because       GPU_MEASUREMENT_MISMATCH: 1 of 34 measurements are not the maker's: 9
│  ├─ identity      <digest>
│  ├─ authentic     chain to a device root of nvidia, signature, nonce
│  ├─ model         GH100 A01 GSP BROM, driver 580.95.05, VBIOS 96.00.74.00.1A
│  ├─ firmware      as certified
│  ├─ signed mode   single-GPU pass-through (SPT)
│  ├─ measurements  mismatch: 33 of 34 compared are the maker's
│  │  ├─ GH100 driver 580.95.05: issued 2026-01-02, ends 2028-01-01, <digest>
│  │  │  └─ signer good until 2026-06-02T12:00:00Z
│  │  ├─ GH100 vbios 96.00.74.00.1A: issued 2026-01-02, ends 2028-01-01, <digest>
│  │  │  └─ signer good until 2026-06-02T12:00:00Z
│  │  └─ differs: 9, Measurement_9 of the VBIOS
│  │     ├─ expected      <digest>…
│  │     ├─ got           <digest>…
│  │     ├─ perhaps       the manifest has been issued again with another hash: get the newest
│  │     ├─ perhaps       the device is in another mode: protected PCIe and single pass-through
│  │     │                differ here
│  │     └─ perhaps       the firmware is of this version but of another board, or has been changed
│  ├─ revocation    good until 2026-06-02T12:00:00Z
│  └─ finding       TRAILING_BYTES: 1 unsigned byte after the signature, which nothing here reads
├─ device 2: NOT AUTHENTIC
│  └─ because       GPU_NONCE: report was signed for another nonce, at report[4..36], expected
│                   <digest>, got
│                   <digest>
├─ device 3: GPU GH100: AFFIRMED
│  ├─ identity      <digest>
│  ├─ authentic     chain to a device root of nvidia, signature, nonce
│  ├─ model         GH100 A01 GSP BROM, driver 580.95.05, VBIOS 96.00.74.00.1A
│  ├─ firmware      as certified
│  ├─ signed mode   single-GPU pass-through (SPT)
│  ├─ measurements  match: 34 of 34 compared are the maker's
│  │  ├─ GH100 driver 580.95.05: issued 2026-01-02, ends 2028-01-01, <digest>
│  │  │  └─ signer good until 2026-06-02T12:00:00Z
│  │  └─ GH100 vbios 96.00.74.00.1A: issued 2026-01-02, ends 2028-01-01, <digest>
│  │     └─ signer good until 2026-06-02T12:00:00Z
│  └─ revocation    good until 2026-06-02T12:00:00Z
├─ together
│  ├─ devices       2 GPUs, 1 refused, each once
│  └─ topology      not claimed: no GPU is in protected-PCIe mode
└─ not proven
   ├─ binding is not co-location: a live relay to an enrolled GPU is not excluded on Hopper
   ├─ no signed byte says that confidential computing is on
   ├─ that it is so now: recorded evidence shows what a device signed once
   ├─ issuance: a responder says good of serial numbers that it has never seen, too
   ├─ for which board a VBIOS's manifest is meant: that is in no signed byte
   └─ that no device of the host was left out: outside of protected PCIe nothing names the others
"""


def test_tree(genuine: Site, verify: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole text, but for digests: one that differs, one that is refused, one as it should be."""
    devices = [genuine.device() for _ in range(3)]
    forgeries = [Forgery(measurements={10: WRONG}, trailing=b"!"), Forgery(nonce=bytes(32)), Forgery()]
    sent = [device.attest(FRESH, forgery=forgery) for device, forgery in zip(devices, forgeries, strict=True)]
    lived = Validity(datetime(2026, 1, 2, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
    store = genuine.store([sent[0].chain, sent[2].chain], genuine.manifests(validity=lived))
    monkeypatch.chdir(genuine.evidence(*sent).parent)
    arguments = ("evidence.json", "--nonce", FRESH.hex(), "--collateral", store, "--anchors", genuine.anchors)
    done = verify(*arguments)
    assert done.status == ExitCode.NOT_AUTHENTIC
    assert re.sub(r"[0-9a-f]{16,}", "<digest>", done.out) == GOLDEN


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["verify", "gpu", "--help"]) == ExitCode.AFFIRMED
    out = capsys.readouterr().out
    assert "exit status, the worst of all devices" in out
    assert max(map(len, out.splitlines())) <= 110


# -- what is wrong with the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        ("--nonce", "xyz"),
        ("--at", "yesterday"),
        ("--at", "2026-06-01"),
        ("--kind", "gpu"),
        ("--arch", "HAL9000"),
        ("--arch", "ls10"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], bad: tuple[str, str]) -> None:
    options = {"--nonce": NONCE.hex(), "--at": AT} | dict([bad])
    assert main(["verify", "gpu", "evidence.json", *(item for pair in options.items() for item in pair)]) == 2
    assert bad[0] in capsys.readouterr().err


@pytest.mark.parametrize("nonce", ["", "abcd", FRESH.hex()[:-2], FRESH.hex() + "00", "0x" + FRESH.hex()[2:], "Claimed"])
def test_what_is_no_nonce(verify: Callable[..., Done], nonce: str) -> None:
    done = verify("evidence.json", "--nonce", nonce)
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert "neither 64 hexadecimal digits nor claimed" in done.err


def test_an_answer_of_the_makers_service(tmp_path: Path, verify: Callable[..., Done]) -> None:
    (tmp_path / "answer.json").write_text(json.dumps([["JWT", "e30.e30.AA"], {"GPU-0": "e30.e30.AA"}]))
    done = verify(tmp_path / "answer.json", "--nonce", FRESH.hex())
    assert (done.status, done.out) == (ExitCode.MALFORMED, "")
    assert "an answer of NVIDIA's attestation service, at " in done.err
    assert "answer.json" in done.err
    assert "hint: weighbridge verify nras" in done.err


def test_usage_of_several(verify: Callable[..., Done]) -> None:
    done = verify("-", "--chain", "-", "--nonce", NONCE.hex())
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert "standard input" in done.err
    done = verify("report", "--chain", "chain", "--nonce", "claimed")
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert "no claimed nonce" in done.err


def test_files_that_are_not_what_they_are_taken_for(genuine: Site, verify: Callable[..., Done]) -> None:
    folder = genuine.folder
    sent = genuine.device().attest(FRESH)
    (folder / "report").write_bytes(sent.report)
    (folder / "chain").write_bytes(pem(sent.chain))
    (folder / "rim").write_bytes(genuine.manifests()[0])
    (folder / "list").write_bytes(revocation_list(genuine.vendor.provisioner))
    evidence, nonce = genuine.evidence(sent), ("--nonce", FRESH.hex())
    cases: list[tuple[tuple[str | Path, ...], ExitCode, str, str]] = [
        ((folder / "report",), ExitCode.MALFORMED, "NOT_UTF8", "--chain FILE"),
        ((folder / "chain",), ExitCode.MALFORMED, "NOT_JSON", "--chain FILE"),
        ((folder / "list", "--chain", folder / "chain"), ExitCode.MALFORMED, "NOT_HEX", "11 e0"),
        ((folder / "report", "--chain", folder / "nowhere"), ExitCode.ENVIRONMENT, "FILE_UNREADABLE", "ARCHIVE"),
        ((evidence, "--rim", folder / "list"), ExitCode.MALFORMED, "COLLATERAL_INVALID", "collateral wanted"),
        ((evidence, "--ocsp", folder / "rim"), ExitCode.MALFORMED, "COLLATERAL_INVALID", "collateral wanted"),
        ((evidence, "--rim", evidence), ExitCode.MALFORMED, "COLLATERAL_INVALID", "collateral wanted"),
        ((evidence, "--collateral", folder / "nowhere"), ExitCode.ENVIRONMENT, "FILE_UNREADABLE", "import"),
        ((evidence, "--anchors", folder / "list"), ExitCode.MALFORMED, "NOT_UTF8", "anchors import"),
    ]
    for arguments, status, code, hint in cases:
        done = verify(*arguments, *nonce)
        assert (done.status, done.out) == (status, ""), arguments
        assert done.err.startswith(f"weighbridge: error: {code}: "), done.err
        assert hint in done.err
        assert verify(*arguments, *nonce, "--json").document["code"] == code


def test_no_device_is_no_question() -> None:
    question = Question(nonce=FRESH, at=NOON, anchors=anchors.default())
    with pytest.raises(ValueError, match="no device"):
        judge([], question, Collateral())
