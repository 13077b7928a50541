"""What tied loaded bytes to measured ones, and what is told of files that a guard refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from support.models import plain, safetensors
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import Handed, Loaded, ModelHanded, Outcome
from weighbridge.verifier.load_binding import Binding, binding, mismatches
from weighbridge.verifier.weights import LogState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.proto.measurement_log import Protection

Word = TypeVar("Word", bound=str)
MODEL = Manifest.build("model", [plain("config.json", b"{}"), safetensors("model.safetensors", {"layer": b"weights"})])


def decoded(word: Word) -> Word:
    """As it comes out of a record: equal to the word, and not the same."""
    return cast("Word", "".join(word))


def handed(recnum: int, outcome: Outcome, *, load: int = 0, detail: str = "") -> Handed:
    file = MODEL.files[1]
    return Handed(ModelHanded(load, file.path, file.digest, 1, file.size, decoded(outcome), detail), recnum)


def loaded(*items: Handed, protection: Protection = "none", recnum: int = 0) -> Loaded:
    return Loaded(MODEL.digest, MODEL.name, recnum, decoded(protection), None, items)


def log_of(*models: Loaded, refused: Iterable[Handed] = ()) -> LogState:
    return LogState((), bytes(32), bytes(32), models, (), tuple(refused))


@pytest.mark.parametrize(
    ("protection", "outcomes", "manifest", "bound"),
    [
        ("none", (), MODEL, "none"),
        ("none", ("match",), MODEL, "guarded"),
        ("none", ("match",), None, "none"),
        ("none", ("match", "changed"), MODEL, "none"),
        ("fs-verity", ("match",), MODEL, "fs-verity"),
        ("dm-verity", (), None, "dm-verity"),
    ],
)
def test_the_kernel_binds_before_a_guard_does(
    protection: Protection, outcomes: tuple[Outcome, ...], manifest: Manifest | None, bound: Binding
) -> None:
    model = loaded(*(handed(at, outcome) for at, outcome in enumerate(outcomes, 1)), protection=protection)
    assert binding(model, manifest) == bound


def test_a_file_that_a_guard_refused_is_told_as_long_as_its_model_is_loaded() -> None:
    model = loaded(handed(1, "match"), handed(2, "mismatch", detail="layer"), handed(3, "changed"))
    for window in (7, None):
        first, second = mismatches(log_of(model), window)
        assert (first.code, first.window, first.got) == ("LOAD_MISMATCH", window, "mismatch")
        assert first.message == (
            "the loader was about to hand over something else than was measured: model.safetensors, layer "
            "(log record 2, loaded by record 0)"
        )
        assert second.message.startswith("the loader found the file changed since it was measured: model.safetensors, ")
    assert mismatches(log_of(loaded(handed(1, "match"))), 7) == ()


def test_of_a_model_that_was_unloaded_since_it_is_told_in_a_window_only() -> None:
    """Once, though the model is loaded still; in the log's order."""
    both = handed(5, "mismatch", load=4)
    log = log_of(loaded(both, recnum=4), refused=[handed(2, "changed"), both])
    assert [denial.got for denial in mismatches(log, 7)] == ["changed", "mismatch"]
    assert [denial.got for denial in mismatches(log, None)] == ["mismatch"]


@pytest.mark.parametrize(
    ("files", "last"), [(16, "found the file changed"), (17, "refused 1 more files"), (32, "refused 16 more")]
)
def test_sixteen_files_are_named_and_the_others_counted(files: int, last: str) -> None:
    found = mismatches(log_of(loaded(*(handed(at, "changed") for at in range(files)))), 7)
    assert len(found) == min(files, 17)
    assert last in found[-1].message
    assert "refused" not in found[15].message


@pytest.mark.parametrize(("length", "shown"), [(256, "x" * 237), (257, "x" * 225 + "… (257 chars)")])
def test_what_a_guard_says_is_cut_short(length: int, shown: str) -> None:
    detail = "x" * (length - len("model.safetensors, "))
    (found,) = mismatches(log_of(loaded(handed(1, "changed", detail=detail))), 7)
    assert f": model.safetensors, {shown} (log record 1" in found.message
