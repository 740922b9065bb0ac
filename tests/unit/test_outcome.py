# SPDX-License-Identifier: Apache-2.0
"""Every ending of a flight, and what the control plane is told of it."""

import math
from typing import Any

import numpy as np
import pytest

from sprout.agent.outcome import OutcomeWriter, active_ends, endings
from sprout.agent.settle import RUNNING, Share
from sprout.config import Config
from sprout.units import request_g
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import Flag
from sprout_ext.ledger import FLIGHT, Phase

S = 1_000_000_000
NOW = 1000 * S
LEASES = {
    "abandoned_after_s": 5.0,
    "lease_s": 120.0,
    "queue_lease_s": 600.0,
    "arrival_lease_s": 20.0,
}


def flight(**fields: Any) -> Any:
    """(1,) FLIGHT, opened 1 s ago, not scheduled."""
    records = np.zeros(1, FLIGHT)
    records["ticket"], records["opened_ns"] = 1, NOW - S
    for name, value in fields.items():
        records[name] = value
    return records


def scheduled(ago_s: float, **fields: Any) -> Any:
    start = NOW - int(ago_s * S)
    return flight(
        **{
            "phase": Phase.SCHEDULED,
            "opened_ns": start - S,
            "scheduled_ns": start,
            "heartbeat_ns": start,
            **fields,
        }
    )


def finished(ago_s: float, phase: Phase = Phase.FINISHED, **fields: Any) -> Any:
    end = NOW - int(ago_s * S)
    return scheduled(
        ago_s + 2,
        phase=phase,
        first_token_ns=end - S,
        heartbeat_ns=end - 1000,
        last_token_ns=end,
        **fields,
    )


@pytest.mark.parametrize(
    ("records", "alive", "expected"),
    [
        (flight(), True, 0),
        (flight(), False, 0),  # its stub may have died this second
        (flight(opened_ns=NOW - 6 * S), True, 0),
        (flight(opened_ns=NOW - 6 * S), False, pb.ENDING_LOST),
        (flight(opened_ns=NOW - 19 * S), True, 0),  # on its way to the slot
        (flight(opened_ns=NOW - 21 * S), True, pb.ENDING_LOST),  # its client went meanwhile
        # It has arrived, and waits for a slot of the engine.
        (flight(opened_ns=NOW - 599 * S, heartbeat_ns=NOW - 598 * S), True, 0),
        (flight(opened_ns=NOW - 602 * S, heartbeat_ns=NOW - 601 * S), True, pb.ENDING_LOST),
        (scheduled(60), True, 0),
        (scheduled(121), True, pb.ENDING_LOST),
        (scheduled(121, heartbeat_ns=NOW - S), True, 0),  # the engine is at it
        (scheduled(60, heartbeat_ns=NOW - S), False, 0),  # orphaned, but on its way
        (scheduled(60), False, pb.ENDING_LOST),
        (finished(0.1), True, 0),
        (finished(0.1, closed=True, closed_ns=NOW), True, pb.ENDING_DELIVERED),
        (finished(0.1, closed=True, closed_ns=NOW), False, pb.ENDING_DELIVERED),
        (finished(4.9), True, 0),
        (finished(5.1), True, pb.ENDING_ABANDONED),
        (finished(9, closed=True, closed_ns=NOW), True, pb.ENDING_DELIVERED),  # late, but taken
        # No time of its end: as old as the last sign of life, which says little.
        (scheduled(9, phase=Phase.FINISHED), True, 0),
        (finished(0.1, Phase.CANCELLED), True, pb.ENDING_CANCELLED),
        (finished(0.1, Phase.CANCELLED, closed=True), True, pb.ENDING_CANCELLED),
        (finished(0.1, Phase.FAILED), True, pb.ENDING_FAILED),
        (flight(phase=Phase.FAILED), True, pb.ENDING_FAILED),  # refused: slots and queue full
        # Closed by postprocessing, the slot says nothing (or not yet).
        (flight(closed=True, closed_ns=NOW - S // 2), True, 0),
        (flight(closed=True, closed_ns=NOW - 2 * S), True, pb.ENDING_DELIVERED),
    ],
)
def test_ending(records: Any, alive: bool, expected: int) -> None:
    found = endings(records, NOW, owner_alive=alive, **LEASES)
    assert found.tolist() == [expected]


@pytest.mark.parametrize(
    ("records", "alive", "ago_s"),
    [
        (scheduled(2), True, None),
        (scheduled(2, heartbeat_ns=NOW - S), False, 1.0),  # its stub is dead: active no longer
        (finished(0.5), True, 0.5),
        (scheduled(2, phase=Phase.FAILED, heartbeat_ns=NOW - S), True, 1.0),
        (scheduled(2, closed=True, closed_ns=NOW - S), True, 1.0),
    ],
)
def test_end_of_activity(records: Any, alive: bool, ago_s: float | None) -> None:
    found = endings(records, NOW, owner_alive=alive, **LEASES)
    (end,) = active_ends(records, found, owner_alive=alive).tolist()
    assert end == (RUNNING if ago_s is None else NOW - int(ago_s * S))


def written(records: Any, **changes: Any) -> pb.Outcome:
    cfg = Config.model_validate({"energy": {"pue": 1.5, "embodied_g_per_s": 2e-3}})
    options: dict[str, Any] = {
        "segment_uid": 2**64 - 1,
        "stub_index": 1,
        "ending": [pb.ENDING_DELIVERED],
        "shares": [Share(joules=36.0, credited_ns=2 * S, final=True)],
        "wall_offset_ns": 1_700_000_000 * S,
        **changes,
    }
    (body,) = OutcomeWriter(cfg, 2**63, estimated=True).write(records, **options)
    return pb.Outcome.FromString(body)


def test_every_field() -> None:
    records = finished(
        0.0,
        ticket=2**63 + 1,
        level=2,
        flags=Flag.PINNED | Flag.PROBE | Flag.EVALUATION,
        closed=True,
        policy_version=7 << 32 | 3,
        policy_seed=2**64 - 2,
        sequence=9,
        task=b"summary",
        tenant=b"acme",
        input_tokens=11,
        output_tokens=22,
        max_tokens=33,
        closed_ns=NOW,
        receipt_joules=30.0,
        intensity_g_per_kwh=100.0,
        pue=1.2,
        embodied_g_per_s=1e-3,
    )
    expected = pb.Outcome(
        segment_uid=2**64 - 1,
        ticket=2**63 + 1,
        level=2,
        level_name="L2",
        policy_version=7 << 32 | 3,
        policy_seed=2**64 - 2,
        node_id=2**63,
        stub_index=1,
        sequence=9,
        task="summary",
        tenant="acme",
        pinned=True,
        probe=True,
        evaluation=True,
        ending=pb.ENDING_DELIVERED,
        input_tokens=11,
        output_tokens=22,
        max_tokens=33,
        queue_seconds=1.0,
        device_seconds=2.0,
        first_token_seconds=2.0,
        energy_joules=36.0,
        energy_estimated=True,
        receipt_joules=30.0,
        intensity_g_per_kwh=100.0,
    )
    expected.opened_at.FromNanoseconds(NOW - 3 * S + 1_700_000_000 * S)
    expected.carbon_g = request_g(
        36.0, 2.0, intensity_g_per_kwh=100.0, pue=1.2, embodied_g_per_s=1e-3
    )
    assert written(records) == expected
    assert expected.carbon_g == pytest.approx(36 / 3.6e6 * 100 * 1.2 + 2e-3)


@pytest.mark.parametrize(("flag", "field"), [(flag, str(flag.name).lower()) for flag in Flag])
def test_each_flag_has_its_field(flag: Flag, field: str) -> None:
    outcome = written(finished(0.0, flags=flag))
    names = [str(one.name).lower() for one in Flag]
    assert [name for name in names if getattr(outcome, name)] == [field]


def test_unknown_intensity_leaves_carbon_unknown() -> None:
    outcome = written(finished(0.0, intensity_g_per_kwh=math.nan, pue=math.nan))
    assert not outcome.HasField("carbon_g")
    assert not outcome.HasField("intensity_g_per_kwh")


def test_what_was_not_metered_has_no_carbon() -> None:
    records = finished(0.0, intensity_g_per_kwh=100.0, pue=1.0)
    share = Share(joules=36.0, credited_ns=2 * S, final=True, unmetered=True)
    outcome = written(records, shares=[share])
    assert outcome.unmetered
    assert outcome.intensity_g_per_kwh == 100.0
    assert not outcome.HasField("carbon_g")


def test_no_carbon_at_0_g_per_kwh_is_known() -> None:
    outcome = written(finished(0.0, intensity_g_per_kwh=0.0, pue=1.0))
    assert outcome.HasField("carbon_g")
    assert outcome.carbon_g == 0.0


def test_the_nodes_own_factors_where_the_flight_has_none() -> None:
    outcome = written(
        finished(0.0, intensity_g_per_kwh=100.0, pue=math.nan, embodied_g_per_s=math.nan)
    )
    assert outcome.carbon_g == pytest.approx(36 / 3.6e6 * 100 * 1.5 + 2 * 2e-3)


def test_never_scheduled_has_no_times_and_no_energy() -> None:
    records = flight(phase=Phase.FAILED, receipt_joules=math.nan)
    outcome = written(records, ending=[pb.ENDING_FAILED], shares=[Share(final=True)])
    assert outcome.ending == pb.ENDING_FAILED
    assert (outcome.queue_seconds, outcome.device_seconds, outcome.first_token_seconds) == (0, 0, 0)
    assert (outcome.energy_joules, outcome.receipt_joules) == (0, 0)


def test_many_flights_of_a_segment_keep_what_is_their_own() -> None:
    records = np.concatenate(
        [
            finished(
                0.0,
                ticket=1 + i,
                level=i % 3,
                flags=flags,
                task=b"t%d" % (i % 2),
                tenant=b"n%d" % i if i else b"",
            )
            for i, flags in enumerate((0, Flag.CONTROL, 0, Flag.PAUSED, 0, 0))
        ]
    )
    records["intensity_g_per_kwh"] = [math.nan, 100.0, 0.0, 100.0, math.nan, 300.0]
    kinds = [pb.ENDING_DELIVERED, pb.ENDING_CANCELLED] * 3
    given = [Share(joules=float(i), credited_ns=i * S, final=True) for i in range(6)]
    options: dict[str, Any] = {"segment_uid": 1, "stub_index": 0, "wall_offset_ns": 0}
    writer = OutcomeWriter(Config(), 1, estimated=False)
    together = writer.write(records, ending=kinds, shares=given, **options)
    for i, body in enumerate(together):
        one = records[i : i + 1]
        assert writer.write(one, ending=kinds[i : i + 1], shares=given[i : i + 1], **options) == [
            body
        ]
        outcome = pb.Outcome.FromString(body)
        assert (outcome.ticket, outcome.level, outcome.task) == (1 + i, i % 3, f"t{i % 2}")
        assert outcome.tenant == (f"n{i}" if i else "")
        assert (outcome.ending, outcome.energy_joules) == (kinds[i], float(i))
        assert (outcome.control, outcome.paused) == (i == 1, i == 3)
        assert outcome.HasField("carbon_g") == (i not in {0, 4})
