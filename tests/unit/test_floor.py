# SPDX-License-Identifier: Apache-2.0
"""The quality floor and its edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.optimize.floor import Range, place, trailing

HOURS = 3600.0
WIDE = Range(100, 300, "test")


def test_as_published() -> None:
    # a quarter of the way up, xi = 0.1: the floor is 97.5 % of q0
    floor = place(150, WIDE, 0.1, 0.5)
    assert floor.fraction == pytest.approx(0.25)
    assert floor.relative == pytest.approx(0.975)
    assert floor.basis == "test"


@pytest.mark.parametrize(("k0", "fraction"), [(0, 0.0), (100, 0.0), (300, 1.0), (5000, 1.0)])
def test_fraction_is_clamped(k0: float, fraction: float) -> None:
    assert place(k0, WIDE, 0.1, 0.5).fraction == fraction


@pytest.mark.parametrize("xi", [0.0, 0.1, 1.0])
def test_xi_bounds_what_is_given_up(xi: float) -> None:
    assert place(1e6, WIDE, xi, 0.5).relative == pytest.approx(1 - xi)


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_monotone_in_intensity(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert place(low, WIDE, 0.1, 0.5).relative >= place(high, WIDE, 0.1, 0.5).relative


def test_narrow_range_uses_the_configured_fraction_and_says_so() -> None:
    floor = place(200.4, Range(200, 200.99, "trailing 168 h"), 0.1, 0.3)
    assert floor.fraction == 0.3
    assert floor.relative == pytest.approx(0.97)
    assert floor.basis == "configured fraction: trailing 168 h is under 1 g/kWh wide"


def test_range_of_just_1_g_counts() -> None:
    assert place(200.5, Range(200, 201, "x"), 0.1, 0.3).fraction == pytest.approx(0.5)


def test_no_range_uses_the_configured_fraction_and_says_so() -> None:
    floor = place(200, Range(math.nan, math.nan, "3 h of history, 24 h needed"), 0.1, 0.3)
    assert floor.fraction == 0.3
    assert floor.basis == "configured fraction: 3 h of history, 24 h needed"


@pytest.mark.parametrize(
    ("k0", "xi", "configured"), [(math.nan, 0.1, 0.5), (1, 1.5, 0.5), (1, 0.1, -0.1)]
)
def test_nonsense_is_refused(k0: float, xi: float, configured: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        place(k0, WIDE, xi, configured)


def test_trailing_window_forgets_and_does_not_foresee() -> None:
    samples = [(h * HOURS, 100.0 + h) for h in range(400)]
    window = trailing(samples, 300.5 * HOURS, 168, 24)
    assert (window.low, window.high) == (100 + 133, 100 + 300)
    assert window.basis == "trailing 168 h"


def test_trailing_window_says_how_much_of_it_there_is() -> None:
    samples = [(h * HOURS, float(h)) for h in range(30)]
    assert trailing(samples, 30 * HOURS, 168, 24).basis == "trailing 168 h (30 h have a value)"


def test_too_short_a_history_is_no_range() -> None:
    samples = [(h * HOURS, float(h)) for h in range(23)]
    window = trailing(samples, 22.5 * HOURS, 168, 24)
    assert math.isnan(window.low)
    assert window.basis == "23 h of history, 24 h needed"


def test_two_samples_a_day_apart_are_not_a_day_of_history() -> None:
    assert math.isnan(trailing([(0, 1.0), (30 * HOURS, 400.0)], 30 * HOURS, 168, 24).low)


def test_empty_history_is_no_range_even_if_none_is_needed() -> None:
    assert math.isnan(trailing([], 0, 168, 0).low)
