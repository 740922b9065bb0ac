# SPDX-License-Identifier: Apache-2.0
"""What clients thought of answers, over real gRPC: stored once, bounded, refused by name."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_plane import WAIT_S, configure, first, running, stub_of
from operator_calls import Stub, refused

from sprout.control.rows import Feedback
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb


def feedback(**fields: Any) -> pb.Feedback:
    return pb.Feedback(**{"kind": pb.FEEDBACK_KIND_RETRY, "level": 1, "count": 2, **fields})


def test_feedback_is_stored(tmp_path: Path) -> None:
    import sqlite3

    big = 2**63 + 9
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        request = pb.ReportFeedbackRequest(
            feedback=[
                feedback(policy_version=big),
                feedback(kind=pb.FEEDBACK_KIND_THUMBS_DOWN, level=0, arm="control", count=1),
            ]
        )
        assert stub.ReportFeedback(request, timeout=WAIT_S).stored == 2
    with sqlite3.connect(tmp_path / "control.sqlite") as db:
        columns = "kind, level, policy_version, arm, count"
        rows = db.execute(f"SELECT {columns} FROM feedback ORDER BY id").fetchall()
    db.close()
    assert rows == [("retry", 1, big - 2**64, "L1", 2), ("thumbs_down", 0, 0, "control", 1)]


def test_a_report_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    """A client that timed out can't know whether it was stored."""
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        request = pb.ReportFeedbackRequest(feedback=[feedback()], report_id="3f1c")
        assert stub.ReportFeedback(request, timeout=WAIT_S) == pb.ReportFeedbackResponse(stored=1)
        again = stub.ReportFeedback(request, timeout=WAIT_S)
        assert again == pb.ReportFeedbackResponse(duplicate=True)
        other = pb.ReportFeedbackRequest(feedback=[feedback(count=5)], report_id="3f1d")
        assert stub.ReportFeedback(other, timeout=WAIT_S).stored == 1
        nameless = pb.ReportFeedbackRequest(feedback=[feedback(count=7)])
        for _ in range(2):
            assert stub.ReportFeedback(nameless, timeout=WAIT_S).stored == 1
    store = Store(tmp_path / "control.sqlite")  # a restart does not forget
    assert not store.add_feedback([], report_id="3f1c", now=time.time())
    assert store.feedback_counts(0, 99) == [(0, "L1", 1, "retry", 2 + 5 + 7 + 7)]
    store.close()


def test_a_report_that_fails_can_be_sent_again(tmp_path: Path) -> None:
    """The id is stored with its entries, or neither is."""
    store = Store(tmp_path / "c.sqlite")
    row = Feedback(5.0, "retry", 1, 0, "L1", 2)
    with pytest.raises(ControlError):
        store.add_feedback([row._replace(kind=None)], report_id="a", now=5.0)  # type: ignore[arg-type]
    assert store.add_feedback([row], report_id="a", now=5.0)
    assert not store.add_feedback([row], report_id="a", now=6.0)
    assert store.last_ids()[1] == 1
    store.close()


def test_ids_of_reports_are_bounded_and_forgotten_with_their_feedback(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    for i in range(20):
        store.add_feedback([], report_id=str(i), now=float(i))
    store.prune(older_than=5.0, newest_outcomes=10)
    kept = [not store.add_feedback([], report_id=str(i), now=30.0) for i in range(20)]
    assert kept == [False] * 10 + [True] * 10
    store.close()


def test_the_id_of_a_report_is_bounded(stub: Stub) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback()], report_id="x" * 129)
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, "report_id is longer than 128 characters", code)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (feedback(kind=pb.FEEDBACK_KIND_UNSPECIFIED), "kind 0 is none"),
        (feedback(kind=99), "kind 99 is none"),
        (feedback(level=8), "level 8, at most 7"),
        (feedback(arm="L2"), "arm must be L1 or one of"),
        (feedback(arm="x" * 10_000), "arm must be"),
        (feedback(count=0), "count must be in 1 to 1000000: 0"),
        (feedback(count=1_000_001), "count must be"),
    ],
)
def test_bad_feedback_refuses_its_report(stub: Stub, entry: pb.Feedback, message: str) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback(), entry])
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, r"feedback\[1\]: " + message, code)


def test_too_much_feedback_is_refused(stub: Stub) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback()] * 1001)
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, "1001 entries, at most 1000", code)
