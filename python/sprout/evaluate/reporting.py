# SPDX-License-Identifier: Apache-2.0
"""How the control plane is told: once, whatever ends in between."""

import logging

import grpc

from sprout.channel import as_dict
from sprout.evaluate.journal import Journal
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0  # of a call to the control plane
# Of a report: sent again, it would be refused again.
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS}


def send(control: ControlStub, journal: Journal, actor: str) -> pb.Evaluation | None:
    """What the journal is to report; None: the control plane does not want it.

    The same bytes at each try, so that a report which arrived, unacknowledged, is known again.
    grpc.RpcError where it does not answer: the journal keeps it.
    """
    assert journal.unacknowledged is not None
    body, notes = journal.unacknowledged
    message = pb.Evaluation.FromString(body)
    request = pb.ReportEvaluationRequest(evaluation=message, actor=actor)
    try:
        control.ReportEvaluation(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() in REFUSALS:
            log.error("evaluation %s was refused: %s", journal.id, error.details())
            journal.refused()
            return None
        raise
    journal.finish(as_dict(message) | {"notes": notes})
    return message
