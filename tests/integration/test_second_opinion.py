"""NVIDIA's own verifiers and ours on the same evidence, side by side; what differs is explained in the document.

`docs/second-opinion.md` has the table of `tests/support/opinion_cases.py` and a paragraph for each difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fakes.nvml_shim import CERTIFICATE, REPORT, SET_READY, ShimDevice, ShimHost, build
from support.opinion_cases import ACCEPTED, CASES, LATER, MADE, THEN, Case, Made, flip
from support.second_opinion import ABSENT, PYTHON, Answer, Emulation, NvidiaPeer, Recorded, ours, pem
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier import anchors
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.certs import load_certificate, pem_certificates
from weighbridge.verifier.gpu.chain import GPUS, Kind, verify_chain
from weighbridge.verifier.gpu.rim import wanted

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
def trust(vectors_dir: Path) -> TrustAnchors:
    found = anchors.default()
    if not found.select("nvidia-rim-root"):
        root = load_certificate(
            pem_certificates((vectors_dir / "nvidia/nvtrust-lgv/verifier_RIM_root.pem").read_bytes(), what="root")[0],
            "root",
        )
        found = found.with_anchors(
            [anchors.Anchor.from_certificate("nvidia-rim-root", root, platform="nvidia", source="a test")]
        )
    return found


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
    for cases in (CASES, MADE):
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
        # D4: theirs takes a chip that the report does not name for the text of an empty byte string.
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
    """D5: neither is in any signed byte."""
    host.tools = 1
    assert ask_sdk(sdk, vectors_dir).verdict == ACCEPTED
    host.feature = 0
    answer = ask_sdk(sdk, vectors_dir)
    assert answer.verdict == "Exception"
    assert "System must be running in either confidential compute mode or PPCIE mode" in str(answer.text)
