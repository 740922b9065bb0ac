# SPDX-License-Identifier: Apache-2.0
"""Bounds on shares, and what they leave within reach."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.errors import InfeasibleError
from sprout.optimize.caps import NO_CAPS, Caps


def mixes(levels: int) -> st.SearchStrategy[list[float]]:
    column = st.lists(st.floats(0, 1), min_size=levels, max_size=levels)
    return column.filter(lambda v: sum(v) > 0.1).map(lambda v: [x / sum(v) for x in v])


def test_none() -> None:
    assert NO_CAPS.bounds(3) == ((0, 0, 0), (1, 1, 1))
    assert NO_CAPS.bounds(3, [0.2, 0.5, 0.3]) == ((0, 0, 0), (1, 1, 1))
    assert NO_CAPS.binding([0.0, 0.0, 1.0]) == ()


def test_step_limits_moves_away_from_l0_alone() -> None:
    lower, upper = Caps(step=0.1).bounds(3, [0.5, 0.3, 0.2])
    assert lower == pytest.approx((0.4, 0, 0))
    assert upper == pytest.approx((1, 0.4, 0.3))


def test_no_previous_mix_no_step() -> None:
    assert Caps(step=0.1).bounds(2) == ((0, 0), (1, 1))


@given(st.integers(1, 8).flatmap(mixes), st.floats(0, 1))
def test_previous_mix_and_all_l0_are_within_a_step(previous: list[float], step: float) -> None:
    lower, upper = Caps(step=step).bounds(len(previous), previous)
    all_l0 = [1.0, *(0.0 for _ in previous[1:])]
    for mix in (previous, all_l0):
        for low, x, high in zip(lower, mix, upper, strict=True):
            assert low <= x <= high


@given(mixes(3), mixes(3), st.floats(0, 1), st.floats(0, 1))
def test_a_step_never_leaves_nothing(
    previous: list[float], other: list[float], step: float, explored: float
) -> None:
    """Whatever the previous mix, caps that leave a mix without the step leave one with it."""
    caps = Caps(least=tuple(explored * x for x in other), step=step)
    lower, upper = caps.bounds(3, previous)
    assert math.fsum(lower) <= 1 + 1e-9 <= math.fsum(upper) + 2e-9
    for low, high in zip(lower, upper, strict=True):
        assert low <= high + 1e-12


def test_exploration_is_not_held_up_by_the_step() -> None:
    lower, upper = Caps(least=(0, 0, 0.05), step=0.01).bounds(3, [1, 0, 0])
    assert (lower[2], upper[2]) == (0.05, 0.05)
    assert lower[0] <= 0.95


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        (Caps(least=(0.5, 0.4, 0.3)), "least shares are 0.2 more than 1 together"),
        (Caps(most=(0.5, 0.2, 0.1)), "most shares are 0.2 less than 1 together"),
        (Caps(least=(0, 0.4, 0), most=(1, 0.3, 1)), "L1: least 0.4 is 0.1 above most 0.3"),
    ],
)
def test_no_mix_is_left(caps: Caps, message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        caps.bounds(3)


def test_a_step_with_less_than_all_l0_may_leave_no_mix() -> None:
    with pytest.raises(InfeasibleError, match=r"leaves 0\.3 of the requests without a level"):
        Caps(most=(0.5, 1, 0.1), step=0.1).bounds(3, [0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    "caps", [Caps(least=(0.1,)), Caps(most=(1.0, 2.0, 1.0)), Caps(least=(-0.1, 0.0, 0.0))]
)
def test_nonsense_is_refused(caps: Caps) -> None:
    with pytest.raises(ValueError, match="share"):
        caps.bounds(3)


@pytest.mark.parametrize("previous", [[1.0], [0.5, 0.2, 0.1], [1.2, -0.2, 0.0]])
def test_a_previous_mix_is_a_mix(previous: list[float]) -> None:
    with pytest.raises(ValueError, match="previous mix"):
        Caps(step=0.1).bounds(3, previous)


def test_binding_caps_have_names() -> None:
    caps = Caps(least=(0.1, 0, 0), most=(1, 0.5, 1), step=0.2)
    assert caps.binding([0.1, 0.5, 0.4], [0.1, 0.4, 0.5]) == ("least L0", "most L1")
    assert caps.binding([0.3, 0.4, 0.3], [0.5, 0.4, 0.1]) == ("step L0", "step L2")
