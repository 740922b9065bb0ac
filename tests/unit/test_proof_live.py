# SPDX-License-Identifier: Apache-2.0
"""Switchback, shadow mode and guard as the control loop runs them, on a clock of their own."""

import asyncio
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from report_store import Made
from round_priors import ROUND_PRIORS

from sprout.carbon import Intensity
from sprout.carbon.intensity import Series
from sprout.config import Config, ControlConfig, GuardConfig, SwitchbackConfig
from sprout.console import operator
from sprout.control import history, node_energy
from sprout.control.archive import Archive, Span
from sprout.control.blocks import Blocks, schedule_of
from sprout.control.guard import PREFIX, Guard
from sprout.control.loop import Loop
from sprout.control.messages import plan_of
from sprout.control.readings import EVERY_S, Readings, interval_s
from sprout.control.report import make
from sprout.control.rows import Feedback, Switchback
from sprout.optimize.floor import Range
from sprout.policy_version import version
from sprout.proof.interval import Absent
from sprout.proof.switchback import L0, POLICY
from sprout.v1 import control_pb2 as pb

SERIES: Series = ("NL", "test", "lifecycle", "average")
NOW = 1_700_000_000.0
BLOCKS = SwitchbackConfig(enabled=True, block_s=600, washout_s=60)


class Feed:
    """200 g/kWh in a range of 100 to 300, half-way: a third of L1 by ROUND_PRIORS."""

    remote = False
    series = SERIES

    def __init__(self) -> None:
        self.now_s = NOW

    def wall(self) -> float:
        return self.now_s

    async def poll(self) -> None:
        pass

    def last(self) -> Intensity:
        return Intensity(200.0, *SERIES, datetime.fromtimestamp(self.now_s, UTC))

    def range(self) -> Range:
        return Range(100, 300, "test")

    def reasons(self) -> dict[str, str]:
        return {}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.close()


@pytest.fixture
def feed() -> Feed:
    return Feed()


def loop_of(made: Made, feed: Feed, **control: Any) -> Loop:
    config = Config(control=ControlConfig(**{**ROUND_PRIORS, "ttl_s": 900, **control}))
    return Loop(config, made.store, feed, wall=feed.wall, uptime=feed.wall)  # type: ignore[arg-type]


def current(loop: Loop) -> pb.Policy:
    policy = loop.publisher.policy()
    assert policy is not None
    return policy


def shares(policy: pb.Policy) -> list[float]:
    return [round(s.share, 3) for s in policy.shares]


MIX, ALL_L0 = [0.667, 0.333, 0.0], [1.0, 0.0, 0.0]


def in_loop(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def through(loop: Loop, feed: Feed, until: float, step_s: float = 10.0) -> None:
    while feed.now_s < until:
        feed.now_s += step_s
        await loop.step()


# --- switchback ----------------------------------------------------------------------------------


def test_blocks_alternate_as_the_schedule_says(made: Made, feed: Feed) -> None:
    async def scenario() -> None:
        loop = loop_of(made, feed, switchback=BLOCKS)
        stored = made.store.last_switchback()
        assert stored is not None
        assert stored == Switchback(stored.seed, NOW, 600.0, 60.0, 1.0)
        schedule = schedule_of(stored)
        await loop.step()
        for number in range(6):
            await through(loop, feed, NOW + 600 * number + 30)
            block, policy = schedule.block(number), current(loop)
            assert policy.explanation.block == block.name
            at_l0 = block.arm == L0
            assert shares(policy) == (ALL_L0 if at_l0 else MIX)
            assert not policy.paused
            assert (policy.explanation.active_constraint == "block") == at_l0
            would_be = [round(s.share, 3) for s in policy.explanation.would_be]
            assert would_be == (MIX if at_l0 else [])
            text = "\n".join(plan_of(policy).lines())
            assert f"experiment  {block.name}" in text
            assert ("not applied L0 66.7 %" in text) == at_l0
            # In a block of L0 nothing is expected to be saved.
            why = policy.explanation
            assert (why.expected_g_per_request == why.expected_l0_g_per_request) == at_l0
            assert why.trigger == ("block" if number else "start")

    in_loop(scenario())


def blocks_stored(made: Made) -> dict[int, Any]:
    archive = Archive(made.path)
    found = archive.blocks(Span(0.0, NOW + 1e6))
    archive.close()
    return {row.number: row for row in found}


def test_what_is_stored_of_a_block(made: Made, feed: Feed) -> None:
    async def scenario() -> None:
        loop = loop_of(made, feed, switchback=BLOCKS)
        await loop.step()
        await through(loop, feed, NOW + 1300)
        await loop.pause("drill")
        await loop.resume()
        await through(loop, feed, NOW + 1900)
        await loop.override(400, 60)
        await through(loop, feed, NOW + 3100)

    in_loop(scenario())
    rows = blocks_stored(made)
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert rows[0].spoiled == "the control plane started in it"
    assert rows[1].spoiled == rows[4].spoiled == ""
    assert rows[2].spoiled == "it was paused"
    assert rows[3].spoiled == "an operator overrode the intensity"
    assert rows[1].ended_at == NOW + 1200
    assert 60 <= rows[1].measured_from - (NOW + 600) <= 70  # behind the wash-out of the real start
    assert {rows[2].arm, rows[3].arm} == {L0, POLICY}


def test_a_restart_goes_on_with_the_schedule(made: Made, feed: Feed) -> None:
    first = Blocks(BLOCKS, made.store, feed.wall)
    feed.now_s += 1234
    again = Blocks(BLOCKS, made.store, feed.wall)
    assert again.now() == first.now()
    feed.now_s -= 5000  # the clock was set back behind the start: a new one
    assert Blocks(BLOCKS, made.store, feed.wall).now() != first.now()


@pytest.mark.parametrize("change", [{"block_s": 700.0}, {"washout_s": 1.0}, {"share": 0.5}])
def test_another_setting_is_another_schedule(
    made: Made, feed: Feed, change: dict[str, Any]
) -> None:
    Blocks(BLOCKS, made.store, feed.wall)
    feed.now_s += 1000
    Blocks(BLOCKS.model_copy(update=change), made.store, feed.wall)
    stored = made.store.last_switchback()
    assert stored is not None
    assert stored.started_at == NOW + 1000


def test_a_late_policy_leaves_nothing_to_measure(made: Made, feed: Feed) -> None:
    blocks = Blocks(BLOCKS, made.store, feed.wall)

    def publish() -> None:
        block = blocks.now()
        assert block is not None
        blocks.published(block.name, "")

    publish()
    feed.now_s += 600 + 570  # half a minute is left, the wash-out takes a whole one
    publish()
    feed.now_s += 30
    publish()
    blocks.flush()
    assert blocks_stored(made)[0].spoiled == "the control plane started in it"
    late = blocks.pending
    assert not late
    with made.store._reading() as db:
        spoiled = db.exec_driver_sql("SELECT spoiled FROM blocks WHERE number = 1").scalar()
    assert spoiled == "its policy came too late"


def test_a_policy_of_the_block_before_does_not_open_the_next(made: Made, feed: Feed) -> None:
    blocks = Blocks(BLOCKS, made.store, feed.wall)
    before = blocks.now()
    assert before is not None
    feed.now_s += 600
    blocks.published(before.name, "")
    assert blocks._open is None


def test_off_by_default(made: Made, feed: Feed) -> None:
    async def scenario() -> None:
        loop = loop_of(made, feed)
        await loop.step()
        assert current(loop).explanation.block == ""
        assert shares(current(loop)) == MIX
        assert made.store.last_switchback() is None

    in_loop(scenario())


def test_growth_is_counted_from_what_was_decided(made: Made, feed: Feed) -> None:
    """A cap on growth must not make every block of L0 a new beginning."""

    async def scenario() -> None:
        loop = loop_of(made, feed, switchback=BLOCKS)
        await loop.step()
        await loop.set_objective({"max_increase": 0.1}, reason="")
        await through(loop, feed, NOW + 2500, 300)
        assert loop.blocks.now() is not None
        decided = current(loop).explanation.would_be or current(loop).shares
        assert round(decided[1].share, 3) == 0.333
        found = history.last_shares(made.store, ("L0", "L1", "L2"))
        assert found["", ""] == pytest.approx((2 / 3, 1 / 3, 0))

    in_loop(scenario())


def test_the_schedule_must_leave_something() -> None:
    with pytest.raises(ValidationError, match="leaves nothing"):
        SwitchbackConfig(block_s=60, washout_s=60)
    with pytest.raises(ValidationError, match="shadow applies nothing"):
        ControlConfig(shadow=True, switchback=BLOCKS)


# --- shadow --------------------------------------------------------------------------------------


def test_shadow_decides_and_applies_nothing(made: Made, feed: Feed) -> None:
    async def scenario() -> None:
        loop = loop_of(made, feed, shadow=True)
        await loop.step()
        policy = current(loop)
        assert shares(policy) == ALL_L0
        assert [round(s.share, 3) for s in policy.explanation.would_be] == MIX
        assert policy.explanation.active_constraint == "shadow"
        lines = "\n".join(plan_of(policy).lines())
        assert "would save 22.2 %" in lines
        assert "not applied L0 66.7 %  L1 33.3 %  L2 0.0 % (shadow)" in lines
        told = " ".join(operator.why(policy))
        assert "would be 22 % less" in told
        assert "shadow" in told
        # Kept with its inputs, it comes to the same again.
        number, message, inputs = made.store.decisions(1)[0]
        assert number == version(policy)
        made_again, same = history.solve_again(
            pb.Decision(policy=pb.Policy.FromString(message), inputs_json=inputs)
        )
        assert same
        assert made_again.would_be == pytest.approx((2 / 3, 1 / 3, 0))
        paused = await loop.pause("drill")  # the kill switch stands above
        assert paused.explanation.active_constraint == "paused"
        assert not paused.explanation.would_be

    in_loop(scenario())


# --- guard ---------------------------------------------------------------------------------------


def bad_answers(made: Made, loop: Loop, n: int = 300) -> None:
    """Three in four answers at L1 are cut off, none of the control group."""
    number = version(current(loop))
    at = {"since": 0.0, "until": 1.0}
    made.outcomes(number, n, level=0, control=True, output_tokens=5, **at)
    made.outcomes(number, n // 4, level=1, output_tokens=5, **at)
    made.outcomes(number, n - n // 4, level=1, output_tokens=1000, **at)


def test_the_guard_rolls_back_and_an_operator_resumes(made: Made, feed: Feed) -> None:
    async def scenario() -> None:
        loop = loop_of(made, feed)
        await loop.step()
        bad_answers(made, loop)
        await loop.step()
        policy = current(loop)
        assert policy.paused
        assert policy.explanation.trigger == "guard"
        reason = policy.explanation.pause_reason
        assert reason.startswith(f"{PREFIX}truncation in 75.0 % of 300 requests under the policy")
        assert made.store.setting("pause") == reason
        entry = made.store.audit(1)[0][1]
        assert (entry.who, entry.action) == ("control plane", "guard")
        await through(loop, feed, NOW + 600)
        assert current(loop).paused  # sticky
        assert loop_of(made, feed).pause_reason == reason  # over a restart too
        await loop.resume()
        await through(loop, feed, NOW + 1200)
        assert not current(loop).paused  # it begins anew
        bad_answers(made, loop)
        await loop.step()
        assert current(loop).paused

    in_loop(scenario())


def guard_of(made: Made, feed: Feed, **settings: Any) -> Guard:
    guard = Guard(GuardConfig(**settings), made.store, feed.wall)
    assert guard.look() is None
    return guard


def test_feedback_is_compared_by_level(made: Made, feed: Feed) -> None:
    guard = guard_of(made, feed)
    number = made.policy()
    made.mixed(number, 2000, 0, 1)
    made.feedback(number, "regenerate", 0, 20)
    made.feedback(number, "thumbs_up", 1, 900)
    assert guard.look() is None
    made.feedback(number, "regenerate", 1, 400)
    reason = guard.look()
    assert reason is not None
    assert "regenerate in 37.1 % of 920 requests" in reason  # 400 of 1080, as many as at L0
    assert "2.2 % of as many at L0" in reason


def test_a_meter_that_stands_still_hides_no_bad_answer(made: Made, feed: Feed) -> None:
    guard = guard_of(made, feed)
    number = made.policy()
    span = {"since": 0.0, "until": 1.0, "unmetered": True}
    made.outcomes(number, 500, level=0, control=True, output_tokens=5, **span)
    made.outcomes(number, 500, level=1, output_tokens=1000, **span)
    reason = guard.look()
    assert reason is not None
    assert "truncation in 100.0 % of 500 requests" in reason


def test_complaints_of_an_outage_have_their_requests(made: Made, feed: Feed) -> None:
    """2 % at both sides; against those alone that were metered it would be 20 % at L1."""
    guard = guard_of(made, feed)
    number = made.policy()
    made.outcomes(number, 2000, level=0, since=0, until=1)
    made.outcomes(number, 200, level=1, since=0, until=1)
    made.outcomes(number, 1800, level=1, since=0, until=1, unmetered=True)
    for level in (0, 1):
        made.feedback(number, "regenerate", level, 40)
    assert guard.look() is None
    regenerate = next(v for v in guard.verdicts if v.kind == "regenerate")
    assert (regenerate.policy.requests, regenerate.policy.wrong) == (2000, 40)


def test_where_prompts_choose_truncation_counts_and_feedback_by_level_does_not(
    made: Made, feed: Feed
) -> None:
    """A complaint tells a level, and there a level tells what was asked."""
    guard = guard_of(made, feed)
    number = made.policy(prompt=pb.PromptPolicy(share=0.9))
    made.mixed(number, 200, 0, 1)
    made.outcomes(number, 1800, level=1, since=0, until=1, prompt=True)
    made.feedback(number, "regenerate", 1, 900)
    assert guard.look() is None
    made.outcomes(number, 900, level=2, since=0, until=1, prompt=True, max_tokens=1)
    made.outcomes(number, 500, level=0, since=0, until=1, control=True)
    reason = guard.look()
    assert reason is not None
    assert "truncation" in reason


def test_more_complaints_than_requests_are_no_alarm(made: Made, feed: Feed) -> None:
    """They were sent twice, or are of requests before the window."""
    guard = guard_of(made, feed)
    number = made.policy()
    made.mixed(number, 1000, 0, 1)
    made.feedback(number, "retry", 1, 10**6)
    assert guard.look() is None


def test_the_hour_of_the_day_is_no_alarm(made: Made, feed: Feed) -> None:
    """By night nearly all is L0 and little is retried, by day the other way round; levels have no
    part in it."""
    guard = guard_of(made, feed)
    for level, retried in ((0, 0.05), (1, 0.25)):
        number = made.policy()
        made.outcomes(number, 4500, level=level, since=0, until=1)
        made.outcomes(number, 500, level=1 - level, since=0, until=1)
        made.feedback(number, "retry", level, int(4500 * retried))
        made.feedback(number, "retry", 1 - level, int(500 * retried))
    assert guard.look() is None
    retry = next(v for v in guard.verdicts if v.kind == "retry")
    assert retry.policy == retry.l0


def test_what_does_not_count_against_the_policy(made: Made, feed: Feed) -> None:
    guard = guard_of(made, feed)
    held = made.policy(explanation=pb.Explanation(active_constraint="block"))
    number = made.policy()
    made.outcomes(number, 500, level=0, control=True, since=0, until=1)
    made.outcomes(held, 500, level=0, since=0, until=1, output_tokens=1000)
    made.outcomes(number, 500, level=2, since=0, until=1, output_tokens=1000, pinned=True)
    made.outcomes(12345, 500, level=2, since=0, until=1, output_tokens=1000)  # of no known policy
    made.outcomes(
        number, 500, level=1, since=0, until=1, output_tokens=1000, ending=pb.ENDING_CANCELLED
    )
    made.store.add_feedback([Feedback(NOW, "retry", 2, number, "pinned", 400)])
    assert guard.look() is None
    truncation = guard.verdicts[0]
    assert (truncation.policy.requests, truncation.policy.wrong) == (500, 0)
    assert (truncation.l0.requests, truncation.l0.wrong) == (500, 0)


def test_a_policy_that_is_stored_late_counts_then(made: Made, feed: Feed) -> None:
    guard = guard_of(made, feed)
    first = made.policy()
    late = first + 1
    made.outcomes(late, 200, level=1, since=0, until=1, output_tokens=1000)
    made.outcomes(late, 200, level=0, control=True, since=0, until=1, output_tokens=5)
    assert guard.look() is None
    assert made.policy() == late
    assert guard.look() is not None


def test_counts_are_made_again_after_a_restart_and_end_with_their_window(
    made: Made, feed: Feed
) -> None:
    guard = guard_of(made, feed, window_hours=24)
    number = made.policy()
    made.outcomes(number, 200, level=1, since=0, until=1, output_tokens=1000)
    made.outcomes(number, 200, level=0, control=True, since=0, until=1, output_tokens=5)
    assert guard.look() is not None
    again = Guard(GuardConfig(), made.store, feed.wall)
    assert again.look() is not None
    feed.now_s += 24 * 3600
    assert again.look() is None
    assert again.verdicts[0].policy.requests == 0


def test_switched_off_it_looks_at_nothing(made: Made, feed: Feed) -> None:
    guard = Guard(GuardConfig(enabled=False), made.store, feed.wall)
    number = made.policy()
    made.outcomes(number, 200, level=1, since=0, until=1, output_tokens=1000)
    assert guard.look() is None
    assert guard.verdicts == ()


# --- readings ------------------------------------------------------------------------------------


def test_readings_are_few_and_see_every_policy(made: Made, feed: Feed) -> None:
    readings = Readings(made.store, EVERY_S, feed.wall)
    taken = []
    for second in range(0, 180, 5):
        feed.now_s = NOW + second
        board = 5 if second < 70 else 6
        status = pb.NodeStatus(metered_joules=float(second), policy_version=board)
        taken.append((second, readings.take("a", status)))
    assert [second for second, was in taken if was] == [0, 60, 70, 130]
    assert readings.take("b", pb.NodeStatus(metered_joules=1))
    archive = Archive(made.path)
    stored = dict(archive.readings(Span(NOW, NOW + 200)))
    archive.close()
    assert stored["a"].metered_joules.tolist() == [0, 60, 70, 130]
    assert stored["a"].policy_version.tolist() == [5, 5, 6, 6]
    assert interval_s(None) == 60
    assert interval_s(600) == 10


def test_a_meter_that_stands_still_leaves_a_gap_that_its_lump_ends(made: Made, feed: Feed) -> None:
    """100 W, with a GPU away from 60 to 120 s: the 6 kJ are nobody's minute, and in every hour."""
    readings = Readings(made.store, 1, feed.wall)
    for second in range(241):
        feed.now_s = NOW + second
        gone = 60 <= second < 120
        joules = 100.0 * (50 if gone else second)
        problem = "GPU is lost" if gone else ""
        readings.take("a", pb.NodeStatus(metered_joules=joules, meter_problem=problem))
    archive = Archive(made.path)
    stored = dict(archive.readings(Span(NOW, NOW + 300)))["a"]
    archive.close()
    assert not ((stored.time >= NOW + 60) & (stored.time < NOW + 120)).any()
    assert node_energy.joules(stored, Span(NOW + 70, NOW + 110)) is None
    assert node_energy.joules(stored, Span(NOW + 110, NOW + 170)) is None
    assert node_energy.joules(stored, Span(NOW + 10, NOW + 40)) == pytest.approx(3000)
    assert node_energy.joules(stored, Span(NOW + 10, NOW + 230)) == pytest.approx(22_000)


def test_an_expired_policy_is_none(made: Made, feed: Feed) -> None:
    Readings(made.store, 1, feed.wall).take(
        "a", pb.NodeStatus(policy_version=5, policy_expired=True)
    )
    archive = Archive(made.path)
    [(_, stored)] = archive.readings(Span(NOW, NOW + 1))
    assert stored.policy_version.tolist() == [0]
    archive.close()


def test_readings_and_blocks_are_pruned(made: Made, feed: Feed) -> None:
    made.switchback(2)
    archive = Archive(made.path)
    everything = Span(0.0, NOW + 1e6)
    assert len(dict(archive.readings(everything))["node-a"].time) == 2 + 4 * 59
    made.store.prune(0.0, 100)
    assert len(dict(archive.readings(everything))["node-a"].time) == 100
    made.store.prune(NOW + 1e6, 100)
    assert dict(archive.readings(everything)) == {}
    assert archive.blocks(everything) == []
    archive.close()


# --- all of it -----------------------------------------------------------------------------------


def test_from_the_loop_to_the_report(made: Made, feed: Feed) -> None:
    """A node that answers by the policy that is published, for 14 blocks."""

    async def scenario() -> None:
        loop = loop_of(made, feed, switchback=BLOCKS, control_share=0.0)
        await loop.step()
        readings = Readings(made.store, loop.blocks.reading_s, feed.wall)
        joules = 0.0
        while feed.now_s < NOW + 14 * 600 + 20:
            policy = current(loop)
            status = pb.NodeStatus(metered_joules=joules, policy_version=version(policy))
            readings.take("node-a", status)
            at = feed.now_s - NOW
            shorter = policy.shares[1].share
            made.outcomes(version(policy), 6, level=0, since=at, until=at + 15)
            joules += 15 * 20 + 6 * (60 * (1 - shorter) + 20 * shorter)
            feed.now_s += 15
            await loop.step()

    in_loop(scenario())
    archive = Archive(made.path)
    found = make(archive, Span(NOW, NOW + 14 * 600 + 20))
    archive.close()
    assert not isinstance(found.system, Absent)
    assert found.left_out == {"the control plane started in it": 1}
    assert found.system.pairs == 6
    truth = 6 * 40 / 3 / (15 * 20 + 6 * 60)
    assert found.system.energy_saved.value == pytest.approx(truth, rel=0.05)
