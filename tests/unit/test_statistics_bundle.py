# SPDX-License-Identifier: Apache-2.0
"""The statistics on the published preferences, whose q is known. The long studies are in
benchmarks/bench_evaluation.py; these would show that something broke."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _data import BUNDLE
from _evaluation import Recorded, by_class
from _evaluation_stopping import stopped

from sprout.evaluate.statistics.quality import measure
from sprout.evaluate.statistics.shrinkage import shrink
from sprout.proof.interval import Interval

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not BUNDLE.is_dir(), reason=f"no replay data at {BUNDLE} (SPROUT_DATA)"),
]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


def test_every_classs_intervals_hold_the_truth(recorded: Recorded) -> None:
    rng = np.random.default_rng(1)
    for pool in (recorded.scores, *recorded.by_class):
        truth = pool.mean(axis=0) / pool.mean(axis=0)[0]
        held = []
        for _ in range(150):
            found = measure(pool[rng.integers(len(pool), size=100)], method="choice")
            for ratio, true in zip(found.ratios[1:], truth[1:], strict=True):
                assert isinstance(ratio, Interval)
                held.append(ratio.low <= true <= ratio.high)
        assert np.mean(held) >= 0.9  # of 0.95; the two levels' are not independent


def test_the_region_holds_the_truth_at_the_moments_that_stopping_picks(
    recorded: Recorded,
) -> None:
    rng = np.random.default_rng(2)
    stops = [
        stopped(recorded, situation, (0.5, 20.0), 3000, rng)
        for situation in by_class(recorded, rng)
        for _ in range(5)
    ]
    assert sum(not stop.cut for stop in stops) >= 25
    assert sum(stop.ever for stop in stops) >= 26  # of 30; 28.5 are promised
    assert sum(stop.met for stop in stops if not stop.cut) >= 25


def test_small_classes_gain_by_shrinkage(recorded: Recorded) -> None:
    rng = np.random.default_rng(3)
    own = shrunk = 0.0
    for _ in range(60):
        before = [
            measure(pool[rng.integers(len(pool), size=size)], method="choice", task=name)
            for name, pool, size in zip(
                recorded.tasks, recorded.by_class, (200, 100, 30, 15, 10, 10), strict=True
            )
        ]
        for q, a, b in zip(recorded.q[2:], before[2:], shrink(before).classes[2:], strict=True):
            own += float(((a.preferences - q) ** 2).sum())
            shrunk += float(((b.preferences - q) ** 2).sum())
    assert shrunk < 0.8 * own
