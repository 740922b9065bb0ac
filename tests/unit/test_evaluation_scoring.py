# SPDX-License-Identifier: Apache-2.0
"""What the predictor in force says of an evaluation's prompts."""

import contextlib
import logging
from collections.abc import Iterator

import grpc
import pytest
from recorder import Recorder, make_policy, prompt_policy
from some_weights import packed

from sprout.evaluate import questions
from sprout.evaluate.answers import Question
from sprout.evaluate.scoring import Scoring, of_policy
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights

DATA = packed()
SHA256 = weights.name(DATA)


@pytest.fixture
def control() -> Iterator[Recorder]:
    recorder = Recorder().start()
    yield recorder
    recorder.stop()


@pytest.fixture
def stub(control: Recorder) -> Iterator[ControlStub]:
    with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{control.port}")) as channel:
        yield ControlStub(channel)


def policy(sha256: str | None) -> pb.Policy:
    made = make_policy()
    if sha256 is not None:
        made.prompt.CopyFrom(prompt_policy(sha256))
    return made


@pytest.mark.parametrize("text", ["What is 2 + 2?", "", "größer\0als 3?", "x" * 10_000])
def test_it_says_what_a_request_s_scorer_does(text: str) -> None:
    found = Scoring(SHA256, DATA, 3).of(Question("q", text))
    assert found == tuple(weights.scorer(DATA).score_many([text.encode()])[0])
    assert len(found) == 6


def test_of_a_text_that_a_redaction_changed_nothing_is_said() -> None:
    """The request's level was chosen by another."""
    drawn = [
        pb.SampledPrompt(id=1, text="call XXX", stands_for=1.0, redacted=True),
        pb.SampledPrompt(id=2, text="call me", stands_for=1.0),
    ]
    scored = [Scoring(SHA256, DATA, 3).of(question) for question in questions.sampled(drawn)]
    assert [len(each) for each in scored] == [0, 6]


def test_the_policy_s_weights_are_fetched(control: Recorder, stub: ControlStub) -> None:
    control.weights[SHA256] = DATA
    found = of_policy(stub, policy(SHA256), 3)
    assert found is not None
    assert found.sha256 == SHA256
    assert of_policy(stub, policy(None), 3) is None
    assert control.weights_asked == [SHA256]


@pytest.mark.parametrize(
    ("kept", "levels", "why"),
    [
        ({}, 3, "NOT_FOUND"),
        ({SHA256: DATA[:-1]}, 3, "what came has the SHA-256"),
        ({weights.name(b"no weights"): b"no weights"}, 3, ""),
        ({SHA256: DATA}, 2, "of 3 levels, not of 2"),
    ],
    ids=["missing", "others", "none", "levels"],
)
def test_an_evaluation_goes_on_without_them(
    control: Recorder,
    stub: ControlStub,
    caplog: pytest.LogCaptureFixture,
    kept: dict[str, bytes],
    levels: int,
    why: str,
) -> None:
    control.weights.update(kept)
    with caplog.at_level(logging.WARNING):
        assert of_policy(stub, policy(next(iter(kept), SHA256)), levels) is None
    assert "prompts are not scored: weights " in caplog.text
    assert why in caplog.text
