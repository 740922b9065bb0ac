# SPDX-License-Identifier: Apache-2.0
"""What the grams of requests under a policy are a part of."""

from typing import Any

from sprout.control.grid import DRILL, FORGOTTEN, UNKNOWN, grams_as
from sprout.control.notes import note
from sprout.v1 import control_pb2 as pb


def under(**fields: Any) -> str:
    return grams_as(note(pb.Policy(epoch=1, counter=1, **fields).SerializeToString()))


def test_grams_are_named_by_what_their_policy_knew() -> None:
    known = pb.Intensity(
        g_per_kwh=300,
        zone="NL",
        source="test",
        factor_type=pb.FACTOR_TYPE_LIFECYCLE,
        signal=pb.SIGNAL_AVERAGE,
    )
    assert under(intensity=known) == "NL test, lifecycle, average"
    known.override = True
    assert under(intensity=known) == DRILL
    assert under() == UNKNOWN  # it is stored, and knew none
    assert grams_as(None) == FORGOTTEN
