"""The procedure of a window at its edges: what is just allowed, what is just not, and what differs in either direction.

Every signature is good: what is wrong was wrong before it was signed (:mod:`support.forge`).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal
from unittest import mock

import pytest

from corpus.arena import Arena
from corpus.boot import case_001_known_host
from support.forge import HONEST, Forgery, claim, interval, random_bytes, seal
from support.world import PERIOD_NS, requirements
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.telemetry import Source, Telemetry
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.window import Evidence
from weighbridge.verifier.boot.runtime import RuntimeLog
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.procedure import (
    AuthenticWindow,
    VerifiedWindow,
    authenticate,
    fork,
    verify_window,
)
from weighbridge.verifier.window_claims import check_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from support.world import Engines, World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.proto.tpm.evidence import QuoteEvidence
    from weighbridge.proto.tpm.pcr import PcrSelection
    from weighbridge.proto.window import Header
    from weighbridge.verifier.session import Enrolled, Position

SECOND: Final = 1_000_000_000
LOW, HIGH = bytes(32), b"\xff" * 32
BOTH = pytest.mark.parametrize("value", [LOW, HIGH], ids=["low", "high"])


@dataclass(frozen=True)
class Stand:
    """A session between two windows: whatever is judged here, it stays where it is."""

    world: World
    enrolled: Enrolled
    position: Position
    at: datetime

    @classmethod
    def of(cls, world: World) -> Stand:
        """Where the world's session stands, a period after its last window."""
        live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
        return cls(world, live.enrolled, live.position, world.clock.at + timedelta(microseconds=PERIOD_NS // 1000))

    def authenticated(self, sealed: SealedWindow) -> AuthenticWindow:
        return authenticate(sealed.evidence, enrolled=self.enrolled, peer=self.world.host.peer)

    def judge(self, forgery: Forgery = HONEST) -> VerifiedWindow:
        """The next window, as ``forgery`` would have it."""
        return verify_window(
            self.authenticated(seal(self.world.host, forgery)),
            enrolled=self.enrolled,
            position=self.position,
            held=False,
            spot=None,
            anchors=self.world.anchors,
            at=self.at,
        )

    def refusal(self, forgery: Forgery = HONEST) -> NotAuthentic:
        with pytest.raises(NotAuthentic) as refusal:
            self.judge(forgery)
        return refusal.value


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Iterator[Stand]:
    """Behind the first of two windows of which the second owes no GPU report."""
    arena = Arena(tmp_path_factory.mktemp("procedure"), engines)
    yield Stand.of(arena.settled(1, wanted=requirements(gpu_every=2)))
    arena.close()


def test_only_the_procedure_makes_what_it_has_verified(stand: Stand) -> None:
    window = stand.authenticated(stand.world.host.seal())
    for made in (window, stand.judge()):
        with pytest.raises(TypeError, match="is made by"):
            replace(made, seal=mock.ANY)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(made)
        assert "object at" not in repr(made)


# -- who speaks --------------------------------------------------------------------------------------------------------


@BOTH
def test_another_key_and_another_channel_are_another_speaker(stand: Stand, value: bytes) -> None:
    assert stand.refusal(Forgery(kid=lambda _: value)).code is Code.TELEMETRY_KEY_MISMATCH
    with pytest.raises(NotAuthentic) as refusal:
        authenticate(stand.world.host.seal().evidence, enrolled=stand.enrolled, peer=value)
    assert refusal.value.code is Code.WINDOW_PEER


def test_a_signature_by_a_key_of_another_boot_says_what_to_do(stand: Stand) -> None:
    error = stand.refusal(Forgery(signer=lambda _: bytes([0] * 31 + [1]) * 2))
    assert (error.code, "open a new session" in error.hint) == (Code.COSE_SIGNATURE, True)


def test_a_fork_names_both_windows(stand: Stand) -> None:
    window = stand.authenticated(stand.world.host.seal())
    error = fork(window, LOW)
    assert (error.code, error.where) == (Code.WINDOW_FORK, "window 1")
    assert error.expected != error.got


# -- what it claims ----------------------------------------------------------------------------------------------------

CLAIMS: Final = {
    "tenant": (Code.WINDOW_TENANT, "a", "z"),
    "session": (Code.WINDOW_SESSION, LOW[:16], HIGH[:16]),
    "audience": (Code.WINDOW_AUDIENCE, "a", "z"),
    "terms": (Code.WINDOW_TERMS, LOW, HIGH),
    "model": (Code.WINDOW_TERMS, LOW, HIGH),
    "telemetry_key": (Code.TELEMETRY_KEY_MISMATCH, LOW, HIGH),
    "cnf": (Code.WINDOW_CNF, LOW, HIGH),
    "peer": (Code.WINDOW_PEER, LOW, HIGH),
    "kem": (Code.WINDOW_CNF, LOW, HIGH),
    "seq": (Code.WINDOW_SEQ, 0, 2),
    "prev": (Code.WINDOW_PREV, LOW, HIGH),
    "log_length": (Code.LOG_HEAD, 0, 2),
    "log_head": (Code.LOG_HEAD, LOW, HIGH),
    "telemetry": (Code.TELEMETRY_DIGEST, LOW, HIGH),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_the_sessions_own_whichever_way_it_differs(stand: Stand, name: str) -> None:
    code, *others = CLAIMS[name]
    assert [stand.refusal(claim(**{name: other})).code for other in others] == [code, code]


def test_a_session_goes_on_for_long(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand.world.host, "seq", 100_001)
    late = replace(stand, position=replace(stand.position, seq=100_001))
    assert late.judge().header.seq == 100_001
    assert [late.refusal(claim(seq=other)).code for other in (100_000, 100_002)] == [Code.WINDOW_SEQ] * 2


# -- when --------------------------------------------------------------------------------------------------------------


def test_a_window_may_end_five_seconds_ahead_of_its_receipt(stand: Stand) -> None:
    """A host's clock is not the verifier's."""
    odd = replace(stand, at=stand.at + timedelta(microseconds=123_457))
    latest = nanoseconds(odd.at) + 5 * SECOND
    odd.judge(interval(wall_end_ns=latest))
    error = odd.refusal(interval(wall_end_ns=latest + 1))
    assert (error.code, error.expected) == (Code.WINDOW_INTERVAL, f"<= {latest}")


def test_a_window_takes_time_by_the_wall_and_none_less_by_the_tpm(stand: Stand) -> None:
    span = stand.world.host.observe().interval
    start, tick = span.wall_start_ns, stand.position.quote.clock
    for honest in (interval(wall_end_ns=start + 1), interval(tpm_start_ms=tick, tpm_end_ms=tick)):
        stand.judge(honest)
    for backwards in (
        interval(wall_end_ns=start),
        interval(wall_end_ns=start - 1),
        interval(tpm_start_ms=tick + 1, tpm_end_ms=tick),
    ):
        error = stand.refusal(backwards)
        assert (error.code, error.message) == (Code.WINDOW_INTERVAL, "the interval ends before it starts")


def test_windows_follow_each_other_by_the_wall(stand: Stand) -> None:
    """A pause between two is none of an attack; a nanosecond in both is."""
    end = stand.position.wall_end_ns
    for start in (end, end + 1):
        stand.judge(interval(wall_start_ns=start))
    error = stand.refusal(interval(wall_start_ns=end - 1))
    assert (error.code, error.expected) == (Code.WINDOW_INTERVAL, f">= {end}")


def test_a_window_lies_between_two_quotes_by_the_tpm(stand: Stand) -> None:
    tpm, before = stand.world.host.tpm, stand.position.quote.clock
    span = stand.world.host.observe().interval
    with tpm.forging(clock=span.tpm_end_ms):
        stand.judge(interval(tpm_start_ms=before, tpm_end_ms=span.tpm_end_ms))
        for outside in (
            interval(tpm_start_ms=before - 1, tpm_end_ms=span.tpm_end_ms),
            interval(tpm_start_ms=before, tpm_end_ms=span.tpm_end_ms + 1),
        ):
            error = stand.refusal(outside)
            assert (error.code, "outside" in error.message) == (Code.WINDOW_INTERVAL, True)


def test_what_vouches_for_the_key_does_so_to_its_last_moment(stand: Stand) -> None:
    def vouched(until: datetime) -> Stand:
        return replace(stand, enrolled=replace(stand.enrolled, ak=replace(stand.enrolled.ak, not_after=until)))

    vouched(stand.at + timedelta(0)).judge()
    error = vouched(stand.at - timedelta(microseconds=1)).refusal()
    assert error.code is Code.CHAIN_EXPIRED


def test_where_no_report_is_due_what_vouches_for_the_latest_ones_does_so_to_its_last_moment(stand: Stand) -> None:
    """For each of them; whatever vouched for those of the enrolment, which may have been renewed since."""

    def vouched(until: datetime) -> Stand:
        *others, last = stand.position.gpus
        ending = replace(last, chain=replace(last.chain, not_after=until))
        return replace(stand, position=replace(stand.position, gpus=(*others, ending)))

    assert not stand.enrolled.terms.gpu_due(stand.position.seq)
    vouched(stand.at + timedelta(0)).judge()
    error = vouched(stand.at - timedelta(microseconds=1)).refusal()
    assert (error.code, error.message) == (Code.CHAIN_EXPIRED, "what vouches for a GPU has ended since its report")
    assert error.where.startswith(f"gpu {stand.position.gpus[-1].identity.hex()[:16]}, under anchor ")
    old = tuple(
        replace(one, chain=replace(one.chain, not_after=stand.at - timedelta(1))) for one in stand.enrolled.gpus
    )
    replace(stand, enrolled=replace(stand.enrolled, gpus=old)).judge()


# -- what the TPM quotes -----------------------------------------------------------------------------------------------


def quoting(world: World, register: int, value: bytes) -> Forgery:
    """The quote is made while ``register`` holds ``value``; nothing else happens meanwhile."""
    bank = world.host.tpm.pcrs[HashAlgorithm.SHA256]
    honest = bank[register]

    def before(selection: PcrSelection) -> PcrSelection:
        bank[register] = value
        return selection

    def after(quote: QuoteEvidence) -> QuoteEvidence:
        bank[register] = honest
        return quote

    return Forgery(selection=before, quote=after)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Iterator[Stand]:
    """A session of a host whose boot is told, and whose terms demand the kernel's list of measured files."""
    arena = Arena(tmp_path_factory.mktemp("measured"), engines)
    case_001_known_host(arena)
    yield Stand.of(arena.worlds[0])
    arena.close()


@BOTH
@pytest.mark.parametrize(("register", "code"), [(15, Code.LOG_REPLAY), (7, Code.TPM_PCR_VALUES)])
def test_a_register_holds_what_is_known_of_it(measured: Stand, register: int, code: Code, value: bytes) -> None:
    error = measured.refusal(quoting(measured.world, register, value))
    assert (error.code, error.where) == (code, f"pcr {register}")


@pytest.mark.parametrize("demanded", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("sent", [False, True])
def test_the_kernels_list_is_where_it_is_demanded_and_nowhere_else(
    stand: Stand, measured: Stand, *, demanded: bool, begun: bool, sent: bool
) -> None:
    """Whatever the position says of it, too: a list that was not begun is not gone on with."""
    chosen = measured if demanded else stand
    list_so_far = measured.position.runtime or RuntimeLog.empty()
    there = replace(chosen, position=replace(chosen.position, runtime=list_so_far if begun else None))
    forgery = Forgery(runtime=lambda honest: (honest or b"") if sent else None)
    if demanded == begun == sent:
        assert (there.judge(forgery).runtime is not None) == demanded
    else:
        assert there.refusal(forgery).code is (Code.EVIDENCE_UNEXPECTED if sent else Code.EVIDENCE_ABSENT)


# -- what its sensors read ---------------------------------------------------------------------------------------------


def read(stand: Stand, edit: Callable[[Header, Telemetry], Telemetry]) -> Telemetry:
    """Step 7 alone: the next window with other samples, which its header names."""
    sealed = stand.world.host.seal()
    header = stand.authenticated(sealed).header
    data = edit(header, Telemetry.parse(Evidence.parse(sealed.evidence).telemetry)).encode()
    return check_telemetry(data, replace(header, telemetry=sha256(data)), stand.enrolled)


def unread(stand: Stand, edit: Callable[[Header, Telemetry], Telemetry]) -> NotAuthentic:
    with pytest.raises(NotAuthentic) as refusal:
        read(stand, edit)
    return refusal.value


def more(device: bytes | None, start: int, *offsets: int) -> Source:
    return Source(device=device, name="more", start_wall_ns=start, period_ns=1, offsets=offsets, channels={})


Edge = Literal["first", "last"]


@pytest.mark.parametrize(
    ("edge", "start", "offsets", "taken"),
    [
        ("first", 0, (), True),
        ("first", 0, (0, 1, 2), True),
        ("first", -1, (), False),
        ("first", -1, (0, 1, 2), False),
        ("last", 0, (), True),
        ("last", 1, (), False),
        ("last", -2, (0, 1, 2), True),
        ("last", -2, (0, 1, 3), False),
    ],
)
def test_samples_are_of_the_windows_time_and_a_second_around_it(
    stand: Stand, edge: Edge, start: int, offsets: tuple[int, ...], *, taken: bool
) -> None:
    def edit(header: Header, honest: Telemetry) -> Telemetry:
        span = header.interval
        border = span.wall_start_ns - SECOND if edge == "first" else span.wall_end_ns + SECOND
        return replace(honest, sources=(*honest.sources, more(None, border + start, *offsets)))

    if taken:
        assert read(stand, edit).sources[-1].name == "more"
    else:
        error = unread(stand, edit)
        assert (error.code, error.where) == (Code.TELEMETRY_TIME, "telemetry.sources[2]")


@pytest.mark.parametrize("changes", [{"seq": 0}, {"seq": 2}, {"session": LOW[:16]}, {"session": HIGH[:16]}])
def test_samples_of_another_window_are_not_taken(stand: Stand, changes: dict[str, object]) -> None:
    error = unread(stand, lambda _, honest: replace(honest, **changes))  # type: ignore[arg-type] # a test names fields
    assert error.code is Code.TELEMETRY_SESSION


def test_samples_are_of_every_enrolled_gpu_and_of_nothing_else(stand: Stand) -> None:
    stranger = random_bytes("a stranger's GPU")
    error = unread(
        stand,
        lambda header, honest: replace(
            honest, sources=(*honest.sources, more(stranger, header.interval.wall_start_ns))
        ),
    )
    assert (error.code, "not enrolled" in error.message) == (Code.TELEMETRY_DEVICE, True)
    for number in range(2):
        error = unread(
            stand,
            lambda _, honest, number=number: replace(  # type: ignore[misc]
                honest, sources=(honest.sources[number],)
            ),
        )
        assert (error.code, "no telemetry" in error.message) == (Code.TELEMETRY_DEVICE, True)


def test_a_switch_computes_nothing_and_is_not_sampled(stand: Stand) -> None:
    gpu, other = stand.enrolled.gpus
    switch = replace(other, chain=replace(other.chain, kind="switch"))
    beside = replace(stand, enrolled=replace(stand.enrolled, gpus=(gpu, switch)))
    read(beside, lambda _, honest: replace(honest, sources=of(honest, gpu.identity)))
    error = unread(beside, lambda _, honest: replace(honest, sources=of(honest, switch.identity)))
    assert error.expected == gpu.identity.hex()


def of(honest: Telemetry, device: bytes) -> tuple[Source, ...]:
    return tuple(source for source in honest.sources if source.device == device)
