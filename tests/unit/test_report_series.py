# SPDX-License-Identifier: Apache-2.0
"""`sprout report` on intensities of several sources: grams of two series are never added."""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_made import HOUR, effect, report, said
from report_store import START, Made

from sprout.console import report_text
from sprout.proof.switchback import System
from sprout.v1 import control_pb2 as pb


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.close()


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
