# SPDX-License-Identifier: Apache-2.0
"""`sprout report` on stores whose contents are known."""

import csv
import json
import math
import re
import sqlite3
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa
from report_store import JOULES, START, Made

from sprout.cli import run
from sprout.console import report as console_report
from sprout.console import report_text
from sprout.console.report import moment, write_csv
from sprout.console.report_html import NO_PLOTS, page
from sprout.control.archive import Archive, Span
from sprout.control.capacity import Capacity
from sprout.control.report import Report, make
from sprout.errors import ConfigError, ControlError
from sprout.proof.attributed import Effect
from sprout.proof.capacity import Freed
from sprout.proof.interval import Absent
from sprout.proof.switchback import System
from sprout.v1 import control_pb2 as pb

HOUR = 3600.0


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.close()


def report(made: Made, since: float = -60.0, until: float = HOUR + 60) -> Report:
    archive = Archive(made.path)
    try:
        return make(archive, Span(START + since, START + until))
    finally:
        archive.close()


def said(found: Report) -> str:
    return "\n".join(report_text.notes(found))


def effect(found: Report, quantity: str) -> Effect:
    value = found.attributed[quantity]
    assert isinstance(value, Effect)
    return value


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
        prompt=share, mixes=[pb.Mix(task="code"), pb.Mix(tenant="acme", basis="tenant's minimum")]
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
    # Those with a mix of their own are in no comparison with it.
    made.outcomes(version, 500, level=0, task="code", **span)
    made.outcomes(version, 500, level=0, tenant="acme", **span)
    again = report(made).prompts["joules"]
    assert isinstance(again, Effect)
    assert again.control_requests == 900


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


def of(source: str, g_per_kwh: float, **fields: Any) -> pb.Intensity:
    """An intensity of NL, from a source that says direct or, of the name "b", lifecycle."""
    direct, lifecycle = pb.FACTOR_TYPE_DIRECT, pb.FACTOR_TYPE_LIFECYCLE
    return pb.Intensity(
        g_per_kwh=g_per_kwh,
        zone="NL",
        source=source,
        factor_type=lifecycle if source == "b" else direct,
        signal=pb.SIGNAL_AVERAGE,
        **fields,
    )


A, B = "NL a, direct, average", "NL b, lifecycle, average"


def test_grams_of_a_fallback_are_never_added(made: Made) -> None:
    """Source a for half an hour, then b: two sums of grams in every line and part."""
    first = made.policy(0, intensity=of("a", 100))
    second = made.policy(1800, intensity=of("b", 500))
    drill = made.policy(3000, intensity=of("b", 900, override=True))
    for version, carbon_g, since in ((first, 1.0, 0.0), (second, 10.0, 1800.0)):
        made.mixed(version, 1000, since, since + 1200, carbon_g=carbon_g)
    made.mixed(drill, 100, 3000, HOUR, carbon_g=100.0)
    found = report(made)
    [zone] = found.lines["zone"]
    drilled = "an operator's intensity, not the grid's"
    assert zone.grams == pytest.approx({A: 1000.0, B: 10_000.0, drilled: 10_000.0})
    assert zone.with_grams == {A: 1000, B: 1000, drilled: 100}
    assert all(len(part.grams) <= 1 for part in found.timeline if part.start < START + 1740)
    total = {
        name: math.fsum(part.grams.get(name, 0.0) for part in found.timeline) for name in zone.grams
    }
    assert total == pytest.approx(zone.grams)
    assert list(found.attributed) == ["joules", f"grams, {A}", f"grams, {B}", "tokens"]
    for name, mean in ((A, 1.0), (B, 10.0)):
        assert effect(found, f"grams, {name}").policy_mean == pytest.approx(mean)
        assert effect(found, f"grams, {name}").policy_requests == 900
    words = said(found)
    assert f"Grams are kept apart by series, never added: {A} | {B} | {drilled}." in words
    assert f"Grams, {A}: " in words
    assert "1000 | 10000 | 100000" not in words
    assert report_text.cells(zone)[-1] == "1e+03 | 1e+04 | 1e+05"


def test_sci_has_a_figure_for_each_series(made: Made) -> None:
    """36 kJ an hour; the series changes between two readings."""
    made.policy(0, intensity=of("a", 100))
    made.policy(1830, intensity=of("b", 500))
    made.policy(3000, intensity=None)
    made.outcomes(0, 360, level=0, since=0, until=HOUR)
    times = [60.0 * i for i in range(61)]
    made.readings(times, [10 * t for t in times])
    sci = report(made).sci
    assert sci is not None
    a, b = sci.by_series[A], sci.by_series[B]
    assert (a.joules, b.joules, sci.unknown_joules) == pytest.approx((18_300, 11_700, 6000))
    assert (a.requests, b.requests, sci.unknown_requests) == (183, 117, 60)
    assert a.operational_g == pytest.approx(18_300 / 3.6e6 * 100 * 1.2)
    assert b.operational_g == pytest.approx(11_700 / 3.6e6 * 500 * 1.2)
    assert (a.embodied_g, b.embodied_g) == pytest.approx((1.83, 1.17))
    words = said(report(made))
    assert f"({A}): " in words
    assert "they are not to be added" in words
    assert "6e+03 J and 60 requests at times of unknown intensity" in words


def test_requests_of_a_gap_are_in_no_sci(made: Made) -> None:
    made.policy()
    made.outcomes(0, 180, level=0, since=0, until=180)
    made.readings([0, 60, 120, 180], [0, 600, 5, 605])
    sci = report(made).sci
    assert sci is not None
    assert sci.requests == 120
    assert sci.node_hours == pytest.approx(120 / 3600)


def test_a_switchback_is_priced_in_one_series(made: Made) -> None:
    """A fallback for the last two pairs, in the middle of a block at first."""
    made.switchback(10)
    with sqlite3.connect(made.path) as db:
        rows = db.execute("SELECT version, message FROM policies ORDER BY issued_at").fetchall()
        for number, (version, message) in enumerate(rows):
            policy = pb.Policy.FromString(message)
            policy.intensity.source = "test" if number < 16 else "other"
            text = policy.SerializeToString()
            db.execute("UPDATE policies SET message = ? WHERE version = ?", (text, version))
        db.commit()
    db.close()
    found = report(made, -60, 12_060)
    assert isinstance(found.system, System)
    assert (found.system.pairs, found.system.pairs_of_others) == (8, 2)
    assert found.system.series == "NL test, lifecycle, average"
    assert "Left out 2 pairs of blocks: priced in another series" in said(found)
    made.policy(7 * 600 + 300, intensity=of("a", 100), explanation=pb.Explanation())
    found = report(made, -60, 12_060)
    assert found.left_out == {"the intensity's series changed": 1}


def test_shadow_is_priced_in_one_series(made: Made) -> None:
    def why(g: float, l0_g: float) -> pb.Explanation:
        share = [pb.LevelShare(level="L1", share=1.0)]
        return pb.Explanation(
            active_constraint="shadow",
            would_be=share,
            expected_g_per_request=g,
            expected_l0_g_per_request=l0_g,
        )

    a = made.policy(0, intensity=of("a", 100), explanation=why(1, 2))
    b = made.policy(60, intensity=of("b", 500), explanation=why(10, 100))
    made.outcomes(a, 30, level=0, since=0, until=60)
    made.outcomes(b, 10, level=0, since=60, until=120)
    shadow = report(made).shadow
    assert shadow is not None
    assert (shadow.series, shadow.of_others) == (A, 10)
    assert (shadow.would_save_g, shadow.would_save_fraction) == pytest.approx((1, 0.5))
    assert "leaves out 10 requests of another series" in said(report(made))


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


# --- the command ---------------------------------------------------------------------------------


def command(made: Made, *arguments: str) -> int:
    state = f"stack.state_dir={made.path.parent}"
    span = ("--since", "2023-11-14T22:13", "--until", "2023-11-14T23:20")
    return run(["--set", state, "report", *span, *arguments])


@pytest.fixture
def served(made: Made) -> Made:
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR)
    made.feedback(version, "retry", 1, 5)
    times = [60.0 * i for i in range(61)]
    made.readings(times, [10 * t for t in times], policy_version=version)
    return made


def test_json_and_csv_say_the_same(
    served: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(served, "--json", "--csv", str(tmp_path / "r.csv")) == 0
    document = json.loads(capsys.readouterr().out)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = {(r["section"], r["name"], r["quantity"]): r for r in csv.DictReader(file)}
    for by, lines in document["lines"].items():
        for line in lines:
            for quantity in ("requests", "joules", "tokens"):
                written = rows[f"by {by}", line["name"], quantity]["value"]
                assert float(written) == line[quantity]
            for name, value in line["grams"].items():
                written = rows[f"by {by}", line["name"], f"grams, {name}"]["value"]
                assert float(written) == value
    saved = document["attributed"]["joules"]["saved"]
    row = rows["attributed joules", "", "saved"]
    assert [float(row[k]) for k in ("value", "low", "high")] == [
        saved[k] for k in ("value", "low", "high")
    ]
    assert rows["system", "", "reason"]["value"] == document["system"]["reason"]
    [(name, sci)] = document["sci"]["by_series"].items()
    assert float(rows[f"sci, {name}", "", "g_per_request"]["value"]) == sci["g_per_request"]
    assert rows["guard retry", "policy", "wrong"]["value"] == "4"
    assert document["span"]["since"] == "2023-11-14T22:13:00+00:00"


class Opened(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(served: Made, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    served.outcomes(0, 3, level=0, since=0, until=HOUR, task="<script>alert(1)</script>")
    assert command(served, "--by", "task", "--html", str(tmp_path / "r.html")) == 0
    text = (tmp_path / "r.html").read_text()
    reader = Opened()
    reader.feed(text)
    assert reader.open == []
    assert {"svg", "table", "h2"} <= reader.seen
    assert "script" not in reader.seen
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:", ""))
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert len(list(ElementTree.fromstring(svg).iter())) > 50


def test_the_page_without_matplotlib_says_so(served: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sprout.console.report_plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = page(report(served), "arm")
    assert NO_PLOTS in text
    assert "<svg" not in text
    assert "37" in text


def test_the_same_store_gives_the_same_page(served: Made) -> None:
    pytest.importorskip("matplotlib")
    assert page(report(served), "arm") == page(report(served), "arm")


def test_for_people(served: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(served, "--by", "level") == 0
    words = capsys.readouterr().out
    assert "level" in words
    assert "Attributed" in words
    assert "nan" not in words.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report"], 2, "--since"),
        (["report", "--since", "yesterday"], 2, "'yesterday' is no time"),
        (["report", "--since", "1h", "--until", "2h"], 2, "is not before"),
        (["report", "--since", "1h", "--by", "node"], 2, "one of arm, level, task, tenant, zone"),
        (["report", "--since", "1h"], 1, "there is no store"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--set", f"stack.state_dir={tmp_path / 'none'}", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_file_that_can_not_be_written(
    served: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(served, "--csv", str(tmp_path / "absent" / "r.csv")) == 2
    assert "can't write" in capsys.readouterr().err


def test_moments() -> None:
    now = 1_700_000_000.0
    assert moment("now", now) == now
    assert moment("90m", now) == now - 5400
    assert moment("1.5h", now) == now - 5400
    assert moment("7d", now) == now - 7 * 86_400
    assert moment("2023-11-14T22:13:20", 0.0) == moment("2023-11-14T23:13:20+01:00", 0.0) == now
    with pytest.raises(ConfigError):
        moment("-1h", now)


def test_a_store_is_read_while_it_is_written_and_never_changed(served: Made) -> None:
    archive = Archive(served.path)
    before = archive.sums(Span(START, START + HOUR))
    served.outcomes(0, 3, level=0, since=0, until=HOUR)  # the writer is not locked out
    assert len(archive.sums(Span(START, START + HOUR))) == len(before) + 1
    with archive._reading() as db, pytest.raises(Exception, match="readonly"):
        db.exec_driver_sql("DELETE FROM outcomes")
    archive.close()


def test_a_store_of_another_kind(tmp_path: Path, made: Made) -> None:
    with sqlite3.connect(made.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ControlError, match="another version"):
        Archive(made.path)
    (tmp_path / "x").write_text("not a database, but long enough to be looked at" * 30)
    with pytest.raises(ControlError, match="not a database"):
        Archive(tmp_path / "x")


def test_a_store_from_before_these_tables(made: Made) -> None:
    made.mixed(made.policy(), 500, 0, HOUR)
    with sqlite3.connect(made.path) as db:
        for table in ("readings", "blocks", "feedback"):
            db.execute(f"DROP TABLE {table}")
    db.close()
    found = report(made)
    assert found.sci is None
    assert isinstance(found.system, Absent)
    assert JOULES[0] > effect(found, "joules").policy_mean


def test_a_store_from_before_tenants(made: Made) -> None:
    """An older one is read as it is: a report changes nothing, and upgrades nothing."""
    made.mixed(made.policy(), 500, 0, HOUR)
    with sqlite3.connect(made.path) as db:
        db.execute("ALTER TABLE outcomes DROP COLUMN tenant")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    db.close()
    assert [line.name for line in report(made).lines["tenant"]] == ["none given"]


def test_capacity_alone_is_that_of_the_report(served: Made) -> None:
    """What metrics show, over a day of which the whole run is part."""
    looking = Capacity(served.path, lambda: START + HOUR + 60)
    assert isinstance(looking.found, Absent)
    looking.look()
    assert looking.found == report(served).capacity
    assert isinstance(looking.found, Freed)


def test_capacity_of_a_store_without_outcomes_is_absent(made: Made) -> None:
    looking = Capacity(made.path, lambda: START)
    looking.look()
    assert isinstance(looking.found, Absent)
