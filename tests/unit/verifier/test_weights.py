"""What the log says was loaded, against what was declared: which differences are told, how many, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.models import plain, safetensors
from weighbridge.proto import limits, measurement_log
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.manifest import Manifest, encode_manifests
from weighbridge.proto.measurement_log import Loaded, ModelHanded, ModelLoad, ModelUnload
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.weights import LogState, WeightsAppraisal, appraise, check_manifests, open_manifests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.engine import Denial
    from weighbridge.proto.measurement_log import Event, Record

PCR = 14


def model(name: str, weights: bytes = b"weights", path: str = "model.safetensors") -> Manifest:
    return Manifest.build(name, [safetensors(path, {"layer": weights})])


BASE, ADAPTER = model("base"), model("adapter", path="adapter.safetensors")
DECLARED = (BASE.digest, ADAPTER.digest)


def records(*events: Event, first: int = 0) -> list[Record]:
    return [
        measurement_log.make_record(event, recnum=number, pcr=PCR, algs=[HashAlgorithm.SHA256])
        for number, event in enumerate(events, first)
    ]


def load(manifest: Manifest) -> ModelLoad:
    return ModelLoad(manifest.digest, manifest.name)


def after(log: LogState, *events: Event) -> LogState:
    return log.extended(records(*events, first=len(log.records)), bank=HashAlgorithm.SHA256, pcr=PCR)


def log_of(*manifests: Manifest) -> LogState:
    """A log that loaded these, longer ago than the last window."""
    models = tuple(Loaded(manifest=each.digest, name=each.name, recnum=at) for at, each in enumerate(manifests))
    return LogState((), bytes(32), bytes(32), models, ())


def judged(
    log: LogState,
    *,
    measured: Sequence[Manifest] = (),
    references: Sequence[Manifest] = (BASE, ADAPTER),
    window: int | None = 5,
) -> WeightsAppraisal:
    return appraise(
        log,
        declared=DECLARED,
        measured={each.digest: each for each in measured},
        references={each.digest: each for each in references},
        window=window,
    )


def codes(denials: Sequence[Denial]) -> list[str]:
    return [denial.code for denial in denials]


# -- the log, replayed -------------------------------------------------------------------------------------------------


def test_a_log_in_pieces_is_the_log_and_what_is_fresh_is_of_the_last_piece() -> None:
    refusal = ModelHanded(0, "model.safetensors", None, 0, 0, "mismatch", "layer")
    events: list[Event] = [load(BASE), load(ADAPTER), refusal, ModelUnload(1), load(ADAPTER), ModelUnload(4)]
    whole = after(LogState.empty(), *events)
    first = after(LogState.empty(), *events[:4])
    pieces = after(first, *events[4:])
    said = records(*events)
    assert whole.register == measurement_log.replay(bytes(32), said, HashAlgorithm.SHA256, pcr=PCR)
    assert whole.head == measurement_log.head(said)
    assert replace(pieces, fresh=whole.fresh, refused=whole.refused) == whole
    assert [item.manifest for item in pieces.models] == [BASE.digest]
    assert [item.recnum for item in first.fresh] == [0, 1]
    assert [item.recnum for item in first.refused] == [2]
    assert [item.recnum for item in pieces.fresh] == [4]
    assert pieces.refused == ()
    # What was loaded for a while since the last window stood beside the model in it.
    assert pieces.beside(BASE.digest) == (ADAPTER.digest,)
    assert after(pieces).beside(BASE.digest) == ()
    assert after(LogState.empty(), load(ADAPTER)).beside(BASE.digest) == (ADAPTER.digest,)
    # Nor is what a guard refused then refused once more; and where nothing came, and nothing did before, all stays.
    quiet = after(after(after(LogState.empty(), load(BASE)), refusal))
    assert (quiet.refused, quiet.fresh) == ((), ())
    assert after(quiet) is quiet


def test_a_log_goes_on_where_it_ended_up_to_its_limit() -> None:
    (record,) = records(load(BASE))
    almost = replace(LogState.empty(), records=(record,) * (limits.LOG_RECORDS_MAX - 1))
    full = after(almost, load(BASE))
    assert len(full.records) == limits.LOG_RECORDS_MAX
    for log, events, code in ((full, [load(BASE)], Code.TOO_LARGE), (almost, [load(BASE)] * 2, Code.TOO_LARGE)):
        with pytest.raises(NotAuthentic) as refusal:
            after(log, *events)
        assert refusal.value.code is code
    with pytest.raises(NotAuthentic) as refusal:
        full.extended([record], bank=HashAlgorithm.SHA256, pcr=PCR)
    assert refusal.value.code is Code.LOG_GAP


# -- manifests ---------------------------------------------------------------------------------------------------------


def test_manifests_are_known_by_their_digests_and_come_once() -> None:
    assert open_manifests(encode_manifests([BASE, ADAPTER])) == {BASE.digest: BASE, ADAPTER.digest: ADAPTER}
    assert open_manifests(encode_manifests([])) == {}
    with pytest.raises(MalformedEvidence) as refusal:
        open_manifests(encode_manifests([BASE, ADAPTER, BASE]))
    assert refusal.value.code is Code.DUPLICATE_KEY


def digests(letters: str) -> list[bytes]:
    return [letter.encode() * 32 for letter in letters]


@pytest.mark.parametrize(
    ("sent", "named", "known", "code", "which"),
    [
        ("a", "a", "", None, ""),
        ("", "a", "ab", None, ""),
        ("a", "", "a", Code.MANIFEST_DIGEST, "a"),
        ("cab", "a", "", Code.MANIFEST_DIGEST, "b"),
        ("", "a", "b", Code.MANIFEST_MISSING, "a"),
        ("a", "cab", "", Code.MANIFEST_MISSING, "b"),
    ],
)
def test_what_the_log_names_comes_or_came_and_nothing_else(
    sent: str, named: str, known: str, code: Code | None, which: str
) -> None:
    """Of several that are wrong the smallest is named, so that everybody who judges names the same."""

    def check() -> None:
        check_manifests(digests(sent), named=set(digests(named)), known=digests(known))

    if code is None:
        check()
        return
    with pytest.raises(NotAuthentic) as refusal:
        check()
    (digest,) = digests(which)
    assert (refusal.value.code, digest.hex() in str(refusal.value)) == (code, True)


# -- loaded, against declared ------------------------------------------------------------------------------------------


def test_a_model_of_a_moment_counts_in_a_window_and_not_at_enrolment() -> None:
    """At enrolment all of the log is new, and what it loaded and unloaded again was of another session."""
    other = model("other", b"other")
    log = after(LogState.empty(), load(other), ModelUnload(0), load(BASE), load(ADAPTER))
    found = judged(log)
    assert [(item.recnum, item.name, item.declared) for item in found.loaded] == [
        (0, "other", False),
        (2, "base", True),
        (3, "adapter", True),
    ]
    assert codes(found.denials) == ["MODEL_UNDECLARED"]
    assert "model 'other' was loaded (log record 0)" in found.denials[0].message
    assert (found.denials[0].expected, found.denials[0].got) == (BASE.digest.hex(), other.digest.hex())
    assert judged(log, window=None).denials == ()


@pytest.mark.parametrize(
    ("loaded", "window", "missing"), [((), 1, True), ((ADAPTER,), 1, True), ((BASE,), 1, False), ((), None, False)]
)
def test_the_declared_model_itself_is_loaded_in_every_window(
    loaded: tuple[Manifest, ...], window: int | None, missing: bool
) -> None:
    """Not one of its adapters; and before the first window there is time for it."""
    found = judged(log_of(*loaded), window=window)
    assert codes(found.denials) == ["MODEL_NOT_LOADED"] * missing
    assert [denial.expected for denial in found.denials] == [BASE.digest.hex()] * missing


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32])
def test_no_other_digest_is_the_declared_one(digest: bytes) -> None:
    log = LogState((), bytes(32), bytes(32), (Loaded(manifest=digest, name="base", recnum=0),), ())
    assert codes(judged(log).denials) == ["MODEL_UNDECLARED", "MODEL_NOT_LOADED"]


def test_what_bound_a_model_is_said_by_its_manifest_sent_now_or_declared() -> None:
    (file,) = BASE.files
    handed = ModelHanded(0, file.path, file.digest, 1, file.size, "match")
    log = after(LogState.empty(), load(BASE), handed)
    assert judged(log).loaded[0].binding == "guarded"
    assert judged(log, measured=[BASE], references=[]).loaded[0].binding == "guarded"
    assert judged(log, references=[]).loaded[0].binding == "none"


def test_differences_are_those_to_the_declared_model_that_shares_most_files() -> None:
    changed = Manifest.build("adapter", [plain("a", b"1"), safetensors("model.safetensors", {"layer": b"changed"})])
    found = judged(log_of(BASE, changed), measured=[changed])
    assert codes(found.denials) == ["WEIGHTS_MISMATCH"] * 3 + ["MODEL_UNDECLARED"]
    assert [denial.message for denial in found.denials[1:3]] == [
        "file unexpected in a",
        "tensor changed in model.safetensors, tensor layer",
    ]
    (tensor,) = BASE.files[0].tensors
    assert (found.denials[2].expected, found.denials[1].expected) == (tensor.digest.hex(), None)
    assert len(found.differences) == 3


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_of_two_that_share_as_much_the_one_of_its_name_is_compared(name: str) -> None:
    both = [safetensors(f"{path}.safetensors", {"layer": b"changed"}) for path in ("adapter", "model")]
    changed = Manifest.build(name, both)
    found = judged(log_of(BASE, changed), measured=[changed])
    ours = {"base": "model", "adapter": "adapter"}[name]
    changes = [denial.message for denial in found.denials if denial.message.startswith("tensor changed")]
    assert changes == [f"tensor changed in {ours}.safetensors, tensor layer"]


@pytest.mark.parametrize(
    ("measured", "references"),
    [
        ([], [BASE]),
        ([model("base", b"changed")], []),
        ([model("base", b"changed", path="elsewhere.safetensors")], [BASE]),
    ],
    ids=["not sent", "nothing declared to compare with", "no file in common"],
)
def test_without_a_file_in_common_no_difference_is_named(measured: list[Manifest], references: list[Manifest]) -> None:
    (changed,) = measured or [model("base", b"changed")]
    found = judged(log_of(BASE, changed), measured=measured, references=references)
    assert codes(found.denials) == ["MODEL_UNDECLARED"]
    assert found.differences == ()


def test_what_is_accepted_and_not_declared_is_nothing_to_compare_with() -> None:
    """Of the declared ones alone a bundle has the manifests: whoever verifies it must come to the same words."""
    accepted = model("other", b"other")
    changed = model("other", b"changed")
    found = judged(log_of(BASE, changed), measured=[changed], references=[accepted])
    assert codes(found.denials) == ["MODEL_UNDECLARED"]


def test_no_more_is_told_than_can_be_recorded() -> None:
    """Sixteen differences of all models together, thirty-two models; of more than that, how many."""
    base = Manifest.build("base", [safetensors("model.safetensors", {f"{at:02}": b"0" for at in range(9)})])
    other = [
        Manifest.build(
            "base", [safetensors("model.safetensors", {f"{at:02}": b"%d" % (number + 1) for at in range(9)})]
        )
        for number in range(34)
    ]

    def told(count: int) -> WeightsAppraisal:
        return appraise(
            log_of(base, *other[:count]),
            declared=(base.digest, ADAPTER.digest),
            measured={each.digest: each for each in other},
            references={base.digest: base},
            window=1,
        )

    assert codes(told(1).denials) == ["WEIGHTS_MISMATCH"] * 9 + ["MODEL_UNDECLARED"]
    for count, differences in ((2, 16), (3, 16), (32, 16)):
        found = told(count)
        assert len(found.differences) == differences
        assert codes(found.denials).count("WEIGHTS_MISMATCH") == differences
        assert codes(found.denials).count("MODEL_UNDECLARED") == count
    last = told(34).denials[-1]
    assert (last.message, last.got) == ("2 more models were loaded that are not the declared one", None)
    assert last.expected == base.digest.hex()
    assert len(told(34).denials) == 16 + 33


@pytest.mark.parametrize(("length", "got"), [(256, "b" * 256), (257, "b" * 244 + "… (257 chars)")])
def test_another_name_is_told_as_a_name_and_cut_short(length: int, got: str) -> None:
    changed = Manifest.build("b" * length, BASE.files)
    first, undeclared, *_ = judged(log_of(changed), measured=[changed]).denials
    assert (first.expected, first.got) == ("base", got)
    assert "under another name" in first.message
    assert undeclared.message.startswith(f"model {'b' * 10!r}"[:-1])
    assert len(undeclared.message) < 320


@pytest.mark.parametrize(
    ("changed", "message", "expected", "got"),
    [
        (Manifest.build("base", BASE.files, ignored=["x" * 300]), "other paths were left out", "nothing", "x" * 244),
        (Manifest.build("base", BASE.files, algorithm="blake3"), "by another algorithm", "sha256", "blake3"),
    ],
    ids=["ignored", "algorithm"],
)
def test_what_is_no_matter_of_bytes_is_said_so(changed: Manifest, message: str, expected: str, got: str) -> None:
    first = judged(log_of(changed), measured=[changed]).denials[0]
    assert message in first.message
    assert first.hint is not None
    assert "bytes" not in first.message + first.hint
    assert (first.expected, (first.got or "")[:244]) == (expected, got)


def test_a_missing_file_has_nothing_to_show() -> None:
    both = Manifest.build("base", [*BASE.files, plain("notes", b"x")])
    for declared, measured in ((both, BASE), (BASE, both)):
        found = appraise(
            log_of(measured),
            declared=(declared.digest,),
            measured={measured.digest: measured},
            references={declared.digest: declared},
            window=None,
        )
        first = found.denials[0]
        assert first.message in {"file missing in notes", "file unexpected in notes"}
        assert (first.expected is None, first.got is None) == (declared is BASE, measured is BASE)
