# SPDX-License-Identifier: Apache-2.0
"""The questions of one evaluation: some of a file's, or a draw of what nodes sampled."""

from dataclasses import dataclass, replace
from pathlib import Path

from sprout.errors import EvaluationError
from sprout.evaluate import questions
from sprout.evaluate.answers import Question
from sprout.evaluate.limits import MAX_DRAW
from sprout.evaluate.reporting import TIMEOUT_S
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

SAMPLED = "sampled"


@dataclass(frozen=True)
class Sample:
    questions: tuple[Question, ...]
    said: str  # where they come from
    own: bool  # the operator's file: its texts may be kept

    @property
    def most_weight(self) -> float:
        return max(question.weight for question in self.questions)


def of_file(path: Path, most: int, seed: int) -> Sample:
    """ConfigError names what is wrong with the file."""
    found = questions.read_file(path)
    said = f"{path.name} ({len(found)}, {questions.fingerprint(found)})"
    return Sample(tuple(questions.some(found, most, seed)), said, own=True)


def of_requests(
    control: ControlStub, most: int, seed: int, *, actor: str, max_tokens: int
) -> Sample:
    """max_tokens: of an answer, at most; a client may have asked for any number.

    EvaluationError where nothing was sampled yet.
    """
    drawn: list[pb.SampledPrompt] = []
    while len(drawn) < most:
        request = pb.DrawPromptsRequest(
            count=min(MAX_DRAW, most - len(drawn)),
            seed=seed,
            without=[prompt.id for prompt in drawn],
            actor=actor,
            total=most,
        )
        new = control.DrawPrompts(request, timeout=TIMEOUT_S).prompts
        if not new:
            break
        drawn.extend(new)
    if not drawn:
        raise EvaluationError(
            "no prompt was sampled yet, and evaluate.prompts_file names none: wait, or give "
            "--prompts FILE"
        )
    capped = (
        replace(question, max_tokens=min(question.max_tokens, max_tokens))
        for question in questions.sampled(drawn)
    )
    return Sample(tuple(capped), SAMPLED, own=False)
