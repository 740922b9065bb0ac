# SPDX-License-Identifier: Apache-2.0
"""What operators ask of a control plane, for tests."""

from typing import Any

import grpc
import pytest
from control_plane import WAIT_S, code_of
from google.protobuf.duration_pb2 import Duration

from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

Stub = control_pb2_grpc.ControlStub


def status(stub: Stub) -> pb.Status:
    return stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)


def objective(**fields: Any) -> pb.SetObjectiveRequest:
    return pb.SetObjectiveRequest(objective=pb.Objective(**fields))


def pin(*, reason: str = "drill", ttl: Duration | None = None, **shares: float) -> pb.PinRequest:
    made = [pb.LevelShare(level=level, share=share) for level, share in shares.items()]
    return pb.PinRequest(shares=made, reason=reason, ttl=ttl)


def mix(policy: pb.Policy) -> list[float]:
    return [share.share for share in policy.shares]


def refused(call: Any, request: Any, message: str, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError, match=message) as error:
        call(request, timeout=WAIT_S)
    assert code_of(error) is code
