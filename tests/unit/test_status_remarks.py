# SPDX-License-Identifier: Apache-2.0
"""What the status says of a node beside its numbers."""

import io

import pytest
from rich.console import Console

from sprout.console import status
from sprout.console.status import remarks
from sprout.v1 import control_pb2 as pb


def test_a_node_in_order_has_none() -> None:
    node = pb.NodeStatus(node="a", counters={"delivered": 900, "unattributed": 2})
    assert remarks(node) == []


def test_an_engine_that_hands_no_ticket_back_is_no_fault() -> None:
    [said] = remarks(pb.NodeStatus(node="a", counters={"unattributed": 900}))
    assert said.startswith("900 answers without a receipt")
    assert "no fault" in said


def test_a_meter_that_stands_still() -> None:
    node = pb.NodeStatus(node="a", meter_problem="GPU GPU-a (NVIDIA H100): GPU is lost")
    [said] = remarks(node)
    assert "no joules" in said


def test_joules_of_an_answer_are_those_of_the_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(status, "out", Console(file=said, width=200))
    arms = [
        pb.ArmTotals(arm="L0", outcomes=10, unmetered=6, energy_joules=80.0),
        pb.ArmTotals(arm="L1", outcomes=3, unmetered=3),
    ]
    status._arms(pb.Status(arms=arms, outcomes=13))
    l0, l1 = said.getvalue().splitlines()[-2:]
    assert "10 (6 not metered)" in l0
    assert " 20 " in l0
    assert "not known" in l1
