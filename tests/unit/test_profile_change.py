# SPDX-License-Identifier: Apache-2.0
"""When the engine is no longer the one that was profiled, and how many at work beside a request."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.profile.change import BLOCK, LEARN, Costs, Monitor, learn
from sprout.profile.spans import active_seconds, busy_seconds, concurrency

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from bench_change_point import delay, false_alarms, outcomes, part


def test_false_alarms_are_as_rare_as_documented() -> None:
    """Load wanders between 1 and 30 in flight; 0.1 per 1e5 outcomes are documented."""
    rng = np.random.default_rng(3)
    assert sum(false_alarms(rng, 100_000, 0.4, 0.0) for _ in range(5)) <= 3


@pytest.mark.parametrize("factor", [1.15, 0.85])
def test_a_shift_of_15_percent_is_seen_within_1000_outcomes(factor: float) -> None:
    rng = np.random.default_rng(4)
    found = [delay(rng, factor, 0.4, 0.0) for _ in range(20)]
    assert all(d is not None and BLOCK < d <= 1000 for d in found), found


def test_load_and_length_are_no_change() -> None:
    """Four times the load, a third of the length: joules per token move by 60 %."""
    rng = np.random.default_rng(5)
    costs = outcomes(rng, 40_000, 0.3, 0.0)
    quiet = np.argsort(costs.in_flight, kind="stable")  # from 1 in flight up to 30
    rng.shuffle(learned := quiet[::8].copy())
    monitor = Monitor(learn(pick(costs, learned)))
    monitor.take(pick(costs, quiet))
    assert monitor.change is None
    assert not monitor.blind


def pick(costs: Costs, index: np.ndarray) -> Costs:
    return Costs(
        costs.level[index],
        costs.energy_joules[index],
        costs.output_tokens[index],
        costs.in_flight[index],
    )


def test_without_a_reference_it_learns_and_after_an_alarm_anew() -> None:
    rng = np.random.default_rng(6)
    costs = outcomes(rng, 20_000, 0.3, 0.0, step=0.0)
    monitor = Monitor()
    monitor.take(part(costs, 0, LEARN - 1))
    assert monitor.reference is None
    monitor.take(part(costs, LEARN - 1, LEARN))
    assert monitor.reference is not None
    monitor.take(part(costs, LEARN, 8000, 1.3))
    assert monitor.change is not None
    assert monitor.change.ratio == pytest.approx(1.3, rel=0.1)
    text = str(monitor.change)
    assert text.startswith("engine-changed: joules per output token are +")
    assert "sprout profile" in text
    monitor.take(part(costs, 8000, 8000 + LEARN, 1.3))  # the new engine is known by now
    assert monitor.change is None
    monitor.take(part(costs, 12_000, 20_000, 1.3))
    assert monitor.change is None


def test_a_given_reference_stands() -> None:
    """The profile on disk stays wrong until somebody profiles again."""
    rng = np.random.default_rng(7)
    costs = outcomes(rng, 20_000, 0.3, 0.0, step=0.0)
    reference = learn(part(costs, 0, 5000))
    monitor = Monitor(reference)
    monitor.take(part(costs, 5000, 15_000, 0.8))
    assert monitor.change is not None
    assert monitor.change.ratio == pytest.approx(0.8, rel=0.05)
    assert monitor.reference is reference


def test_a_load_that_was_never_profiled_is_said() -> None:
    rng = np.random.default_rng(8)
    costs = outcomes(rng, 10_000, 0.3, 0.0, step=0.0)
    given, learning = Monitor(learn(costs)), Monitor()
    learning.take(costs)
    elsewhere = Costs(costs.level, costs.energy_joules, costs.output_tokens, costs.in_flight * 1000)
    for monitor in (given, learning):
        monitor.take(elsewhere)
        assert monitor.change is None
    assert given.blind
    assert learning.reference is None  # it learns that load now
    given.take(costs)
    assert not given.blind


def test_what_has_no_joules_or_tokens_is_left_out() -> None:
    n = 2000
    nothing = Costs(np.zeros(n, np.int64), np.zeros(n), np.ones(n), np.ones(n))
    with pytest.raises(ValueError, match="0 outcomes are too few"):
        learn(nothing)
    monitor = Monitor()
    monitor.take(nothing)
    assert monitor.reference is None


def test_one_wild_outcome_is_no_change() -> None:
    rng = np.random.default_rng(9)
    costs = outcomes(rng, 10_000, 0.3, 0.0, step=0.0)
    costs.energy_joules[6000] *= 1e6
    monitor = Monitor(learn(part(costs, 0, 5000)))
    monitor.take(part(costs, 5000, 10_000))
    assert monitor.change is None


# --- spans ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), n=st.integers(1, 25), base=st.sampled_from([0.0, 1.8e9]))
@settings(max_examples=150, deadline=None)
def test_concurrency_is_that_of_a_count_by_hand(seed: int, n: int, base: float) -> None:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 20, n).astype(float)
    end = start + rng.integers(1, 10, n)
    ticks = np.arange(0, 40) + 0.5  # whole seconds: each stretch has one number at work
    at_work = ((start <= ticks[:, None]) & (ticks[:, None] < end)).sum(axis=1)
    by_hand = [at_work[(ticks > s) & (ticks < e)].mean() for s, e in zip(start, end, strict=True)]
    assert concurrency(start + base, end + base) == pytest.approx(by_hand, abs=1e-5)
    inside = (ticks > 5) & (ticks < 15)
    assert active_seconds(start, end, 5, 15) == pytest.approx(at_work[inside].sum())
    assert busy_seconds(start, end, 5, 15) == pytest.approx((at_work[inside] > 0).sum())


def test_a_span_of_no_length_sees_who_is_there() -> None:
    found = concurrency(np.array([0.0, 5.0, 5.0]), np.array([10.0, 10.0, 5.0]))
    assert found[2] == 3
