"""A session shown in part, by requests, or without what names a device: what can be seen, and what cannot be faked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from corpus.arena import Arena
from corpus.bundle import SALT, Exported, believed, export, indices_of, redacted
from corpus.weights import OTHER
from support.forge import Forgery, claim, seal
from support.world import NOON, requirements
from weighbridge.proto import cosignature, limits, merkle, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.proto.merkle import leaf_hash
from weighbridge.proto.workload import WorkSummary, commit
from weighbridge.verifier import tenancy
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.bundle import Bundle
from weighbridge.verifier.bundle_format import Withheld
from weighbridge.verifier.bundle_records import verify_records
from weighbridge.verifier.bundle_verdict import require_closed
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.disclosed import verify_alone
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.identifiers import identifiers
from weighbridge.verifier.record import Leaf, Record
from weighbridge.verifier.redaction import Redaction, Row, facts, pseudonym, salt_thumbprint, summary, terms_of
from weighbridge.verifier.shown_requests import ClaimedWork, show
from weighbridge.verifier.telemetry.history import ANOTHER_TENANTS, History, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import Engines, World
    from weighbridge.verifier.bundle_records import RecordsVerdict
    from weighbridge.verifier.check_tree import Check

WINDOWS: Final = 5
BODIES: Final = [(b"prompt %d" % number, b"answer %d" % number) for number in range(7)]
SALTS: Final = [sha256(b"salt %d" % number) for number in range(7)]
COMMITMENTS: Final = [commit(salt, *bodies) for salt, bodies in zip(SALTS, BODIES, strict=True)]


@dataclass(frozen=True)
class Made:
    """A closed session of five windows, each of which counts seven requests."""

    exported: Exported
    windows: tuple[int, ...]

    @property
    def world(self) -> World:
        return self.exported.world

    def but(self, *shown: int) -> Bundle:
        """The bundle that shows these windows only."""
        withhold = [index for seq, index in enumerate(self.windows) if seq not in shown]
        return export(self.world, withhold=withhold)

    def records(self, bundle: Bundle, *, anchors: TrustAnchors | None = None) -> RecordsVerdict:
        """What is recorded, as read from the file's bytes."""
        return verify_records(Bundle.parse(bundle.encode()), anchors=anchors or believed(self.world))


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Made]:
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.world()
        root = merkle.root([leaf_hash(commitment) for commitment in COMMITMENTS])
        world.host.work = WorkSummary(root=root, requests=7, tokens_in=64, tokens_out=0, batch_max=1)
        world.open_session()
        for _ in range(WINDOWS):
            assert world.window().verdict.opens
        world.verifier.close(world.host.session, peer=world.host.peer)
        _, indices = indices_of(world, world.host.session)
        yield Made(Exported(engines, world, export(world)), tuple(indices[1:-1]))
        arena.close()


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def found(checks: tuple[Check, ...], name: str) -> Check:
    """The check of this name, wherever it is in the tree."""
    for check in checks:
        if check.name == name:
            return check
        if check.children and name in _names(check.children):
            return found(check.children, name)
    raise AssertionError(f"no check {name}")


def _names(checks: tuple[Check, ...]) -> set[str]:
    return {name for check in checks for name in ({check.name} | _names(check.children))}


# -- in part -----------------------------------------------------------------------------------------------------------


def test_what_comes_before_the_first_gap_is_judged_again(made: Made) -> None:
    result = made.exported.verify(made.but(0, 1))
    assert [window.seq for window in result.windows] == [0, 1]
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed", "affirmed"]
    assert (result.withheld, result.admitted, result.denied) == (3, False, ())
    assert found(result.checks, "evidence withheld").result == "withheld"
    assert found(result.checks, "as recorded").result == "passed"


def test_what_comes_behind_it_is_verified_as_far_as_it_goes(made: Made) -> None:
    """Its verdict is the recorded one, and said to be."""
    result = made.exported.verify(made.but(2, 3))
    assert [window.seq for window in result.windows] == [2, 3]
    assert (result.verdicts, result.withheld, result.admitted) == ((), 3, False)
    for window in result.windows:
        assert (window.verdict, window.same, window.recorded["outcome"]) == (None, None, "affirmed")
        assert window.header is not None
        assert window.header.seq == window.seq
        assert window.telemetry is not None
    assert found(result.checks, "shown alone").result == "passed"
    # Nothing was judged: not even a good sign.
    assert found(result.checks, "verdicts").result == "not checked"


@pytest.mark.parametrize(
    ("shown", "again", "said"),
    [
        ((0, 2), 1, "window 2 stands behind a withheld one"),
        ((1, 2), 0, "windows 1 to 2 stand behind withheld ones"),
        ((1, 3), 0, "2 windows stand behind withheld ones"),
    ],
)
def test_the_tree_says_which_were_not_judged_again(made: Made, shown: tuple[int, ...], again: int, said: str) -> None:
    checks = made.exported.verify(made.but(*shown)).checks
    verdicts = found(checks, "verdicts")
    assert f"not judged again: {said}" == (verdicts.residual if again else verdicts.detail)
    assert found(checks, "windows").detail == f"2 shown, {again} judged again"


def test_a_part_is_smaller_and_has_nothing_of_the_rest(made: Made) -> None:
    part = made.but(3)
    hidden = made.exported.bundle.entries[1]
    assert hidden.evidence is not None
    assert hidden.evidence not in part.content()
    assert sha256(hidden.evidence) in part.content()
    assert len(part.content()) < len(made.exported.bundle.content())


@pytest.mark.parametrize("place", range(4))
def test_no_leaf_can_be_left_out_or_exchanged(made: Made, place: int) -> None:
    part = made.but(2)
    fewer = (*part.withheld[:place], *part.withheld[place + 1 :])
    assert code_of(partial(made.exported.verify, replace(part, withheld=fewer))) is Code.BUNDLE_MALFORMED
    other = part.withheld[place - 1]
    exchanged = (*part.withheld[:place], replace(part.withheld[place], leaf=other.leaf), *part.withheld[place + 1 :])
    assert code_of(partial(made.exported.verify, replace(part, withheld=exchanged))) is Code.LEDGER_PROOF


def test_the_enrolment_cannot_be_withheld(made: Made) -> None:
    bundle = export(made.world, withhold=[made.exported.bundle.entries[0].index])
    assert code_of(partial(made.exported.verify, bundle)) is Code.BUNDLE_WITHHELD


def test_a_window_shown_alone_is_that_of_its_record(made: Made) -> None:
    """A verifier that records one window under another's name is found out by the window itself."""
    entries = made.exported.bundle.entries
    first, second = Record.parse(entries[1].record), Record.parse(entries[2].record)
    replayed = made.exported.verify()
    assert replayed.admitted
    from weighbridge.verifier.bundle_proof import open_bundle  # noqa: PLC0415 - the facts of the enrolment, once

    opened = open_bundle(made.exported.bundle, believed(made.world))
    alone = partial(
        verify_alone,
        enrolled=opened.replayed.enrolled,
        anchors=believed(made.world),
        before=None,
        chains=ChainCache(),
    )
    evidence = entries[1].evidence
    assert evidence is not None
    assert alone(evidence, first).header.seq == 0
    assert code_of(lambda: alone(evidence, second)) is Code.LEDGER_INCONSISTENT
    assert code_of(lambda: alone(evidence, replace(first, preimage=second.preimage))) is Code.CHALLENGE_UNKNOWN
    broken = replace(alone(evidence, first), link=bytes(32))
    assert entries[2].evidence is not None
    chained = partial(alone, entries[2].evidence, second)
    assert chained(before=alone(evidence, first)).header.seq == 1
    assert code_of(partial(chained, before=broken)) is Code.WINDOW_PREV


@pytest.mark.parametrize(
    ("wrong", "hidden", "header"),
    [
        # What it should continue is withheld, or is not.
        (claim(prev=bytes(32)), 1, True),
        (claim(prev=bytes(32)), 0, False),
        (Forgery(gpu_nonce=lambda _: bytes(32)), 1, False),
    ],
)
def test_a_denied_window_behind_a_gap_is_told(arena: Arena, wrong: Forgery, hidden: int, *, header: bool) -> None:
    """Whether or not what refused it can be seen in it alone, the record says so, and nothing is made of it."""
    world = arena.settled(2)
    world.clock.advance(1)
    assert world.deliver(seal(world.host, wrong)).verdict.outcome == "denied"
    _, indices = indices_of(world, world.host.session)
    result = Exported(arena.engines, world, export(world)).verify(export(world, withhold=[indices[1 + hidden]]))
    assert [window.recorded["outcome"] for window in result.windows] == ["affirmed", "denied"]
    assert (result.windows[-1].header is not None) == header
    assert (result.recorded_denied, result.admitted, result.denied) == (True, False, ())
    assert found(result.checks, "shown alone").worst == ("passed" if header else "failed")


def test_evidence_that_is_refused_is_not_recorded_as_good(arena: Arena) -> None:
    """A verifier that took what it should have refused is found out, also where a window is shown alone."""
    world = arena.settled(2)
    _, indices = indices_of(world, world.host.session)
    sealed = seal(world.host, Forgery(gpu_nonce=lambda _: bytes(32)))
    good = world.archive.records.record(indices[2])
    taken = replace(good, seq=2, held=True, window=sealed.digest, evidence=sha256(sealed.evidence))
    index = world.archive.commit(taken, sealed.evidence).index
    bundle = export(world, indices=[*indices, index], withhold=[indices[1]])
    assert code_of(lambda: Exported(arena.engines, world, bundle).verify()) is Code.GPU_NONCE


def test_what_nobody_could_open_is_not_written(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUNDLE_CONTENT_MAX", 1000)
    assert code_of(made.exported.bundle.encode) is Code.TOO_LARGE


def test_a_manifest_is_there_once(made: Made) -> None:
    bundle = made.exported.bundle
    twice = replace(bundle, manifests=2 * bundle.manifests)
    assert code_of(lambda: made.exported.verify(twice)) is Code.BUNDLE_MALFORMED
    # Whatever it begins with, it is only looked at for what it gives away.
    assert identifiers(replace(bundle, entries=bundle.entries[1:])) == ()


def test_a_record_that_no_verifier_writes_has_no_summary(made: Made) -> None:
    record = replace(Record.parse(made.exported.bundle.entries[1].record), verdict=b"[]")
    assert code_of(lambda: summary(record, salt=SALT, tenant="tenant-a")) is Code.FIELD_TYPE


def test_who_needs_every_window_says_so(made: Made) -> None:
    from weighbridge.verifier.bundle_proof import open_bundle  # noqa: PLC0415 - as tools of policy authors open it

    assert code_of(lambda: open_bundle(made.but(2), believed(made.world))) is Code.BUNDLE_WITHHELD


# -- requests ----------------------------------------------------------------------------------------------------------


def _claimed(*, seq: int = 2, shown: tuple[int, ...] = (1, 6)) -> bytes:
    opened = [
        {
            "index": number,
            "salt": SALTS[number].hex(),
            "request": sha256(BODIES[number][0]).hex(),
            "response": sha256(BODIES[number][1]).hex(),
        }
        for number in shown
    ]
    window = {"seq": seq, "commitments": [item.hex() for item in COMMITMENTS], "shown": opened}
    return strict.json_encode({"schema": "weighbridge/requests/v1", "windows": [window]})


@pytest.mark.parametrize("shown", [(2,), (0, 1, 2, 3, 4)])
def test_a_request_is_shown_to_lie_in_its_window(made: Made, shown: tuple[int, ...]) -> None:
    bundle = show(made.but(*shown), ClaimedWork.parse_all(_claimed()))
    result = made.exported.verify(bundle)
    assert [(item.seq, item.index, item.request) for item in result.requests] == [
        (2, 1, sha256(BODIES[1][0])),
        (2, 6, sha256(BODIES[6][0])),
    ]
    assert found(result.checks, "requests").result == "passed"
    # Nothing of the others is in it but hashes.
    assert SALTS[0] not in bundle.content()
    assert sha256(BODIES[0][0]) not in bundle.content()


@pytest.mark.parametrize("field", ["seq", "index", "proof", "salt", "request", "response"])
def test_no_other_request_passes_for_it(made: Made, field: str) -> None:
    bundle = show(made.exported.bundle, ClaimedWork.parse_all(_claimed()))
    first, second = bundle.requests
    other = {
        "seq": 9,
        "index": 2,
        "proof": first.proof,
        "salt": bytes(32),
        "request": bytes(32),
        "response": bytes(32),
    }
    forged = replace(bundle, requests=(first, replace(second, **{field: other[field]})))  # type: ignore[arg-type]
    assert code_of(lambda: made.exported.verify(forged)) is Code.BUNDLE_REQUEST


def test_no_request_counts_twice(made: Made) -> None:
    bundle = show(made.exported.bundle, ClaimedWork.parse_all(_claimed()))
    for requests in (2 * bundle.requests, bundle.requests[::-1], bundle.requests[:1] * 2):
        assert code_of(partial(made.exported.verify, replace(bundle, requests=requests))) is Code.BUNDLE_MALFORMED


def test_requests_of_a_window_that_is_not_shown(made: Made) -> None:
    assert code_of(lambda: show(made.but(1), ClaimedWork.parse_all(_claimed()))) is Code.BUNDLE_REQUEST


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"[]", Code.FIELD_TYPE),
        (b'{"schema":"weighbridge/requests/v2","windows":[]}', Code.VERSION_UNSUPPORTED),
        (b'{"schema":"weighbridge/requests/v1"}', Code.FIELD_MISSING),
        (b'{"schema":"weighbridge/requests/v1","windows":[{}]}', Code.FIELD_MISSING),
        (b'{"schema":"weighbridge/requests/v1","windows":[],"more":1}', Code.FIELD_UNKNOWN),
        (_claimed(shown=(6, 1)), Code.FIELD_RANGE),
        (_claimed(shown=(1, 1)), Code.FIELD_RANGE),
        (_claimed().replace(b'"index":6', b'"index":7'), Code.FIELD_RANGE),
        (_claimed().replace(b'"index":6', b'"index":6.5'), Code.FIELD_TYPE),
        (_claimed().replace(COMMITMENTS[0].hex().encode(), b"00"), Code.FIELD_RANGE),
        (_claimed().replace(b'"%s"' % COMMITMENTS[0].hex().encode(), b"7"), Code.FIELD_TYPE),
    ],
)
def test_what_is_no_list_of_requests(document: bytes, code: Code) -> None:
    assert code_of(lambda: ClaimedWork.parse_all(document)) is code


# -- redacted ----------------------------------------------------------------------------------------------------------


def _signed(made: Made, **changes: object) -> Bundle:
    """The redacted bundle with a redaction that the verifier has signed, changed."""
    bundle = redacted(made.world)
    terms = terms_of(Record.parse(made.exported.bundle.entries[0].record))
    reader, indices = indices_of(made.world, made.world.host.session)
    del reader
    rows = tuple(Row(index, bytes(32), b"{}") for index in indices)
    redaction = Redaction(
        session=terms.session,
        tenant=terms.tenant,
        origin="ledger.example/test",
        salt=salt_thumbprint(SALT, terms.tenant),
        issued_ns=nanoseconds(made.world.clock.at),
        model=terms.model,
        adapters=terms.adapters,
        rows=rows,
    )
    keys = made.world.keys
    signed = replace(redaction, **changes).sign(kid=keys.thumbprint, signer=keys.sign)  # type: ignore[arg-type]
    return replace(bundle, redaction=signed)


def test_a_redacted_bundle_says_what_was_recorded(made: Made) -> None:
    result = made.records(redacted(made.world))
    assert [window.outcome for window in result.windows] == ["affirmed"] * WINDOWS
    assert (result.redacted, result.admitted, result.session) == (True, True, made.world.host.session)
    assert result.model == made.world.host.model.digest
    assert found(result.checks, "evidence").result == "withheld"
    first = result.windows[0].document
    assert first is not None
    assert first["telemetry"] == "no_baseline"


def test_a_redacted_bundle_names_no_device(made: Made) -> None:
    """Neither as bytes nor as text: whatever tells a device from others, and what it signed."""
    content = redacted(made.world).content()
    given_away = identifiers(made.exported.bundle)
    assert [item.what for item in given_away].count("device") == 2
    chains = [certificate for device in made.world.host.gpus.devices for certificate in device.keys.chain]
    for secret in (*(item.identity for item in given_away), *chains, SALT, made.world.host.cnf):
        assert secret not in content
        assert secret.hex().encode() not in content
    assert b"CN=" not in content
    assert identifiers(redacted(made.world)) == ()


def test_a_device_has_one_name_under_one_salt(made: Made) -> None:
    """So the tenant can say of two bundles that they are of one device, and nobody else can find out which."""
    gpu = min(made.world.host.gpus.identities())
    name = pseudonym(SALT, "tenant-a", gpu).hex().encode()
    assert name in redacted(made.world).content()
    assert name not in redacted(made.world, salt=SALT[::-1]).content()
    assert pseudonym(SALT, "tenant-b", gpu).hex().encode() != name
    for wrong in (b"", SALT[1:], bytes(32), SALT[:7] * 5):
        with pytest.raises(ValueError, match="32 bytes"):
            pseudonym(wrong[:32], "tenant-a", gpu)
        with pytest.raises(ValueError, match="32 bytes"):
            salt_thumbprint(wrong[:32], "tenant-a")


def test_devices_stand_in_the_order_of_their_pseudonyms(made: Made) -> None:
    """That of identities, which a verdict has, would say which of two is the smaller one."""
    first = Record.parse(made.exported.bundle.entries[0].record)
    orders: set[bool] = set()
    for number in range(16):
        salt = sha256(b"salt %d" % number)
        document = strict.json_decode(summary(first, salt=salt, tenant="tenant-a"), what="summary")
        assert isinstance(document, dict)
        names = [pseudonym(salt, "tenant-a", gpu).hex() for gpu in terms_of(first).gpus]
        assert document["devices"] == sorted(names)
        orders.add(document["devices"] == names)
    assert orders == {True, False}


def test_a_redacted_bundle_of_some_windows(made: Made) -> None:
    result = made.records(redacted(made.world, withhold=made.windows[:3]))
    assert [window.outcome for window in result.windows] == [None, None, None, "affirmed", "affirmed"]
    assert [window.seq for window in result.shown] == [3, 4]
    assert (result.untold, result.admitted) == (3, False)


def test_a_closing_of_which_nothing_is_said_is_untold(made: Made) -> None:
    closing = made.exported.bundle.entries[-1].index
    result = made.records(redacted(made.world, withhold=[closing]))
    assert (result.untold, result.closed, result.admitted) == (1, True, False)


def test_a_cut_bundle_says_that_it_is_not_closed(made: Made) -> None:
    """Whoever hands on a file can cut off its end, and so a refused window: what it says then is said of the rest."""
    whole = made.exported.bundle
    assert made.exported.verify().closed
    cut = made.exported.verify(replace(whole, entries=whole.entries[:-2]))
    assert (cut.admitted, cut.closed) == (True, False)
    assert "may have left out" in found(cut.checks, "order").residual
    told = made.records(replace(whole, entries=whole.entries[:-2]))
    assert (told.admitted, told.closed) == (True, False)
    assert "may have left out" in found(told.checks, "records").residual
    require_closed(closed=True)
    assert code_of(lambda: require_closed(closed=False)) is Code.BUNDLE_UNCLOSED


def test_what_it_says_is_the_verifiers_word(made: Made) -> None:
    bundle = redacted(made.world)
    assert bundle.redaction is not None
    edited = bundle.redaction.replace(b'"affirmed"', b'"unharmed"')
    assert code_of(lambda: made.records(replace(bundle, redaction=edited))) is Code.COSE_SIGNATURE
    anchors = believed(made.world)
    fewer = TrustAnchors(tuple(anchor for anchor in anchors.anchors if anchor.purpose != "verifier"))
    assert code_of(lambda: made.records(bundle, anchors=fewer)) is Code.CHAIN_UNTRUSTED
    before = NOON - timedelta(days=1)
    ended = [replace(item, not_after=before) if item.purpose == "verifier" else item for item in anchors.anchors]
    assert code_of(lambda: made.records(bundle, anchors=TrustAnchors(tuple(ended)))) is Code.CHAIN_EXPIRED


def test_it_says_it_of_the_records_that_the_ledger_has(made: Made) -> None:
    """What a verifier signs afterwards it can be held to: each row is of a record that its leaf commits to."""
    assert code_of(lambda: made.records(_signed(made))) is Code.LEDGER_INCONSISTENT
    assert code_of(lambda: made.records(_signed(made, rows=(Row(9999, bytes(32), b"{}"),)))) is Code.LEDGER_INCONSISTENT
    rows = tuple(Row(index, bytes(32), b"{}") for index in (3, 2))
    assert code_of(lambda: made.records(_signed(made, rows=rows))) is Code.BUNDLE_MALFORMED
    assert code_of(lambda: made.records(_signed(made, session=bytes(16)))) is Code.BUNDLE_MALFORMED
    own = made.records(_signed(made, rows=()))
    assert (own.shown, own.admitted) == ((), False)


def test_it_says_it_of_one_ledger_and_afterwards(made: Made) -> None:
    """What a verifier signs of its own ledger is not believed of another's, nor what is dated before it happened."""
    assert code_of(lambda: made.records(_signed(made, origin="ledger.example/b"))) is Code.LEDGER_INCONSISTENT
    last = Record.parse(made.exported.bundle.entries[-1].record).received_ns
    assert made.records(_signed(made, rows=(), issued_ns=last)).untold == WINDOWS + 2
    assert code_of(lambda: made.records(_signed(made, rows=(), issued_ns=last - 1))) is Code.LEDGER_INCONSISTENT
    later = Bundle.parse(_signed(made, rows=(), issued_ns=last + 10**9).encode())
    told = partial(verify_records, later, anchors=believed(made.world))
    assert told(at=moment(last + 10**9)).redacted
    assert code_of(lambda: told(at=moment(last))) is Code.BUNDLE_FUTURE


@pytest.mark.parametrize("name", ["kind", "seq", "received_at"])
def test_a_summary_is_of_the_judgement_in_whose_row_it_stands(made: Made, name: str) -> None:
    entry = made.exported.bundle.entries[1]
    record = Record.parse(entry.record)
    document = strict.json_decode(summary(record, salt=SALT, tenant="tenant-a"), what="summary")
    assert isinstance(document, dict)
    assert {**facts(record)}.items() <= document.items()
    row = Row(entry.index, sha256(entry.record), strict.json_encode({**document, name: "another"}))
    assert code_of(lambda: made.records(_signed(made, rows=(row,)))) is Code.LEDGER_INCONSISTENT


@pytest.mark.parametrize("document", [None, {}, {"outcome": 1}])
def test_a_summary_that_says_nothing(made: Made, document: strict.JsonObject | None) -> None:
    entry = made.exported.bundle.entries[1]
    said = b"[]" if document is None else strict.json_encode({**facts(Record.parse(entry.record)), **document})
    row = Row(entry.index, sha256(entry.record), said)
    assert code_of(lambda: made.records(_signed(made, rows=(row,)))) is Code.FIELD_TYPE


def test_a_redacted_bundle_brings_nothing_else(made: Made) -> None:
    bundle = replace(redacted(made.world), references=made.exported.bundle.references)
    assert code_of(lambda: made.records(bundle)) is Code.BUNDLE_MALFORMED


@pytest.mark.parametrize("name", ["full", "partial", "redacted"])
def test_records_only_of_each_kind(made: Made, name: str) -> None:
    kinds = {"full": made.exported.bundle, "partial": made.but(1, 2), "redacted": redacted(made.world)}
    result = made.records(kinds[name])
    whole = name != "partial"
    assert (result.admitted, result.untold, result.closed) == (whole, 0 if whole else WINDOWS - 2, True)
    assert len(result.shown) == (WINDOWS if whole else 2)
    later = partial(verify_records, kinds[name], anchors=believed(made.world))
    assert later(at=NOON + timedelta(hours=1)).admitted is whole
    assert code_of(lambda: later(at=NOON)) is Code.BUNDLE_FUTURE


def test_a_denied_window_cannot_be_hidden(arena: Arena) -> None:
    """Any holder of a bundle can put a leaf in a record's place: what was recorded of it is not told then."""
    world = arena.settled(2)
    world.host.log.load(OTHER)
    assert world.window().verdict.outcome == "denied"
    arena.forget()
    full = export(world)
    said = verify_records(full, anchors=believed(world))
    assert (len(said.denied), said.admitted, said.untold) == (1, False, 0)
    last = full.entries[-1]
    leaf = Leaf.of(Record.parse(last.record)).encode()
    hidden = replace(full, entries=full.entries[:-1], withheld=(Withheld(last.index, last.proof, leaf),))
    for bundle in (hidden, redacted(world, withhold=[last.index])):
        said = verify_records(bundle, anchors=believed(world))
        assert (said.denied, said.admitted, said.untold) == ((), False, 1)


# -- witnesses ---------------------------------------------------------------------------------------------------------


def test_witnesses_that_are_trusted_are_counted(made: Made) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x07")
    key = cosignature.WitnessKey("witness.example/w1", private.public_key().public_bytes_raw())
    bundle = made.exported.bundle
    text = bundle.checkpoint.partition(b"\n\n")[0] + b"\n"
    line = cosignature.sign(text, key=key, time=1_780_000_000, signer=private.sign)
    cosigned = replace(bundle, checkpoint=bundle.checkpoint + line)
    assert made.exported.verify(cosigned).cosigned == ()
    span = believed(made.world).anchors[0]
    anchor = Anchor("witness", key.name, "test", key.spki, span.not_before, span.not_after, "a test")
    anchors = believed(made.world).with_anchors([anchor])
    result = made.exported.verify(cosigned, anchors=anchors)
    assert (result.cosigned, result.admitted) == (("witness.example/w1",), True)
    assert found(result.checks, "witnesses").result == "passed"
    assert made.exported.verify(anchors=anchors).cosigned == ()
    other = cosignature.sign(b"another\n1\nhead\n", key=key, time=1, signer=private.sign)
    forged = replace(bundle, checkpoint=bundle.checkpoint + other)
    assert code_of(lambda: made.exported.verify(forged, anchors=anchors)) is Code.LEDGER_WITNESS
    # One that was not trusted when it cosigned is a stranger; and a stranger's line is not the note's that is shown.
    stranger = cosigned.checkpoint + b"\xe2\x80\x94 <script>alert(1)</script> AAAAAAAA\n"
    assert made.exported.verify(replace(bundle, checkpoint=stranger), anchors=anchors).checkpoint.encode() == (
        cosigned.checkpoint
    )
    for times in ((span.not_before, moment(1_779_999_999 * 10**9)), (moment(1_780_000_001 * 10**9), span.not_after)):
        limited = replace(anchor, not_before=times[0], not_after=times[1])
        result = made.exported.verify(cosigned, anchors=believed(made.world).with_anchors([limited]))
        assert (result.cosigned, result.checkpoint.encode()) == ((), bundle.checkpoint)
        said = made.records(cosigned, anchors=believed(made.world).with_anchors([limited]))
        assert said.cosigned == ()
    named = believed(made.world).with_anchors([replace(anchor, name="Witness One")])
    assert code_of(lambda: made.exported.verify(cosigned, anchors=named)) is Code.KEY_MALFORMED


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_what_another_tenant_has_a_part_in_is_not_handed_out(arena: Arena) -> None:
    """A66: samples of its time are not, nor is what was remembered of it; of a GPU alone, what is the GPU's own is."""
    world = arena.settled(2)
    theirs = world.host.session
    world.wanted = requirements(tenant="tenant-b")
    world.restart()
    world.host.tenant = "tenant-b"
    world.clock.advance(30)
    world.host.wall_ns += 30_000_000_000
    world.open_session()
    for _ in range(2):
        assert world.window().verdict.opens
    _, indices = indices_of(world, world.host.session)
    records = world.archive.records
    first = records.record(indices[1])
    # The energy counter of another tenant's time is the GPU's own; in which session it was read is not.
    assert first.history is not None
    assert {reading.session for reading in first.history.readings} == {ANOTHER_TENANTS}
    assert theirs not in first.encode()
    assert theirs.hex().encode() not in first.encode()
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
        assert row is not None
        others = tx.others_of(row.gpus, tenant=row.tenant)
    assert [session for session, _, _ in others] == [theirs]
    assert tenancy.foreign(records, indices, others) == frozenset()
    assert tenancy.foreign(records, indices, ()) == frozenset()
    # A window that begins in the time of another tenant's session, by its host's clock.
    late = [(theirs, opened, ended + 31_000_000_000) for _, opened, ended in others]
    assert tenancy.foreign(records, indices, late) == {*indices[1:]}
    # A record that names another tenant's session, as an older verifier might have written it.
    reading = Reading(device=row.gpus[0], session=theirs, seq=1, wall_ns=1, energy_mj=1)
    named = world.archive.commit(replace(first, history=History((reading,)), evidence=None), None)
    assert tenancy.foreign(records, [named.index], others) == {named.index}
