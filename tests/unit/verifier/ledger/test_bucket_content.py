"""Contents in a bucket: found by the ledger's entry or by their digest, whatever else lies there; nothing is listed."""

from __future__ import annotations

import os

import pytest

from fakes.buckets import FaultyObjects, Lost, MemoryObjects, bucket
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, Indeterminate, LedgerInconsistent
from weighbridge.verifier.ledger import segment
from weighbridge.verifier.ledger.bucket import PRIVATE
from weighbridge.verifier.ledger.bucket_content import BucketContents
from weighbridge.verifier.ledger.contents import Content

CHAIN = os.urandom(2000)


def store(objects: MemoryObjects | FaultyObjects) -> BucketContents:
    return BucketContents(bucket(objects))


def test_what_a_turn_has_put_is_one_object_and_found_by_any_of_its_entries() -> None:
    objects = MemoryObjects()
    writer = store(objects)
    turns = {entry: [b"record %d" % (entry + at) * 50 for at in range(10)] for entry in range(0, 100, 10)}
    for entry, contents in turns.items():
        digests = writer.put_all([Content(content) for content in contents], entry=entry)
        assert list(digests) == [sha256(content) for content in contents]
    assert len(objects.objects) == len(turns)
    assert {served.cache_control for served in objects.served.values()} == {PRIVATE.cache_control}
    objects.requests.clear()
    reader = store(objects)
    assert not objects.requests
    for entry, contents in turns.items():
        for at, content in enumerate(contents):
            assert reader.get(sha256(content), entry=entry + at) == content
    # One to find each object, and one to read it: its other contents are known then.
    assert len(objects.requests) == 2 * len(turns)
    assert writer.get(sha256(b"record 7" * 50)) == b"record 7" * 50


def test_contents_are_found_behind_those_of_turns_that_failed() -> None:
    """Their leaves are not in the ledger, but what they have put lies there, of the same entry."""
    objects = MemoryObjects()
    writer = store(objects)
    writer.put_all([Content(b"before")], entry=4)
    for number in range(30):
        writer.put_all([Content(b"failed %d" % number)], entry=5)
    writer.put_all([Content(b"counts"), Content(b"counts too")], entry=5)
    writer.put_all([Content(b"behind")], entry=7)
    objects.requests.clear()
    reader = store(objects)
    assert reader.get(sha256(b"counts too"), entry=6) == b"counts too"
    assert len(objects.requests) == 2
    # Where a turn knew less of the ledger than there was, others lie before it.
    assert reader.get(sha256(b"before"), entry=8) == b"before"


def test_parts_that_many_have_in_common_are_kept_once() -> None:
    objects = MemoryObjects()
    for entry in range(5):
        data = b"%d" % entry + CHAIN + b"rest %d" % entry
        digest = store(objects).put_all([Content(data, (CHAIN,))], entry=entry)[0]
        assert store(objects).get(digest, entry=entry) == data
    assert sum(map(len, objects.objects.values())) < 2 * len(CHAIN)
    assert min(objects.objects) == f"contents/{sha256(CHAIN).hex()[:2]}/{sha256(CHAIN).hex()}"


def test_what_is_put_alone_is_found_by_its_digest() -> None:
    objects = MemoryObjects()
    digest = store(objects).put(b"policy" * 100)
    reader = store(objects)
    assert reader.has(digest)
    assert not reader.has(bytes(32))
    assert reader.get(digest) == b"policy" * 100
    assert reader.get(digest, entry=3) == b"policy" * 100
    objects.requests.clear()
    assert reader.put(b"policy" * 100) == digest
    assert reader.put(b"policy" * 100) == digest
    # The second time nothing is asked.
    assert objects.requests == [f"create {next(iter(objects.objects))}", f"get {next(iter(objects.objects))}"]


def test_what_is_not_there() -> None:
    objects = MemoryObjects()
    reader = store(objects)
    for entry in (None, 0, 10**9):
        with pytest.raises(Indeterminate) as caught:
            reader.get(bytes(32), entry=entry)
        assert caught.value.code is Code.EVIDENCE_ABSENT
    # What another process puts afterwards, is found.
    store(objects).put(b"later")
    assert reader.get(sha256(b"later")) == b"later"
    for wrong in (reader.has, reader.get):
        with pytest.raises(ValueError, match="32 bytes"):
            wrong(b"short")
    with pytest.raises(ValueError, match="content of"):
        reader.put(bytes(limits.CONTENT_MAX + 1))


def test_looking_for_what_is_nowhere_ends() -> None:
    objects = MemoryObjects()
    writer = store(objects)
    for number in range(100):
        writer.put_all([Content(b"%d" % number)], entry=number)
    objects.requests.clear()
    with pytest.raises(Indeterminate):
        store(objects).get(bytes(32), entry=200)
    assert len(objects.requests) < 80


@pytest.mark.parametrize("entry", [None, 7])
def test_what_was_altered_is_not_given_out(entry: int | None) -> None:
    objects = MemoryObjects()
    digest = store(objects).put_all([Content(b"evidence" * 100)], entry=entry)[0]
    ((name, data),) = objects.objects.items()
    objects.objects[name] = data[:-20] + bytes(1) + data[-19:]
    with pytest.raises(LedgerInconsistent) as caught:
        store(objects).get(digest, entry=entry)
    assert caught.value.code is Code.LEDGER_INCONSISTENT
    assert name in caught.value.where
    objects.objects[name] = b"no block at all"
    with pytest.raises(Indeterminate):
        store(objects).get(digest, entry=entry)
    # What is put again takes the place of what has another digest, and no other place.
    store(objects).put(b"evidence" * 100)
    assert store(objects).get(digest) == b"evidence" * 100


def test_another_compressor_does_not_matter() -> None:
    """The same content packed otherwise is as good: it is not replaced."""
    objects = MemoryObjects()
    store(objects).put(CHAIN)
    (name,) = objects.objects
    objects.objects[name] = otherwise = segment.encode_block([(sha256(CHAIN), CHAIN, segment.PLAIN)]) + b"tail"
    store(objects).put(CHAIN)
    assert objects.objects[name] == otherwise


@pytest.mark.parametrize("how", Lost)
def test_requests_without_an_answer(how: Lost) -> None:
    """A failed turn's contents may be there; they are put again, and nothing of the first try is in the way."""
    objects = MemoryObjects()
    faulty = FaultyObjects(objects, how=how)
    contents = [Content(b"a" + CHAIN, (CHAIN,)), Content(b"b" * 500)]
    for at in (1, 2):
        writer = store(faulty)
        faulty.arm(at)
        with pytest.raises(EnvironmentFault) as caught:
            writer.put_all(contents, entry=3)
        assert caught.value.code is Code.STORAGE_UNREACHABLE
        digests = writer.put_all(contents, entry=3)
        faulty.arrive()
        reader = store(objects)
        assert [reader.get(digest, entry=3) for digest in digests] == [content.data for content in contents]


def test_a_reader_keeps_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was read the last stays, as far as there is room; the rest is read again."""
    monkeypatch.setattr("weighbridge.verifier.ledger.bucket_content._KEPT_MAX", 10_000)
    objects = MemoryObjects()
    writer = store(objects)
    contents = [os.urandom(3000) for _ in range(10)]
    for entry, content in enumerate(contents):
        writer.put_all([Content(content)], entry=entry)
    reader = store(objects)
    for _ in range(2):
        for entry, content in enumerate(contents):
            assert reader.get(sha256(content), entry=entry) == content
    assert sum(len(kept.data) for kept in reader._segments.values()) <= 10_000


def test_a_turn_that_is_too_large_for_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.verifier.ledger.bucket_content._SEGMENT_MAX", 600_000)
    objects = MemoryObjects()
    contents = [os.urandom(200_000) for _ in range(8)]
    digests = store(objects).put_all([Content(content) for content in contents], entry=9)
    assert len(objects.objects) > 1
    reader = store(objects)
    assert [reader.get(digest, entry=9 + at) for at, digest in enumerate(digests)] == contents


def test_what_is_asked_for_next_is_read_together() -> None:
    """One request finds each object and one reads it, none twice; then nothing is asked any more."""
    objects = MemoryObjects()
    writer = store(objects)
    for entry in range(0, 40, 4):
        writer.put_all([Content(b"record %d" % (entry + at)) for at in range(4)], entry=entry)
    reader = store(objects)
    objects.requests.clear()
    reader.ahead([3, 4, 5, 21])
    assert [request.split()[0] for request in objects.requests] == ["names"] * 4 + ["get"] * 3
    objects.requests.clear()
    for entry in (3, 4, 5, 21):
        assert reader.get(sha256(b"record %d" % entry), entry=entry) == b"record %d" % entry
    assert not objects.requests
    reader.ahead([])
    store(MemoryObjects()).ahead([7])
