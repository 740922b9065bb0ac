# SPDX-License-Identifier: Apache-2.0
"""Sampled prompts in the control plane: kept, drawn, forgotten; and the whole way to there."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import tiny_tokenizer
from control_plane import WAIT_S, code_of, configure, first, running, stub_of
from prompt_ring import ON, look, put
from test_preprocess import policy as board_policy
from test_preprocess import prompt

from sprout.agent import run as agent_run
from sprout.agent.prompts import Prompts
from sprout.config import Config, EvaluateConfig, SamplingConfig
from sprout.control import prompts as control_prompts
from sprout.control import run as control_run
from sprout.control.due import Due
from sprout.control.prompts import within
from sprout.control.reservoir import Reservoir
from sprout.errors import StackError
from sprout.request.preprocess import Preprocessor
from sprout.request.settings import HINTS, PreprocessSettings
from sprout.serve.state import StackPaths, remove_shared_memory
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import BoardWriter
from sprout_ext.ring import Ring

# --- the control plane ---------------------------------------------------------------------------


def sampling(state: Path, **fields: Any) -> Config:
    evaluate = EvaluateConfig(sampling=SamplingConfig(**{"share": 0.5} | fields))
    return configure(state).model_copy(update={"evaluate": evaluate})


def made(number: int = 1, **fields: Any) -> pb.SampledPrompt:
    prompt = pb.SampledPrompt(id=number, text="t", propensity=0.5)
    prompt.sampled_at.GetCurrentTime()
    prompt.MergeFrom(pb.SampledPrompt(**fields))
    return prompt


def report(*prompts: pb.SampledPrompt) -> pb.ReportPromptsRequest:
    return pb.ReportPromptsRequest(node="n1", prompts=prompts)


def refusal(call: Any, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=WAIT_S)
    return code_of(error)


def test_where_sampling_is_off_nothing_is_taken_and_nothing_drawn(tmp_path: Path):
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        off = grpc.StatusCode.FAILED_PRECONDITION
        assert refusal(stub.ReportPrompts, report(made())) is off
        assert refusal(stub.DrawPrompts, pb.DrawPromptsRequest(count=1)) is off


def test_what_is_reported_can_be_drawn_by_class_and_each_draw_is_audited(tmp_path: Path):
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        many = [made(i + 1, task="a" if i else "b", text=f"text {i}") for i in range(20)]
        assert stub.ReportPrompts(report(*many), timeout=WAIT_S).kept == 20
        assert stub.ReportPrompts(report(*many), timeout=WAIT_S).kept == 20  # the same ones
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert dict(status.evaluation.prompts) == {"a": 19, "b": 1}
        request = pb.DrawPromptsRequest(count=4, seed=1, actor="tests")
        drawn = stub.DrawPrompts(request, timeout=WAIT_S).prompts
        assert sorted(p.task for p in drawn) == ["a", "a", "a", "b"]
        assert {(p.propensity, p.inclusion) for p in drawn} == {(0.5, 1.0)}
        request.without.extend(p.id for p in drawn)
        again = stub.DrawPrompts(request, timeout=WAIT_S).prompts
        assert len(again) == 4
        assert not {p.id for p in drawn} & {p.id for p in again}
        audit = stub.ListAudit(pb.ListAuditRequest(), timeout=WAIT_S).entries
        assert [entry.action for entry in audit] == ["draw-prompts"] * 2
        assert audit[0].claimed == "tests"
        assert audit[0].who_basis == "uid"
        assert '"count": 4' in audit[0].after_json
        assert "text" not in audit[0].after_json
    # In memory alone: neither the store nor any other file has a prompt, and a restart has none.
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"text 1" not in file.read_bytes()
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        assert not stub.DrawPrompts(pb.DrawPromptsRequest(count=4), timeout=WAIT_S).prompts


def test_what_is_out_of_range_is_refused_whole(tmp_path: Path):
    bad = [
        made(0),
        made(text="x" * 65_537),
        made(task="x" * 65),
        made(tenant="x" * 65),
        made(level=8),
        made(propensity=1.5),
        made(propensity=float("nan")),
        pb.SampledPrompt(id=1, text="t", propensity=0.5),
    ]
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for prompt in bad:
            assert refusal(stub.ReportPrompts, report(made(7), prompt)) is invalid, prompt
        assert refusal(stub.ReportPrompts, report(*map(made, range(1, 258)))) is invalid
        assert refusal(stub.ReportPrompts, pb.ReportPromptsRequest(prompts=[made()])) is invalid
        for count in (0, 1001):
            assert refusal(stub.DrawPrompts, pb.DrawPromptsRequest(count=count)) is invalid
        many = pb.DrawPromptsRequest(count=1, without=range(control_prompts.MAX_WITHOUT + 1))
        assert refusal(stub.DrawPrompts, many) is invalid
        long = pb.DrawPromptsRequest(count=1, actor="x" * 129)
        assert refusal(stub.DrawPrompts, long) is invalid
        assert not stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).evaluation.prompts
        assert not stub.ListAudit(pb.ListAuditRequest(), timeout=WAIT_S).entries


def test_an_answer_is_no_larger_than_a_message_may_be(tmp_path: Path):
    prompts = [made(i + 1, text="x" * 60_000) for i in range(200)]
    assert len(within(prompts, 1 << 20)) == (1 << 20) // prompts[0].ByteSize()
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        for i in range(0, 200, 40):
            stub.ReportPrompts(report(*prompts[i : i + 40]), timeout=WAIT_S)
        drawn = stub.DrawPrompts(pb.DrawPromptsRequest(count=200), timeout=WAIT_S).prompts
        assert 60 <= len(drawn) < 80


def test_the_prompts_are_touched_on_one_thread_alone(tmp_path: Path, monkeypatch):
    threads: set[int] = set()
    forget, look_due, looked = Reservoir.forget, Due.look, threading.Event()

    def recorded(reservoir: Reservoir) -> float:
        threads.add(threading.get_ident())
        return forget(reservoir)

    def look(due: Due, *kept: int) -> None:
        look_due(due, *kept)
        looked.set()

    monkeypatch.setattr(Reservoir, "forget", recorded)
    monkeypatch.setattr(Due, "look", look)
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        stub.ReportPrompts(report(made()), timeout=WAIT_S)
        stub.DrawPrompts(pb.DrawPromptsRequest(count=1), timeout=WAIT_S)
        stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert looked.wait(WAIT_S)
    assert len(threads) == 1


def test_several_calls_make_one_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_prompts, "DRAW_BYTES", 1500)  # ten prompts
    prompts = [made(i, task="a" if i <= 40 else "b", text="x" * 90) for i in range(1, 61)]
    with running(sampling(tmp_path)) as address, stub_of(address) as stub:
        stub.ReportPrompts(report(*prompts), timeout=WAIT_S)
        drawn: list[pb.SampledPrompt] = []
        for _ in range(2):
            request = pb.DrawPromptsRequest(
                count=20 - len(drawn), without=[p.id for p in drawn], total=20
            )
            drawn += stub.DrawPrompts(request, timeout=WAIT_S).prompts
            assert len(drawn) in (10, 20)
    assert {(p.task, p.stands_for) for p in drawn} == {("a", 4.0), ("b", 2.0)}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_where_prompts_are_kept_no_core_is_dumped(
    tmp_path: Path, memory: Path, monkeypatch, share: float
):
    asked: list[str] = []
    monkeypatch.setattr(control_run, "no_core_dumps", lambda: asked.append("control"))
    monkeypatch.setattr(agent_run, "no_core_dumps", lambda: asked.append("agent"))
    monkeypatch.setattr(agent_run, "Agent", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    cfg = sampling(tmp_path / "state", share=share)
    stack = cfg.stack.model_copy(update={"shm_dir": memory / "shm"})
    cfg = cfg.model_copy(update={"stack": stack})
    with running(cfg):
        pass
    with pytest.raises(StackError, match="full"):
        agent_run.serve(cfg)
    assert asked == (["control", "agent"] if share else [])


def test_a_process_that_says_so_dumps_no_core(tmp_path: Path):
    code = (
        "import os, resource; from sprout.config import no_core_dumps\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
        "no_core_dumps()\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0 if hard == 0 else 1, hard)\n"
        "os.abort()"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False)
    assert ended.returncode == -signal.SIGABRT
    assert os.listdir(tmp_path) == []


def test_what_is_past_its_retention_goes_though_nobody_asks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_prompts, "FORGET_S", 0.001)
    now = [time.time()]
    reservoir = Reservoir(10, 3600, wall=lambda: now[0])
    reservoir.add([made()])

    async def forgotten() -> None:
        task = asyncio.create_task(control_prompts.forget_in_time(reservoir))
        now[0] += 3601
        while reservoir._ids:
            await asyncio.sleep(0.001)
        task.cancel()

    assert reservoir._ids
    asyncio.run(forgotten())


# --- the whole way -------------------------------------------------------------------------------


def test_from_a_request_to_a_draw(memory: Path, tmp_path: Path):
    """Preprocessing, ring, agent, control plane, operator."""
    board = BoardWriter(memory / "policy.board")
    board.publish(board_policy((0.5, 0.5, 0.0), version=7))
    settings = PreprocessSettings(
        tokenizer_dir=tiny_tokenizer.chatml(tmp_path / "chatml"),
        shm_dir=memory,
        hints=HINTS,
        flights=64,
        sample_share=1.0,
        sample_refuse_tenants=frozenset({b"clinic"}),
    )
    preprocessor = Preprocessor.open(settings)
    asked = [prompt(f"question {i}", parameters='{"sprout_task":"maths"}') for i in range(20)]
    asked += [prompt("private", parameters='{"sprout_sample":false}'), prompt("of no class")]
    levels = {f"question {i}": got.level for i, got in enumerate(preprocessor.prepare(asked[:20]))}
    preprocessor.prepare(asked[20:])
    state = tmp_path / "state"
    with running(sampling(state)) as address, stub_of(address) as stub:
        agent = Prompts(stub, ON, memory, node="n1", interval_s=1)
        look(agent)
        counters = agent.counters()
        assert (counters["prompts_sampled"], counters["prompts_refused"]) == (21, 1)
        drawn = stub.DrawPrompts(pb.DrawPromptsRequest(count=100), timeout=WAIT_S).prompts
        assert len(drawn) == 21
        assert "private" not in {p.text for p in drawn}
        for p in drawn:
            if p.task:
                assert (p.task, p.level) == ("maths", levels[p.text])
                assert (p.propensity, p.policy_version, p.inclusion) == (0.5, 7, 1.0)
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert dict(status.evaluation.prompts) == {"maths": 20, "": 1}
        agent.close()
    preprocessor.close()
    board.close()


def test_down_leaves_no_ring(memory: Path, tmp_path: Path):
    paths = StackPaths(tmp_path / "state", memory / "shm")
    paths.ensure()
    put(Ring.create(paths.shm, 0, 1, slots=4, prompt_bytes=50), "left behind")
    remove_shared_memory(paths)
    assert os.listdir(memory) == []
