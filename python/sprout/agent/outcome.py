# SPDX-License-Identifier: Apache-2.0
"""How a flight ended, and the outcome that is told of it."""

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
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
# Of a FLIGHT record: what many have in common, and what each has of its own.
COMMON = ("level", "flags", "task", "policy_version", "policy_seed")
OWN = ("ticket", "sequence", "input_tokens", "output_tokens", "max_tokens", "tenant")
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
    arrival_lease_s: float,
) -> NDArray[np.uint8]:
    """(n,) pb.Ending of each record of one segment, 0 = in flight.

    records: (n,) of sprout_ext.ledger.FLIGHT. A flight is lost when there was no sign of life for
    the lease (a longer one while it may wait for the engine, which says nothing of its queue; a
    shorter one if it has not reached the slot: Triton lets go of a request between two models when
    its client has gone), or for `abandoned_after_s` if the stub that opened it is dead (the others
    may well take it to its end).
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
    on_the_way = (phase == Phase.OPENED) & (records["heartbeat_ns"] == 0)
    allowed_ns[on_the_way] = min(queue_ns, int(arrival_lease_s * NS_PER_S))
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
    """Outcomes of one node, as bytes for the spool.

    Hundreds a second: what many flights have in common is encoded once. An encoded message behind
    another of its kind adds to it, so bytes are all that there is to put together.
    """

    def __init__(self, cfg: Config, node_id: int, *, estimated: bool) -> None:
        self._pue = cfg.energy.pue
        self._embodied_g_per_s = cfg.energy.embodied_g_per_s
        self._node = (node_id, estimated)

    def write(
        self,
        records: NDArray[np.void],
        *,
        segment_uid: int,
        stub_index: int,
        ending: Sequence[int],
        shares: Sequence[Share],
        wall_offset_ns: int,
    ) -> list[bytes]:
        """(n,) encoded pb.Outcome of FLIGHT records (n,) of one segment.

        ending: (n,) pb.Ending of each.
        shares: (n,) of the energy; the time each was credited for is its time on the device.
        wall_offset_ns: wall clock minus CLOCK_MONOTONIC.
        Carbon needs an intensity; where the flight has none (no policy was there), carbon and
        intensity stay unset, which is "unknown". So does the carbon of one that was not metered.
        """
        origin = (*self._node, segment_uid, stub_index)
        opened_ns = records["opened_ns"]
        joules = np.array([share.joules for share in shares])
        device_s = np.array([share.credited_ns for share in shares]) / NS_PER_S
        columns = (
            *(records[name] for name in OWN),
            (opened_ns + wall_offset_ns) // NS_PER_S,
            (opened_ns + wall_offset_ns) % NS_PER_S,
            _span_s(opened_ns, records["scheduled_ns"]),
            device_s,
            _span_s(opened_ns, records["first_token_ns"]),
            joules,
            _known(records["receipt_joules"], 0.0),
            records["intensity_g_per_kwh"],
            self._carbon_g(records, joules, device_s),
            np.array([share.unmetered for share in shares]),
        )
        common = zip(ending, *(records[name].tolist() for name in COMMON), strict=True)
        own = zip(*(column.tolist() for column in columns), strict=True)
        written: list[bytes] = []
        for kind, values in zip(common, own, strict=True):
            outcome = pb.Outcome()  # field by field, which costs a third of keywords
            opened_at = outcome.opened_at
            (
                outcome.ticket,
                outcome.sequence,
                outcome.input_tokens,
                outcome.output_tokens,
                outcome.max_tokens,
                tenant,
                opened_at.seconds,
                opened_at.nanos,
                outcome.queue_seconds,
                outcome.device_seconds,
                outcome.first_token_seconds,
                outcome.energy_joules,
                outcome.receipt_joules,
                intensity,
                carbon_g,
                outcome.unmetered,
            ) = values
            if tenant:  # of its own: there may be more tenants than `_common` remembers
                outcome.tenant = tenant.decode("ascii", "replace")
            if isfinite(intensity):
                outcome.intensity_g_per_kwh = intensity
                if not outcome.unmetered:
                    outcome.carbon_g = carbon_g
            written.append(_common(origin, kind) + outcome.SerializeToString())
        return written

    def _carbon_g(
        self, records: NDArray[np.void], joules: NDArray[np.float64], device_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(n,) with the flight's own factors, the node's where it has none; NaN: not known."""
        pue = records["pue"]
        return request_g(
            joules,
            device_s,
            intensity_g_per_kwh=records["intensity_g_per_kwh"],
            pue=np.where(pue >= 1, pue, self._pue),
            embodied_g_per_s=_known(records["embodied_g_per_s"], self._embodied_g_per_s),
        )


@lru_cache(1024)
def _common(
    origin: tuple[int, bool, int, int], kind: tuple[int, int, int, bytes, int, int]
) -> bytes:
    """What many flights have in common.

    origin: node id, energy estimated, segment uid, stub index. kind: ending, then COMMON.
    """
    node_id, estimated, segment_uid, stub_index = origin
    ending, level, flags, task, policy_version, policy_seed = kind
    outcome = pb.Outcome(
        node_id=node_id,
        energy_estimated=estimated,
        segment_uid=segment_uid,
        stub_index=stub_index,
        ending=pb.Ending.Name(ending),
        level=level,
        level_name=f"L{level}",
        task=task.decode("ascii", "replace"),
        policy_version=policy_version,
        policy_seed=policy_seed,
    )
    for flag, name in FLAGS.items():
        if flags & flag:
            setattr(outcome, name, True)
    return outcome.SerializeToString()


def _span_s(start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds between two times, 0 where one was never reached."""
    reached = (start_ns > 0) & (end_ns > 0)
    return np.where(reached, np.maximum(0, end_ns - start_ns), 0) / NS_PER_S


def _known(values: NDArray[Any], default: float) -> NDArray[Any]:
    return np.where(np.isfinite(values), values, default)
