"""``weighbridge verify nras --bundle``: the service's word beside what the devices of a recorded session signed."""

from __future__ import annotations

import json
import runpy
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from corpus.arena import Arena
from corpus.bundle import believed, export
from fakes import rims
from fakes.nras import NOON, Answer, EmulatedNras, part
from fakes.nras import bundle as bundle_of
from support.world import EMULATED, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.digest import D
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.window import Evidence
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.bundle import Bundle
from weighbridge.verifier.cli import main
from weighbridge.verifier.collateral import CollateralStore, recognise
from weighbridge.verifier.gpu.recorded import parse_evidence
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.world import Engines

SERVICE = EmulatedNras()
DRIVER, VBIOS = "x-nvidia-gpu-driver-version", "x-nvidia-gpu-vbios-version"
Claims = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """A recorded session: its bundle, who is believed, and its devices in the order of its evidence."""

    bundle: Bundle
    anchors: TrustAnchors
    devices: tuple[EmulatedH100, ...]

    @property
    def session(self) -> bytes:
        """Its identifier."""
        return Record.parse(self.bundle.entries[0].record).session

    def asked(self, seq: int | None) -> bytes:
        """What the devices signed at the enrolment, or in a window."""
        entry = self.bundle.entries[0 if seq is None else 1 + seq]
        assert entry.evidence is not None
        reports = EnrolmentProof.parse(entry.evidence).gpus if seq is None else Evidence.parse(entry.evidence).gpus
        assert reports is not None
        return spdm.parse(gpu_evidence.parse(reports)[0].report).nonce

    def claims(self, number: int, **changes: object) -> Claims:
        """What the service says of a device that it was shown."""
        device = self.devices[number]
        return {
            "ueid": str(load_certificate(device.keys.chain[0], "leaf").serial_number),
            DRIVER: device.firmware.driver,
            VBIOS: device.firmware.vbios,
            **changes,
        }

    def answer(self, seq: int | None = 0, **changes: Any) -> bytes:  # noqa: ANN401 - whatever a device is said to be
        """What the service answers, half a minute after noon; ``changes`` are those of GPU-0's claims."""
        devices = {"GPU-0": self.claims(0, **changes), "GPU-1": self.claims(1)}
        return SERVICE.answer(Answer(self.asked(seq), NOON + timedelta(seconds=30), devices=devices))


def _session(
    arena: Arena, manifests: Callable[[EmulatedGpus], Iterable[bytes]] = EmulatedGpus.rims, *, windows: int = 3
) -> Session:
    """A session that is judged by ``manifests``; every second window has reports, from the first one on."""
    world = arena.world(wanted=requirements(gpu_every=2))
    gpus = world.host.gpus
    items = [CollateralItem("rim", data) for data in manifests(gpus)]
    root = load_certificate(gpus.vendor.rim_root_certificate, what="root")
    anchor = Anchor.from_certificate("nvidia-rim-root", root, platform=EMULATED, source="a test")
    world.publish(*items, believing=[anchor])
    world.open_session()
    for _ in range(windows):
        world.window()
    return Session(export(world), believed(world), tuple(gpus.devices))


def _other(gpus: EmulatedGpus) -> Iterator[bytes]:
    """Manifests of which one wants another measurement than the devices have."""
    driver, vbios = gpu_manifests(gpus.devices[0].firmware)
    for manifest in (rims.with_hash(driver, 22, rims.ZERO), vbios):
        yield gpus.vendor.rim_signer.issue(manifest)


@pytest.fixture(scope="module")
def arena_of_module(quick_dir: Path, engines: Engines) -> Iterator[Arena]:
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        yield arena
        arena.close()


@pytest.fixture(scope="module")
def session(arena_of_module: Arena) -> Session:
    return _session(arena_of_module)


@dataclass(frozen=True)
class Asked:
    """The command over one session."""

    directory: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(
        self, session: Session, answer: bytes, *more: str, window: str = "0", status: ExitCode
    ) -> tuple[str, str]:
        """Standard output and error of a run that ends with ``status``."""
        anchors = TrustAnchors((*session.anchors.anchors, *SERVICE.anchors().anchors))
        for name, data in (
            ("answer.json", answer),
            ("session.wb", session.bundle.encode()),
            ("anchors.json", anchors.encode()),
            ("jwks.json", SERVICE.jwks()),
        ):
            (self.directory / name).write_bytes(data)
        keys = () if "--collateral" in more else ("--jwks", str(self.directory / "jwks.json"))
        arguments = [
            *("verify", "nras", str(self.directory / "answer.json"), *keys, "--at", "2026-06-01T12:05:00Z"),
            *("--bundle", str(self.directory / "session.wb"), "--window", window),
            *("--anchors", str(self.directory / "anchors.json"), *more),
        ]
        assert main(arguments) == status
        told = self.capsys.readouterr()
        return told.out, told.err

    def document(
        self, session: Session, answer: bytes, *more: str, window: str = "0", status: ExitCode
    ) -> dict[str, Any]:
        """The JSON document of a run that ends with ``status``."""
        out, _ = self(session, answer, "--json", *more, window=window, status=status)
        document: dict[str, Any] = json.loads(out)
        return document


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked(tmp_path, capsys)


# -- a witness of a session --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [0, 2])
def test_corroborating_a_window_admits_nothing(session: Session, asked: Asked, seq: int) -> None:
    document = asked.document(session, session.answer(seq), window=str(seq), status=ExitCode.INDETERMINATE)
    assert (document["result"], document["code"], document["says"]) == ("indeterminate", "UNPROVEN", "corroborates")
    assert document["nonce"] == session.asked(seq).hex()
    held = document["held_against"]
    assert (held["window"], held["outcome"], held["not_spoken_of"]) == (seq, "affirmed", 0)
    assert D("gpu", bytes.fromhex(held["hashed"])) == session.asked(seq)  # lenient: a test reads what it wrote
    assert held["devices"]["GPU-0"]["agrees"] == ["hwmodel", DRIVER, VBIOS, "measres", "secboot", "dbgstat"]
    assert held["devices"]["GPU-1"]["measurements"] == "match"
    assert document["differences"] == []
    assert "that window" in document["not_verified"][0]


def test_what_a_person_reads(session: Session, asked: Asked) -> None:
    out, _ = asked(session, session.answer(2), window="2", status=ExitCode.INDETERMINATE)
    assert out.startswith("INDETERMINATE: UNPROVEN: corroborates: ")
    assert f"  session  {session.session.hex()}, window 2, recorded as affirmed\n" in out
    assert "           received 2026-06-01T12:00:03Z; the service answered 27 s after that\n" in out
    assert 'D("gpu", H) of window 2, H is the digest of its header' in out
    assert f"the report agrees on hwmodel, {DRIVER}, {VBIOS}, measres, secboot, dbgstat" in out
    assert "unproven that window 2 is admitted: `weighbridge verify bundle` judges it" in out
    assert "unproven that the service was given these reports" in out
    assert "that the devices are yours" not in out


def test_enrolment(session: Session, asked: Asked) -> None:
    out, _ = asked(session, session.answer(None), window="enrolment", status=ExitCode.INDETERMINATE)
    assert f"  session  {session.session.hex()}, the enrolment, recorded as enrolled\n" in out
    assert 'D("gpu", H) of the enrolment, H is its qualifying data' in out
    document = asked.document(session, session.answer(None), window="enrolment", status=ExitCode.INDETERMINATE)
    assert document["held_against"]["window"] is None
    assert D("gpu", bytes.fromhex(document["held_against"]["hashed"])) == session.asked(None)  # lenient: as above


def test_a_claim_against_a_device(session: Session, asked: Asked) -> None:
    document = asked.document(session, session.answer(dbgstat="enabled"), status=ExitCode.DENIED)
    assert (document["code"], document["says"]) == ("NRAS_CONTRADICTS", "contradicts")
    assert [found["claim"] for found in document["contradictions"]] == ["GPU-0.dbgstat"]
    assert document["differences"] == [
        {"claim": "GPU-0.dbgstat", "said": '"enabled"', "read": "the measurements match the manifests"}
    ]


@pytest.mark.parametrize(
    ("claim", "said"),
    [(DRIVER, "570.1"), (DRIVER, 550), (VBIOS, "96.00.00.00.00"), (VBIOS, None), ("hwmodel", "GB100 A01 GSP BROM")],
)
def test_what_the_report_does_not_say(session: Session, asked: Asked, claim: str, said: object) -> None:
    """The service may be right about something else than this session showed."""
    changes: Claims = {claim: said}
    out, _ = asked(session, session.answer(**changes), status=ExitCode.DENIED)
    assert out.startswith("REFUSED: NRAS_CONTRADICTS: the service says what the reports do not")
    assert f"  differs  GPU-0.{claim} is {json.dumps(said)}; the " in out
    assert "against" not in out


def test_what_it_does_not_claim_is_not_held_against_anything(session: Session, asked: Asked) -> None:
    silent: Claims = {DRIVER: ..., "hwmodel": "GH100"}
    document = asked.document(session, session.answer(**silent), status=ExitCode.INDETERMINATE)
    assert document["held_against"]["devices"]["GPU-0"]["agrees"] == ["hwmodel", VBIOS, "measres", "secboot", "dbgstat"]


def test_measurements_that_are_not_the_manifests(arena: Arena, asked: Asked) -> None:
    """It takes for right what our comparison does not: one of the two is wrong, and nothing is taken for good."""
    made = _session(arena, _other, windows=1)
    document = asked.document(made, made.answer(), status=ExitCode.DENIED)
    assert document["held_against"]["outcome"] == "denied"
    assert document["contradictions"] == []
    assert {(found["claim"], found["read"]) for found in document["differences"]} == {
        (f"GPU-{number}.{claim}", "the measurements mismatch the manifests")
        for number in range(2)
        for claim in ("measres", "secboot", "dbgstat")
    }


def test_measurements_that_nobody_here_can_compare(arena: Arena, asked: Asked) -> None:
    made = _session(arena, lambda _: (), windows=1)
    document = asked.document(made, made.answer(), status=ExitCode.INDETERMINATE)
    device = document["held_against"]["devices"]["GPU-0"]
    assert (device["measurements"], device["agrees"]) == ("absent", ["hwmodel", DRIVER, VBIOS])
    assert "the measurements of GPU-0, GPU-1: not all manifests were at hand here" in document["not_verified"]


def test_request_is_written_as_the_documentation_says(
    session: Session, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator sends to the service is what its devices signed in the window."""
    text = (root / "docs" / "attestation-service.md").read_text(encoding="utf-8")
    (tmp_path / "request.py").write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    (tmp_path / "session.wb").write_bytes(session.bundle.encode())
    (tmp_path / "verifier.json").write_bytes(session.anchors.encode())
    monkeypatch.chdir(tmp_path)
    runpy.run_path("request.py")
    found = parse_evidence((tmp_path / "request.json").read_bytes())
    entry = session.bundle.entries[3].evidence
    assert entry is not None
    sent = gpu_evidence.parse(Evidence.parse(entry).gpus or b"")
    assert {(item.report, item.claimed_nonce, item.claimed_arch) for item in found} == {
        (item.report, session.asked(2), "HOPPER") for item in sent
    }
    assert {item.chain for item in found} == {item.chain for item in sent}


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(asked: Asked, session: Session, answer: bytes, *, window: str = "0", status: ExitCode) -> tuple[str, str]:
    """Code and hint of a refusal."""
    document = asked.document(session, answer, window=window, status=status)
    assert document["schema"] == "weighbridge/error/v1"
    return document["code"], document["hint"] or ""


def test_answer_for_another_window(session: Session, asked: Asked) -> None:
    code, _ = refused(asked, session, session.answer(2), status=ExitCode.NOT_AUTHENTIC)
    assert code == Code.NRAS_NONCE
    code, _ = refused(asked, session, session.answer(0), window="enrolment", status=ExitCode.NOT_AUTHENTIC)
    assert code == Code.NRAS_NONCE


def test_answer_about_other_devices(session: Session, asked: Asked) -> None:
    code, _ = refused(asked, session, session.answer(ueid="11"), status=ExitCode.NOT_AUTHENTIC)
    assert code == Code.NRAS_SUBMODS


def test_answer_about_some_of_the_devices(session: Session, asked: Asked) -> None:
    data = SERVICE.answer(Answer(session.asked(0), NOON, devices={"GPU-0": session.claims(0)}))
    code, _ = refused(asked, session, data, status=ExitCode.NOT_AUTHENTIC)
    assert code == Code.NRAS_SUBMODS


def test_window_without_reports(session: Session, asked: Asked) -> None:
    code, hint = refused(asked, session, session.answer(0), window="1", status=ExitCode.INDETERMINATE)
    assert (code, hint) == (Code.EVIDENCE_ABSENT, "the terms demand reports every 2 windows, from window 0 on")


def test_window_that_is_not_there(session: Session, asked: Asked) -> None:
    code, _ = refused(asked, session, session.answer(0), window="3", status=ExitCode.MALFORMED)
    assert code == Code.BUNDLE_MALFORMED


def test_bundle_of_a_verifier_that_nobody_believes(session: Session, asked: Asked) -> None:
    stranger = replace(session, anchors=TrustAnchors(()))
    code, _ = refused(asked, stranger, session.answer(0), status=ExitCode.NOT_AUTHENTIC)
    assert code == Code.CHAIN_UNTRUSTED


def test_bundle_whose_evidence_is_not_what_was_recorded(session: Session, asked: Asked) -> None:
    enrolment, first, second, third = session.bundle.entries
    edited = replace(session.bundle, entries=(enrolment, replace(first, evidence=third.evidence), second, third))
    code, _ = refused(asked, replace(session, bundle=edited), session.answer(2), status=ExitCode.LEDGER_INCONSISTENT)
    assert code == Code.LEDGER_INCONSISTENT


def test_bundle_without_a_window_before(session: Session, asked: Asked) -> None:
    enrolment, first, _, third = session.bundle.entries
    cut = replace(session, bundle=replace(session.bundle, entries=(enrolment, first, third)))
    code, _ = refused(asked, cut, session.answer(0), status=ExitCode.MALFORMED)
    assert code == Code.BUNDLE_MALFORMED


# -- the archived keys -------------------------------------------------------------------------------------------------


def _store(tmp_path: Path, *services: EmulatedNras) -> tuple[str, str]:
    store = CollateralStore.create(tmp_path / "collateral")
    store.put(piece for service in services for piece in recognise(service.jwks(), where="a test"))
    return "--collateral", str(tmp_path / "collateral")


def _of_day(day: int, *, kid: str) -> EmulatedNras:
    """The service with the key that it had so many days later."""
    at = timedelta(days=day)
    leaf = SERVICE.leaf
    leaf = replace(leaf, not_before=leaf.not_before + at, not_after=leaf.not_after + at)
    return replace(SERVICE, leaf=leaf, kid=kid)


def test_key_out_of_the_store(session: Session, asked: Asked, tmp_path: Path) -> None:
    """Among keys of other days, one of which has come later."""
    others = [_of_day(day, kid=f"of-day-{day}") for day in (-3, 4)]
    store = _store(tmp_path, others[0], SERVICE, others[1])
    asked(session, session.answer(0), *store, status=ExitCode.INDETERMINATE)


def test_key_that_was_not_good_at_the_time_of_the_token(session: Session, asked: Asked, tmp_path: Path) -> None:
    """It is of the right name, and its set came into the store later."""
    store = _store(tmp_path, _of_day(4, kid=SERVICE.kid))
    document = asked.document(session, session.answer(0), *store, status=ExitCode.NOT_AUTHENTIC)
    assert document["code"] == "NRAS_TIME"


def test_key_that_is_not_in_the_store(session: Session, asked: Asked, tmp_path: Path) -> None:
    store = _store(tmp_path, _of_day(0, kid="another"))
    document = asked.document(session, session.answer(0), *store, status=ExitCode.INDETERMINATE)
    assert document["code"] == "NRAS_KEY_ABSENT"


def test_store_beside_a_file(session: Session, asked: Asked, tmp_path: Path) -> None:
    store = _store(tmp_path, _of_day(0, kid="another"))
    (tmp_path / "own.json").write_bytes(SERVICE.jwks())
    asked(session, session.answer(0), *store, "--jwks", str(tmp_path / "own.json"), status=ExitCode.INDETERMINATE)


def test_token_without_a_signature_is_that_before_its_time_is_read(
    session: Session, asked: Asked, tmp_path: Path
) -> None:
    token = f"{part({'alg': 'none'})}.{part({})}."
    data = bundle_of(token, {"GPU-0": token})
    document = asked.document(session, data, *_store(tmp_path, SERVICE), status=ExitCode.NOT_AUTHENTIC)
    assert document["code"] == "NRAS_ALG"


def test_token_without_a_time(session: Session, asked: Asked, tmp_path: Path) -> None:
    data = SERVICE.answer(Answer(session.asked(0), each={"iat": ...}))
    document = asked.document(session, data, *_store(tmp_path, SERVICE), status=ExitCode.MALFORMED)
    assert document["code"] == "NRAS_MALFORMED"


def test_no_store(session: Session, asked: Asked, tmp_path: Path) -> None:
    absent = "--collateral", str(tmp_path / "absent")
    document = asked.document(session, session.answer(0), *absent, status=ExitCode.ENVIRONMENT)
    assert document["code"] == "FILE_UNREADABLE"


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nonce", "00" * 32], "--jwks or --collateral is needed"),
        (["--bundle", "session.wb", "--jwks", "jwks.json"], "--bundle and --window need each other"),
        (["--nonce", "00" * 32, "--window", "0", "--jwks", "jwks.json"], "--bundle and --window need each other"),
        (["--bundle", "b", "--window", "0", "--jwks", "j", "--chain", "c"], "--chain is for --nonce"),
        (["--bundle", "-", "--window", "0", "--jwks", "-"], "only one file can be standard input"),
        (["--bundle", "b", "--window", "last", "--jwks", "j"], "argument --window"),
        (["--bundle", "b", "--window", "-1", "--jwks", "j"], "argument --window"),
        (["--bundle", "b", "--window", "0", "--nonce", "00" * 32, "--jwks", "j"], "not allowed with"),
        (["--jwks", "j"], "one of the arguments --nonce --bundle is required"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nras", "answer.json", "--at", "now", *arguments]) == ExitCode.USAGE
    assert told in capsys.readouterr().err
