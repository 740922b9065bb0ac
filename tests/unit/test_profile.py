# SPDX-License-Identifier: Apache-2.0
"""Priors, measurements and what happens between the two."""

from dataclasses import replace

import pytest

from sprout.profile import (
    MARGINAL,
    MEASURED,
    NOTHING,
    PREFERENCE_PRIOR,
    PRIOR,
    RESCALED,
    LevelProfile,
    Measured,
    build,
    decide_on,
    moved,
)
from sprout.profile.energy import MarginalEnergy

LEVELS = ("L0", "L1", "L2")


def profile(*measured: Measured) -> tuple[LevelProfile, ...]:
    return build(
        LEVELS,
        measured,
        prior_energy_joules=(60.0, 20.0, 12.0),
        prior_device_s=(3.0, 1.0, 0.6),
        prior_preference=(0.40, 0.34, 0.26),
        min_outcomes=30,
    )


def test_priors_until_there_is_enough() -> None:
    few = Measured(29, 500.0, 9.0, 70.0, False)
    rows = profile(few, NOTHING, NOTHING)
    assert [r.energy_joules for r in rows] == [60.0, 20.0, 12.0]
    assert {r.energy_basis for r in rows} == {PRIOR}
    assert {r.preference_basis for r in rows} == {PREFERENCE_PRIOR}
    assert rows[0].outcomes == 29
    assert all(r.energy_estimated for r in rows)


def test_a_measured_level_rescales_the_others() -> None:
    rows = profile(Measured(30, 6.0, 6.0, 100.0, False), NOTHING, NOTHING)
    assert [r.energy_joules for r in rows] == pytest.approx([6.0, 2.0, 1.2])
    assert [r.device_seconds for r in rows] == pytest.approx([6.0, 2.0, 1.2])
    assert [r.energy_basis for r in rows] == [MEASURED, RESCALED, RESCALED]
    assert [r.energy_estimated for r in rows] == [False, True, True]


def test_two_measured_levels_share_one_scale() -> None:
    rows = profile(
        Measured(100, 30.0, 3.0, 100.0, True), NOTHING, Measured(40, 6.0, 0.6, 10.0, True)
    )
    assert rows[1].energy_joules == pytest.approx(20.0 * 36.0 / 72.0)
    assert rows[0].energy_estimated


def test_all_measured_forgets_the_priors() -> None:
    rows = profile(*(Measured(30, e, 1.0, 5.0, False) for e in (9.0, 8.0, 7.0)))
    assert [r.energy_joules for r in rows] == [9.0, 8.0, 7.0]
    assert {r.energy_basis for r in rows} == {MEASURED}


def test_a_meter_that_reads_nothing_does_not_zero_the_others() -> None:
    rows = profile(Measured(30, 0.0, 0.0, 5.0, True), NOTHING, NOTHING)
    assert [r.energy_joules for r in rows] == [0.0, 20.0, 12.0]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        profile(NOTHING, NOTHING)


def test_evidence_and_age_are_carried_on() -> None:
    old = Measured(40, 6.0, 1.0, 9.0, False, 50.0, 33.0, 0.5, 0.1, 7200.0)
    rows = profile(old, replace(old, outcomes=29), NOTHING)
    assert (rows[0].effective_outcomes, rows[0].energy_se_joules, rows[0].age_s) == (33, 0.5, 7200)
    assert (rows[1].energy_se_joules, rows[1].age_s) == (None, 7200)  # on its prior
    assert (rows[2].effective_outcomes, rows[2].age_s) == (None, None)


def test_decisions_replace_e_and_p() -> None:
    rows = profile(*(Measured(30, e, 1.0, 5.0, False, 50.0, 30.0, 0.1) for e in (9.0, 8.0, 7.0)))
    marginal = [MarginalEnergy(r.level, r.energy_joules / 3, 0.25, 4.0, True) for r in rows]
    decided = decide_on(rows, marginal)
    assert [r.energy_joules for r in decided] == [3.0, 8 / 3, 7 / 3]
    assert {(r.energy_basis, r.energy_estimated, r.device_seconds) for r in decided} == {
        (MARGINAL, True, 0.25)
    }
    assert moved(rows, decided, 10.0)  # the basis is another
    with pytest.raises(ValueError, match="shorter"):
        decide_on(rows, marginal[:2])


def test_moved() -> None:
    old = profile(NOTHING, NOTHING, NOTHING)
    assert not moved(old, old, 0.0)
    for field in ("energy_joules", "device_seconds", "preference"):
        value = getattr(old[1], field)
        slightly = (old[0], replace(old[1], **{field: value * 1.09}), old[2])
        clearly = (old[0], replace(old[1], **{field: value * 1.11}), old[2])
        assert not moved(old, slightly, 0.1)
        assert moved(old, clearly, 0.1)
    assert moved(old, (replace(old[0], energy_basis=MEASURED), *old[1:]), 0.1)
    assert moved(old, old[:2], 0.1)
