# SPDX-License-Identifier: Apache-2.0
"""What people are told of a policy."""

from sprout.console import operator
from sprout.v1 import control_pb2 as pb


def explained(**fields: object) -> list[str]:
    told = pb.Explanation(
        floor=0.975,
        xi=0.1,
        active_constraint="quality",
        expected_g_per_request=0.6,
        expected_l0_g_per_request=1.0,
        expected_preference=0.98,
        **fields,  # type: ignore[arg-type]
    )
    return operator.why(pb.Policy(explanation=told))


def test_a_floor_says_what_preference_rests_on() -> None:
    assert explained(preference_basis="prior, not this model") == [
        "intensity unknown",
        "floor: at least 97.5 % of L0's preference (prior, not this model), xi 0.1",
        "limited by quality",
        "expected: 40 % less carbon per request than L0 at 98.0 % of its preference "
        "(prior, not this model)",
    ]


def test_a_control_plane_that_names_no_basis_is_shown_none() -> None:
    assert explained()[1] == "floor: at least 97.5 % of L0's preference, xi 0.1"
