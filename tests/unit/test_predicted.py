# SPDX-License-Identifier: Apache-2.0
"""How many judged prompts prices are set on, and what those that are kept stand for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from predicted_synthetic import PACK, write
from predicted_synthetic import predicted as made_up

from sprout.control import predicted
from sprout.control.part import weights
from sprout.control.predicted import LEAST_OF_CLASS, MOST_PROMPTS, fitting, thinned


def test_of_each_class_the_same_part_is_kept_but_not_too_few() -> None:
    sizes = {0: 6 * MOST_PROMPTS, 1: 3 * MOST_PROMPTS, 2: MOST_PROMPTS - 1000, 4: 900, 5: 100}
    label = np.random.default_rng(3).permutation(np.repeat([*sizes], [*sizes.values()]))
    rows, each = thinned(label, 1)
    assert each is not None
    assert np.all(np.diff(rows) > 0)
    kept = dict(zip(*np.unique(label[rows], return_counts=True), strict=True))
    tenth = {0: 0.6 * MOST_PROMPTS, 1: 0.3 * MOST_PROMPTS, 2: 0.1 * MOST_PROMPTS - 100}
    assert kept == tenth | {4: LEAST_OF_CLASS, 5: 100}
    for number, size in sizes.items():
        assert each[label[rows] == number].sum() == pytest.approx(size)
    assert np.array_equal(rows, thinned(label, 1)[0])
    assert not np.array_equal(rows, thinned(label, 2)[0])


def test_who_is_kept_is_left_to_chance() -> None:
    """From all over the file, whose order may mean something."""
    rows, _ = thinned(np.zeros(5 * MOST_PROMPTS, np.int64), 7)
    assert len(rows) == MOST_PROMPTS
    assert float(rows.mean()) == pytest.approx(2.5 * MOST_PROMPTS, rel=0.05)


def test_few_are_all_kept() -> None:
    rows, each = thinned(np.zeros(MOST_PROMPTS, np.int64), 7)
    assert each is None
    assert np.array_equal(rows, np.arange(MOST_PROMPTS))


def test_a_file_of_many_is_bounded_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = write(tmp_path / "bundle", tmp_path / "predictor")
    m = len(found.judged.label)
    whole = fitting(found, PACK)
    assert len(whole.label) == m
    assert whole.stands_for is None
    assert f" on {m} judged prompts of " in whole.basis
    monkeypatch.setattr(predicted, "MOST_PROMPTS", m // 3)
    monkeypatch.setattr(predicted, "LEAST_OF_CLASS", 1)
    part = fitting(found, PACK)
    kept = len(part.label)
    assert m // 3 - 10 < kept <= m // 3
    assert f" on {kept} of its {m} judged prompts of " in part.basis
    assert part.stands_for is not None
    assert part.stands_for.sum() == pytest.approx(m)
    rows, _ = thinned(found.judged.label, int(found.sha256[:16], 16))
    for name in ("label", "preferred", "preferences", "joules"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[rows])


def test_what_is_of_no_class_is_spread_over_all_that_were_judged() -> None:
    known = made_up()
    each = np.where(known.label == 0, 3.0, 1.0)
    w = weights(replace(known, stands_for=each), (("", 0.5), ("trivia", 0.5)))
    sums = int((known.label == 0).sum())
    of_sums = 0.5 * 3 * sums / (3 * sums + len(known.label) - sums)
    assert w[known.label == 0].sum() == pytest.approx(of_sums)
    assert w.sum() == pytest.approx(1)
    nothing = weights(replace(known, stands_for=each), ())
    assert nothing == pytest.approx(each / each.sum())
