# SPDX-License-Identifier: Apache-2.0
"""Windows of the day: their ends, midnight, weekdays."""

from datetime import UTC, datetime

import pytest

from sprout.control.pin import Window, checked, mix, scheduled

LEVELS = ("L0", "L1", "L2")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NIGHT = Window("22:00", "06:00", (), "L0")
FRIDAY_NIGHT = Window("22:00", "06:00", ("fri",), "L0")
NOON = Window("12:00", "13:00", ("sat", "sun"), "L1")


@pytest.mark.parametrize(
    ("window", "time", "holds"),
    [
        (NIGHT, "2026-01-01T21:59:59", False),
        (NIGHT, "2026-01-01T22:00", True),
        (NIGHT, "2026-01-02T00:00", True),
        (NIGHT, "2026-01-02T05:59:59", True),
        (NIGHT, "2026-01-02T06:00", False),
        (FRIDAY_NIGHT, "2026-01-02T23:00", True),  # a Friday
        (FRIDAY_NIGHT, "2026-01-03T03:00", True),  # Saturday morning belongs to Friday's night
        (FRIDAY_NIGHT, "2026-01-03T23:00", False),
        (FRIDAY_NIGHT, "2026-01-02T03:00", False),  # Thursday's
        (NOON, "2026-01-03T12:00", True),
        (NOON, "2026-01-03T13:00", False),
        (NOON, "2026-01-02T12:30", False),
        (Window("12:00", "00:00", (), "L0"), "2026-01-02T23:59", True),
        (Window("12:00", "00:00", (), "L0"), "2026-01-02T00:00", False),
    ],
)
def test_a_window_s_ends(window: Window, time: str, holds: bool) -> None:
    assert window.holds(at(time)) is holds


def test_the_first_window_that_fits_counts() -> None:
    night_l2 = Window("00:00", "23:59", (), "L2")
    now = at("2026-01-01T23:00")
    first = scheduled([NIGHT, night_l2], LEVELS, now)
    second = scheduled([night_l2, NIGHT], LEVELS, now)
    assert first is not None
    assert second is not None
    assert (first.shares, second.shares) == ((1, 0, 0), (0, 0, 1))
    assert scheduled([NOON], LEVELS, now) is None


def test_a_window_of_another_pack_s_level_rests() -> None:
    assert scheduled([Window("00:00", "23:59", (), "L7")], LEVELS, at("2026-01-01T12:00")) is None


def test_a_mix_sums_to_exactly_1() -> None:
    assert sum(mix({"L0": 0.3333333, "L1": 0.6666666}, LEVELS)) == 1


def test_a_day_is_named_once() -> None:
    """Else a window of any size would be kept, and told to every watcher."""
    window = Window("08:00", "09:00", ("mon", "mon"), "L0")
    with pytest.raises(ValueError, match="a day twice"):
        checked(window, ("L0", "L1"))
