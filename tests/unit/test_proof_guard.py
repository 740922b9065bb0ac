# SPDX-License-Identifier: Apache-2.0
"""The guard's evidence: exact where it can be worked out, honest however often one looks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_coverage import alarms, ever
from scipy import optimize, stats

from sprout.proof.guard import Tally, judge, log_evidence

counts = st.integers(0, 400)


def tally(requests: int, wrong: int) -> Tally:
    return Tally(max(requests, wrong), wrong)


@given(counts, counts, counts, counts, st.floats(0, 0.5))
@settings(max_examples=80, deadline=None)
def test_the_best_pair_of_the_null_is_the_best(
    n: int, k: int, n0: int, k0: int, bound: float
) -> None:
    """Against a grid over all pairs that are within the bound."""
    policy, l0 = tally(n, k), tally(n0, k0)
    p0 = np.linspace(0, 1, 401)
    p = np.minimum(p0[:, None] + bound, 1) * np.linspace(0, 1, 401)[None, :]
    best = np.max(
        stats.binom.logpmf(policy.wrong, policy.requests, p)
        + stats.binom.logpmf(l0.wrong, l0.requests, p0)[:, None]
    )
    ways = [
        math.lgamma(t.requests + 1)
        - math.lgamma(t.wrong + 1)
        - math.lgamma(t.requests - t.wrong + 1)
        for t in (policy, l0)
    ]
    mixed = sum(
        stats.betabinom.logpmf(t.wrong, t.requests, 0.5, 0.5) - way
        for t, way in zip((policy, l0), ways, strict=True)
    )
    on_grid = mixed - (best - sum(ways))
    evidence = log_evidence(policy, l0, bound)
    assert evidence <= on_grid + 1e-6  # ours is the minimum
    assert evidence >= on_grid - 0.5  # and the grid comes close to it


def test_the_edge_by_another_solver() -> None:
    policy, l0, bound = Tally(500, 120), Tally(300, 30), 0.05
    found = optimize.minimize_scalar(
        lambda p: -stats.binom.logpmf(120, 500, p + bound) - stats.binom.logpmf(30, 300, p),
        bounds=(1e-6, 0.94),
        method="bounded",
        options={"xatol": 1e-12},
    )
    mixed = stats.betabinom.logpmf(120, 500, 0.5, 0.5) + stats.betabinom.logpmf(30, 300, 0.5, 0.5)
    assert log_evidence(policy, l0, bound) == pytest.approx(mixed + found.fun, abs=1e-6)


@given(counts, counts, counts, counts)
@settings(max_examples=80, deadline=None)
def test_no_evidence_where_the_rates_are_within_the_bound(n: int, k: int, n0: int, k0: int) -> None:
    policy, l0 = tally(n, k), tally(n0, k0)
    if not policy.requests or not l0.requests or policy.rate <= l0.rate + 0.05:
        assert log_evidence(policy, l0, 0.05) <= 1e-9
    assert log_evidence(policy, l0, 0.2) <= log_evidence(policy, l0, 0.05) + 1e-9


def test_nothing_seen_is_nothing() -> None:
    nothing = Tally(0, 0)
    assert log_evidence(nothing, nothing, 0.05) == 0
    assert math.isnan(nothing.rate)
    assert log_evidence(Tally(1000, 1000), nothing, 0.05) <= 0  # who knows what L0 does?
    assert judge({}, bound=0.05, alpha=0.01) == ()


def test_all_wrong_against_none() -> None:
    (verdict,) = judge({"x": (Tally(100, 100), Tally(100, 0))}, bound=0.05, alpha=1e-6)
    assert verdict.worse
    assert math.isfinite(verdict.log_evidence)


def test_more_kinds_ask_for_more_evidence() -> None:
    bad = (Tally(200, 36), Tally(200, 10))
    one = judge({"a": bad}, bound=0.0, alpha=0.05)[0]
    alpha = math.exp(-one.log_evidence) * 1.01  # it just suffices for one
    assert judge({"a": bad}, bound=0.0, alpha=alpha)[0].worse
    two = judge({"a": bad, "b": (Tally(0, 0), Tally(0, 0))}, bound=0.0, alpha=alpha)
    assert not any(v.worse for v in two)


def test_impossible_counts_and_bounds() -> None:
    for requests, wrong in ((1, 2), (1, -1)):
        with pytest.raises(ValueError, match="went wrong"):
            Tally(requests, wrong)
    for bound in (-0.1, 1.0):
        with pytest.raises(ValueError, match="bound"):
            log_evidence(Tally(1, 0), Tally(1, 0), bound)


@pytest.mark.parametrize("base", [0.01, 0.2])
def test_false_alarms_are_as_rare_as_promised_however_often_one_looks(base: float) -> None:
    """At the edge of the bound, 100 looks a run. Ville's bound is not tight: it is far below."""
    assert alarms(base, 0.05, alpha=0.1, runs=300, seed=11) <= 0.1


def test_a_rhythm_that_both_arms_share_raises_no_alarm() -> None:
    rng = np.random.default_rng(12)
    p0 = 0.3 + 0.25 * np.sin(np.arange(2000) / 150)
    assert sum(ever(rng, p0, p0, 0.1) for _ in range(200)) / 200 <= 0.1


def test_a_policy_that_is_worse_is_found() -> None:
    assert alarms(0.02, 0.2, alpha=0.001, runs=100, seed=13) == 1
