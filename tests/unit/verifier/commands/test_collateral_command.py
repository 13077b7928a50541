"""`weighbridge collateral`: what is at hand and what is not, with a network and without, for people and programs."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from corpus.bundle import believed, export
from fakes.ocsp_responder import AT, HOUR, Order, RevocableVendor, respond, revocation_list
from fakes.publisher import Publisher, publishing, site_of
from support.options import changed
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.collateral import CollateralStore
from weighbridge.verifier.gpu.revocation import Statements, device_revocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from corpus.arena import Arena

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
EVIDENCE = DEVICE.attest(bytes(range(32)))
CHAIN = [x509.load_der_x509_certificate(der) for der in EVIDENCE.chain]
RIMS = VENDOR.vendor.rims(DEVICE.firmware)
GOOD = respond(CHAIN[1], VENDOR.provisioner)
NOW = "2026-06-01T12:00:00Z"


@dataclass(frozen=True)
class Done:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def command(*arguments: str | Path) -> Done:
        status = main(["collateral", *map(str, arguments)])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return command


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def evidence(tmp_path: Path) -> tuple[str | Path, ...]:
    """Arguments that name the device's evidence, and who believes it."""
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in CHAIN)
    device = {"evidence": base64.b64encode(EVIDENCE.report).decode(), "certificate": base64.b64encode(chain).decode()}
    (tmp_path / "evidence.json").write_text(json.dumps([device]))
    (tmp_path / "anchors.json").write_bytes(VENDOR.anchors.encode())
    return tmp_path / "evidence.json", "--anchors", tmp_path / "anchors.json", "--at", NOW


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    def write(*contents: bytes) -> list[Path]:
        paths = [tmp_path / f"file{number}" for number in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        return paths

    return write


# -- import and list ---------------------------------------------------------------------------------------------------


def test_import_and_list(run: Callable[..., Done], store: Path, files: Callable[..., list[Path]]) -> None:
    done = run("import", *files(GOOD, *RIMS), "--store", store)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"{store}: 3 pieces, 3 of them new"
    assert done.out.count("new  ") == 3
    again = run("import", *files(GOOD), "--store", store, "--json")
    (imported,) = again.document["imported"]
    assert (imported["new"], imported["kind"], imported["sha256"]) == (False, "ocsp", sha256(GOOD).hex())
    listed = run("list", "--store", store)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["kind", "ocsp", "rim", "rim", f"{store}:"]
    assert f"GH100 driver {DEVICE.firmware.driver}: 22 measurements" in listed.out
    document = run("list", "--store", store, "--kind", "rim", "--json").document
    assert {each["sha256"] for each in document["pieces"]} == {sha256(rim).hex() for rim in RIMS}
    assert run("list", "--store", store, "--kind", "crl").out == f"{store}: 0 pieces\n"


def test_both_issues_of_one_manifest_are_kept(
    run: Callable[..., Done], store: Path, files: Callable[..., list[Path]]
) -> None:
    again, _ = VENDOR.vendor.rims(DEVICE.firmware)
    assert run("import", *files(RIMS[0], again), "--store", store, "--json").document["pieces"] == 2


def test_one_file_that_is_no_collateral_keeps_all_out(
    run: Callable[..., Done], store: Path, files: Callable[..., list[Path]]
) -> None:
    done = run("import", *files(GOOD, b"a shopping list"), "--store", store)
    assert (done.status, done.out) == (ExitCode.MALFORMED, "")
    assert "COLLATERAL_INVALID: not a piece of collateral" in done.err
    assert "file1" in done.err
    assert not store.exists()
    torn = run("import", *files(GOOD[:-1]), "--store", store, "--json")
    assert torn.document["code"] == "OCSP_INVALID"


def test_what_is_no_file_is_not_waited_for(run: Callable[..., Done], store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        done = run("import", path, "--store", store)
        assert done.status == ExitCode.ENVIRONMENT
        assert "FILE_UNREADABLE" in done.err


def test_a_store_that_is_a_file(run: Callable[..., Done], files: Callable[..., list[Path]]) -> None:
    (path,) = files(GOOD)
    done = run("import", path, "--store", path)
    assert done.status == ExitCode.ENVIRONMENT
    assert f"FILE_UNWRITABLE: not a directory, at {path}\n" in done.err


def test_an_authority_is_believed_elsewhere(run: Callable[..., Done], store: Path, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(CHAIN[-1].public_bytes(Encoding.PEM))
    done = run("import", tmp_path / "root.pem", "--store", store)
    assert done.status == ExitCode.MALFORMED
    assert "weighbridge anchors import" in done.err


def test_no_store(run: Callable[..., Done], tmp_path: Path) -> None:
    for verb in ("list", "check"):
        done = run(verb, "--store", tmp_path / "absent")
        assert done.status == ExitCode.ENVIRONMENT
        assert "weighbridge collateral import" in done.err


# -- check -------------------------------------------------------------------------------------------------------------


def test_check(run: Callable[..., Done], store: Path, files: Callable[..., list[Path]]) -> None:
    older = respond(CHAIN[1], VENDOR.provisioner, Order(this_update=AT - 2 * HOUR))
    endless = respond(CHAIN[2], VENDOR.identity, Order(next_update=None))
    revoked, held = (
        respond(CHAIN[3], VENDOR.root, Order(status=status, serial=serial))
        for serial, status in ((7, "revoked"), (8, "hold"))
    )
    run("import", *files(GOOD, older, endless, revoked, held, RIMS[0], revocation_list(VENDOR.root)), "--store", store)
    done = run("check", "--store", store, "--at", NOW, "--json")
    assert (done.status, done.document["code"]) == (0, None)
    found = {each["sha256"]: each["finding"] for each in done.document["findings"]}
    assert found == {
        sha256(GOOD).hex(): "expires soon",
        sha256(older).hex(): "superseded",
        sha256(endless).hex(): "no end stated",
        sha256(revoked).hex(): "revoked",
        sha256(held).hex(): "on hold",
    }
    assert run("check", "--store", store, "--at", NOW, "--days", "0", "--json").document["findings"][0]["finding"] != (
        "expires soon"
    )
    early = run("check", "--store", store, "--at", "2026-05-01T00:00:00Z")
    assert early.status == 0
    assert "not yet issued" in early.out
    late = run("check", "--store", store, "--at", "2026-06-03T00:00:00Z")
    assert late.status == ExitCode.INDETERMINATE
    assert [line for line in late.out.splitlines() if line.startswith("expired")]
    assert late.out.splitlines()[-2] == f"{store}: 7 pieces, 1 expired at 2026-06-03T00:00:00Z, 0 damaged"
    assert "weighbridge collateral remove --ended" in late.out.splitlines()[-1]


def test_check_a_damaged_store(run: Callable[..., Done], store: Path, files: Callable[..., list[Path]]) -> None:
    run("import", *files(GOOD, RIMS[0]), "--store", store)
    path = store / "items" / sha256(GOOD).hex()
    path.write_bytes(GOOD[:-1])
    (store / "items" / "README").write_text("mine")
    done = run("check", "--store", store, "--at", NOW)
    assert done.status == ExitCode.ENVIRONMENT
    assert f"damaged  {path}: not a file with the digest" in done.out
    assert "foreign" in done.out
    document = run("check", "--store", store, "--at", NOW, "--json").document
    lost = {each["path"]: each["lost"] for each in document["damaged"]}
    assert (document["code"], lost) == (
        Code.STATE_CORRUPT.value,
        {str(path): True, str(store / "items" / "README"): False},
    )
    assert "weighbridge collateral remove DIGEST" in done.out
    # What its output says to do, helps.
    assert run("remove", path.name, "--store", store).status == 0
    run("import", *files(GOOD), "--store", store)
    assert run("check", "--store", store, "--at", NOW).status == 0


@pytest.mark.parametrize(
    ("number", "revoking", "status", "told"),
    [
        (8, 0, 0, ""),
        (8, 1, 0, "nearly full: pieces take 90% of"),
        (8, 3, 0, "too full: pieces take 110% of what can be judged by at once, and the oldest are left out"),
        (0, 7, 0, ""),
        (0, 8, 0, "nearly full: revocations take 80% of"),
        (
            0,
            11,
            ExitCode.ENVIRONMENT,
            "too full: revocations take 110% of what can be judged by at once, and nothing is",
        ),
    ],
)
def test_check_warns_before_the_store_is_too_full(
    run: Callable[..., Done],
    store: Path,
    files: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    revoking: int,
    status: int,
    told: str,
) -> None:
    monkeypatch.setattr(limits, "COLLATERAL_SNAPSHOT_MAX", 10 if number != 8 or revoking else 11)
    statuses = ["good"] * number + ["revoked"] * revoking
    orders = [Order(status=each, serial=serial) for serial, each in enumerate(statuses, 1)]
    run("import", *files(*(respond(CHAIN[1], VENDOR.provisioner, order) for order in orders)), "--store", store)
    done = run("check", "--store", store, "--at", NOW)
    assert done.status == status
    assert ("full: " in done.out, told in done.out) == (bool(told), True)
    assert ("weighbridge collateral remove" in done.out) is bool(told)
    document = run("check", "--store", store, "--at", NOW, "--json").document
    assert document["code"] == ("TOO_LARGE" if status else None)
    assert document["fill"]["revoking"] == revoking * 100


# -- wanted and fetch --------------------------------------------------------------------------------------------------


def site(order: Order | None = None) -> Publisher:
    firmware = DEVICE.firmware
    board = f"{firmware.project}_{firmware.project_sku}_{firmware.chip_sku}_{firmware.vbios.replace('.', '')}"
    names = f"NV_GPU_DRIVER_GH100_{firmware.driver}", f"NV_GPU_VBIOS_{board}".upper()
    return site_of(VENDOR, EVIDENCE.chain, dict(zip(names, RIMS, strict=True)), order)


@pytest.fixture
def maker() -> Iterator[Publisher]:
    with publishing(site()) as serving:
        yield serving


def test_wanted_without_a_store(run: Callable[..., Done], evidence: tuple[str | Path, ...]) -> None:
    done = run("wanted", *evidence)
    assert (done.status, done.err) == (0, "")
    assert "GET  https://rim.attestation.nvidia.com/v1/rim/NV_GPU_DRIVER_GH100_" in done.out
    assert "POST https://ocsp.ndis.nvidia.com/" in done.out
    assert done.out.splitlines()[-2] == "7 pieces wanted, 5 missing"
    wanted = run("wanted", *evidence, "--json").document["wanted"]
    assert all((each["post"] is not None) is (each["kind"] == "ocsp") for each in wanted)


def test_evidence_that_is_not_authentic(run: Callable[..., Done], evidence: tuple[str | Path, ...]) -> None:
    done = run("wanted", evidence[0], "--at", NOW)
    assert done.status == ExitCode.NOT_AUTHENTIC
    assert "CHAIN_UNTRUSTED" in done.err


def test_a_single_report(run: Callable[..., Done], evidence: tuple[str | Path, ...], tmp_path: Path) -> None:
    (tmp_path / "report.hex").write_text(EVIDENCE.report.hex())
    alone = run("wanted", tmp_path / "report.hex")
    assert f"COLLATERAL_INVALID: not evidence: nothing is published for it, at {tmp_path / 'report.hex'}: " in alone.err
    assert alone.err.endswith("hint: pass its certificates too: --chain\n")
    (tmp_path / "chain.pem").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in CHAIN))
    done = run("wanted", tmp_path / "report.hex", "--chain", tmp_path / "chain.pem", *evidence[1:])
    assert done.out == run("wanted", *evidence).out


def test_a_session(run: Callable[..., Done], arena: Arena, tmp_path: Path) -> None:
    """Whoever runs a verifier has no other evidence of the hosts than what was recorded."""
    world = arena.settled(1)
    (tmp_path / "session.wb").write_bytes(export(world).encode())
    (tmp_path / "believed.json").write_bytes(believed(world).encode())
    done = run("wanted", tmp_path / "session.wb", "--anchors", tmp_path / "believed.json", "--json")
    assert done.status == 0
    firmware = world.host.gpus.devices[0].firmware
    assert done.document["wanted"][0]["about"] == f"NV_GPU_DRIVER_GH100_{firmware.driver}"
    asked = [each["about"] for each in done.document["wanted"] if each["kind"] == "ocsp"]
    # Below each vendor's own authorities, of every chip the certificate.
    assert sum("BROM" in about for about in asked) == len(world.host.gpus.devices)
    stranger = run("wanted", tmp_path / "session.wb")
    assert (stranger.status, stranger.out) == (ExitCode.NOT_AUTHENTIC, "")
    (tmp_path / "session.wb").write_bytes(export(world).encode()[:-1])
    torn = run("wanted", tmp_path / "session.wb", "--anchors", tmp_path / "believed.json")
    assert torn.status == ExitCode.MALFORMED
    assert "not a proof bundle" in torn.err


def test_fetch_all_and_judge_by_it(
    run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...], maker: Publisher
) -> None:
    """One run gets the manifests, and what their signers need; then nothing is missing, and the chain is good."""
    done = run("fetch", *evidence, "--store", store, "--mirror", maker.url)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1].endswith("13 new, 0 same, 0 held, 0 left, 0 failed")
    wanted = run("wanted", *evidence, "--store", store)
    assert wanted.status == 0
    assert "0 missing" in wanted.out
    assert run("fetch", *evidence, "--store", store, "--mirror", maker.url, "--json").document["held"] == 11
    collateral = CollateralStore.open(store).snapshot(AT)
    statements = Statements.of(collateral.of_kind("ocsp"), collateral.of_kind("crl"))
    assert device_revocation(CHAIN, statements, at=AT).status == "good"


def test_fetch_elsewhere_and_carry_it_over(
    run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...], maker: Publisher, tmp_path: Path
) -> None:
    """A site without a network: the files of another store are what is imported."""
    run("fetch", *evidence, "--store", tmp_path / "connected", "--mirror", maker.url)
    done = run("import", *sorted((tmp_path / "connected" / "items").iterdir()), "--store", store)
    assert done.out.splitlines()[-1] == f"{store}: 13 pieces, 13 of them new"


def test_fetch_what_cannot_be_had(
    run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...], maker: Publisher
) -> None:
    # Lists alone: responses serve in their place.
    lists = [path for path in maker.pages if "crl" in path]
    for path in lists:
        del maker.pages[path]
    fetch = ("fetch", *evidence, "--store", store, "--mirror", maker.url)
    wanted = ("wanted", *evidence, "--store", store)
    done = run(*fetch)
    assert done.status == 0
    assert done.out.splitlines()[-1].endswith("4 failed")
    maker.respond = None
    told = run(*changed(fetch, "--at", "2026-06-02T10:00:00Z")).out
    assert told.splitlines()[-1].startswith("hint: try again later")
    assert told.count("hint: ") == 1
    short = run(*changed(fetch, "--at", "2026-06-02T10:00:00Z", "--json"))
    assert short.status == ExitCode.ENVIRONMENT
    assert short.document["code"] == "COLLATERAL_FETCH"
    assert {each["error"]["code"] for each in short.document["wanted"] if each["error"]} == {"COLLATERAL_FETCH"}
    missing = run(*changed(wanted, "--at", "2026-06-03T00:00:00Z"))
    assert missing.status == ExitCode.INDETERMINATE
    assert " ended 2026-06-02 12:00Z" in missing.out
    listed = run(*changed(wanted, "--at", "2026-06-03T00:00:00Z", "--json")).document["wanted"]
    assert {each["ended"] for each in listed if each["kind"] == "ocsp"} == {"2026-06-02T12:00:00Z"}
    assert all(each["ended"] is None for each in listed if each["held"])


def test_who_did_not_answer(run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...]) -> None:
    """A mirror that is not there is not taken for the maker's server."""
    done = run("fetch", *evidence, "--store", store, "--mirror", "http://127.0.0.1:9")
    assert done.status == ExitCode.ENVIRONMENT
    assert "COLLATERAL_FETCH: no answer from http://127.0.0.1:9: connection refused\n" in done.out
    proxied = run("fetch", *evidence, "--store", store, "--proxy", "127.0.0.1:9")
    assert "COLLATERAL_FETCH: no answer through 127.0.0.1:9: connection refused\n" in proxied.out


def test_fetch_with_a_limit(
    run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...], maker: Publisher
) -> None:
    done = run("fetch", *evidence, "--store", store, "--mirror", maker.url, "--limit", "3", "--parallel", "1")
    assert done.status == ExitCode.ENVIRONMENT
    assert "3 new" in done.out
    assert len(maker.asked) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mirror", "http://mirror.example"),
        ("--limit", "0"),
        ("--limit", "many"),
        ("--parallel", "33"),
        ("--timeout", "-1"),
        ("--proxy", "nowhere"),
    ],
)
def test_arguments_that_are_none(
    run: Callable[..., Done], store: Path, evidence: tuple[str | Path, ...], arguments: tuple[str, ...]
) -> None:
    done = run("fetch", *evidence, "--store", store, *arguments)
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    assert not store.exists()
