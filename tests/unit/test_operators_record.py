# SPDX-License-Identifier: Apache-2.0
"""What operators may look up, over real gRPC: decisions by page, and the status as it changes."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from control_plane import WAIT_S, code_of, configure, first, running, stub_of
from operator_calls import Stub, objective, pin, refused
from waiting import wait_for

from sprout.control import history
from sprout.control.store import Store
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb

# --- the record ----------------------------------------------------------------------------------


def test_decisions_come_newest_first_in_pages_and_solve_again(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        for xi in (0.02, 0.04, 0.06, 0.08):
            stub.SetObjective(objective(xi=xi), timeout=WAIT_S)
        stub.SetObjective(objective(max_shares={"L2": 0.1}, max_increase=0.3), timeout=WAIT_S)
        stub.Pin(pin(L2=1.0), timeout=WAIT_S)
        seen: list[pb.Decision] = []
        before = 0
        while True:
            request = pb.ListDecisionsRequest(page_size=2, before_version=before)
            page = stub.ListDecisions(request, timeout=WAIT_S)
            assert len(page.decisions) <= 2
            seen += page.decisions
            before = page.next_before_version
            if not before:
                break
        versions = [version(decision.policy) for decision in seen]
        assert all(a > b for a, b in pairwise(versions))
        assert [d.policy.explanation.xi for d in seen] == [0.08, 0.08, 0.08, 0.06, 0.04, 0.02, 0.1]
        for decision in seen:
            plan, same = history.solve_again(decision)
            assert same
            assert plan.floor == decision.policy.explanation.floor
        one = stub.ListDecisions(pb.ListDecisionsRequest(version=versions[3]), timeout=WAIT_S)
        assert list(one.decisions) == [seen[3]]
        none = stub.ListDecisions(pb.ListDecisionsRequest(version=1), timeout=WAIT_S)
        assert not none.decisions


def decisions(stub: Stub) -> Sequence[pb.Decision]:
    return stub.ListDecisions(pb.ListDecisionsRequest(), timeout=WAIT_S).decisions


def test_a_decision_with_other_inputs_is_not_the_same(stub: Stub) -> None:
    wait_for(lambda: bool(decisions(stub)), what="the first decision's storing")
    decision = decisions(stub)[0]
    inputs = json.loads(decision.inputs_json)
    inputs["xi"] = 0.9
    decision.inputs_json = json.dumps(inputs)
    _, same = history.solve_again(decision)
    assert not same


def test_overlong_pages_are_refused(stub: Stub) -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ListDecisions, pb.ListDecisionsRequest(page_size=201), "at most 200", code)
    refused(stub.ListAudit, pb.ListAuditRequest(page_size=501), "at most 500", code)


def test_the_end_of_a_policy_s_keeping_is_that_of_its_inputs(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    for number, issued_at in ((5, 100.0), (6, 200.0)):
        store.add_policy(1, number, 7, issued_at, b"policy", inputs='{"xi": 1}')
    store.prune(150.0, 1000)
    assert store.decisions(10) == [(6, b"policy", '{"xi": 1}')]
    store.close()


# --- watching the status -------------------------------------------------------------------------


def test_a_watch_of_the_status_joins_changes(tmp_path: Path) -> None:
    """Thirty changes in a row are few statuses, at most one a second, and the last is true."""
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        start = time.monotonic()
        watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=6 * WAIT_S)
        assert not next(watch).policy.paused
        for i in range(30):
            stub.Pause(pb.PauseRequest(reason=f"change {i}"), timeout=WAIT_S)
        heard = 1
        for seen in watch:
            heard += 1
            if seen.policy.explanation.pause_reason == "change 29":
                break
        watch.cancel()
        assert heard <= time.monotonic() - start + 2
        assert heard < 30


def test_the_status_is_quiet_while_nothing_changes(tmp_path: Path) -> None:
    """Renewals and the time that a policy has left are no change: the next status is the pause."""
    with running(configure(tmp_path, ttl_s=0.9)) as address, stub_of(address) as stub:
        policies = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=6 * WAIT_S)
        next(policies)
        watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=6 * WAIT_S)
        next(watch)
        for _ in range(8):  # renewals, over two seconds
            next(policies)
        policies.cancel()
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        assert next(watch).policy.paused
        watch.cancel()


def test_more_watches_than_there_is_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprout.control.operators.MAX_STATUS_WATCHERS", 1)
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        one = stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S)
        next(one)
        with pytest.raises(grpc.RpcError, match="1 watch the status already") as error:
            next(stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S))
        assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
        one.cancel()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:  # the server hears of the cancel a moment later
            try:
                next(again := stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S))
            except grpc.RpcError:
                continue
            again.cancel()
            return
        raise AssertionError("the place of a watch that ended stays taken")
