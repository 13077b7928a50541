"""Attacks by composition: every signature is good, and the verifier once said the wrong thing.

The world is the product's verifier and a host whose emulated devices sign for real (:mod:`support.world`).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import jwt
import pytest

from support.gate import Gate
from support.models import safetensors
from support.world import NOON, World, manifest, reference_for, requirements
from weighbridge.policy import policy_set
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicyModule, PolicySet
from weighbridge.proto import binding, limits, measurement_log, strict
from weighbridge.proto.errors import Code, ExitCode, NotAuthentic, PolicyDenied
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.window import Evidence
from weighbridge.verifier import bundle as bundles
from weighbridge.verifier.cli import main
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.transaction import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from datetime import datetime
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import Host
    from weighbridge.verifier.bundle import Bundle

LATE = NOON.replace(year=2030)
EVIL = manifest("evil", weights=b"other weights")
PERMISSIVE = b"""package weighbridge.policy

import rego.v1

default allow := false

allow if input.schema == "weighbridge/policy-input/v1"

deny contains d if {
	input.schema == "another"
	d := {"code": "NEVER", "window": null, "device": null, "expected": null, "got": null, "hint": null}
}
"""
OWN_CODE = b"""package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	lib.fresh
}

deny contains d if some d in lib.always

deny contains d if {
	input.work.requests > 5
	d := lib.denial("TOO_BUSY", null, "too many requests", null, null, null)
}
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds, and closes them."""
    made: list[World] = []

    def world(**options: object) -> World:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(World.make(directory, **options))  # type: ignore[arg-type] # the test's own words
        return made[-1]

    yield world
    for item in made:
        item.close()


def subject(world: World) -> Subject:
    """What the verifier remembers of the host's AK."""
    assert world.host.terms is not None
    with world.store.transaction() as tx:
        found = tx.subjects.of("ak", world.host.terms.terms.ak)
    assert found is not None
    return found


def state(world: World, host: Host | None = None) -> SessionState:
    with world.store.transaction() as tx:
        row = tx.session((host or world.host).session)
    assert row is not None
    return row.state


@contextlib.contextmanager
def own_policy(world: World, text: bytes) -> Generator[None]:
    """The verifier judges by an author's module meanwhile."""
    library = policy_set.shipped("production", reference=world.reference).modules[0]
    policy = PolicySet((library, PolicyModule("mine.rego", text)), world.reference)
    before = world.prepared
    world.own_files[policy.digest] = policy.files
    with RegorusEngine().load(policy) as world.prepared:
        world.restart()
        yield
    world.prepared = before


def export(world: World, *, more: tuple[int, ...] | None = None, text: bytes | None = None) -> Bundle:
    """The bundle of the host's session as the operator exports it; ``more`` in place of what ended it."""
    session = world.host.session
    with world.store.transaction() as tx:
        row, indices = tx.session(session), tx.window_indices(session)
    assert row is not None
    reader = world.ledger.reader()
    chain = (row.enrolment_index, *indices)
    rest = bundles.ending(reader, session, after=chain[-1], seq=len(indices)) if more is None else more
    made = bundles.assemble(
        world.archive.records,
        reader,
        [*chain, *rest],
        manifests=list(world.models.values()),
    )
    if text is None:
        return made
    (files,) = made.policies
    return replace(made, policies=(tuple((name, was if "lib" in name else text) for name, was in files),))


def verify(world: World, bundle: Bundle, tmp_path: Path, *options: str, until: datetime = LATE) -> int:
    """The exit status of ``weighbridge verify bundle``, for somebody who trusts the world's keys ``until`` a time."""
    own = world.keys.anchors(
        name="v", origin=world.ledger.key.name, platform="weighbridge", not_before=NOON.replace(year=2020),
        not_after=until,
    )  # fmt: skip
    (tmp_path / "session.wb").write_bytes(bundle.encode())
    (tmp_path / "anchors.json").write_bytes(world.anchors.with_anchors(own).encode())
    return main(
        ["verify", "bundle", str(tmp_path / "session.wb"), "--anchors", str(tmp_path / "anchors.json"), *options]
    )


# -- a bundle's file is its author's ----------------------------------------------------------------------------------


def test_a_bundle_cannot_bring_the_policy_that_admits_it(make: Callable[..., World], tmp_path: Path) -> None:
    """A64: an honest verifier denied the window; the file carries another policy under the recorded one's name."""
    world = make(policy="production")
    world.open_session()
    assert world.window().verdict.outcome == "denied"
    assert verify(world, export(world), tmp_path) == ExitCode.DENIED
    assert verify(world, export(world, text=PERMISSIVE), tmp_path) == ExitCode.LEDGER_INCONSISTENT


def test_a_bundle_cannot_bring_the_reference_values_that_admit_it(
    make: Callable[..., World], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A63: the relying party names the policy and takes the reference values to be the recorded ones, as we say."""
    world = make(
        reference=lambda made: replace(made, gpu_measurements=dict.fromkeys(made.gpu_measurements, ("00" * 32,)))
    )
    world.open_session()
    assert world.window().verdict.outcome == "denied"
    admitting = reference_for(world.host.gpus, list(world.models.values())).to_json()
    forged = replace(export(world), references=(admitting,))
    assert verify(world, forged, tmp_path, "--policy", "insecure_development") == ExitCode.LEDGER_INCONSISTENT
    assert "reference values" in capsys.readouterr().err
    # Named by the relying party, they are its own decision.
    (tmp_path / "own.json").write_bytes(admitting)
    own = ("--policy", "insecure_development", "--reference", str(tmp_path / "own.json"))
    assert verify(world, export(world), tmp_path, *own) == ExitCode.AFFIRMED
    # What no record names has no place in the file, used or not.
    assert verify(world, forged, tmp_path, *own) == ExitCode.MALFORMED
    assert "BUNDLE_MALFORMED: nothing in the bundle names it, at bundle.references" in capsys.readouterr().err


def test_a_bundle_without_its_policy_shows_nothing(make: Callable[..., World], tmp_path: Path) -> None:
    world = make()
    world.open_session()
    world.window()
    assert verify(world, replace(export(world), policies=()), tmp_path) == ExitCode.LEDGER_INCONSISTENT


def test_a_recorded_policy_without_a_library_is_malformed(make: Callable[..., World], tmp_path: Path) -> None:
    world = make()
    world.open_session()
    index = world.window().index
    named = world.archive.keep_policy((("a.rego", b"package weighbridge.policy"),))
    record = replace(world.archive.records.record(index), policy=named)
    again = world.archive.commit(record, world.archive.records.evidence(record)).index
    bundle = bundles.assemble(world.archive.records, world.ledger.reader(), [0, again], manifests=[])
    assert verify(world, bundle, tmp_path) == ExitCode.MALFORMED


def test_a_session_that_no_policy_has_judged(make: Callable[..., World], tmp_path: Path) -> None:
    """Its only window was refused by an invariant: the records name no policy, and the bundle needs none."""
    world = make()
    world.open_session()
    world.host.log.load(manifest("undeclared", weights=b"other"))
    assert world.window().verdict.decision is None
    bundle = export(world)
    assert bundle.policies == ()
    assert verify(world, bundle, tmp_path) == ExitCode.DENIED


def test_without_a_recorded_policy_nobodys_values_admit(
    arena: Arena, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorded values revoke the model; by the caller's own a policy would be asked, and there is none."""
    gate = Gate.make(arena)
    model = gate.world.host.model
    gate.publish(gate.owner.content(revoked={model.digest: "weights leaked"}))
    gate.start()
    gate.world.open_session()
    assert gate.world.window().verdict.decision is None
    own = tmp_path / "own.json"
    own.write_bytes(reference_for(gate.world.host.gpus, [model]).to_json())
    assert verify(gate.world, export(gate.world), tmp_path, "--reference", str(own)) == ExitCode.DENIED
    assert Code.POLICY_ABSENT in capsys.readouterr().out
    named = ("--reference", str(own), "--policy", "insecure_development")
    assert verify(gate.world, export(gate.world), tmp_path, *named) == ExitCode.AFFIRMED


@pytest.mark.parametrize("how", ["undeclared", "fork", "challenge", "telemetry"])
def test_the_bundle_of_a_failed_session_says_so(make: Callable[..., World], tmp_path: Path, how: str) -> None:
    """A78: the window that failed a session continues no chain, and was left out of what is exported."""
    world = make()
    world.open_session()
    for _ in range(2):
        assert world.window().verdict.opens
    if how == "undeclared":
        world.host.log.load(EVIL)
    observed = world.host.observe()
    if how == "challenge":
        observed = replace(observed, challenge=bytes(31) + b"\1")
    if how == "fork":
        first = world.host.seal(observed)
        second = world.host.seal(replace(world.host.observe(), work=replace(observed.work, requests=2)))
        world.clock.advance(1)
        assert world.send(first.evidence).verdict.opens
        answer = world.send(second.evidence)
    elif how == "telemetry":
        world.clock.advance(1)
        evidence = Evidence.parse(world.host.seal(observed).evidence)
        answer = world.send(replace(evidence, telemetry=b"\xa0").encode())
    else:
        answer = world.window(observed)
    assert answer.verdict.outcome == "denied"
    assert state(world) is SessionState.FAILED
    bundle = export(world)
    assert bundle.entries[-1].index == answer.index
    assert verify(world, bundle, tmp_path) == ExitCode.DENIED


def test_a_closing_counts_the_windows_before_it(make: Callable[..., World], tmp_path: Path) -> None:
    """The last windows are dropped and the closing is kept: the closing says how many there were."""
    world = make()
    world.open_session()
    for _ in range(3):
        world.window()
    world.verifier.close(world.host.session, peer=world.host.peer)
    whole = export(world)
    assert verify(world, whole, tmp_path) == ExitCode.AFFIRMED
    short = replace(whole, entries=(*whole.entries[:-2], whole.entries[-1]))
    assert verify(world, short, tmp_path) == ExitCode.MALFORMED


def test_a_window_that_comes_again_is_recorded_once(make: Callable[..., World], tmp_path: Path) -> None:
    """The store could not be written after the ledger was; then the window came again."""
    world = make()
    world.open_session()
    world.window()
    world.clock.advance(1)
    sealed = world.host.seal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weighbridge.verifier.live.LiveSessions.advance", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.send(sealed.evidence)
    with pytest.raises(NotAuthentic) as refused:
        world.deliver(sealed)
    assert refused.value.code is Code.WINDOW_DUPLICATE
    assert world.ledger.size == 3
    assert len(export(world).entries) == 3
    assert verify(world, export(world), tmp_path) == ExitCode.AFFIRMED


def test_keys_that_are_not_believed_any_more_vouch_for_nothing(make: Callable[..., World], tmp_path: Path) -> None:
    """An anchor has a time, for verifiers and ledgers as for everybody else."""
    world = make()
    world.open_session()
    token = world.window().token
    assert token is not None
    early = NOON.replace(year=2025)
    assert verify(world, export(world), tmp_path, until=early) == ExitCode.NOT_AUTHENTIC
    (tmp_path / "token").write_text(token)
    arguments = ["verify", "token", str(tmp_path / "token"), "--audience", "relying-party", "--accept", "warning"]
    arguments += ["--anchors", str(tmp_path / "anchors.json"), "--at", strict.time_encode(world.clock.at)]
    assert main(arguments) == ExitCode.NOT_AUTHENTIC
    verify(world, export(world), tmp_path)
    assert main(arguments) == ExitCode.AFFIRMED


def test_another_accepted_model_that_is_called_an_adapter_is_named(
    make: Callable[..., World], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A54: both models are accepted, and whoever looks at the model alone would be answered by either."""
    world = make(reference=lambda made: replace(made, models={**made.models, EVIL.digest.hex(): "another"}))
    world.host.adapters = (EVIL,)
    world.models[EVIL.digest] = EVIL
    world.open_session()

    def said() -> tuple[str, list[str]]:
        token = world.window().token
        assert token is not None
        claims = jwt.decode(token, options={"verify_signature": False})["submods"]["tpm0"]["ear_verifier_claims"]
        return claims["model"], claims["adapters"]

    model = world.host.model.digest.hex()
    assert said() == (model, [])
    world.host.log.load(EVIL)
    assert said() == (model, [EVIL.digest.hex()])
    # What was unloaded again was loaded all the same.
    world.host.log.append(measurement_log.ModelUnload(load=len(world.host.log.entries) - 1))
    world.host.log.load(EVIL)
    world.host.log.append(measurement_log.ModelUnload(load=len(world.host.log.entries) - 1))
    assert said() == (model, [EVIL.digest.hex()])
    assert said() == (model, [])
    assert verify(world, export(world), tmp_path) == ExitCode.AFFIRMED
    assert f"adapter    {EVIL.digest.hex()}" in capsys.readouterr().out


def test_a_host_that_loads_all_its_adapters_at_once_is_none_that_fails(make: Callable[..., World]) -> None:
    """As many may be declared; that their manifests were too many for one message failed an innocent host for good."""
    adapters = tuple(manifest(f"adapter {number}") for number in range(limits.ADAPTERS_MAX))
    names = {item.digest.hex(): item.name for item in adapters}
    world = make(reference=lambda made: replace(made, models={**made.models, **names}))
    world.host.adapters = adapters
    world.models |= {item.digest: item for item in adapters}
    world.open_session()
    for item in adapters:
        world.host.log.load(item)
    answer = world.window()
    assert answer.verdict.opens, answer.verdict.denials[:1]
    # The same when they are loaded before the session.
    world.host.enrol(world.verifier)
    assert world.window().verdict.opens
    assert len(bundles.Bundle.parse(export(world).encode()).manifests) > limits.ADAPTERS_MAX


# -- a failure latches -------------------------------------------------------------------------------------------------


def test_a_denial_by_a_code_of_the_author_latches(make: Callable[..., World]) -> None:
    """A72: the author's code is none of ours; the session went on as if nothing had been."""
    world = make()
    with own_policy(world, OWN_CODE):
        world.open_session()
        assert world.window().verdict.opens
        observed = world.host.observe()
        answer = world.window(replace(observed, work=replace(observed.work, requests=9)))
        assert [denial.code for denial in answer.verdict.denials] == ["TOO_BUSY"]
        assert state(world) is SessionState.FAILED
        assert subject(world).failed_code is Code.POLICY_DENIED
        with pytest.raises(PolicyDenied):
            world.window()


def test_no_verdict_is_too_large_to_be_recorded(make: Callable[..., World]) -> None:
    """A77, A78: thousands of undeclared models under long names made a verdict that nothing could store."""
    world = make()
    world.open_session()
    assert world.window().verdict.opens
    world.host.log.known[EVIL.digest] = EVIL
    for number in range(2400):
        world.host.log.append(measurement_log.ModelLoad(EVIL.digest, f"{number}".rjust(500, "\\")))
    answer = world.window()
    assert answer.verdict.outcome == "denied"
    assert state(world) is SessionState.FAILED
    assert subject(world).failed_code is not None
    # What was recorded can be read back, and says how much there was.
    assert b"2368 more models" in world.archive.records.record(answer.index).verdict


def test_long_differences_are_cut_short(make: Callable[..., World]) -> None:
    """A manifest's paths and tensor names are the host's to choose, four thousand bytes each."""
    world = make()
    world.open_session()
    files = world.host.model.files
    long = safetensors("model.safetensors", {f"{number:02}" + "\1" * 4000: b"weights" for number in range(40)})
    evil = Manifest.build("evil", [files[0], long])
    world.host.log.load(evil)
    answer = world.window()
    assert answer.verdict.outcome == "denied"
    assert len(answer.verdict.encode()) < 64 * 1024


def test_a_gpu_is_in_one_host_at_a_time(make: Callable[..., World]) -> None:
    """A11: two hosts, each with a TPM of its own, show the same GPUs and are both admitted with them."""
    world = make()
    world.open_session()
    assert world.window().verdict.opens
    other = world.another_host("another", gpus=world.host.gpus)
    world.open_session(other)
    world.clock.advance(1)
    assert world.deliver(other.seal(), host=other).verdict.opens
    assert state(world) is SessionState.INTERRUPTED
    with pytest.raises(PolicyDenied) as caught:
        world.window()
    assert caught.value.code is Code.SESSION_STATE
    assert state(world, other) is SessionState.RUNNING


# -- what a token says -------------------------------------------------------------------------------------------------


def test_a_token_names_the_nonce_that_the_gpu_signed(make: Callable[..., World]) -> None:
    """A79: where no report is due, no GPU has signed over this window."""
    world = make(wanted=requirements(gpu_every=3))
    world.open_session()
    nonces, windows = [], []
    for _ in range(4):
        sealed = world.host.seal()
        world.clock.advance(1)
        token = world.deliver(sealed).token
        assert token is not None
        submods = jwt.decode(token, options={"verify_signature": False})["submods"]
        nonces.append(submods["gpu0"]["eat_nonce"])
        windows.append(strict.base64url_encode(binding.gpu_nonce(sealed.digest)))
        assert submods["tpm0"]["eat_nonce"] == strict.base64url_encode(sealed.qualifying_data)
        assert submods["gpu1"]["eat_nonce"] == nonces[-1]
    assert nonces == [windows[0]] * 3 + [windows[3]]


# -- whom others can stop ----------------------------------------------------------------------------------------------


def test_one_peer_cannot_take_all_enrolments(make: Callable[..., World]) -> None:
    """An admitted host opens enrolments without end; the next host still gets one."""
    world = make()
    opening = world.host.opening().encode()
    opened = [world.verifier.open(opening, peer=world.host.peer) for _ in range(300)]
    another = world.another_host("another")
    world.open_session(another)
    # Its own last four are open, the others gave way.
    with pytest.raises(NotAuthentic) as caught:
        world.verifier.prove(world.host.proof(opened[-5]).encode(), peer=world.host.peer)
    assert caught.value.code is Code.CHALLENGE_UNKNOWN
    world.verifier.prove(world.host.proof(opened[-4]).encode(), peer=world.host.peer)


def test_a_stranger_does_not_have_a_session_replayed(make: Callable[..., World]) -> None:
    """After a restart, whoever knows a session's name could have the verifier verify all of it again and again."""
    world = make()
    world.open_session()
    world.window()
    world.restart()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weighbridge.verifier.restoring.replay_window", lambda *_, **__: pytest.fail("replayed"))
        with pytest.raises(NotAuthentic) as caught:
            world.verifier.resume(world.host.session, peer=bytes(32))
    assert caught.value.code is Code.WINDOW_PEER
