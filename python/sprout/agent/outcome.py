# SPDX-License-Identifier: Apache-2.0
"""How a flight ended, and the outcome that is told of it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.agent.settle import RUNNING, Share
from sprout.config import Config
from sprout.units import NS_PER_S, request_g
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import Flag
from sprout_ext.ledger import Phase

# The outcome's boolean fields, by the flag that they stand for.
FLAGS = {flag: str(flag.name).lower() for flag in Flag}
# Closed, but the engine's end is not in the record: a slot that says nothing, or says it late.
CLOSED_GRACE_NS = NS_PER_S


def endings(
    records: NDArray[np.void],
    now_ns: int,
    *,
    owner_alive: bool,
    abandoned_after_s: float,
    lease_s: float,
    queue_lease_s: float,
) -> NDArray[np.uint8]:
    """(n,) pb.Ending of each record of one segment, 0 = in flight.

    records: (n,) of sprout_ext.ledger.FLIGHT. A flight is lost when there was no sign of life for
    the lease (a longer one while it may wait for the engine, which says nothing of its queue), or
    for `abandoned_after_s` if the stub that opened it is dead (the others may well take it to its
    end).
    """
    phase, closed = records["phase"], records["closed"]
    over = phase >= Phase.FINISHED
    alive_ns = signs_of_life(records)
    patience_ns = int(abandoned_after_s * NS_PER_S)
    silence_ns = now_ns - alive_ns
    lease_ns = int(lease_s * NS_PER_S) if owner_alive else patience_ns

    ending = np.zeros(len(records), np.uint8)
    queue_ns = int(queue_lease_s * NS_PER_S) if owner_alive else patience_ns
    allowed_ns = np.where(phase == Phase.OPENED, queue_ns, lease_ns)
    ending[~over & (silence_ns > allowed_ns)] = pb.ENDING_LOST
    ending[~over & closed & (now_ns - records["closed_ns"] > CLOSED_GRACE_NS)] = pb.ENDING_DELIVERED
    finished = phase == Phase.FINISHED
    # An end without a time is as old as the last sign of life before it, which may be long ago.
    left_ns = np.where(records["last_token_ns"] > 0, patience_ns, max(patience_ns, lease_ns))
    ending[finished & (silence_ns > left_ns)] = pb.ENDING_ABANDONED
    ending[finished & closed] = pb.ENDING_DELIVERED
    ending[phase == Phase.FAILED] = pb.ENDING_FAILED
    ending[phase == Phase.CANCELLED] = pb.ENDING_CANCELLED
    return ending


def signs_of_life(records: NDArray[np.void]) -> NDArray[np.int64]:
    """(n,) the latest time in each record, ns."""
    latest = records["opened_ns"]
    for name in ("scheduled_ns", "first_token_ns", "heartbeat_ns", "last_token_ns"):
        latest = np.maximum(latest, records[name])
    return latest


def active_ends(
    records: NDArray[np.void], ending: NDArray[np.uint8], *, owner_alive: bool
) -> NDArray[np.int64]:
    """(n,) when each flight stopped being active, RUNNING where it has not, ns.

    The last token where the engine told it, else the last sign of life (failed before the first
    token, or its process is gone: what died does no work).
    """
    latest = signs_of_life(records)
    ends = np.full(len(records), RUNNING, np.int64)
    stopped = (ending != 0) | (records["phase"] >= Phase.FINISHED) | (not owner_alive)
    ends[stopped] = latest[stopped]
    closed = records["closed"] & (records["phase"] < Phase.FINISHED)
    ends[closed] = records["closed_ns"][closed]
    told = (records["phase"] >= Phase.FINISHED) & (records["last_token_ns"] > 0)
    ends[told] = records["last_token_ns"][told]
    return ends


class OutcomeWriter:
    """Outcomes of one node, as bytes for the spool."""

    def __init__(self, cfg: Config, node_id: int, *, estimated: bool) -> None:
        self._pue = cfg.energy.pue
        self._embodied_g_per_s = cfg.energy.embodied_g_per_s
        self._node_id = node_id
        self._estimated = estimated

    def write(
        self,
        record: np.void,
        *,
        segment_uid: int,
        stub_index: int,
        ending: int,
        share: Share,
        wall_offset_ns: int,
    ) -> pb.Outcome:
        """The outcome of one FLIGHT record.

        share: of the energy; the time it was credited for is the flight's time on the device.
        wall_offset_ns: wall clock minus CLOCK_MONOTONIC.
        Carbon needs an intensity; where the flight has none (no policy was there), carbon and
        intensity stay unset, which is "unknown".
        """
        flight: dict[str, Any] = dict(zip(record.dtype.names or (), record.item(), strict=True))
        scheduled_ns, opened_ns = flight["scheduled_ns"], flight["opened_ns"]
        device_s = share.credited_ns / NS_PER_S
        outcome = pb.Outcome(
            segment_uid=segment_uid,
            ticket=flight["ticket"],
            level=flight["level"],
            level_name=f"L{flight['level']}",
            policy_version=flight["policy_version"],
            policy_seed=flight["policy_seed"],
            node_id=self._node_id,
            stub_index=stub_index,
            sequence=flight["sequence"],
            task=flight["task"].rstrip(b"\0").decode("ascii", "replace"),
            ending=pb.Ending.Name(ending),
            input_tokens=flight["input_tokens"],
            output_tokens=flight["output_tokens"],
            max_tokens=flight["max_tokens"],
            queue_seconds=_span_s(opened_ns, scheduled_ns),
            device_seconds=device_s,
            first_token_seconds=_span_s(opened_ns, flight["first_token_ns"]),
            energy_joules=share.joules,
            energy_estimated=self._estimated,
            receipt_joules=_known(flight["receipt_joules"], 0.0),
        )
        for flag, name in FLAGS.items():
            if flight["flags"] & flag:
                setattr(outcome, name, True)
        outcome.opened_at.FromNanoseconds(opened_ns + wall_offset_ns)
        intensity = flight["intensity_g_per_kwh"]
        if math.isfinite(intensity):
            outcome.intensity_g_per_kwh = intensity
            pue = flight["pue"]
            outcome.carbon_g = request_g(
                share.joules,
                device_s,
                intensity_g_per_kwh=intensity,
                pue=pue if pue >= 1 else self._pue,
                embodied_g_per_s=_known(flight["embodied_g_per_s"], self._embodied_g_per_s),
            )
        return outcome


def _span_s(start_ns: int, end_ns: int) -> float:
    """Seconds between two times, 0 where one was never reached."""
    return max(0, end_ns - start_ns) / NS_PER_S if start_ns > 0 and end_ns > 0 else 0.0


def _known(value: float, default: float) -> float:
    return value if math.isfinite(value) else default
