# SPDX-License-Identifier: Apache-2.0
"""The mode "bank": quality as a budget, from the hours ahead, their traffic and the past."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from round_priors import ROUND_PRIORS

from sprout.carbon import Intensity
from sprout.config import BankConfig, Config, ControlConfig
from sprout.control import history, inbox, messages
from sprout.control.budget import Budget, Worth, by_hour, expected
from sprout.control.decide import plan
from sprout.control.inputs import Group, Horizon, Inputs, inputs_of, priors
from sprout.control.publisher import Publisher
from sprout.control.store import Store
from sprout.directives import pack
from sprout.optimize.caps import Caps
from sprout.optimize.floor import Range
from sprout.v1 import control_pb2 as pb

PACK = pack("explicit")
CONFIG = Config(control=ControlConfig(**ROUND_PRIORS, mode="bank"))
SERIES = ("GRID", "grid", "direct", "average")
NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
TARGET = 0.95
HOURS = 48


def inputs(intensities: tuple[float, ...], carry: float = 0.0, xi: float = 0.15) -> Inputs:
    made = inputs_of(CONFIG, intensities[0], Range(100, 300, "test"), priors(CONFIG, PACK.levels))
    horizon = Horizon(intensities, (10.0,) * len(intensities), TARGET, carry, "test")
    return replace(made, xi=xi, horizon=horizon)


# --- a decision ----------------------------------------------------------------------------------


def test_quality_is_spent_in_the_dirty_hour_by_hand() -> None:
    """Two hours, q1/q0 = 0.85: a mean of 95 % leaves 2/3 of an hour's requests to L1. The dirty
    hour gets them all; a floor for each hour would give a third to both."""
    clean_first = plan(inputs((100.0, 300.0)))
    assert clean_first.shares == pytest.approx((1, 0, 0))
    assert clean_first.active_constraint == "budget"
    dirty_first = plan(inputs((300.0, 100.0)))
    assert dirty_first.shares == pytest.approx((1 / 3, 2 / 3, 0))
    assert dirty_first.budget is not None
    assert dirty_first.budget.expected_preference == pytest.approx(TARGET)
    # One more point of one request: L1 saves 40 J, and costs 15 points.
    assert dirty_first.price_g_per_point == pytest.approx(40 / 3.6e6 * 300 / 15)


def test_a_grid_that_stands_still_spends_evenly() -> None:
    """Any hour might spend as well; were it always the present one, each would overspend."""
    made = plan(inputs((200.0,) * 48))
    assert made.expected_preference == pytest.approx(TARGET)
    assert made.shares == pytest.approx((2 / 3, 1 / 3, 0))


def test_a_step_limit_stands_above_evenness() -> None:
    caps = Caps(step=0.1)
    made = plan(replace(inputs((200.0,) * 48), caps=caps, previous=(1.0, 0.0, 0.0)))
    assert made.shares[0] == pytest.approx(0.9)


def test_no_hour_falls_below_1_less_xi() -> None:
    made = plan(inputs((300.0, 100.0, 100.0, 100.0), xi=0.08))
    assert made.floor == pytest.approx(0.92)
    assert made.expected_preference == pytest.approx(0.92)
    assert made.active_constraint == "quality"


def test_what_was_overspent_is_paid_back_and_what_was_saved_is_spent() -> None:
    even = plan(inputs((200.0, 200.0))).expected_preference
    assert plan(inputs((300.0, 100.0), carry=-50.0)).expected_preference > even - 0.05
    assert plan(inputs((300.0, 100.0), carry=100.0)).shares[0] == 0  # both hours may be all L1
    # 20 requests at 5 points each is all that two hours of L0 can pay back.
    ruined = plan(inputs((300.0, 100.0), carry=-150.0))
    assert ruined.shares == pytest.approx((1, 0, 0))
    assert ruined.budget is not None
    assert ruined.budget.short_request_points == pytest.approx(50)
    assert ruined.price_g_per_point is None
    assert "can't be made up for" in "\n".join(ruined.lines())


def test_without_a_horizon_it_decides_by_the_hour_and_says_why() -> None:
    made = plan(replace(inputs((200.0, 200.0)), horizon=None, no_horizon="no forecast: test"))
    paper = plan(replace(inputs((200.0, 200.0)), mode="paper"))
    assert made.shares == paper.shares
    assert "no forecast: test" in made.degraded["bank"]


def test_kill_switch_and_pin_stand_above_the_budget() -> None:
    assert plan(replace(inputs((300.0, 100.0)), paused=True)).shares == (1, 0, 0)
    pinned = plan(replace(inputs((300.0, 100.0)), pinned=(0.0, 0.0, 1.0)))
    assert (pinned.shares, pinned.budget) == ((0, 0, 1), None)


def test_a_stored_decision_solves_to_the_same_mix() -> None:
    given = inputs((300.0, 140.0, 100.0), carry=-7.5)
    assert plan(history.load(history.dump(given))) == plan(given)


def test_it_travels_with_the_policy() -> None:
    made = plan(inputs((300.0, 100.0), carry=3.0))
    publisher = Publisher(CONFIG, PACK, 1, wall=lambda: 1.0, uptime=lambda: 1.0)
    policy = publisher.publish(made, None, overridden=False, pause_reason=None, trigger="test")
    assert policy.explanation.budget.carry_request_points == 3
    assert messages.plan_of(policy).budget == made.budget


# --- exploration ---------------------------------------------------------------------------------


def explored(mode: str, share: float, k0: float) -> tuple[float, ...]:
    given = replace(inputs((k0, 300.0 + 100.0 - k0)), exploration_share=share)
    return plan(replace(given, mode=mode)).shares  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["paper", "bank"])
def test_every_level_keeps_its_share(mode: str) -> None:
    assert min(explored(mode, 0.02, 300.0)) == pytest.approx(0.02)
    assert min(explored(mode, 0.0, 300.0)) == 0


def test_exploration_yields_to_the_floor() -> None:
    """In the cleanest hour the paper's floor is L0's own preference."""
    assert explored("paper", 0.02, 100.0) == pytest.approx((1, 0, 0))


# --- what it is decided from ---------------------------------------------------------------------


class Grid:
    """A feed with a given forecast."""

    def __init__(self, ahead: list[float]) -> None:
        self.value = Intensity(200.0, *SERIES, NOW.replace(minute=0))
        self.ahead = [
            Intensity(g, *SERIES, NOW.replace(minute=30 * (i % 2)) + timedelta(hours=1 + i // 2))
            for i, g in enumerate(ahead)
        ]

    def last(self) -> Intensity:
        return self.value

    def now(self) -> datetime:
        return self.value.time + timedelta(seconds=self.age_s())

    def age_s(self) -> float:
        return 1800.0

    def forecast(self, hours: float) -> list[Intensity]:
        return self.ahead

    def forecast_basis(self) -> str:
        return "theirs"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


def outcomes(
    level: int,
    first: int,
    count: int,
    *,
    opened: datetime = NOW - timedelta(hours=2),
    **fields: object,
) -> list[inbox.Row]:
    given = {"policy_version": 7, "ending": pb.ENDING_DELIVERED, **fields}
    made = []
    for i in range(count):
        outcome = pb.Outcome(segment_uid=5, ticket=first + i, level=level, **given)  # type: ignore[arg-type]
        outcome.opened_at.FromDatetime(opened)
        made.append(inbox.row("n", outcome))
    return made


def budget(store: Store) -> Budget:
    applied, of_l0 = pb.Explanation(), pb.Explanation(active_constraint="block")
    for version, explanation in ((7, applied), (8, of_l0)):
        policy = pb.Policy(counter=version, explanation=explanation)
        store.add_policy(0, version, PACK.hash, 0.0, policy.SerializeToString())
    return Budget(BankConfig(target=TARGET, hours=HOURS), store, PACK.hash)


def look(made: Budget, grid: Grid) -> tuple[Horizon | None, str]:
    profile = priors(CONFIG, PACK.levels)
    return made.look(grid, Worth(profile), NOW.timestamp())  # type: ignore[arg-type]


def carry(made: Budget, grid: Grid) -> float:
    horizon, why = look(made, grid)
    assert horizon is not None, why
    return horizon.carry_request_points


def test_half_hours_of_a_forecast_are_averaged(store: Store) -> None:
    made, why = look(budget(store), Grid([100.0, 120.0, 200.0, 220.0] * 3))
    assert made is not None, why
    assert made.intensities_g_per_kwh[:7] == (200, 110, 210, 110, 210, 110, 210)
    assert made.basis.startswith("forecast: 6 h of theirs, then as in the last 0 h on average; ")
    assert made.basis.endswith("traffic: as in this hour so far")


def test_behind_the_forecast_stand_the_same_hours_of_the_past(store: Store) -> None:
    """Two days of history, hour h of the first at h, of the second at 100 + h."""
    top = NOW.replace(minute=0)
    past = {h: (0.0 if h > 24 else 100.0) + (12 - h) % 24 for h in range(1, 49)}
    store.add_intensities(
        [Intensity(g, *SERIES, top - timedelta(hours=h)) for h, g in past.items()]
    )
    made, why = look(budget(store), Grid([400.0] * 12))
    assert made is not None, why
    ahead = made.intensities_g_per_kwh
    assert len(ahead) == HOURS
    assert ahead[1:7] == (400,) * 6
    assert ahead[7] == 12 + 7  # of two days ago: the cycle is both days
    assert ahead[30] == 100 + (12 + 30) % 24
    assert "then as in the last 2 d" in made.basis


def test_without_a_forecast_of_the_source_the_history_serves(store: Store) -> None:
    top = NOW.replace(minute=0)
    past = [Intensity(100.0 + h % 24, *SERIES, top - timedelta(hours=h)) for h in range(1, 24 * 14)]
    store.add_intensities(past)
    made, why = look(budget(store), Grid([100.0] * 4))  # too short to be of use
    assert made is not None, why
    assert len(made.intensities_g_per_kwh) == HOURS
    assert made.basis.startswith("forecast: 24 h of our own, hour of week")
    assert "then as in the last 7 d" in made.basis


def test_an_old_value_is_no_forecast_but_a_budget_all_the_same(store: Store) -> None:
    grid = Grid([])
    grid.value = replace(grid.value, time=NOW - timedelta(days=3))
    grid.age_s = lambda: 3 * 86_400.0  # type: ignore[method-assign]
    made, why = look(budget(store), grid)
    assert made is not None, why
    assert "no forecast" in made.basis
    assert set(made.intensities_g_per_kwh) == {200.0}


def test_a_gap_ends_the_forecast() -> None:
    grid = Grid([100.0, 120.0, 200.0, 220.0])
    assert by_hour([grid.ahead[0], grid.ahead[3]], NOW) == [100, 220]
    assert by_hour(grid.ahead[2:], NOW) == []


def test_another_mode_ends_it(store: Store) -> None:
    made, grid = budget(store), Grid([])
    carry(made, grid)
    store.add_outcomes(outcomes(1, 1, 5))
    assert carry(made, grid) == pytest.approx(-50)
    made.end()
    assert carry(budget(store), grid) == 0


def test_each_drawn_outcome_counts_once(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    store.add_outcomes(outcomes(0, 1, 500))  # before the budget began
    assert carry(made, grid) == 0
    store.add_outcomes(outcomes(1, 1000, 20))  # 85 %: 10 points under the target each
    store.add_outcomes(outcomes(0, 2000, 10))  # 5 points above
    for i, flag in enumerate(("pinned", "control", "probe", "off", "evaluation")):
        store.add_outcomes(outcomes(2, 3000 + 100 * i, 10, **{flag: True}))
    assert carry(made, grid) == pytest.approx(-200 + 50)
    assert carry(made, grid) == pytest.approx(-150)
    # A restart goes on where the last one stood.
    again = budget(store)
    store.add_outcomes(outcomes(0, 5000, 2))
    assert carry(again, grid) == pytest.approx(-140)


def test_those_that_prompts_chose_are_worth_by_the_same_l0_as_the_others(store: Store) -> None:
    """A class with a better L0 lifts the pooled one: then 100 % of their own is under it."""
    made, grid, rows = budget(store), Grid([100.0] * 6), priors(CONFIG, PACK.levels)
    better = tuple(replace(row, preference=2 * row.preference) for row in rows)
    worth = Worth(rows, [Group(task="sums", traffic=0.5, profile=better)], "pooled")
    policy = pb.Policy(counter=9, prompt=pb.PromptPolicy(share=0.9, expected_preference=1.0))
    store.add_policy(0, 9, PACK.hash, 0.0, policy.SerializeToString())

    def carried() -> float:
        horizon, why = made.look(grid, worth, NOW.timestamp())  # type: ignore[arg-type]
        assert horizon is not None, why
        return horizon.carry_request_points

    carried()
    store.add_outcomes(outcomes(0, 1, 10, policy_version=9))
    drawn = carried()
    assert drawn == pytest.approx(10 * 100 * (1 / 1.5 - TARGET))
    store.add_outcomes(outcomes(1, 100, 10, policy_version=9, prompt=True))
    assert carried() == pytest.approx(2 * drawn)


def test_those_that_prompts_chose_count_as_their_policy_expects(store: Store) -> None:
    """Whatever level they got: 95 % is the target, 99 % expected of them."""
    made, grid = budget(store), Grid([100.0] * 6)
    prompt = pb.PromptPolicy(share=0.9, expected_preference=0.99)
    policy = pb.Policy(counter=9, prompt=prompt)
    store.add_policy(0, 9, PACK.hash, 0.0, policy.SerializeToString())
    carry(made, grid)
    store.add_outcomes(outcomes(1, 1, 10, policy_version=9, prompt=True))
    store.add_outcomes(outcomes(0, 100, 10, policy_version=9, prompt=True))
    assert carry(made, grid) == pytest.approx(20 * 4)
    store.add_outcomes(outcomes(1, 200, 5, policy_version=9))  # drawn: 85 %
    store.add_outcomes(outcomes(1, 300, 5, policy_version=9, unscored=True))  # the same
    assert carry(made, grid) == pytest.approx(80 - 100)


def test_each_mix_s_prompts_count_as_expected_of_that_mix(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    prompt = pb.PromptPolicy(share=0.9, expected_preference=0.99)
    mixes = [
        pb.Mix(task="sums", prompt=pb.PromptPrices(expected_preference=0.97)),
        pb.Mix(tenant="acme", prompt=pb.PromptPrices(expected_preference=1.0)),
    ]
    policy = pb.Policy(counter=9, prompt=prompt, mixes=mixes)
    store.add_policy(0, 9, PACK.hash, 0.0, policy.SerializeToString())
    carry(made, grid)
    names = [("", ""), ("", "sums"), ("acme", "sums"), ("other", "poems")]
    for start, (tenant, task) in enumerate(names):
        same = {"policy_version": 9, "prompt": True, "tenant": tenant, "task": task}
        store.add_outcomes(outcomes(1, 1 + 100 * start, 10, **same))
    assert carry(made, grid) == pytest.approx(10 * (4 + 2 + 5 + 4))


def test_what_was_not_decided_is_not_counted(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    carry(made, grid)
    store.add_outcomes(outcomes(0, 1, 50, policy_version=8))  # of a block of L0
    assert carry(made, grid) == 0


def test_classes_count_by_their_own_q_and_those_who_opted_out_not_at_all(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    policy = pb.Policy(counter=9, mixes=[pb.Mix(tenant="quiet", basis="tenant opted out")])
    store.add_policy(0, 9, PACK.hash, 0.0, policy.SerializeToString())
    rows = priors(CONFIG, PACK.levels)
    code = tuple(replace(p, preference=q) for p, q in zip(rows, (0.5, 0.5, 0.1), strict=True))
    worth = Worth(rows, (Group(task="code", traffic=0.5, profile=code),))

    def carried() -> float:
        horizon, why = made.look(grid, worth, NOW.timestamp())  # type: ignore[arg-type]
        assert horizon is not None, why
        return horizon.carry_request_points

    carried()
    store.add_outcomes(outcomes(1, 1, 10, policy_version=9, task="code"))  # as good as L0: + 5
    assert carried() == pytest.approx(50)
    store.add_outcomes(outcomes(1, 100, 10, policy_version=9))  # 85 %: - 10
    assert carried() == pytest.approx(-50)
    store.add_outcomes(outcomes(0, 200, 10, policy_version=9, tenant="quiet"))
    assert carried() == pytest.approx(-50)
    store.add_outcomes(outcomes(0, 300, 10, policy_version=7, tenant="quiet"))  # not yet then
    assert carried() == pytest.approx(0)


def test_a_surplus_is_worth_one_horizon_at_most(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    carry(made, grid)
    store.add_outcomes(outcomes(0, 1, 5000, opened=NOW - timedelta(days=30)))
    assert carry(made, grid) == pytest.approx(HOURS * 5)


def test_another_pack_starts_anew(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 6)
    carry(made, grid)
    store.add_outcomes(outcomes(1, 1, 5))
    assert carry(made, grid) == pytest.approx(-50)
    other = Budget(BankConfig(hours=HOURS), store, pack("paper").hash)
    assert carry(other, grid) == 0


def test_traffic_is_that_of_the_hour_of_the_day() -> None:
    day = {h: 10 * (h % 24) for h in range(100, 148)}
    made, basis = expected(day, 148, 3)
    assert made == tuple(10.0 * (h % 24) for h in (148, 149, 150))
    assert basis == "hour of the day, 2 d"
    assert expected({90: 30, 95: 30}, 100, 2) == ((6.0, 6.0), "mean of 10 h")


def test_the_first_hour_is_judged_by_what_has_come(store: Store) -> None:
    """30 requests by half past."""
    made, grid = budget(store), Grid([100.0] * 12)
    store.add_outcomes(outcomes(0, 1, 30, opened=NOW - timedelta(minutes=5)))
    horizon, _ = look(made, grid)
    assert horizon is not None
    assert set(horizon.requests) == {60.0}


def test_a_replayed_grid_carries_nothing_on(store: Store) -> None:
    made, grid = budget(store), Grid([100.0] * 12)
    grid.value = replace(grid.value, time=NOW - timedelta(days=900))
    look(made, grid)
    store.add_outcomes(outcomes(1, 1, 50))
    horizon, _ = look(made, grid)
    assert horizon is not None
    assert (horizon.carry_request_points, set(horizon.requests)) == (0, {1.0})
    assert "nothing is carried on" in horizon.basis


def test_hours_are_counted_without_our_own_requests(store: Store) -> None:
    store.add_outcomes(outcomes(0, 1, 7))
    store.add_outcomes(outcomes(0, 100, 3, probe=True))
    store.add_outcomes(outcomes(0, 200, 4, evaluation=True))
    hour = int(NOW.timestamp() // 3600) - 2
    assert store.hourly_requests(hour, hour + 1) == {hour: 7}
    assert store.hourly_requests(hour + 1, hour + 9) == {}
