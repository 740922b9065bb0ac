# SPDX-License-Identifier: Apache-2.0
"""Sampled prompts on the agent: from the ring over the redaction to the control plane."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from prompt_ring import FACTS, ON, look, put

from sprout import channel
from sprout.agent import prompts as agent_prompts
from sprout.agent.prompts import Prompts
from sprout.config import SamplingConfig
from sprout.errors import ConfigError
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import (
    ControlServicer,
    ControlStub,
    add_ControlServicer_to_server,
)
from sprout_ext.board import Flag
from sprout_ext.ring import Ring, rings


def die(memory: Path) -> None:
    """A stub that samples one prompt, and ends without a word."""
    code = (
        "import os, sys; from sprout_ext.ring import Ring\n"
        "ring = Ring.create(sys.argv[1], 0, 1, slots=4, prompt_bytes=50)\n"
        "ring.write(b'last words', level=0, flags=0, policy_version=0, propensity=1, max_tokens=1,"
        " opened_ns=1, task=b'', tenant=b'')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, memory], check=True, timeout=60)


class Recorder(ControlServicer):
    """Takes prompts, or refuses them with `refuse`."""

    def __init__(self) -> None:
        self.prompts: list[pb.SampledPrompt] = []
        self.sizes: list[int] = []
        self.refuse: grpc.StatusCode | None = None
        self._server = grpc.server(ThreadPoolExecutor(2))
        add_ControlServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def ReportPrompts(  # noqa: N802
        self, request: pb.ReportPromptsRequest, context: Any
    ) -> pb.ReportPromptsResponse:
        if self.refuse:
            context.abort(self.refuse, "refused")
        self.prompts += request.prompts
        self.sizes.append(len(request.prompts))
        return pb.ReportPromptsResponse(kept=len(request.prompts))

    def stop(self) -> None:
        self._server.stop(0).wait(10)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    yield found
    found.stop()


@pytest.fixture
def make(memory: Path, recorder: Recorder) -> Iterator[Callable[[SamplingConfig], Prompts]]:
    """The agent's part on `memory`."""
    closing: list[Any] = []

    def make(sampling: SamplingConfig) -> Prompts:
        calls = channel.connect(f"127.0.0.1:{recorder.port}")
        made = Prompts(ControlStub(calls), sampling, memory, node="n1", interval_s=0.01)
        closing.extend((made, calls))
        return made

    yield make
    for each in closing:
        each.close()


def texts(recorder: Recorder) -> list[str]:
    return [prompt.text for prompt in recorder.prompts]


def test_a_prompt_travels_with_what_it_was_served_with(make, memory: Path, recorder: Recorder):
    ring = Ring.create(memory, 0, 1, slots=4, prompt_bytes=50)
    before = time.time()
    put(ring, "Wie geht's, Jürgen?")
    put(ring, "two", flags=int(Flag.CONTROL), task=b"", tenant=b"")
    prompts = make(ON)
    look(prompts)
    one, two = recorder.prompts
    assert (one.text, one.task, one.tenant) == ("Wie geht's, Jürgen?", "maths", "shop")
    assert (one.level, one.propensity, one.max_tokens, one.policy_version) == (1, 0.5, 9, 3)
    assert (one.pinned, one.off, one.control, one.redacted) == (True, False, False, False)
    assert (two.pinned, two.off, two.control, two.task) == (False, False, True, "")
    assert before - 1 < one.sampled_at.ToNanoseconds() / 1e9 < time.time() + 1
    assert 0 != one.id != two.id != 0
    counters = prompts.counters()
    assert (counters["prompts_sampled"], counters["prompts_sent"]) == (2, 2)
    look(prompts)
    assert len(recorder.prompts) == 2
    assert b"rgen" not in ring.path.read_bytes()


def test_rings_of_the_dead_are_drained_and_taken_away(make, memory: Path, recorder: Recorder):
    die(memory)
    alive = Ring.create(memory, 1, 1, slots=4, prompt_bytes=50)
    prompts = make(ON)
    look(prompts)
    assert texts(recorder) == ["last words"]
    assert [reader.path for reader in rings(memory)] == [alive.path]
    put(alive, "more")
    look(prompts)
    assert prompts.counters()["prompts_sampled"] == 2  # the dead one's is in the sum


def test_where_sampling_is_off_the_dead_are_taken_away_unread(make, memory: Path, recorder):
    die(memory)
    alive = Ring.create(memory, 1, 1, slots=4, prompt_bytes=50)
    put(alive, "of a stub that samples")
    prompts = make(SamplingConfig(redact_command=("no-such-program",)))
    look(prompts)
    assert recorder.prompts == []
    assert [reader.path for reader in rings(memory)] == [alive.path]
    assert prompts.counters() == {}


def test_foreign_files_are_left_alone(make, memory: Path, recorder: Recorder):
    (memory / "prompts-beef").write_bytes(b"not a ring" * 100)
    (memory / "prompts-0001.7.new").write_bytes(b"")
    put(Ring.create(memory, 0, 1, slots=4, prompt_bytes=50), "fine")
    look(make(ON))
    assert texts(recorder) == ["fine"]
    assert (memory / "prompts-beef").exists()


def test_batches_are_bounded(make, memory: Path, recorder: Recorder, monkeypatch):
    monkeypatch.setattr(agent_prompts, "BATCH", 10)
    monkeypatch.setattr(agent_prompts, "BATCH_BYTES", 2000)
    ring = Ring.create(memory, 0, 1, slots=64, prompt_bytes=900)
    put(ring, *(str(i) for i in range(25)), *(["x" * 900] * 4))
    look(make(ON))
    assert sum(recorder.sizes) == 29
    assert max(recorder.sizes) == 10
    assert recorder.sizes[-1] <= 2


def test_while_nobody_answers_prompts_wait_and_the_oldest_go(make, memory: Path, recorder):
    recorder.refuse = grpc.StatusCode.UNAVAILABLE
    ring = Ring.create(memory, 0, 1, slots=4096, prompt_bytes=50)
    prompts = make(ON)
    put(ring, *(str(i) for i in range(agent_prompts.QUEUE + 5)))
    look(prompts)
    look(prompts)
    assert prompts.counters()["prompts_dropped"] == 5
    recorder.refuse = None
    look(prompts)
    assert texts(recorder) == [str(i) for i in range(5, agent_prompts.QUEUE + 5)]


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT]
)
def test_what_is_refused_for_good_is_not_sent_again(code, make, memory: Path, recorder):
    recorder.refuse = code
    prompts = make(ON)
    put(Ring.create(memory, 0, 1, slots=4, prompt_bytes=50), "one", "two")
    look(prompts)
    recorder.refuse = None
    look(prompts)
    assert recorder.prompts == []
    assert prompts.counters()["prompts_not_taken"] == 2


def test_what_was_overwritten_is_counted(make, memory: Path, recorder: Recorder):
    ring = Ring.create(memory, 0, 1, slots=2, prompt_bytes=5)
    put(ring, "one", "two", "three", "four")
    ring.write(b"too long", **FACTS, opened_ns=0)
    ring.refused()
    ring.unknown()
    prompts = make(ON)
    look(prompts)
    assert texts(recorder) == ["three", "four"]
    counters = prompts.counters()
    assert counters["prompts_missed"] == 2
    names = ("prompts_too_long", "prompts_refused", "prompts_unknown")
    assert [counters[name] for name in names] == [1, 1, 1]


REDACT = """
import json, sys
for line in sys.stdin:
    text = json.loads(line)["text"]
    if text == "crash":
        sys.exit(1)
    print(json.dumps({"text": None if text == "keep" else text.replace("Ada", "X")}), flush=True)
"""


def test_the_redaction_sees_each_prompt_first(make, memory: Path, recorder, monkeypatch):
    monkeypatch.setattr(agent_prompts, "backoff_s", lambda _: 0.0)
    ring = Ring.create(memory, 0, 1, slots=8, prompt_bytes=50)
    put(ring, "I am Ada", "keep", "crash", "nobody")
    prompts = make(SamplingConfig(share=0.5, redact_command=(sys.executable, "-c", REDACT)))
    look(prompts)
    assert [(p.text, p.redacted) for p in recorder.prompts] == [("I am X", True), ("nobody", False)]
    counters = prompts.counters()
    assert (counters["prompts_withheld"], counters["prompts_redaction_failed"]) == (1, 1)


def test_a_prompt_that_can_not_be_made_ready_costs_itself(make, memory: Path, recorder, caplog):
    class Redactor:
        withheld = failed = 0

        def redact(self, text: str) -> str:
            if "Ada" in text:
                raise ValueError(text)
            return text

        def close(self) -> None: ...

    prompts = make(ON)
    prompts._redactor = Redactor()
    put(Ring.create(memory, 0, 1, slots=8, prompt_bytes=50), "one", "I am Ada", "two")
    look(prompts)
    assert texts(recorder) == ["one", "two"]
    assert prompts.counters()["prompts_failed"] == 1
    assert "ValueError" in caplog.text
    assert "Ada" not in caplog.text


def test_a_redaction_that_is_not_there_is_named(make):
    with pytest.raises(ConfigError, match="redact_command"):
        make(SamplingConfig(share=0.5, redact_command=("no-such-program",)))


def test_the_thread_ends_when_it_is_told(make, memory: Path, recorder: Recorder):
    stop = threading.Event()
    prompts = make(ON)
    thread = threading.Thread(target=prompts.run, args=(stop,))
    thread.start()
    put(Ring.create(memory, 0, 1, slots=8, prompt_bytes=50), "one")
    while not recorder.prompts:
        time.sleep(0.005)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
