"""Where a verifier's ledger and contents lie, as its directory says; asking nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.buckets import MemoryObjects, bucket
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.ledger import ContentStore
from weighbridge.verifier.ledger.bucket import NOTE, Bucket
from weighbridge.verifier.ledger.bucket_content import BucketContents
from weighbridge.verifier.ledger.places import Places
from weighbridge.verifier.ledger.s3 import S3Address
from weighbridge.verifier.ledger.source import BucketSource, DirectorySource, open_source, source_of

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = S3Address.parse("s3://bucket/prefix")


def test_in_its_directory_unless_it_says_otherwise(tmp_path: Path) -> None:
    places = Places.of(tmp_path)
    assert places.ledger() == tmp_path / "ledger"
    assert isinstance(places.source(), DirectorySource)
    assert isinstance(places.contents(), ContentStore)
    assert (tmp_path / "content").is_dir()
    places.write_down(PosixFiles(), tmp_path)
    assert not (tmp_path / "ledger-storage").exists()


def test_in_the_bucket_that_it_names(tmp_path: Path) -> None:
    Places(tmp_path, ADDRESS).write_down(PosixFiles(), tmp_path)
    for expected in (None, ADDRESS):
        places = Places.of(tmp_path, expected=expected)
        ledger = places.ledger()
        assert isinstance(ledger, Bucket)
        assert ledger.place("checkpoint") == "s3://bucket/prefix/ledger/checkpoint"
        assert places.source().place("checkpoint") == "s3://bucket/prefix/ledger/checkpoint"
        assert isinstance(places.contents(), BucketContents)
    assert not (tmp_path / "content").exists()


@pytest.mark.parametrize("said", [None, "s3://bucket/another"])
def test_a_ledger_stays_where_it_was_made(tmp_path: Path, said: str | None) -> None:
    if said is not None:
        (tmp_path / "ledger-storage").write_text(said)
    with pytest.raises(EnvironmentFault) as caught:
        Places.of(tmp_path, expected=ADDRESS)
    assert caught.value.code is Code.STATE_CORRUPT
    assert caught.value.expected == "s3://bucket/prefix"
    assert caught.value.got == (said or str(tmp_path / "ledger"))


def test_what_is_no_address(tmp_path: Path) -> None:
    for data in (b"", b"https://bucket/prefix", b"s3://bucket/\xff", b"s3://bucket\ns3://bucket"):
        (tmp_path / "ledger-storage").write_bytes(data)
        with pytest.raises(EnvironmentFault) as caught:
            Places.of(tmp_path)
        assert caught.value.code is Code.STATE_CORRUPT
    (tmp_path / "ledger-storage").unlink()
    (tmp_path / "ledger-storage").mkdir()
    with pytest.raises(EnvironmentFault) as caught:
        Places.of(tmp_path)
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_bucket_is_read_as_any_other_source() -> None:
    objects = MemoryObjects()
    objects.create("checkpoint", b"12345", NOTE)
    source = source_of(BucketSource(bucket(objects)))
    assert source.read("checkpoint", limit=5) == b"12345"
    assert source.read("else", limit=5) is None
    with pytest.raises(MalformedEvidence) as caught:
        source.read("checkpoint", limit=4)
    assert caught.value.code is Code.TOO_LARGE
    source.close()
    assert open_source("s3://bucket/prefix").place("x") == "s3://bucket/prefix/x"
    with pytest.raises(ValueError, match="not s3"):
        open_source("s3://B")
