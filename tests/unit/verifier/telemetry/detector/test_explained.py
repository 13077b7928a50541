"""What declared work explains: found again where it is there, never below nothing, and not beyond what was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.profile import REGRESSORS, Explained, Term
from weighbridge.verifier.telemetry.detector.explained import (
    covers,
    energy_per_token_uj,
    explained_mw,
    fit_explained,
    outside,
)
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

RUN = np.repeat(np.arange(6), 10)


def work_of(decoding: float, prompts: float = 0.0) -> tuple[int, int, int, int, int]:
    return DeclaredWork(
        duration_ns=10**10,
        requests=1,
        prefill_ns=int(prompts * 10**9),
        decode_ns=int(decoding * 10**10),
        tokens_in=int(prompts * 4000),
        tokens_out=int(decoding * 800),
    ).regressors()


def terms(explained: Explained) -> dict[str, int]:
    return {term.name: term.microwatts for term in explained.terms}


def test_work_that_is_always_the_same_leaves_a_constant() -> None:
    work = np.array([work_of(4)] * 60)
    power = np.linspace(430_000, 434_000, 60)
    found = fit_explained(power, work, RUN)
    assert found.base_mw == 432_000
    assert set(terms(found).values()) == {0}


def test_a_slope_is_found_again_and_given_to_the_simplest() -> None:
    random = np.random.default_rng(3)
    decoding = random.uniform(1, 60, 60)
    work = np.array([work_of(float(amount)) for amount in decoding])
    found = fit_explained(418_000 + 2_100 * decoding + random.normal(0, 300, 60), work, RUN)
    assert found.base_mw == pytest.approx(418_000, abs=500)
    # Tokens move with it, and explain no more: they get nothing.
    assert terms(found)["decode"] == pytest.approx(2_100, abs=20)
    assert terms(found)["tokens_out"] == terms(found)["tokens_in"] == 0


def test_two_kinds_of_work_are_told_apart() -> None:
    random = np.random.default_rng(4)
    decoding, prompts = random.uniform(1, 60, 60), random.uniform(0, 5, 60)
    work = np.array([work_of(float(a), float(b)) for a, b in zip(decoding, prompts, strict=True)])
    found = fit_explained(418_000 + 2_000 * decoding + 30_000 * prompts, work, RUN)
    for amount, prompt in ((10.0, 1.0), (50.0, 4.0)):
        assert explained_mw(found, work_of(amount, prompt)) == pytest.approx(
            418_000 + 2_000 * amount + 30_000 * prompt, abs=600
        )


def test_work_saves_no_power() -> None:
    decoding = np.linspace(1, 60, 60)
    work = np.array([work_of(float(amount)) for amount in decoding])
    found = fit_explained(500_000 - 1_000 * decoding, work, RUN)
    assert set(terms(found).values()) == {0}


def test_uncertainty_is_of_runs_and_not_of_units() -> None:
    random = np.random.default_rng(5)
    shifts = random.normal(0, 2_000, 6)
    power = 430_000 + shifts[RUN]
    found = fit_explained(power, np.array([work_of(4)] * 60), RUN)
    spread = float(np.std(shifts, ddof=1))
    assert spread * 0.9 < found.uncertainty_mw < spread * 1.3
    assert fit_explained(power[:10], np.array([work_of(4)] * 10), RUN[:10]).uncertainty_mw == 0


def test_what_was_not_seen_is_not_covered() -> None:
    work = np.array([work_of(amount) for amount in np.linspace(4, 32, 60)])
    found = fit_explained(np.linspace(430_000, 480_000, 60), work, RUN)
    assert covers(found, work_of(4))
    assert covers(found, work_of(33))
    assert not covers(found, work_of(40))
    assert not covers(found, work_of(0))
    assert not covers(found, work_of(10, prompts=3))


def test_what_was_not_seen_is_said() -> None:
    work = np.array([work_of(amount) for amount in np.linspace(4, 32, 60)])
    found = fit_explained(np.linspace(430_000, 480_000, 60), work, RUN)
    assert outside(found, work_of(4)) == ""
    assert outside(found, work_of(40)) == (
        "declared work is outside of what the baseline has seen: requests decoding 40, seen 4 to 32"
    )
    assert outside(found, (0, 0, 0, 0, 0)) == "nothing is declared, and no unit of the baseline's runs was idle"


def test_energy_per_token_is_what_the_range_says() -> None:
    # 2 W for each of 10 streams, which make 80 tokens a second each: 25 mJ for a token.
    high = {"decode": 10_000, "tokens_out": 800_000}
    found = Explained(
        0, 0, tuple(Term(name, 2_000 if name == "decode" else 0, 0, high.get(name, 0)) for name in REGRESSORS)
    )
    assert energy_per_token_uj(found) == 25_000
    assert energy_per_token_uj(Explained(0, 0, tuple(Term(name, 0, 0, 0) for name in REGRESSORS))) is None


@given(*[st.integers(0, 2**53)] * 5, st.integers(1, 10**12))
def test_work_of_any_size_has_regressors(
    requests: int, tokens: int, batch: int, prefill: int, decode: int, duration: int
) -> None:
    work = DeclaredWork(
        duration_ns=duration,
        requests=requests,
        tokens_in=tokens,
        tokens_out=tokens,
        batch_max=batch,
        prefill_ns=prefill,
        decode_ns=decode,
    )
    assert min(work.regressors()) >= 0
    assert work.regressors()[0] <= 1000
    both = work + work
    assert both.duration_ns == 2 * duration
    assert both.tokens_out == 2 * tokens
    assert both.batch_max == batch
    assert both.regressors() == pytest.approx(work.regressors(), abs=1)


@pytest.mark.parametrize("values", [{"duration_ns": 0}, {"duration_ns": -1}, {"duration_ns": 1, "tokens_in": -1}])
def test_work_that_no_time_can_hold_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"time|zero"):
        DeclaredWork(**values)
