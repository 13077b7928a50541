"""NVIDIA's own verifiers and ours on the same evidence, side by side; what differs is explained in the document.

`docs/second-opinion.md` has the table of `tests/support/opinion_cases.py` and a paragraph for each difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.nvml_shim import CERTIFICATE, REPORT, SET_READY, ShimDevice, ShimHost, build
from fakes.ocsp_responder import AT, DAY, Issuer, Order, RevocableVendor
from gpu_support import Certificate, key_usage
from support.opinion_cases import ACCEPTED, CASES, LATER, MADE, THEN, Case, Made, flip
from support.second_opinion import ABSENT, PYTHON, Answer, Emulation, NvidiaPeer, Recorded, ours, pem
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier import anchors
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.gpu.chain import GPUS, Kind, verify_chain
from weighbridge.verifier.gpu.revocation import RevocationStatus, Statements, device_revocation
from weighbridge.verifier.gpu.rim import verify_rim, wanted

pytestmark = pytest.mark.peer

SWITCHES: Final = frozenset[Kind]({"switch"})
GOLDEN: Final = CASES[0]
NONCE: Final = b"n" * 32


@pytest.fixture(scope="module")
def peer() -> Iterator[NvidiaPeer]:
    if not PYTHON.exists():
        pytest.skip(ABSENT)
    with NvidiaPeer() as started:
        yield started


@pytest.fixture(scope="module")
def trust() -> TrustAnchors:
    return anchors.default()


def put(peer: NvidiaPeer, vectors: Path, case: Case) -> Answer:
    evidence = case.recorded(vectors)
    rims = {name: data.decode() for name, data in case.manifests(vectors).items()}
    return peer.ask(evidence, at=case.at, nonce=evidence[0].report[4:36].hex(), rims=rims, by=case.by)


def name_of(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_side_by_side(peer: NvidiaPeer, vectors_dir: Path, trust: TrustAnchors, case: Case) -> None:
    answer = put(peer, vectors_dir, case)
    accept = SWITCHES if case.by == "switches" else GPUS
    rims = case.manifests(vectors_dir).values()
    own = ours(case.recorded(vectors_dir), rims, trust=trust, at=case.at, accept=accept)
    assert (answer.verdict, own) == (case.theirs, case.ours)
    assert ((case.theirs == ACCEPTED) == (case.ours == "match")) == (not case.why)


def test_the_table_is_that_of_the_document(root: Path) -> None:
    document = (root / "docs" / "second-opinion.md").read_text()
    for cases in (CASES, MADE, SAID):
        table = "".join(f"{case.row}\n" for case in cases)
        assert f"| --- | --- | --- | --- |\n{table}\n" in document
        for why in {case.why for case in cases} - {""}:
            assert f"**{why}. " in document


@pytest.mark.parametrize("case", [case for case in CASES if case.ours in {"match", "absent"}], ids=name_of)
def test_the_same_manifests_are_wanted(peer: NvidiaPeer, vectors_dir: Path, trust: TrustAnchors, case: Case) -> None:
    """Under the same names, so that what is archived for one is found by the other. Theirs stops at the first."""
    asked = put(peer, vectors_dir, case).asked
    item = case.recorded(vectors_dir)[0]
    chain = verify_chain(item.chain, trust, at=case.at, accept=GPUS | SWITCHES)
    names = [manifest.service_id for manifest in wanted(spdm.parse(item.report), chain)]
    if chain.architecture == "GB100":
        # D9: theirs takes a chip that the report does not name for the text of an empty byte string.
        assert asked == ["NV_GPU_CC_DRIVER_b''_575.32"]
        assert names[0] == "NV_GPU_CC_DRIVER_GB100_575.32"
    else:
        assert asked == names[: len(asked)]


def test_any_byte_of_a_report(peer: NvidiaPeer, vectors_dir: Path, trust: TrustAnchors) -> None:
    """A bit flipped in each of 60 bytes, from the first to the last: both refuse, whatever they call it."""
    golden = GOLDEN.recorded(vectors_dir)[0]
    nonce = golden.report[4:36]
    for position in {*range(0, len(golden.report), len(golden.report) // 60), len(golden.report) - 1}:
        changed = flip(position)(golden)
        answer = peer.ask([changed], at=THEN, nonce=nonce.hex(), rims={})
        # Without manifests theirs comes this far with a report that is good.
        assert answer.verdict not in {ACCEPTED, "RIMFetchError"}, position
        assert ours([changed], [], trust=trust, at=THEN, nonce=nonce) not in {"match", "absent"}, position


@pytest.mark.parametrize(("at", "count"), [(THEN, 28), (LATER, 2)], ids=["then", "later"])
def test_every_manifest(peer: NvidiaPeer, vectors_dir: Path, trust: TrustAnchors, at: datetime, count: int) -> None:
    """Alone. Each of the two accepts exactly what the other does."""
    files = sorted(file for file in (vectors_dir / "nvidia").rglob("*") if file.suffix in {".swidtag", ".xml"})
    theirs = {
        file for file in files if peer.put({"by": "rim", "rims": {file.name: file.read_bytes().decode()}}, at=at).result
    }
    accepted: set[Path] = set()
    for file in files:
        with contextlib.suppress(WeighbridgeError):
            verify_rim(file.read_bytes(), anchors=trust, at=at)
            accepted.add(file)
    assert accepted == theirs
    assert (len(files), len(accepted)) == (35, count)


# -- emulated devices, whose reports are made to order ----------------------------------------------------------------


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    return Emulation.make(tmp_path_factory.mktemp("roots"))


@pytest.mark.parametrize("case", MADE, ids=lambda case: case.name)
def test_made_to_order(peer: NvidiaPeer, emulation: Emulation, case: Made) -> None:
    """What is accepted of an emulated device here is accepted by NVIDIA's verifier: the emulation is true to form."""
    sent = emulation.devices[0].attest(NONCE, forgery=case.forgery)
    evidence = [Recorded(sent.report, sent.chain)]
    rims = {name: data.decode() for name, data in emulation.rims.items()}
    answer = peer.ask(evidence, at=LATER, nonce=NONCE.hex(), rims=rims, **emulation.roots)
    own = ours(evidence, emulation.rims.values(), trust=emulation.trust, at=LATER, nonce=NONCE)
    assert (answer.verdict, own) == (case.theirs, case.ours)
    assert ((case.theirs == ACCEPTED) == (case.ours == "match")) == (not case.why)


# -- OCSP -------------------------------------------------------------------------------------------------------------


VENDOR: Final = RevocableVendor.create()
NO_PURPOSE: Final = Certificate("a signer", extensions=((key_usage(certify=False), True),))


@dataclass(frozen=True)
class Said:
    """What a response says of the provisioner's certificate; those about the others are good."""

    name: str
    order: Order
    theirs: str
    ours: RevocationStatus
    why: str = ""
    options: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def row(self) -> str:
        return f"| {self.name} | {self.theirs} | {self.ours} | {self.why or 'same'} |"


def dated(first: int, last: int) -> Order:
    """Good between these days from :data:`AT`."""
    return Order(this_update=AT + first * DAY, next_update=AT + last * DAY)


def by(signer: Issuer) -> Order:
    return Order(signer=signer)


DENIED: Final = "CertChainVerificationFailureError"
SAID: Final = (
    Said("good", Order(), ACCEPTED, "good"),
    Said("revoked", Order(status="revoked"), DENIED, "revoked"),
    Said("on hold", Order(status="hold"), DENIED, "hold"),
    Said("on hold, holds allowed", Order(status="hold"), ACCEPTED, "hold", "D7", {"allow_hold_cert": True}),
    Said("unknown", Order(status="unknown"), DENIED, "unknown"),
    Said("good until five days ago", dated(-9, -5), ACCEPTED, "stale", "D8"),
    Said("good from in five days", dated(5, 9), ACCEPTED, "absent", "D8"),
    Said("good, of another certificate", Order(serial=7), ACCEPTED, "absent", "D8"),
    Said("good, by a key for other things", by(VENDOR.identity.delegate(NO_PURPOSE)), ACCEPTED, "absent", "D8"),
    Said("good, by itself", by(VENDOR.provisioner.delegate()), ACCEPTED, "absent", "D8"),
    Said("good, by a stranger", by(RevocableVendor.create().identity.delegate()), DENIED, "absent"),
    Said("good, with a broken signature", Order(signing_key=ec.generate_private_key(ec.SECP384R1())), DENIED, "absent"),
)


@pytest.mark.parametrize("case", SAID, ids=lambda case: case.name)
def test_ocsp(peer: NvidiaPeer, tmp_path: Path, case: Said) -> None:
    emulation = Emulation.make(tmp_path, vendor=VENDOR.vendor)
    sent = emulation.devices[0].attest(NONCE)
    chain = [load_certificate(der, "chain") for der in sent.chain]
    # Theirs wants a delegate's certificate in each response, and the request's nonce unless told otherwise.
    orders = [
        replace(order, signer=order.signer or issuer.delegate())
        for order, issuer in zip((Order(), case.order, Order()), VENDOR.issuers, strict=True)
    ]
    responses = VENDOR.responses(sent.chain, *orders)
    answer = peer.ask(
        [Recorded(sent.report, sent.chain)],
        at=AT,
        nonce=NONCE.hex(),
        rims={name: data.decode() for name, data in emulation.rims.items()},
        responses={str(item.serial_number): data.hex() for item, data in zip(chain[1:4], responses, strict=True)},
        options={"ocsp_nonce_disabled": True, **case.options},
        **emulation.roots,
    )
    own = device_revocation(chain, Statements.of(responses), at=AT).status
    assert (answer.verdict, own) == (case.theirs, case.ours)
    assert ((case.theirs == ACCEPTED) == (case.ours == "good")) == (not case.why)


# -- nv-attestation-sdk, over an NVML that shows it one recorded device -----------------------------------------------


@pytest.fixture
def host(vectors_dir: Path, tmp_path: Path) -> Iterator[ShimHost]:
    golden = GOLDEN.recorded(vectors_dir)[0]
    device = ShimDevice.recorded(golden.report, pem(golden.chain).encode())
    device.vbios = "96.00.5E.00.01"
    shown = ShimHost(build(tmp_path), [device])
    shown.driver = "545.00"
    with shown:
        yield shown


@pytest.fixture
def sdk(host: ShimHost) -> Iterator[NvidiaPeer]:
    if not PYTHON.exists():
        pytest.skip(ABSENT)
    with NvidiaPeer(environment=host.env) as started:
        yield started


def ask_sdk(sdk: NvidiaPeer, vectors: Path, **changes: object) -> Answer:
    rims = {name: data.decode() for name, data in GOLDEN.manifests(vectors).items()}
    nonce = GOLDEN.recorded(vectors)[0].report[4:36].hex()
    return sdk.put({"by": "sdk", "nonce": nonce, "rims": rims, **changes}, at=THEN)


def test_sdk_attests_what_nvml_shows_it(sdk: NvidiaPeer, host: ShimHost, vectors_dir: Path) -> None:
    answer = ask_sdk(sdk, vectors_dir)
    assert (answer.verdict, answer.claims["GPU-0"]["measres"]) == (ACCEPTED, "success")
    assert (host.count(REPORT), host.count(CERTIFICATE), host.count(SET_READY)) == (1, 1, 0)
    assert ask_sdk(sdk, vectors_dir, nonce="5a" * 32).verdict == "NonceMismatchError"
    assert ask_sdk(sdk, vectors_dir, rims={}).verdict == "RIMFetchError"


def test_sdk_needs_confidential_mode_and_takes_development_mode(
    sdk: NvidiaPeer, host: ShimHost, vectors_dir: Path
) -> None:
    """D10: neither is in any signed byte."""
    host.tools = 1
    assert ask_sdk(sdk, vectors_dir).verdict == ACCEPTED
    host.feature = 0
    answer = ask_sdk(sdk, vectors_dir)
    assert answer.verdict == "Exception"
    assert "System must be running in either confidential compute mode or PPCIE mode" in str(answer.text)


def test_sdk_accepts_a_host_whose_second_gpu_it_refuses(sdk: NvidiaPeer, host: ShimHost, vectors_dir: Path) -> None:
    """D5, in one call of their public function."""
    other = next(case for case in CASES if case.name == "H100, driver 550.90.07").recorded(vectors_dir)[0]
    host.devices.append(ShimDevice.recorded(other.report, pem(other.chain).encode()))
    host.order.append(1)
    answer = ask_sdk(sdk, vectors_dir)
    assert (answer.result, answer.error) == (True, "NonceMismatchError")
    matches = "x-nvidia-gpu-attestation-report-nonce-match"
    assert [answer.claims[f"GPU-{number}"][matches] for number in (0, 1)] == [True, False]
