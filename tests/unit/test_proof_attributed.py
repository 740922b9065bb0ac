# SPDX-License-Identifier: Apache-2.0
"""Ratios of means: exact by hand, unchanged by what must not matter, and as sure as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from proof_coverage import REQUEST_METHODS, delta_log_t, moments_of, request_coverage
from scipy import stats

from sprout.proof.attributed import MIN_REQUESTS, Carried, Effect, Group, Moments, compare, moments
from sprout.proof.capacity import Freed, freed
from sprout.proof.interval import Absent, Interval, saved_of_log_ratio, student_t


def group(values: list[float], probability: float = 1.0) -> Group:
    return Group(probability, len(values), math.fsum(values), math.fsum(v * v for v in values))


def effect(policy: list[Group], control: list[Group]) -> Effect:
    found = compare(moments(policy), moments(control))
    assert isinstance(found, Effect)
    return found


def test_by_hand() -> None:
    """Welch's interval of the difference, as scipy has it."""
    rng = np.random.default_rng(3)
    policy, control = rng.gamma(2, 10, 400), rng.gamma(2, 30, 60)
    found = effect([group(list(policy))], [group(list(control))])
    theirs = stats.ttest_ind(control, policy, equal_var=False).confidence_interval(0.95)
    assert found.difference.value == pytest.approx(control.mean() - policy.mean())
    assert found.difference.low == pytest.approx(theirs.low, rel=1e-3)
    assert found.difference.high == pytest.approx(theirs.high, rel=1e-3)
    assert found.saved.value == pytest.approx(1 - policy.mean() / control.mean())
    assert (found.policy_requests, found.control_requests) == (400, 60)


def test_a_changing_control_share_does_not_pass_for_a_saving() -> None:
    """Long answers by day under a share of 2 %, short ones by night under 50 %, and no level that
    saves anything: plain means say that the policy takes more than twice as much."""
    rng = np.random.default_rng(4)
    day, night = rng.gamma(4, 25, 10_000), rng.gamma(4, 2.5, 10_000)
    policy = [group(list(day[200:]), 0.98), group(list(night[5000:]), 0.5)]
    control = [group(list(day[:200]), 0.02), group(list(night[:5000]), 0.5)]
    found = effect(policy, control)
    assert found.saved.low < 0 < found.saved.high
    plain = effect([group([*day[200:], *night[5000:]])], [group([*day[:200], *night[:5000]])])
    assert plain.saved.high < -1


@pytest.mark.parametrize(
    ("policy", "control", "reason"),
    [
        ([], [1.0] * 50, "no request under the policy"),
        ([1.0] * 50, [], "no request in the control group"),
        ([1.0] * 500, [1.0] * 12, "12 requests in the control group; an interval needs 30"),
        ([1.0] * 50, [0.0] * 50, "nothing was measured of the requests in the control group"),
        ([0.0] * 50, [1.0] * 50, "nothing was measured of the requests under the policy"),
    ],
)
def test_what_can_not_be_told_says_why(
    policy: list[float], control: list[float], reason: str
) -> None:
    found = compare(
        moments([group(policy)] if policy else []), moments([group(control)] if control else [])
    )
    assert found == Absent(reason)


def test_few_that_count_much_are_few() -> None:
    uneven = [group([1.0, 2.0] * 1000, 1.0), group([1.0, 2.0], 0.0001)]
    found = compare(moments(uneven), moments([group([1.0, 2.0] * 100)]))
    assert isinstance(found, Absent)
    assert "that tell as much as" in found.reason


amounts = st.lists(st.floats(0.1, 1e4), min_size=MIN_REQUESTS + 1, max_size=80)


@given(amounts, amounts, st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_units_do_not_matter(policy: list[float], control: list[float], factor: float) -> None:
    one = effect([group(policy)], [group(control)])
    other = effect([group([v * factor for v in policy])], [group([v * factor for v in control])])
    # A spread of nothing is 1e-8 of the mean in floats, whose sums of squares lose half the digits.
    near = {"rel": 1e-4, "abs": 1e-6}
    assert other.saved.low == pytest.approx(one.saved.low, **near)
    assert other.saved.high == pytest.approx(one.saved.high, **near)
    assert other.difference.value == pytest.approx(factor * one.difference.value, **near)


@given(amounts, amounts, st.integers(1, 29))
@settings(max_examples=60, deadline=None)
def test_groups_of_one_probability_are_one_group(
    policy: list[float], control: list[float], cut: int
) -> None:
    whole = effect([group(policy, 0.9)], [group(control, 0.1)])
    parts = effect(
        [group(policy[:cut], 0.9), group(policy[cut:], 0.9)],
        [group(control[:cut], 0.1), group(control[cut:], 0.1)],
    )
    assert parts.saved.value == pytest.approx(whole.saved.value)
    assert parts.saved.low == pytest.approx(whole.saved.low, abs=1e-6)
    assert whole.saved.low <= whole.saved.value <= whole.saved.high < 1


@pytest.mark.parametrize(("control", "sigma", "least"), [(30, 0.6, 0.92), (100, 1.0, 0.905)])
def test_coverage(control: int, sigma: float, least: float) -> None:
    covered = request_coverage(delta_log_t, control=control, sigma=sigma, runs=1500, seed=control)
    assert least <= covered <= 0.97


def gapped(rng: np.random.Generator, n: int, mean_s: float, probability: float) -> Carried:
    """n answers of mean_s seconds and 1 J/s, give and take; gaps meet the long ones."""
    seconds = rng.exponential(mean_s, n)
    joules = seconds * rng.lognormal(-0.08, 0.4, n)
    metered = rng.random(n) < np.exp(-seconds / 3)

    def part(own: NDArray[np.bool_]) -> Moments:
        x, s = joules[own], seconds[own]
        sums = (x.sum(), x @ x, s.sum(), s @ s, x @ s)
        return moments([Group(probability, int(own.sum()), *map(float, sums))])

    return Carried(part(metered), part(~metered))


def test_coverage_where_gaps_meet_long_answers() -> None:
    """60 % less; those alone that were metered would say 47 %."""
    rng = np.random.default_rng(11)
    hits, plain, runs = 0, [], 1000
    for _ in range(runs):
        policy, control = gapped(rng, 1800, 0.8, 0.9), gapped(rng, 200, 2.0, 0.1)
        found = compare(policy, control)
        assert isinstance(found, Effect)
        hits += found.saved.low <= 0.6 <= found.saved.high
        plain.append(1 - policy.known.mean / control.known.mean)
    assert np.mean(plain) < 0.5
    assert 0.92 <= hits / runs <= 0.97


def test_with_all_metered_it_is_the_plain_mean() -> None:
    rng = np.random.default_rng(12)
    joules, seconds = rng.gamma(2, 10, 50), rng.gamma(2, 1, 50)
    sums = (joules.sum(), joules @ joules, seconds.sum(), seconds @ seconds, joules @ seconds)
    known = moments([Group(0.5, 50, *map(float, sums))])
    arm = Carried(known, Moments())
    assert (arm.mean, arm.requests, arm.unmetered) == (pytest.approx(joules.mean()), 50, 0)
    assert arm.variance_of_mean == pytest.approx(known.variance_of_mean)


def test_of_none_that_was_metered_nothing_is_told() -> None:
    blind = Carried(Moments(), moments([Group(1.0, 50, 0.0, 0.0, 50.0, 50.0)]))
    found = compare(moments([group([1.0] * 50)]), blind)
    assert found == Absent(
        "0 requests in the control group that were metered; an interval needs 30"
    )


def test_no_interval_of_those_compared_covers_more() -> None:
    """Why it is this one: docs/proof.md has the table."""
    rates = {
        name: request_coverage(method, control=30, sigma=0.6, runs=600, seed=7)
        for name, method in REQUEST_METHODS.items()
    }
    best = next(name for name in rates if name.endswith("(used)"))
    assert rates[best] >= max(rates.values()) - 0.01


@pytest.mark.parametrize("degrees", [10, 17.5, 29, 400])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_student_t(probability: float, degrees: float) -> None:
    assert student_t(probability, degrees) == pytest.approx(
        stats.t.ppf(probability, degrees), abs=1e-4
    )


def test_student_t_knows_its_limits() -> None:
    for probability, degrees in ((0.975, 9), (1.0, 30), (0.0, 30)):
        with pytest.raises(ValueError, match="no quantile"):
            student_t(probability, degrees)


def test_an_interval_holds_its_value() -> None:
    for ends in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(ValueError, match="no interval"):
            Interval(1.5 if ends == (2.0, 1.0) else 0.5, *ends)
    assert Interval(1.0, 0.5, 2.0).times(-2) == Interval(-2.0, -4.0, -1.0)
    saved = saved_of_log_ratio(Interval(math.log(0.5), math.log(0.25), math.log(0.8)))
    assert (saved.value, saved.low, saved.high) == pytest.approx((0.5, 0.2, 0.75))


# --- capacity ------------------------------------------------------------------------------------


def test_freed_capacity_by_hand() -> None:
    """A third of the device time: three times the requests, two of three replicas."""
    seconds = [0.9, 1.1] * 500
    found = freed(moments([group(seconds)]), moments([group([3 * s for s in seconds])]), replicas=9)
    assert isinstance(found, Freed)
    assert found.throughput.value == pytest.approx(3)
    assert found.ratio.value == pytest.approx(1 / 3)
    assert found.releasable.value == pytest.approx(6)
    assert found.releasable.low < 6
    assert found.releasable_whole == 5  # surely


def test_the_last_replica_stays_and_a_loss_frees_none() -> None:
    rng = np.random.default_rng(1)
    short, long = rng.gamma(9, 1e-4, 500), rng.gamma(9, 1, 500)
    gone = freed(moments_of(short), moments_of(long), replicas=3)
    assert isinstance(gone, Freed)
    assert gone.releasable_whole == 2
    lost = freed(moments_of(long), moments_of(short), replicas=3)
    assert isinstance(lost, Freed)
    assert lost.releasable_whole == 0
    assert lost.throughput.high < 1
    assert isinstance(freed(moments_of(short[:3]), moments_of(long), replicas=3), Absent)
