# SPDX-License-Identifier: Apache-2.0
"""The echo engine: known answers, at a rate or as fast as it can."""

from engine_fakes import Recorder, generation

from sprout.engines.base import Reason
from sprout.engines.echo import EchoEngine
from sprout.errors import EngineUnavailable


def test_fast_answers_before_submit_returns() -> None:
    recorder = Recorder()
    EchoEngine().submit(generation(5, 6, 7, max_tokens=5), recorder)
    assert recorder.over.is_set()
    assert recorder.wait().ids == [5, 6, 7, 5, 6]
    end = recorder.end
    assert (end.reason, end.input_tokens, end.output_tokens) == (Reason.LENGTH, 3, 5)
    assert recorder.scheduled == [end.first_scheduled_ns]
    times = end.arrival_ns, end.first_scheduled_ns, end.first_token_ns, end.last_token_ns
    assert list(times) == sorted(times)


def test_paced_keeps_its_rate_over_streams() -> None:
    engine = EchoEngine(tokens_per_s=20)
    recorders = [Recorder() for _ in range(4)]
    for recorder in recorders:
        engine.submit(generation(1, 2, max_tokens=20), recorder)
    for recorder in recorders:
        assert recorder.wait().end.output_tokens == 20
        assert recorder.ids == [1, 2] * 10
    engine.close()
    ends = [recorder.end for recorder in recorders]
    for end in ends:
        assert end.last_token_ns - end.first_token_ns > 0.9 * 19 / 20 * 1e9
    # Side by side.
    assert max(end.first_token_ns for end in ends) < min(end.last_token_ns for end in ends)


def test_cancel_by_handle_and_by_id() -> None:
    engine = EchoEngine(tokens_per_s=0.001)  # not at the next token
    recorders = [Recorder() for _ in range(3)]
    handles = [
        engine.submit(generation(1, max_tokens=9, request_id=name), recorder)
        for name, recorder in zip("aab", recorders, strict=True)
    ]
    assert engine.cancel("a") == 2
    handles[2].cancel()
    for recorder in recorders:
        assert recorder.wait().end.reason is Reason.CANCELLED
    assert engine.cancel("a") == 0
    engine.close()


def test_close_ends_what_is_open() -> None:
    engine = EchoEngine(tokens_per_s=1)
    recorder, late = Recorder(), Recorder()
    engine.submit(generation(1, max_tokens=9), recorder)
    engine.close()
    assert isinstance(recorder.wait().error, EngineUnavailable)
    engine.submit(generation(1), late)
    assert isinstance(late.wait().error, EngineUnavailable)
