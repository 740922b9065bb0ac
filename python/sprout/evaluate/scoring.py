# SPDX-License-Identifier: Apache-2.0
"""What the predictor in force says of an evaluation's prompts: noted beside how they were judged.

A price is set by predictions of prompts that were judged once. An evaluation judges prompts of
today at every level; with what the same weights say of them the control plane can tell whether
those that would choose a level are those that it is good enough for. Numbers alone are kept.
"""

import logging

import grpc

from sprout.evaluate.answers import Question
from sprout.evaluate.reporting import TIMEOUT_S
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights

LOG = logging.getLogger(__name__)


class Scoring:
    """By weights of this SHA-256. ValueError: no scorer takes them, or it is of other levels."""

    def __init__(self, sha256: str, data: bytes, levels: int) -> None:
        if weights.name(data) != sha256:
            raise ValueError(f"what came has the SHA-256 {weights.name(data)[:12]}")
        self.sha256, self._scorer = sha256, weights.scorer(data)
        if self._scorer.levels != levels:
            raise ValueError(f"they are of {self._scorer.levels} levels, not of {levels}")

    def of(self, question: Question) -> tuple[float, ...]:
        """(2 levels,) preferences, then joules; (): the text is not the client's own."""
        if not question.as_asked:
            return ()
        text = question.text.encode("utf-8", "surrogatepass")
        return tuple(self._scorer.score_many([text])[0].tolist())


def of_policy(control: ControlStub, policy: pb.Policy, levels: int) -> Scoring | None:
    """None: no level is chosen by its prompt, or its weights can't be had. The evaluation is worth
    having without."""
    if not policy.HasField("prompt"):
        return None
    sha256 = policy.prompt.weights
    try:
        request = pb.GetWeightsRequest(sha256=sha256)
        return Scoring(sha256, control.GetWeights(request, timeout=TIMEOUT_S).weights, levels)
    except grpc.RpcError as error:
        LOG.warning("prompts are not scored: weights %s: %s", sha256[:12], error.code())
    except ValueError as error:
        LOG.warning("prompts are not scored: weights %s: %s", sha256[:12], error)
    return None
