"""The corpus of refusals: every case is built, judged and held to what its manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corpus.arena import ak_of
from corpus.manifests import Manifest, cases, manifests, read
from forge.portable import Stated, tell
from forge.probing import Probe
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier.acceptance import NOT_OF_THE_HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.store import SessionRow, Subject

CASES = cases()
MANIFESTS = manifests()
STATED = Stated.read()


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_case_is_judged_as_its_manifest_says(manifest: Manifest, arena: Arena) -> None:
    probe = Probe(manifest)
    told = tell(manifest, CASES[manifest.id], arena, probe=probe)
    result = told.result
    assert (result.outcome, result.codes, result.exit, result.window) == (
        manifest.outcome,
        manifest.codes,
        manifest.exit,
        manifest.window,
    )
    assert arena.at == manifest.at
    assert arena.signatures() == manifest.signatures
    _check_afterwards(manifest, arena)
    # What is accepted is accepted only as it is: one field changed, whichever, and it is refused.
    assert bool(probe.refused) == (_is_probed(manifest))
    # The same bytes on every machine, in every order: what is stated is what is exported.
    assert (told.reason, told.digest) == (STATED.left_out.get(manifest.id, ""), STATED.digests.get(manifest.id, ""))


def _is_probed(manifest: Manifest) -> bool:
    """Whether one signed message is what the case is about, and is accepted; bundles have tests of their own."""
    of_tokens = manifest.outcome == "accepted" and manifest.id.startswith(("token/", "identity/"))
    return manifest.outcome in {"affirmed", "enrolled"} or of_tokens


def _check_afterwards(manifest: Manifest, arena: Arena) -> None:
    """What became of the session: refusing is no use if it is not remembered, or if it hurts the wrong one."""
    match manifest.afterwards:
        case "goes-on":
            assert arena.worlds[-1].window().verdict.opens
        case "unchanged":
            world = arena.worlds[-1]
            assert _subject(world).failed_code is None
            row = _session(world)
            assert row is not None
            assert row.next_seq == len(_indices(world))
        case "failed":
            world = arena.worlds[-1]
            assert _subject(world).failed_code is not None
            if manifest.outcome == "denied":
                _check_recorded(manifest.codes, world)
        case "ended":
            _check_ended(manifest.codes[0], arena.worlds[-1])
        case "nothing":
            assert all(_session(world) is None for world in arena.worlds if world.host.session)


def _check_recorded(codes: Sequence[Code], world: World) -> None:
    """The denial is in the ledger, and the session is over, for its TPM and for each of its GPUs.

    What sticks is the first code that speaks against the host.
    """
    last = world.archive.records.record(world.ledger.size - 1)
    document = strict.json_decode(last.verdict, what="verdict")
    assert isinstance(document, dict)
    assert last.session == world.host.session
    assert (document["outcome"], document["denials"][0]["code"]) == ("denied", codes[0])  # type: ignore[index, call-overload]
    row = _session(world)
    assert row is not None
    assert row.state.value == "failed"
    code = next(code for code in codes if code not in NOT_OF_THE_HOST)
    assert _subject(world).failed_code == code
    with world.store.transaction() as tx:
        assert [tx.subjects.of("gpu", gpu).failed_code for gpu in row.gpus] == [code] * len(row.gpus)  # type: ignore[union-attr]
    with pytest.raises(PolicyDenied) as refusal:
        world.send(b"", host=world.host)
    assert refusal.value.code is Code.SESSION_FAILED


def _check_ended(code: Code, world: World) -> None:
    """As :func:`_check_recorded`, but that the host is not to blame."""
    row = _session(world)
    assert row is not None
    assert row.state.value == "failed"
    with world.store.transaction() as tx:
        gpus = [tx.subjects.of("gpu", gpu) for gpu in row.gpus]
    subjects = [_subject(world), *gpus]
    assert {None if subject is None else subject.failed_code for subject in subjects} == {None}
    last = world.archive.records.record(world.ledger.size - 1)
    document = strict.json_decode(last.verdict, what="verdict")
    assert isinstance(document, dict)
    assert (last.session, document["outcome"]) == (world.host.session, "denied")
    assert code is Code.BUNDLE_VERDICT or document["denials"][0]["code"] == code  # type: ignore[index, call-overload]
    with pytest.raises(PolicyDenied) as refusal:
        world.send(b"", host=world.host)
    assert refusal.value.code is Code.SESSION_FAILED


def _session(world: World) -> SessionRow | None:
    with world.store.transaction() as tx:
        return tx.session(world.host.session)


def _indices(world: World) -> tuple[int, ...]:
    with world.store.transaction() as tx:
        return tx.window_indices(world.host.session)


def _subject(world: World) -> Subject:
    with world.store.transaction() as tx:
        subject = tx.subjects.of("ak", sha256(ak_of(world.host).spki()))
    assert subject is not None
    return subject


def test_every_manifest_has_its_case_and_every_case_its_manifest() -> None:
    assert set(MANIFESTS) == set(CASES)


def test_numbers_within_a_stage_are_consecutive() -> None:
    stages: dict[str, list[int]] = {}
    for name in MANIFESTS:
        stage, _, slug = name.partition("/")
        stages.setdefault(stage, []).append(int(slug[:3]))
    assert {stage: sorted(numbers) for stage, numbers in stages.items()} == {
        stage: list(range(1, len(numbers) + 1)) for stage, numbers in stages.items()
    }


def test_refusals_have_codes_and_an_exit_that_is_not_0() -> None:
    for manifest in MANIFESTS.values():
        refused = manifest.outcome in {"held", "indeterminate", "denied", "refused"}
        assert bool(manifest.codes) == refused == (manifest.exit != 0), manifest.id


def test_most_refusals_have_nothing_but_good_signatures() -> None:
    """Rows of the table are about composition: a broken signature is the easy case."""
    judged_windows = [manifest for manifest in MANIFESTS.values() if manifest.outcome == "denied"]
    good = [manifest for manifest in judged_windows if manifest.signatures == "good"]
    assert len(good) > 3 * (len(judged_windows) - len(good))


@pytest.mark.parametrize(
    "text",
    ["", "id: a\n", "id: a\nid: a\n", "id a\n", "id:  a\n"],
    ids=["empty", "keys missing", "key twice", "no colon", "spaces"],
)
def test_manifest_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stage" / "001-slug" / "manifest.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.yaml"):
        read(path)
