# SPDX-License-Identifier: Apache-2.0
"""A GPU falls off the bus under load and comes back: who is told what, and what is learnt from it.

NVML is a double; ledger, energy clock, receipts, outcomes, inbox and store are the real ones.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flights import ended, opened
from nvml_double import Card, Nvml

from sprout.agent.drain import Drain
from sprout.agent.spool import Spool
from sprout.config import Config
from sprout.control import inbox
from sprout.control.store import Store
from sprout.energy.meters import NodeMeter
from sprout.energy.nvml import RETRY_S, NvmlMeter
from sprout.v1 import control_pb2 as pb
from sprout_ext.clock import ClockReader, ClockWriter
from sprout_ext.ledger import Flights, Role, Segment

MJ = 10_000  # that a GPU uses in a tick
REQUEST_J = 2 * 2 * MJ / 1e3  # alone on two GPUs over two ticks
PACK = 77
VERSION = (7 << 32) + 1


class Node:
    """Two GPUs, an agent's tick without its process, one stub."""

    def __init__(self, folder: Path) -> None:
        self.cfg = Config.model_validate({"stack": {"state_dir": folder, "shm_dir": folder}})
        self.gpus = Card("GPU-a"), Card("GPU-b")
        self.nvml = Nvml(*self.gpus)
        self.now = 0.0
        self.segment = Segment.create(folder, Role.PREPROCESSING, 0, 1, 64)
        self.flights = Flights(folder)
        self.reader = ClockReader(folder / "energy.clock")
        self.spool = Spool(folder / "spool.sqlite", 1000)
        self.clock: ClockWriter | None = None
        self.agent()

    def agent(self) -> None:
        """A new one; the one before is gone without a word."""
        if self.clock is not None:
            self.clock.close()
        shm = self.cfg.stack.shm
        self.meter = NodeMeter(
            ["nvml"],
            lambda _, memory: NvmlMeter((), memory, nvml=self.nvml, clock=lambda: self.now),
            state=shm / "meter.json",
            clock=lambda: self.now,
        )
        self.clock = ClockWriter(shm / "energy.clock")
        self.drain = Drain(self.cfg, 1, self.meter, self.clock, self.spool)

    def tick(self) -> None:
        self.now += 1.0
        for gpu in self.gpus:
            gpu.mj += MJ  # type: ignore[operator] - a lost GPU goes on counting
        self.drain.tick()

    def request(self) -> float:
        """One that is active over two ticks; the joules of its receipt, nan = none."""
        ticket = opened(self.segment, policy_version=VERSION)
        assert self.flights.scheduled(ticket, time.monotonic_ns())
        time.sleep(0.002)
        self.tick()
        time.sleep(0.002)
        assert ended(self.flights, ticket)
        self.tick()
        receipt = self.flights.land(ticket, time.monotonic_ns(), self.reader)
        assert receipt is not None
        self.tick()
        return float(receipt[2])

    def recovered(self) -> None:
        """The attempt to open NVML again that is due has been made."""
        self.now += RETRY_S
        self.tick()
        part = self.meter._parts["nvml"]
        assert isinstance(part, NvmlMeter)
        if part._recovery is not None:
            assert part._recovery.done.wait(60)

    def outcomes(self) -> list[pb.Outcome]:
        return [pb.Outcome.FromString(body) for _, body in self.spool.peek(1000)]

    def close(self) -> None:
        assert self.clock is not None
        self.clock.close()
        self.spool.close()
        self.segment.close(True)
        self.meter.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.tick()
    yield made
    made.close()


def learnt(node: Node, folder: Path) -> tuple[int, float, dict[str, dict[str, object]]]:
    """(outcomes behind L0's e, its e, totals by arm) once the control plane has the outcomes."""
    store = Store(folder / "store.sqlite")
    try:
        store.add_policy(7, VERSION, PACK, time.time(), b"policy")
        request = pb.ReportOutcomesRequest(node="n", outcomes=node.outcomes())
        store.add_outcomes(inbox.rows(request))
        (found,) = store.measured(1, PACK, 1000)
        totals = {str(row["arm"]): row for row in store.totals()}
        return found.outcomes, found.energy_joules, totals
    finally:
        store.close()


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1)], ids=["one", "the other", "all"])
def test_an_outage_teaches_nothing_and_its_joules_are_nobody_s(
    node: Node, tmp_path: Path, lost: tuple[int, ...]
) -> None:
    before = node.request()
    for index in lost:
        node.gpus[index].lost = True
    during = [node.request() for _ in range(3)]
    assert "GPU is lost" in node.meter.problem
    for index in lost:
        node.gpus[index].lost = False
    node.recovered()
    on_return = node.request()  # it sees the lump come
    after = node.request()
    assert node.meter.problem == ""
    assert before == pytest.approx(REQUEST_J, rel=1e-6)
    assert after == pytest.approx(REQUEST_J, rel=1e-6)
    assert all(map(math.isnan, [*during, on_return]))

    outcomes = node.outcomes()
    assert [o.unmetered for o in outcomes] == [False, True, True, True, True, False]
    assert [o.HasField("carbon_g") for o in outcomes] == [not o.unmetered for o in outcomes]
    assert all(o.ending == pb.ENDING_DELIVERED for o in outcomes)
    count, joules, totals = learnt(node, tmp_path)
    # e is that of the metered, for as long as all took that began after the first of them.
    metered_s = sum(o.device_seconds for o in outcomes if not o.unmetered)
    all_s = sum(o.device_seconds for o in outcomes)
    expected_j = 2 * REQUEST_J / metered_s * all_s / len(outcomes)
    assert (count, joules) == (2, pytest.approx(expected_j))
    assert (totals["L0"]["outcomes"], totals["L0"]["unmetered"]) == (6, 4)
    assert totals["L0"]["energy_joules"] == pytest.approx(2 * REQUEST_J)
    # Nothing is lost of what the GPUs counted, and nothing is made.
    sample = node.drain.sample
    parts = sample.settled_joules + sample.idle_joules + sample.unattributed_joules
    ticks = node.now - RETRY_S - 1  # the first one only began the count
    assert sample.metered_joules == pytest.approx(parts) == pytest.approx(2 * MJ / 1e3 * ticks)
    assert sample.settled_joules == pytest.approx(sum(o.energy_joules for o in outcomes))


def test_an_agent_that_starts_within_the_outage_does_not_take_its_lump(
    node: Node, tmp_path: Path
) -> None:
    node.gpus[0].lost = True
    assert math.isnan(node.request())
    node.gpus[0].lost = False
    node.agent()
    assert math.isnan(node.request())
    assert node.request() == pytest.approx(REQUEST_J, rel=1e-6)
    count, joules, _ = learnt(node, tmp_path)
    assert (count, joules) == (1, pytest.approx(REQUEST_J))


def test_a_driver_that_was_reloaded_is_an_outage_too(node: Node, tmp_path: Path) -> None:
    node.nvml.driver = False
    assert math.isnan(node.request())
    node.nvml.driver = True
    node.nvml.reload()
    node.recovered()
    assert math.isnan(node.request())
    assert node.request() == pytest.approx(REQUEST_J, rel=1e-6)
    count, joules, totals = learnt(node, tmp_path)
    assert (count, joules) == (1, pytest.approx(REQUEST_J))
    assert totals["L0"]["unmetered"] == 2
