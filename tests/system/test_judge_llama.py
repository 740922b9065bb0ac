# SPDX-License-Identifier: Apache-2.0
"""A real OpenAI-compatible server as the judge: llama.cpp's, with the default weights."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from engine_process import EngineProcess
from judge_api import given, question

from sprout.evaluate.judges.instructions import Instructions
from sprout.evaluate.judges.model import ModelJudge
from sprout.evaluate.judges.openai import Dialect, OpenAILine

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    running = EngineProcess(tmp_path_factory.mktemp("engine"), slots=1, context_tokens=1024)
    yield running
    running.stop()


def test_it_answers_in_the_shape_that_was_asked_for(engine: EngineProcess) -> None:
    """A model this small reads no instructions: the shape comes from the schema alone."""
    line = OpenAILine(f"{engine.url}/v1", "smollm2", timeout_s=120)
    with closing(ModelJudge(line, Instructions("pairwise"), retries=0)) as judge:
        verdict = judge.prefer(question(), given("It is 0.", "no idea"), threading.Event())
    assert verdict.unusable is None
    assert verdict.place in (0, 1, None)
    assert (verdict.spent.calls, verdict.spent.uncounted_calls) == (1, 0)
    assert verdict.spent.input_tokens > 300
    assert verdict.spent.output_tokens > 0
    assert line._dialect == Dialect()  # nothing that was asked for was refused
