# SPDX-License-Identifier: Apache-2.0
"""What `sprout report` adds up, on stores whose contents are known."""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from report_made import HOUR, answered, effect, report, said
from report_store import START, Made

from sprout.console import report as console_report
from sprout.console import report_text
from sprout.console.report import write_csv
from sprout.console.report_html import page
from sprout.control.archive import Archive, Span
from sprout.control.capacity import Capacity
from sprout.control.report import make
from sprout.proof.attributed import Effect
from sprout.proof.capacity import Freed
from sprout.proof.interval import Absent
from sprout.proof.switchback import System
from sprout.v1 import control_pb2 as pb


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.close()


def test_sums_by_every_grouping(made: Made) -> None:
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR)
    made.outcomes(version, 20, level=2, since=0, until=HOUR, pinned=True, task="code")
    made.outcomes(0, 5, level=0, since=0, until=HOUR, probe=True, carbon_g=None)
    made.outcomes(version, 7, level=1, since=0, until=HOUR, evaluation=True, task="code")
    found = report(made)
    by = {name: {line.name: line for line in lines} for name, lines in found.lines.items()}
    assert {n: line.requests for n, line in by["arm"].items()} == {
        **{"L1": 540, "L0": 360, "control": 100},
        **{"pinned": 20, "probe": 5, "evaluation": 7},
    }
    assert {n: line.requests for n, line in by["level"].items()} == {
        **{"L0": 460, "L1": 540, "L2": 20, "probe": 5, "evaluation": 7}
    }
    assert {n: line.requests for n, line in by["task"].items()} == {
        **{"chat": 1000, "code": 20, "probe": 5, "evaluation": 7}
    }
    assert {n: line.requests for n, line in by["zone"].items()} == {"NL": 1027, "unknown": 5}
    with sqlite3.connect(made.path) as db:
        joules, grams = db.execute(
            "SELECT sum(energy_joules), sum(carbon_g) FROM outcomes"
        ).fetchone()
    db.close()
    for lines in found.lines.values():
        assert math.fsum(line.joules for line in lines) == pytest.approx(joules)
        assert math.fsum(g for line in lines for g in line.grams.values()) == pytest.approx(grams)
    assert by["arm"]["probe"].without_grams == 5


def lose_meter(made: Made, condition: str) -> None:
    """Outcomes of which this holds were active while a meter stood still."""
    with sqlite3.connect(made.path) as db:
        db.execute(
            "UPDATE outcomes SET flags = flags | 512, eligible = 0, carbon_g = NULL, "
            f"energy_joules = 0.3 * energy_joules WHERE {condition}"
        )
        db.commit()
    db.close()


def test_what_was_not_metered_is_in_every_line_but_its_joules_are_in_none(made: Made) -> None:
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR)
    without = report(made)
    made.outcomes(version, 300, level=1, since=0, until=HOUR, unmetered=True, output_tokens=1000)
    made.outcomes(0, 5, level=0, since=0, until=HOUR, probe=True, carbon_g=None, unmetered=True)
    found = report(made)
    for name, key in {"arm": "L1", "level": "L1", "task": "chat", "zone": "NL"}.items():
        lines, before = (
            {line.name: line for line in lines[name]} for lines in (found.lines, without.lines)
        )
        now, was = lines[key], before[key]
        assert (now.requests, now.unmetered, was.unmetered) == (was.requests + 300, 300, 0)
        assert (now.joules, now.grams, now.with_grams) == (was.joules, was.grams, was.with_grams)
        assert now.without_grams == 0
        assert now.tokens == was.tokens + 300_000
        assert report_text.cells(now)[0] == f"{now.requests} (300 not metered)"
        assert report_text.cells(now)[3] == f"{was.joules / was.requests:.3g}"
    probe = next(line for line in found.lines["arm"] if line.name == "probe")
    assert (probe.requests, probe.unmetered, probe.joules) == (5, 5, 0.0)
    assert report_text.cells(probe)[3] == "not known"
    assert sum(part.joules for part in found.timeline) == pytest.approx(
        sum(part.joules for part in without.timeline)
    )
    truncation, _ = found.guard.tallies["truncation"]
    assert (truncation.requests, truncation.wrong) == (100, 25)  # of 1200; as many as at L0


def test_a_meter_that_stands_still_does_not_change_the_saving(made: Made) -> None:
    """A reading is missed every five seconds: it meets an answer of L0 (3 s) three times as often
    as one of L1. Here joules go with seconds exactly, so nothing at all may move."""
    version = made.policy(prompt=pb.PromptPolicy(share=0.5))
    made.mixed(version, 4000, 0, HOUR)
    made.outcomes(version, 3600, level=1, prompt=True, since=0, until=HOUR)
    truth = report(made)
    lose_meter(made, "cast(opened_at / 5 AS INT) < cast((opened_at + device_seconds) / 5 AS INT)")
    found = report(made)
    lines = {line.name: line for line in found.lines["arm"]}
    spared = {
        arm: line.joules / (line.requests - line.unmetered)
        for arm, line in lines.items()
        if arm in ("control", "prompt")
    }
    assert spared["control"] < 0.9 * effect(truth, "joules").control_mean
    for name in ("joules", "grams"):
        for now, was in (
            (found.attributed[name], truth.attributed[name]),
            (found.prompts[name], truth.prompts[name]),
        ):
            assert isinstance(now, Effect)
            assert isinstance(was, Effect)
            assert now.saved.value == pytest.approx(was.saved.value)
            assert (now.policy_mean, now.control_mean) == pytest.approx(
                (was.policy_mean, was.control_mean)
            )
            assert now.saved.high - now.saved.low > was.saved.high - was.saved.low
            assert now.policy_unmetered > was.policy_unmetered == 0
    assert found.attributed["tokens"] == truth.attributed["tokens"]
    assert isinstance(found.capacity, Freed)
    assert isinstance(truth.capacity, Freed)
    assert found.capacity.ratio.low == pytest.approx(truth.capacity.ratio.low)
    joules = effect(found, "joules")
    shares = [
        100 * joules.policy_unmetered / joules.policy_requests,
        100 * joules.control_unmetered / joules.control_requests,
    ]
    assert f"; {shares[0]:.2g} % and {shares[1]:.2g} % of them were not metered" in said(found)


def test_where_nothing_was_metered_the_saving_is_not_known(made: Made) -> None:
    made.mixed(made.policy(), 1000, 0, HOUR)
    lose_meter(made, "arm = 'control'")
    reason = Absent("0 requests in the control group that were metered; an interval needs 30")
    found = report(made).attributed
    assert (found["joules"], found["grams"]) == (reason, reason)
    assert isinstance(found["tokens"], Effect)


def test_a_span_takes_what_was_opened_in_it(made: Made) -> None:
    version = made.policy()
    made.outcomes(version, 10, level=0, since=0, until=100)
    made.outcomes(version, 7, level=0, since=100, until=200)
    assert report(made, 0, 100).lines["arm"][0].requests == 10
    assert report(made, 100, 200).lines["arm"][0].requests == 7


def test_attributed_is_what_was_drawn(made: Made) -> None:
    """The truth: 0.4 * 60 + 0.6 * 20 J against 60 J, 40 % less."""
    version = made.policy()
    made.mixed(version, 4000, 0, HOUR)
    for arm in ("pinned", "off", "held_back", "fallback"):
        made.outcomes(version, 500, level=0, since=0, until=HOUR, **{arm: True})
    found = report(made)
    joules = effect(found, "joules")
    assert (joules.policy_requests, joules.control_requests) == (3600, 400)
    assert found.compared == 4000
    assert joules.saved.value == pytest.approx(0.4, abs=0.05)  # coverage: test_proof_attributed
    assert effect(found, "grams").saved.value == pytest.approx(joules.saved.value)
    assert isinstance(found.capacity, Freed)
    assert found.capacity.throughput.value == pytest.approx(1 / (1 - joules.saved.value))
    assert found.capacity.replicas == 1
    words = said(found)
    assert "is not called carbon saved" in words
    assert "Not known: no switchback ran" in words
    assert "estimated" not in words.replace("estimated in part", "")


def test_estimated_energy_says_so(made: Made) -> None:
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR, energy_estimated=True)
    found = report(made)
    assert found.attributed_estimated
    assert "Joules (estimated): " in said(found)
    assert "Tokens: " in said(found)


@pytest.mark.parametrize(
    ("standing", "fields"),
    [
        ("shadow", {"explanation": pb.Explanation(active_constraint="shadow")}),
        ("block", {"explanation": pb.Explanation(active_constraint="block")}),
        ("paused", {"paused": True}),
        ("no control group", {"control_share": 0.0}),
    ],
)
def test_what_was_not_applied_is_not_compared(
    made: Made, standing: str, fields: dict[str, Any]
) -> None:
    made.mixed(made.policy(**fields), 1000, 0, HOUR)
    found = report(made)
    assert found.compared == 0
    assert isinstance(found.attributed["joules"], Absent)
    assert "no policy in force drew requests both" in said(found)


def test_what_prompts_chose_is_under_the_policy(made: Made) -> None:
    """By prompt 20 J, by the mix 0.4 * 60 + 0.6 * 20 = 36 J: nine tenths of them."""
    share = pb.PromptPolicy(share=0.9)
    version = made.policy(
        prompt=share,
        mixes=[
            pb.Mix(task="code"),
            pb.Mix(tenant="acme", basis="tenant's minimum"),
            pb.Mix(task="sums", prompt=pb.PromptPrices(expected_preference=1.0)),
        ],
    )
    span = {"since": 0, "until": HOUR}
    made.outcomes(version, 1000, level=0, control=True, **span)
    made.outcomes(version, 8100, level=1, prompt=True, **span)
    made.outcomes(version, 360, level=0, **span)
    made.outcomes(version, 540, level=1, **span)
    found = report(made)
    joules = effect(found, "joules")
    assert joules.policy_requests == 9000
    assert joules.policy_mean == pytest.approx(0.9 * 20 + 0.1 * 36, rel=0.05)
    beside = found.prompts["joules"]
    assert isinstance(beside, Effect)
    assert (beside.policy_requests, beside.control_requests) == (8100, 900)
    assert beside.saved.value == pytest.approx(1 - 20 / 36, abs=0.05)
    assert "less per request than the mix" in said(found)
    target = made.path.with_name("report.csv")
    write_csv(found, target)
    assert f"by prompt joules,,policy_mean,{beside.policy_mean}" in target.read_text()
    assert (
        console_report.document(found)["prompts"]["joules"]["saved"]["value"] == beside.saved.value
    )
    lines = {line.name: line.requests for line in found.lines["arm"]}
    assert lines["prompt"] == 8100
    assert sum(lines.values()) == 10_000
    # Those with a mix of their own are in no comparison with it, unless it has prices.
    made.outcomes(version, 500, level=0, task="code", **span)
    made.outcomes(version, 500, level=0, tenant="acme", **span)
    again = report(made).prompts["joules"]
    assert isinstance(again, Effect)
    assert (again.policy_requests, again.control_requests) == (8100, 900)
    made.outcomes(version, 90, level=1, prompt=True, task="sums", **span)
    made.outcomes(version, 10, level=0, task="sums", **span)
    made.outcomes(version, 10, level=0, task="sums", tenant="acme", **span)
    more = report(made).prompts["joules"]
    assert isinstance(more, Effect)
    assert (more.policy_requests, more.control_requests) == (8190, 910)
    # A node without weights draws those whose prompt was to choose: under the policy, in neither.
    before = effect(report(made), "joules")
    made.outcomes(version, 90, level=0, unscored=True, **span)
    made.outcomes(version, 10, level=0, **span)
    last = report(made)
    beside = last.prompts["joules"]
    assert isinstance(beside, Effect)
    assert (beside.policy_requests, beside.control_requests) == (8190, 920)
    assert effect(last, "joules").policy_requests == before.policy_requests + 100
    assert {line.name: line.requests for line in last.lines["arm"]}["unscored"] == 90


def test_chances_of_prompt_and_mix_are_those_of_their_policy(made: Made) -> None:
    """Hours of different shares: each request weighs by its own. The truth is 20 J against 36 J in
    one, 60 J against 60 J in the other, so 40 J against 48 J over both."""
    span = {"since": 0, "until": HOUR}
    one = made.policy(prompt=pb.PromptPolicy(share=0.9), control_share=0.0)
    made.outcomes(one, 3600, level=1, prompt=True, **span)
    made.outcomes(one, 160, level=0, **span)
    made.outcomes(one, 240, level=1, **span)
    other = made.policy(1.0, prompt=pb.PromptPolicy(share=0.5), control_share=0.0)
    made.outcomes(other, 2000, level=0, prompt=True, **span)
    made.outcomes(other, 2000, level=0, **span)
    beside = report(made).prompts["joules"]
    assert isinstance(beside, Effect)
    assert beside.policy_mean == pytest.approx(40, rel=0.05)
    assert beside.control_mean == pytest.approx(48, rel=0.05)


def test_without_prompts_the_report_says_nothing_of_them(made: Made) -> None:
    made.mixed(made.policy(), 1000, 0, HOUR)
    found = report(made)
    assert found.prompts == {}
    assert "than the mix" not in said(found)


def test_one_arm_alone(made: Made) -> None:
    made.outcomes(made.policy(), 100, level=1, since=0, until=HOUR)
    found = report(made)
    assert found.attributed["joules"] == Absent("no request in the control group")
    assert "nan" not in said(found).lower()


def test_an_empty_span(made: Made) -> None:
    found = report(made)
    assert report_text.sections(found) == {"Requests": ["No requests in this span."]}
    assert "No intensity was known" in said(found)
    assert "nan" not in page(found, "arm").lower()


def test_without_an_intensity_there_are_no_grams(made: Made) -> None:
    version = made.policy(intensity=None)
    made.mixed(version, 1000, 0, HOUR, carbon_g=None, intensity_g_per_kwh=None)
    found = report(made)
    assert isinstance(found.attributed["joules"], Effect)
    assert isinstance(found.attributed["grams"], Absent)
    assert found.lines["arm"][0].without_grams == found.lines["arm"][0].requests
    assert "unknown" in report_text.cells(found.lines["arm"][0])
    assert "nan" not in said(found).lower()


def test_series_are_kept_apart_and_drills_are_none(made: Made) -> None:
    def grid(g: float, factor: pb.FactorType, **fields: Any) -> pb.Intensity:
        return pb.Intensity(
            g_per_kwh=g,
            zone="NL",
            source="s",
            factor_type=factor,
            signal=pb.SIGNAL_AVERAGE,
            **fields,
        )

    made.policy(0, intensity=grid(200, pb.FACTOR_TYPE_DIRECT))
    made.policy(900, intensity=grid(400, pb.FACTOR_TYPE_DIRECT))
    made.policy(1800, intensity=grid(999, pb.FACTOR_TYPE_DIRECT, override=True))
    made.policy(2700, intensity=grid(500, pb.FACTOR_TYPE_LIFECYCLE))
    made.outcomes(0, 1, level=0, since=0, until=HOUR)
    found = report(made, 0, HOUR)
    direct, lifecycle = sorted(found.series, key=lambda s: s.factor_type)
    assert (direct.low_g_per_kwh, direct.mean_g_per_kwh, direct.high_g_per_kwh) == (200, 300, 400)
    assert (lifecycle.mean_g_per_kwh, lifecycle.seconds) == (500, 900)
    assert "compare no grams across them" in said(found)


def test_switchback(made: Made) -> None:
    """20 W idle and 50 J a request, 30 % of them saved: 13.6 % of the node's energy."""
    made.switchback(10)
    found = report(made, -60, 12_060)
    assert isinstance(found.system, System)
    truth = 0.3 * 50 / (50 + 20 * 600 / 200)
    assert found.system.energy_saved.low < truth < found.system.energy_saved.high
    assert found.system.pairs == 10
    assert found.left_out == {}
    assert "Carbon saved: " in said(found)
    assert found.compared == 0  # without a control group


def test_a_switchback_that_saved_nothing_proves_nothing(made: Made) -> None:
    made.switchback(8, saved=0.0)
    assert "No saving is proven" in said(report(made, -60, 9660))


def test_spoiled_and_unserved_blocks_are_left_out(made: Made) -> None:
    made.switchback(8)
    other = made.policy(-5)  # of no block
    with sqlite3.connect(made.path) as db:
        db.execute("UPDATE blocks SET spoiled = 'it was paused' WHERE number = 2")
        signed = other if other < 1 << 63 else other - (1 << 64)
        db.execute(
            "UPDATE readings SET policy_version = ? WHERE time = ?", (signed, START + 4 * 600 + 300)
        )
        db.execute(
            "UPDATE readings SET metered_joules = 0 WHERE time = ?", (START + 6 * 600 + 300,)
        )
        db.commit()
    db.close()
    found = report(made, -60, 9660)
    assert found.left_out == {
        "it was paused": 1,
        "a node did not have the block's policy": 1,
        "a node's counter has a gap": 1,
    }
    assert found.system == Absent("5 whole pairs of blocks; an interval needs 6")
    assert "Left out 1 time: it was paused." in said(found)


def test_sci_counts_idle_embodied_and_watched_requests(made: Made) -> None:
    """10 W for an hour at 300 g/kWh and PUE 1.2: 3.6 g; 1 mg/s embodied: 3.6 g."""
    version = made.policy()
    made.outcomes(version, 100, level=0, since=0, until=HOUR)
    made.outcomes(version, 50, level=0, since=0, until=HOUR, node="unwatched")
    times = [60.0 * i for i in range(61)]
    made.readings(times, [10 * t for t in times], energy_estimated=True)
    sci = report(made).sci
    assert sci is not None
    assert sci.joules == pytest.approx(36_000)
    assert sci.idle_joules == pytest.approx(9000)
    [own] = sci.by_series.values()
    assert own.joules == pytest.approx(36_000)
    assert (own.operational_g, own.embodied_g) == pytest.approx((3.6, 3.6))
    assert own.requests == sci.requests == 100
    assert own.g_per_request == pytest.approx(0.072)
    assert "72 mg per request (estimated)" in said(report(made))


def test_a_counter_that_began_anew_is_a_gap(made: Made) -> None:
    made.policy()
    made.outcomes(0, 1, level=0, since=0, until=HOUR)
    made.readings([0, 60, 120, 180], [0, 600, 5, 605])
    sci = report(made).sci
    assert sci is not None
    assert sci.joules == pytest.approx(1200)


def test_each_question_reads_the_outcomes_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks and nodes."""
    counts = []
    for pairs in (7, 14):
        made.switchback(pairs) if pairs == 7 else None
        asked: list[str] = []
        archive = Archive(made.path)
        sa.event.listen(
            archive._engine,
            "before_cursor_execute",
            lambda _c, _u, statement, *_, asked=asked: asked.append(statement),
        )
        until = START + 60 + pairs * 600
        make(archive, Span(START - 60, until))
        archive.close()
        counts.append(sum("FROM outcomes" in statement for statement in asked))
    assert counts == [4, 4]


@pytest.mark.parametrize("chunk", [1, 7, 50_000])
def test_requests_in_spans_that_overlap(
    made: Made, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sprout.control.archive.CHUNK", chunk)
    made.outcomes(0, 60, level=0, since=0, until=60)  # one in the middle of each second
    made.outcomes(0, 30, level=0, since=0, until=60, node="node-b")
    made.outcomes(0, 9, level=0, since=0, until=60, probe=True)
    made.outcomes(0, 9, level=0, since=0, until=60, evaluation=True)
    spans = [Span(START + a, START + b) for a, b in ((0, 60), (10, 20), (15, 40), (20, 20.5))]
    archive = Archive(made.path)
    opened = archive.opened(spans)
    assert [opened.within("node-a", span) for span in spans] == [60, 10, 25, 0]
    assert [opened.within("node-b", span) for span in spans] == [30, 5, 13, 0]
    assert opened.within("node-c", spans[0]) == 0
    assert archive.opened([]).within("node-a", Span(0, 1)) == 0
    assert archive.nodes(Span(START, START + 60)) == 2
    archive.close()


def test_by_tenant(made: Made) -> None:
    """As outcomes have them."""
    made.outcomes(made.policy(), 5, level=0, since=0, until=HOUR)
    assert [line.name for line in report(made).lines["tenant"]] == ["none given"]
    made.outcomes(made.policy(), 3, level=1, since=0, until=HOUR, tenant="acme")
    found = {line.name: line.requests for line in report(made).lines["tenant"]}
    assert found == {"none given": 5, "acme": 3}


def test_shadow(made: Made) -> None:
    shares = [pb.LevelShare(level="L0", share=0.25), pb.LevelShare(level="L1", share=0.75)]
    why = pb.Explanation(
        active_constraint="shadow",
        would_be=shares,
        expected_g_per_request=0.003,
        expected_l0_g_per_request=0.006,
    )
    made.outcomes(made.policy(explanation=why), 40, level=0, since=0, until=HOUR)
    found = report(made)
    assert found.shadow is not None
    assert found.shadow.would_be == {"L0": 0.25, "L1": 0.75}
    assert found.shadow.would_save_fraction == pytest.approx(0.5)
    assert "Expected from the profile, not measured: 50.0 % (3 mg) less per request." in said(found)


def test_guard_rates(made: Made) -> None:
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR)
    made.outcomes(version, 36, level=1, since=0, until=HOUR, output_tokens=1000)
    made.feedback(version, "thumbs_down", 1, 12)
    made.feedback(version, "thumbs_down", 0, 3)
    made.feedback(version, "thumbs_up", 1, 500)
    made.store.set_setting("pause", "guard: too many")
    found = report(made)
    truncation = found.guard.tallies["truncation"]
    assert [t.requests for t in truncation] == [100, 100]  # as many of both
    assert truncation[0].wrong >= 36 * 100 // 936
    down = found.guard.tallies["thumbs_down"]
    assert [(t.requests, t.wrong) for t in down] == [(460, 10), (460, 3)]
    assert found.guard.rolled_back == "guard: too many"
    assert "Rolled back, until an operator resumes" in said(found)


def test_the_timeline_adds_up(made: Made) -> None:
    made.mixed(made.policy(), 1000, 0, HOUR)
    found = report(made)
    assert sum(sum(p.requests.values()) for p in found.timeline) == 1000
    joules = math.fsum(line.joules for line in found.lines["arm"])
    assert math.fsum(p.joules for p in found.timeline) == pytest.approx(joules)
    assert len(found.timeline) == math.ceil((HOUR + 120) / found.part_s)


def test_capacity_alone_is_that_of_the_report(made: Made) -> None:
    """What metrics show, over a day of which the whole run is part."""
    looking = Capacity(answered(made).path, lambda: START + HOUR + 60)
    assert isinstance(looking.found, Absent)
    looking.look()
    assert looking.found == report(made).capacity
    assert isinstance(looking.found, Freed)


def test_capacity_of_a_store_without_outcomes_is_absent(made: Made) -> None:
    looking = Capacity(made.path, lambda: START)
    looking.look()
    assert isinstance(looking.found, Absent)
