# SPDX-License-Identifier: Apache-2.0
"""Blocks that anybody can work out again, and an interval that is as sure as it says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_coverage import block_coverage

from sprout.proof import bootstrap
from sprout.proof.interval import Absent
from sprout.proof.switchback import L0, MIN_PAIRS, POLICY, Cell, Schedule, System, estimate

SCHEDULE = Schedule(seed=42, started_at=1000.0, block_s=600.0, washout_s=60.0)


def arms(schedule: Schedule, pairs: int) -> list[tuple[str, str]]:
    return [(schedule.block(2 * i).arm, schedule.block(2 * i + 1).arm) for i in range(pairs)]


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_every_pair_is_balanced(seed: int, pair: int) -> None:
    schedule = replace(SCHEDULE, seed=seed)
    first, second = schedule.block(2 * pair), schedule.block(2 * pair + 1)
    assert {first.arm, second.arm} == {L0, POLICY}
    assert first.measured
    assert second.measured
    assert first.pair == second.pair == pair
    assert first.end_s == second.start_s
    assert schedule.index(second.start_s) == second.index or second.start_s > 2**40


def test_the_order_is_pinned_down_for_ever() -> None:
    """Stored seeds must give the same blocks with any later version."""
    order = "".join("L" if pair[0] == L0 else "p" for pair in arms(SCHEDULE, 24))
    assert order == "LLLLLLLppLLpLLLpLppLpppp"


def test_the_order_is_a_fair_draw() -> None:
    first = sum(pair[0] == L0 for pair in arms(SCHEDULE, 4000))
    assert abs(first - 2000) < 4 * math.sqrt(1000)
    assert arms(SCHEDULE, 50) != arms(replace(SCHEDULE, seed=43), 50)


def test_a_share_of_the_pairs() -> None:
    schedule = replace(SCHEDULE, share=0.25)
    pairs = [(schedule.block(2 * i), schedule.block(2 * i + 1)) for i in range(4000)]
    for first, second in pairs:
        assert first.measured == second.measured
        if not first.measured:
            assert (first.arm, second.arm) == (POLICY, POLICY)
            assert first.name.endswith("not in the experiment")
    chosen = sum(first.measured for first, _ in pairs)
    assert abs(chosen - 1000) < 4 * math.sqrt(750)


def test_times_of_a_block() -> None:
    block = SCHEDULE.block(SCHEDULE.index(2300.0))
    assert (block.index, block.start_s, block.measured_from_s, block.end_s) == (2, 2200, 2260, 2800)
    assert block.name == f"block 2 of switchback 2a, arm {block.arm}"
    assert SCHEDULE.index(999.0) == -1
    with pytest.raises(ValueError, match="before its start"):
        SCHEDULE.block(-1)


def made(pairs: int, *, saved: float = 0.3, seed: int = 1, grid: float = 300.0) -> list[Cell]:
    rng = np.random.default_rng(seed)
    cells = []
    for pair in range(pairs):
        for arm in (L0, POLICY):
            n = int(rng.poisson(400))
            joules = n * (100.0 if arm == L0 else 100.0 * (1 - saved)) * rng.uniform(0.95, 1.05)
            cells.append(Cell(7, pair, arm, "a", float(joules), n, grid))
    return cells


def system(cells: list[Cell], **options: object) -> System:
    found = estimate(cells, pue=1.5, **options)  # type: ignore[arg-type]
    assert isinstance(found, System)
    return found


def test_by_hand() -> None:
    cells = made(12)
    found = system(cells)
    policy, held = ([c for c in cells if c.arm == arm] for arm in (POLICY, L0))
    each = [sum(c.joules for c in own) / sum(c.requests for c in own) for own in (policy, held)]
    assert (found.policy_joules, found.l0_joules) == pytest.approx(tuple(each))
    assert found.energy_saved.value == pytest.approx(1 - each[0] / each[1])
    assert found.l0_g == pytest.approx(each[1] / 3.6e6 * 300 * 1.5)
    requests = sum(c.requests for c in policy)
    assert found.carbon_saved_g.value == pytest.approx(requests * (found.l0_g - found.policy_g))
    assert found.energy_saved.low < 0.3 < found.energy_saved.high
    assert (found.pairs, found.nodes) == (12, 1)


def test_the_same_cells_give_the_same_interval_in_any_order() -> None:
    cells = made(10)
    assert system(cells) == system(cells[::-1])
    assert system(cells, seed=1) != system(cells, seed=2)


def test_a_grid_that_was_cleaner_under_the_policy_is_no_saving() -> None:
    """By chance every policy block met half the intensity; nothing else differed."""
    cells = [replace(c, g_per_kwh=200.0 if c.arm == POLICY else 400.0) for c in made(20, saved=0.0)]
    found = system(cells)
    assert found.carbon_saved.value == pytest.approx(found.energy_saved.value)
    assert abs(found.carbon_saved.value) < 0.05


def test_dirty_hours_weigh_more() -> None:
    """The policy saves half in dirty pairs and nothing in clean ones."""
    dirty = made(10, saved=0.5, grid=900.0)
    clean = [replace(c, pair=c.pair + 10) for c in made(10, saved=0.0, grid=100.0, seed=2)]
    found = system(dirty + clean)
    assert found.energy_saved.value == pytest.approx(0.25, abs=0.03)
    assert found.carbon_saved.value == pytest.approx(0.45, abs=0.03)


@pytest.mark.parametrize("mixed", [20, 3])
def test_a_pair_with_two_series_is_never_compared(mixed: int) -> None:
    """The source fell back between the blocks, in more pairs than it did not."""
    good = [replace(c, series="A") for c in made(10, grid=100.0)]
    between = [
        replace(c, pair=c.pair + 10, series="A", g_per_kwh=100.0)
        if c.arm == POLICY
        else replace(c, pair=c.pair + 10, series="B", g_per_kwh=600.0)
        for c in made(mixed, seed=2)
    ]
    found = system(good + between)
    assert found == replace(system(good), pairs_of_others=mixed)
    assert found.series == "A"
    none = estimate(between, pue=1.5)
    assert isinstance(none, Absent)
    assert none.reason.startswith(f"0 whole pairs of blocks (and {mixed} of another")


def test_what_is_not_whole_is_left_out() -> None:
    cells = made(8)
    other = [replace(c, node="b") for c in made(8, seed=2)]
    half = [c for c in other if not (c.pair == 3 and c.arm == L0)]
    unknown = [replace(c, g_per_kwh=math.nan) if c.pair == 5 else c for c in cells]
    assert system(cells + half).nodes == 2
    assert system(cells + half) != system(cells + other)
    assert system(unknown).pairs == 7
    twice = [replace(c, seed=8) for c in made(8, seed=3)]
    assert system(cells + twice).pairs == 16  # another switchback's pair 0 is another pair


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([], "0 whole pairs of blocks; an interval needs 6"),
        (made(MIN_PAIRS - 1), "5 whole pairs"),
        ([replace(c, requests=0) for c in made(8)], "no requests"),
        ([replace(c, joules=0.0) for c in made(8)], "the meter counted nothing"),
        ([replace(c, g_per_kwh=0.0) for c in made(8)], "the grid emitted nothing"),
    ],
)
def test_what_can_not_be_told_says_why(cells: list[Cell], reason: str) -> None:
    found = estimate(cells, pue=1.0)
    assert isinstance(found, Absent)
    assert reason in found.reason


def test_an_empty_block_does_not_end_it() -> None:
    cells = [replace(c, requests=0) if c.pair == 2 else c for c in made(10)]
    found = system(cells)
    assert all(math.isfinite(x) for x in (found.energy_saved.low, found.energy_saved.high))


@pytest.mark.parametrize("pairs", [6, 12])
def test_coverage(pairs: int) -> None:
    """The percentile bootstrap is too narrow for few pairs; the one used is not."""
    covered = block_coverage(pairs=pairs, runs=250, seed=pairs)
    used = covered["bootstrap-t over pairs (used)"]
    assert 0.91 <= used <= 0.985
    assert used >= covered["percentile bootstrap"]


def test_influence_is_the_derivative() -> None:
    """Of both statistics, by weighing one cluster a little more."""
    columns = np.random.default_rng(5).uniform(1, 9, (7, 4))
    for statistic in (bootstrap.log_ratio, bootstrap.difference):
        value, influence = statistic(columns)
        for i in range(7):
            weight = np.ones((7, 1))
            weight[i] += 1e-6
            moved = float(statistic(columns * weight)[0] - value) / 1e-6
            assert moved * 7 == pytest.approx(float(influence[i]), rel=1e-3, abs=1e-6)


def test_clusters_that_all_say_the_same_leave_no_doubt() -> None:
    same = np.tile([2.0, 1.0, 4.0, 1.0], (8, 1))
    found = bootstrap.studentized(same, bootstrap.log_ratio, seed=1)
    assert found.low == pytest.approx(math.log(0.5))
    assert found.high == pytest.approx(math.log(0.5))
    with pytest.raises(ValueError, match="1 clusters"):
        bootstrap.studentized(same[:1], bootstrap.log_ratio, seed=1)
