# SPDX-License-Identifier: Apache-2.0
"""Cohen's kappa: published example, coverage, edges."""

import numpy as np
import pytest

from sprout.evaluate.statistics.agreement import kappa
from sprout.proof.interval import Absent, Interval

VERDICTS = ("lost", "tied", "won")


def test_by_hand() -> None:
    """Of 50: 20 both yes, 5 and 10 split, 15 both no: p_o = 0.7, p_e = 0.5."""
    one = ["y"] * 25 + ["n"] * 25
    other = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = kappa(one, other, verdicts=("y", "n"))
    assert isinstance(found, Interval)
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.14, abs=0.02)
    assert found.high == pytest.approx(0.66, abs=0.02)


def test_neighbours_count_half_where_verdicts_have_an_order() -> None:
    one, other = ["lost", "tied", "won"] * 20, ["tied", "tied", "won"] * 20
    plain = kappa(one, other, verdicts=VERDICTS)
    ordered = kappa(one, other, verdicts=VERDICTS, weights="linear")
    assert isinstance(plain, Interval)
    assert isinstance(ordered, Interval)
    # p_o = 5/6; p_e = sum w_ij p_i. p_.j with w = 1, 1/2, 0.
    chance = 1 / 3 * (2 / 3 / 2 + 0) + 1 / 3 * (2 / 3 + 1 / 3 / 2) + 1 / 3 * (2 / 3 / 2 + 1 / 3)
    assert ordered.value == pytest.approx((5 / 6 - chance) / (1 - chance))
    assert plain.value == pytest.approx((2 / 3 - 1 / 3) / (2 / 3))


def test_judges_who_guess_agree_as_chance_would_have_it() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        one, other = rng.choice(3, size=(2, 60), p=[0.5, 0.2, 0.3]).tolist()
        found = kappa(one, other, verdicts=(0, 1, 2))
        assert isinstance(found, Interval)
        held += found.low <= 0 <= found.high
    assert held >= 273  # 285 expected


def test_judges_of_a_known_kappa() -> None:
    """The second copies the first half of the time, else guesses as often: kappa is 0.5."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        one, guess = rng.choice(3, size=(2, 80), p=[0.4, 0.3, 0.3])
        other = np.where(rng.random(80) < 0.5, one, guess)
        found = kappa(one.tolist(), other.tolist(), verdicts=(0, 1, 2))
        assert isinstance(found, Interval)
        held += found.low <= 0.5 <= found.high
    assert held >= 273


def test_agreeing_a_few_times_is_not_for_ever() -> None:
    found = kappa(["won", "lost", "won"], ["won", "lost", "won"], verdicts=VERDICTS)
    assert isinstance(found, Interval)
    assert found.value == found.high == 1
    assert found.low < 0.9


def test_what_says_nothing_and_what_can_not_be() -> None:
    assert isinstance(kappa(["won"], ["won"], verdicts=VERDICTS), Absent)
    assert isinstance(kappa(["won"] * 9, ["won"] * 9, verdicts=VERDICTS), Absent)
    with pytest.raises(ValueError, match="of the other"):
        kappa(["won"], [], verdicts=VERDICTS)
    with pytest.raises(ValueError, match="not in the list"):
        kappa(["won", "?"], ["won", "won"], verdicts=VERDICTS)
    with pytest.raises(ValueError, match="two different"):
        kappa(["won"], ["won"], verdicts=("won", "won"))
