"""`weighbridge collateral remove`: what goes, what stays, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from fakes.broken_files import FaultyFiles
from fakes.ocsp_responder import AT, DAY, HOUR, Order, RevocableVendor, respond, revocation_list
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.collateral import CollateralStore, recognise

if TYPE_CHECKING:
    from pathlib import Path

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
CHIP = x509.load_der_x509_certificate(DEVICE.keys.chain[1])
RIM = VENDOR.vendor.rims(DEVICE.firmware)[0]
GOOD = respond(CHIP, VENDOR.provisioner)
OVER = respond(CHIP, VENDOR.provisioner, Order(this_update=AT - 3 * DAY, next_update=AT - 2 * DAY))
REVOKED = respond(CHIP, VENDOR.provisioner, Order(status="revoked", serial=7, next_update=AT - HOUR / 2))
OLD_LIST = revocation_list(VENDOR.root, {1: None}, this_update=AT - 9 * DAY, next_update=AT - 8 * DAY)
NEW_LIST = revocation_list(VENDOR.root, {1: None})
NOW = "2026-06-01T12:00:00Z"


def name(data: bytes) -> str:
    return sha256(data).hex()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    kept = CollateralStore.create(tmp_path / "store")
    kept.put(piece for data in (RIM, GOOD, OVER, REVOKED, OLD_LIST, NEW_LIST) for piece in recognise(data, where=""))
    return tmp_path / "store"


def held(store: Path) -> set[str]:
    return {path.name for path in (store / "items").iterdir()}


def run(capsys: pytest.CaptureFixture[str], store: Path, *arguments: str) -> tuple[int, str, str]:
    status = main(["collateral", "remove", *arguments, "--store", str(store)])
    out, err = capsys.readouterr()
    return status, out, err


def document(capsys: pytest.CaptureFixture[str], store: Path, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run(capsys, store, *arguments, "--json")[1])
    return value


def test_what_is_over_goes_and_what_takes_trust_away_stays(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    before = held(store)
    status, out, err = run(capsys, store, "--ended", "--at", NOW, "--dry-run")
    assert (status, err, held(store)) == (0, "", before)
    assert out.splitlines()[-2:] == [
        f"{store}: 1 piece would be removed, 5 left",
        "2 of them over: they take trust away or replace others, and go by their digests alone",
    ]
    status, out, _ = run(capsys, store, "--ended", "--at", NOW)
    assert (status, before - held(store)) == (0, {name(OVER)})
    assert f"{store}: 1 piece removed, 5 left" in out
    assert "trust away:" not in out
    again = document(capsys, store, "--ended", "--at", NOW)
    assert (again["removed"], again["pieces"], again["over"], again["dry_run"]) == ([], 5, 2, False)


def test_a_piece_goes_by_its_digest_and_what_that_means_is_said(
    capsys: pytest.CaptureFixture[str], store: Path
) -> None:
    first = name(REVOKED)[:8]
    dry = run(capsys, store, first, "--dry-run")[1]
    assert f"this takes trust away: ocsp {name(REVOKED)[:16]} serial 7 of key " in dry
    status, out, err = run(capsys, store, first.upper(), name(GOOD))
    assert (status, err) == (0, "")
    (took,) = [line for line in out.splitlines() if line.startswith("this took trust away: ")]
    assert took.endswith(": revoked")
    assert held(store) == {name(each) for each in (RIM, OVER, OLD_LIST, NEW_LIST)}
    removed = document(capsys, store, name(OLD_LIST))["removed"]
    assert [(each["sha256"], each["kind"]) for each in removed] == [(name(OLD_LIST), "crl")]
    assert removed[0]["took_trust_away"].endswith("as the list of 2026-06-01 says too, if that is genuine")


def test_digests_and_what_is_over_at_once(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    run(capsys, store, name(GOOD), name(OVER)[:20], "--ended", "--at", NOW)
    assert held(store) == {name(each) for each in (RIM, REVOKED, OLD_LIST, NEW_LIST)}


def test_a_digest_that_names_no_piece_keeps_all(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    before = held(store)
    status, out, err = run(capsys, store, name(GOOD), name(b"nothing"))
    assert (status, out, held(store)) == (ExitCode.ENVIRONMENT, "", before)
    assert f"FILE_UNREADABLE: no piece has a digest that begins so, at {store}" in err
    assert name(b"nothing") in err
    assert document(capsys, store, name(b"nothing"))["code"] == "FILE_UNREADABLE"


def test_a_digest_that_names_several(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """Two that begin alike are not to be had of real pieces: damaged ones are named so too."""
    for digit in "ab":
        (store / "items" / ("0123456789" + digit * 54)).write_bytes(b"?")
    before = held(store)
    status, out, err = run(capsys, store, "0123456789")
    assert (status, out, held(store)) == (ExitCode.ENVIRONMENT, "", before)
    assert "FILE_UNREADABLE: several pieces have a digest that begins so" in err
    assert "0123456789aaaaaa…, 0123456789bbbbbb…" in err
    assert err.endswith("hint: name more of its digits\n")
    assert run(capsys, store, "0123456789b")[0] == 0
    assert before - held(store) == {"0123456789" + "b" * 54}


@pytest.mark.parametrize("arguments", [(), ("1234567",), ("g" * 64,), ("0" * 65,), ("../../x",), ("--at", NOW)])
def test_arguments_that_are_none(capsys: pytest.CaptureFixture[str], store: Path, arguments: tuple[str, ...]) -> None:
    before = held(store)
    status, out, _ = run(capsys, store, *arguments)
    assert (status, out, held(store)) == (ExitCode.USAGE, "", before)


def test_what_is_damaged_goes_by_its_name_and_first(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """It may have been a reason for another piece to stay."""
    (store / "items" / name(REVOKED)).write_bytes(b"?")
    before = held(store)
    status, out, err = run(capsys, store, "--ended", "--at", NOW)
    assert (status, out, held(store)) == (ExitCode.ENVIRONMENT, "", before)
    assert "STATE_CORRUPT" in err
    assert "weighbridge collateral remove DIGEST" in err
    status, out, _ = run(capsys, store, name(REVOKED)[:8], "--ended", "--at", NOW)
    assert (status, before - held(store)) == (0, {name(OVER), name(REVOKED)})
    assert f"damaged  {store}/items/{name(REVOKED)}: not a file with the digest" in out
    assert "what was damaged may have taken trust away: fetch it again" in out
    assert f"{store}: 2 pieces removed, 4 left" in out


def test_no_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, tmp_path / "absent", "--ended")
    assert status == ExitCode.ENVIRONMENT
    assert "FILE_UNREADABLE: no collateral store here" in err


def test_a_store_in_use(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """A verifier that has it open judges on, by what is left, and nothing that it handed out changes."""
    serving = CollateralStore.open(store)
    before = serving.snapshot(AT)
    run(capsys, store, "--ended", "--at", NOW)
    after = serving.snapshot(AT)
    assert set(before.items) - set(after.items) == {piece.item for piece in recognise(OVER, where="")}
    assert serving.damaged() == ()
    # What somebody else has removed in the meantime is no fault.
    serving.remove([name(OVER), name(GOOD)])
    assert name(GOOD) not in held(store)


def test_removing_that_fails(store: Path) -> None:
    files = FaultyFiles()
    broken = CollateralStore.open(store, files=files)
    files.arm(1)
    with pytest.raises(EnvironmentFault) as caught:
        broken.remove([name(OVER)])
    assert caught.value.code is Code.DISK_FULL
    again = CollateralStore.open(store)
    again.remove([name(OVER)])
    assert name(OVER) not in held(store)
    assert again.damaged() == ()


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collateral", "remove", "--help"]) == 0
    assert "weighbridge collateral remove --ended --dry-run --store" in capsys.readouterr().out
