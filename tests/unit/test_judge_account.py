# SPDX-License-Identifier: Apache-2.0
"""What judging took."""

import pytest

from sprout.evaluate.judges.account import Account, Rates
from sprout.evaluate.judges.verdict import Reason, Spent, Verdict


def account(*verdicts: Verdict, places: int = 2) -> Account:
    made = Account()
    for verdict in verdicts:
        made.asked(verdict, places)
    return made


def test_tokens_become_joules_grams_and_money_at_the_declared_rates() -> None:
    spent = Spent(calls=1, input_tokens=1500, output_tokens=10)
    cost = account(Verdict(0, spent=spent), Verdict(None, spent=spent)).cost(
        Rates(joules_per_token=2.0, price_per_1k_input=0.5, price_per_1k_output=10.0),
        intensity_g_per_kwh=300.0,
        pue=1.2,
    )
    assert (cost.calls, cost.input_tokens, cost.output_tokens) == (2, 3000, 20)
    assert cost.joules == 6040.0
    assert cost.carbon_g == pytest.approx(6040 / 3.6e6 * 300 * 1.2)
    assert cost.price == pytest.approx(1.5 + 0.2)
    assert cost.basis == "2 J per token as declared"


def test_what_is_not_known_is_none_and_said() -> None:
    verdict = Verdict(0, spent=Spent(calls=2, uncounted_calls=1, input_tokens=10, output_tokens=1))
    cost = account(verdict).cost(Rates(), intensity_g_per_kwh=300.0)
    assert (cost.joules, cost.carbon_g, cost.price) == (None, None, None)
    assert "joules not known" in cost.basis
    assert "price not known" in cost.basis
    assert "without 1 calls" in cost.basis
    cost = account(verdict).cost(Rates(joules_per_token=1.0))
    assert (cost.joules, cost.carbon_g) == (11.0, None)  # no intensity


def test_receipts_count_before_what_is_declared() -> None:
    metered = Spent(
        calls=1, input_tokens=90, output_tokens=10, receipt_joules=7.0, receipt_tokens=100
    )
    other = Spent(calls=1, input_tokens=40, output_tokens=10)
    assert account(Verdict(0, spent=metered)).cost(Rates()).joules == 7.0
    both = account(Verdict(0, spent=metered), Verdict(0, spent=other))
    assert both.cost(Rates(joules_per_token=2.0)).joules == 107.0
    assert both.cost(Rates()).joules is None


def test_nothing_asked_costs_nothing() -> None:
    cost = account().cost(Rates(), intensity_g_per_kwh=300.0)
    assert (cost.calls, cost.joules, cost.carbon_g, cost.price) == (0, 0.0, 0.0, None)
    assert cost.basis == ""


def test_the_first_place_s_wins_are_counted_with_ties_as_halves() -> None:
    position = account(
        Verdict(0), Verdict(0), Verdict(1), Verdict(None), Verdict(unusable=Reason.REFUSED)
    ).position
    assert (position.comparisons, position.wins) == (4, (2.5, 1.5))
    assert position.first_wins == 0.625
    assert position.bias == 0.125
    three = account(Verdict(0), Verdict(2), places=3).position
    assert three.bias == pytest.approx(1 / 2 - 1 / 3)
    assert account().position.bias is None


def test_a_place_decides_where_it_wins_nearly_always_and_often_enough_to_say() -> None:
    assert not account(*[Verdict(0)] * 39).position.decides
    assert account(*[Verdict(0)] * 40).position.decides
    assert account(*[Verdict(1)] * 40).position.decides
    assert account(*[Verdict(0)] * 36, *[Verdict(1)] * 4).position.decides
    assert not account(*[Verdict(0)] * 35, *[Verdict(1)] * 5).position.decides
    assert not account(*[Verdict(None)] * 40).position.decides
