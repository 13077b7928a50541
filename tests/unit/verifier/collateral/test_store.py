"""The store: pieces appear whole or not at all, in whatever order processes die; and what it hands out is bounded."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.broken_files import Broken, FaultyFiles, PowerCut, VolatileFiles
from fakes.ocsp_responder import AT, DAY, HOUR, Issuer, Order, RevocableVendor, respond, revocation_list
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto import limits
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.collateral import CollateralStore, Description, recognise

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
CHIP = x509.load_der_x509_certificate(DEVICE.keys.chain[1])
RIMS = VENDOR.vendor.rims(DEVICE.firmware)


def piece(data: bytes) -> Description:
    (found,) = recognise(data, where="a test")
    return found


def response(status: str = "good", this_update: datetime = AT - HOUR) -> Description:
    return piece(respond(CHIP, VENDOR.provisioner, Order(status=status, this_update=this_update)))


GOOD = response()
RIM = piece(RIMS[0])


def fault(code: Code, store: CollateralStore) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        store.snapshot(AT)
    assert caught.value.code is code
    return str(caught.value)


def test_what_was_put_is_there(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    assert store.put([GOOD, RIM]) == (True, True)
    assert store.put([RIM]) == (False,)
    for again in (store, CollateralStore.open(tmp_path / "store"), CollateralStore.create(tmp_path / "store")):
        assert set(again.pieces()) == {GOOD, RIM}
        assert again.snapshot(AT) == Collateral.of(GOOD.item, RIM.item)
        assert again.damaged() == ()


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        CollateralStore.open(tmp_path)
    assert caught.value.code is Code.FILE_UNREADABLE
    with pytest.raises(EnvironmentFault) as caught:
        CollateralStore.create(tmp_path / "absent" / "store")
    assert caught.value.code is Code.FILE_UNWRITABLE
    with pytest.raises(ValueError, match="naive"):
        CollateralStore.create(tmp_path / "store").snapshot(AT.replace(tzinfo=None))


def test_a_store_that_goes_away(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    (tmp_path / "store" / "items").rmdir()
    fault(Code.FILE_UNREADABLE, store)


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    other = CollateralStore.open(tmp_path / "store")
    assert store.pieces() == ()
    for number in range(20):
        new = response(this_update=AT - HOUR - timedelta(seconds=number))
        other.put([new])
        assert new in store.pieces()
        os.unlink(tmp_path / "store" / "items" / new.digest.hex())  # noqa: PTH108 - as an operator would
        assert new not in store.pieces()


def test_the_snapshot_is_one_object_while_nothing_changes(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    store.put([GOOD, response(this_update=AT + HOUR)])
    time.sleep(0.15)
    first = store.snapshot(AT)
    assert store.snapshot(AT + HOUR / 2) is first
    # Nor when another issue's time comes, or what came makes no difference.
    assert store.snapshot(AT + 2 * HOUR) is store.snapshot(AT - 99 * DAY) is first
    store.put([piece(RIMS[1])])
    second = store.snapshot(AT)
    assert second is not first
    old = [response(this_update=AT - number * DAY) for number in range(1, 9)]
    store.put(old[:3])
    third = store.snapshot(AT)
    store.put(old[3:])
    assert store.snapshot(AT) is third is not second


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", list(Broken))
def test_every_operation_fails_once(tmp_path: Path, how: Broken) -> None:
    """What is there afterwards is whole, and putting it again succeeds."""
    at = 1
    while True:
        directory = tmp_path / f"{how.name}{at}"
        files = FaultyFiles(at=at, how=how)
        failed = None
        try:
            CollateralStore.create(directory, files=files).put([GOOD, RIM])
        except EnvironmentFault as error:
            failed = error
        if failed is None:
            assert files.count < at
            break
        assert failed.code is Code.DISK_FULL
        store = CollateralStore.create(directory)
        assert store.damaged() == ()
        assert set(store.pieces()) <= {GOOD, RIM}
        store.put([GOOD, RIM])
        assert set(store.pieces()) == {GOOD, RIM}
        at += 1
    assert at > 8


def test_power_fails_at_every_operation(tmp_path: Path) -> None:
    """Whatever of it had reached the disk: no piece is half there, and what was put before the cut is."""
    cut = 0
    while True:
        root = tmp_path / f"root{cut}"
        root.mkdir()
        files = VolatileFiles(root, cut_after=cut)
        acknowledged: list[Description] = []
        try:
            store = CollateralStore.create(root / "store", files=files)
            for each in (GOOD, RIM):
                store.put([each])
                acknowledged.append(each)
        except PowerCut:
            pass
        for number, kept in enumerate((lambda _: True, lambda _: False, lambda path: len(path.name) % 2 == 0)):
            found = tmp_path / f"found{cut}-{number}"
            files.survive(found, kept)
            again = CollateralStore.create(found / "store")
            assert again.damaged() == ()
            assert set(acknowledged) <= set(again.pieces()) <= {GOOD, RIM}
        if len(acknowledged) == 2:
            break
        cut += 1
    assert cut > 8


def test_power_fails_while_pieces_are_removed(tmp_path: Path) -> None:
    """What is there afterwards is whole; what was removed before the cut stays away."""
    cut = 0
    while True:
        root = tmp_path / f"root{cut}"
        root.mkdir()
        files = VolatileFiles(root)
        store = CollateralStore.create(root / "store", files=files)
        store.put([GOOD, RIM])
        files.cut_after = files.count + cut
        removed: set[Description] = set()
        try:
            for each in (GOOD, RIM):
                store.remove([each.digest.hex()])
                removed.add(each)
        except PowerCut:
            pass
        for number, kept in enumerate((lambda _: True, lambda _: False)):
            found = tmp_path / f"found{cut}-{number}"
            files.survive(found, kept)
            again = CollateralStore.open(found / "store")
            assert again.damaged() == ()
            assert not removed & set(again.pieces())
        if len(removed) == 2:
            break
        cut += 1
    assert cut == 4


def test_a_disk_without_room(tmp_path: Path) -> None:
    files = FaultyFiles(number=errno.ENOSPC)
    store = CollateralStore.create(tmp_path / "store", files=files)
    files.arm(1)
    with pytest.raises(EnvironmentFault) as caught:
        store.put([GOOD])
    assert caught.value.code is Code.DISK_FULL
    assert list((tmp_path / "store" / "staging").iterdir()) == []


def test_what_killed_processes_left_is_swept_in_time(tmp_path: Path) -> None:
    CollateralStore.create(tmp_path / "store")
    old, new = (tmp_path / "store" / "staging" / name for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    CollateralStore.create(tmp_path / "store")
    assert (old.exists(), new.exists()) == (False, True)


def test_several_processes(tmp_path: Path) -> None:
    pieces = [response(this_update=AT - HOUR - timedelta(seconds=number)).item.data for number in range(30)]
    paths = [tmp_path / f"{number}.ocsp" for number in range(len(pieces))]
    for path, data in zip(paths, pieces, strict=True):
        path.write_bytes(data)
    program = Path(sys.executable).with_name("weighbridge")
    command = (program, "collateral", "import", "--store", tmp_path / "store")
    running = [
        subprocess.Popen([*command, *paths[start:], *paths[:start]], stdout=subprocess.DEVNULL) for start in (0, 10, 20)
    ]
    assert [each.wait() for each in running] == [0, 0, 0]
    store = CollateralStore.open(tmp_path / "store")
    assert {each.item.data for each in store.pieces()} == set(pieces)
    assert store.damaged() == ()
    assert list((tmp_path / "store" / "staging").iterdir()) == []


def test_threads_that_read_while_one_writes(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    store.put([RIM])
    stop, seen = threading.Event(), [0]

    def read() -> None:
        while not stop.is_set():
            assert RIM.item in store.snapshot(AT).items
            seen[0] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        store.put([response(this_update=AT - HOUR - timedelta(seconds=number))])
    stop.set()
    reader.join()
    assert seen[0] > 0


# -- hostile directories -----------------------------------------------------------------------------------------------


def _link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_bytes(GOOD.item.data)
    path.symlink_to(target)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize(
    "spoil",
    [
        _link,
        _huge,
        os.mkfifo,
        os.mkdir,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(GOOD.item.data[:-1] + b"\0"),
        lambda path: (path.write_bytes(GOOD.item.data), path.chmod(0)) if os.geteuid() else path.write_bytes(b"?"),
    ],
)
def test_a_piece_that_is_not_what_its_name_says(tmp_path: Path, spoil: object) -> None:
    """A revocation that a disk has damaged must not become an absent one: nothing is judged."""
    store = CollateralStore.create(tmp_path / "store")
    store.put([RIM])
    path = tmp_path / "store" / "items" / GOOD.digest.hex()
    assert callable(spoil)
    spoil(path)
    assert store.pieces() == (RIM,)
    assert [(each.path, each.lost) for each in store.damaged()] == [(path, True)]
    assert path.name in fault(Code.STATE_CORRUPT, store)


def test_what_is_of_another_name_or_kind_is_reported_and_hides_nothing(tmp_path: Path) -> None:
    store = CollateralStore.create(tmp_path / "store")
    store.put([RIM])
    items = tmp_path / "store" / "items"
    unknown = b"a kind of collateral of next year"
    two = b'{"rim": "PGEvPg=="}'
    for name in ("README", GOOD.digest.hex().upper(), f"{GOOD.digest.hex()}.der"):
        (items / name).write_bytes(GOOD.item.data)
    for data in (unknown, two):
        (items / sha256(data).hex()).write_bytes(data)
    assert len(store.damaged()) == 5
    assert not any(each.lost for each in store.damaged())
    assert store.snapshot(AT) == Collateral.of(RIM.item)


# -- what is handed out ------------------------------------------------------------------------------------------------


def chosen(tmp_path: Path, *pieces: Description) -> set[Description]:
    store = CollateralStore.create(tmp_path / "store")
    store.put(pieces)
    snapshot = store.snapshot(AT)
    return {each for each in pieces if each.item in snapshot.items}


def test_old_responses_are_left_out_and_revocations_never(tmp_path: Path) -> None:
    good = [response(this_update=AT - number * HOUR) for number in range(1, 9)]
    revoked = [response(status=status, this_update=AT - 99 * DAY) for status in ("revoked", "hold")]
    lists = [piece(revocation_list(VENDOR.provisioner, {number: None})) for number in range(1, 9)]
    assert chosen(tmp_path, *good, *revoked, *lists) == {*good[:4], *revoked, *lists}


def test_what_claims_to_be_of_tomorrow_displaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = response()
    forged = [response(this_update=AT + number * DAY) for number in range(1, 9)]
    assert honest in chosen(tmp_path, honest, *forged)
    monkeypatch.setattr(limits, "COLLATERAL_SNAPSHOT_MAX", 1)
    assert chosen(tmp_path / "store", honest, *forged) == {honest}


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = [piece(data) for data in RIMS]
    revoked = response(status="revoked", this_update=AT - 400 * DAY)
    room = len(revoked.item.data) + len(RIMS[0]) + 2000
    monkeypatch.setattr(limits, "CONTENT_MAX", room)
    found = chosen(tmp_path, *manifests, revoked)
    assert revoked in found
    assert len(found) == 2
    assert len(Collateral.of(*(each.item for each in found)).encode()) <= room


def test_made_up_revocations_do_not_make_a_genuine_one_disappear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22: whoever brings files signs what he likes, and dates it as he likes; with a flood of them nothing is judged.

    Which of them are genuine is for the issuers' keys to say, and those come with evidence.
    """
    genuine = response(status="revoked", this_update=AT - 99 * DAY)
    stranger = Issuer(VENDOR.provisioner.certificate, ec.generate_private_key(ec.SECP384R1()))
    flood = [piece(revocation_list(stranger, {number: None})) for number in range(1, 9)]
    monkeypatch.setattr(limits, "COLLATERAL_SNAPSHOT_MAX", 9)
    assert chosen(tmp_path, genuine, *flood, GOOD) == {genuine, *flood}
    store = CollateralStore.create(tmp_path / "crowded")
    store.put([genuine, *flood, piece(revocation_list(stranger, {9: None}))])
    assert "10 pieces" in fault(Code.TOO_LARGE, store)
    monkeypatch.undo()
    assert len(store.snapshot(AT).items) == 10
    monkeypatch.setattr(limits, "CONTENT_MAX", 6 * len(flood[0].item.data))
    assert "revocations" in fault(Code.TOO_LARGE, CollateralStore.open(tmp_path / "crowded"))


def test_both_issues_of_a_manifest_are_handed_out(tmp_path: Path) -> None:
    """Which counts is decided where it is used: an issue that is over still replaces the one before."""
    manifests = [piece(VENDOR.vendor.rims(DEVICE.firmware)[0]) for _ in range(6)]
    assert chosen(tmp_path, *manifests) == set(manifests)
