# SPDX-License-Identifier: Apache-2.0
"""Whole stacks of real processes, from the command line: up, ask, status, down; nothing left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any, TextIO

import pytest
from waiting import PATIENCE_S, wait_for

from sprout.config import Config
from sprout.console.demo_checks import left_behind, processes
from sprout.errors import EngineError
from sprout.serve import ports
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.serve.process import start_time
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths, dump_toml, remove_shared_memory

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

MakeConfig = Callable[..., Config]


@pytest.fixture
def sprout(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of the command line under a configuration."""

    def run(cfg: Config, *arguments: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "sprout.toml"
        file.write_text(dump_toml(cfg))
        return subprocess.run(
            [sys.executable, "-m", "sprout.cli", "--config", str(file), *arguments],
            env=child_environment(StackPaths.of(cfg)),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    return run


Sprout = Callable[..., subprocess.CompletedProcess[str]]


def test_ask_streams_text_and_gives_a_receipt(stack: BackgroundStack, sprout: Sprout) -> None:
    done = sprout(
        *(stack.cfg, "ask", "one two three", "--level", "L1", "--max-tokens", "12", "--json"),
        *("--tenant", "acme", "--task", "chat"),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["level"] == "L1"
    assert answer["output_tokens"] == 12
    assert answer["text"]
    assert answer["receipt"]["energy_joules"] is not None
    assert answer["receipt"]["intensity_g_per_kwh"] == 300
    assert answer["energy_estimated"] is True


def test_ask_for_people_has_text_on_stdout_and_the_receipt_beside(
    stack: BackgroundStack, sprout: Sprout
) -> None:
    done = sprout(stack.cfg, "ask", "one two three", "--off", "--max-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "L0 · 8 tokens" in done.stderr
    assert "(estimated)" in done.stderr


def test_an_error_of_the_request_is_one_line(stack: BackgroundStack, sprout: Sprout) -> None:
    done = sprout(stack.cfg, "ask", "hello", "--level", "L9")
    assert done.returncode == 1
    assert "L9" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_status_shows_everything(stack: BackgroundStack, sprout: Sprout) -> None:
    def document() -> dict[str, Any]:
        done = sprout(stack.cfg, "status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = document()
    assert found["stack"]["ready"] is True
    assert {p["phase"] for p in found["stack"]["processes"].values()} == {"ready"}
    assert len(found["stack"]["processes"]["triton"]["stubs"]) == 4
    assert found["board"]["state"] == "ok"
    assert sum(found["board"]["shares"]) == pytest.approx(1)
    assert found["counters"]["requests"] > 0  # at least the canary's
    roles = sorted(segment["role"] for segment in found["segments"] if segment["alive"])
    assert {"engine", "postprocessing", "preprocessing"} <= set(roles)
    assert found["control"]["policy"]["shares"]
    wait_for(lambda: bool(document()["control"]["nodes"]), what="the node's report")
    people = sprout(stack.cfg, "status").stdout
    for part in ("ready", "policy", "floor", "board: ok", "node "):
        assert part in people


def test_pause_reaches_the_board_and_resume_ends_it(stack: BackgroundStack, sprout: Sprout) -> None:
    def paused() -> bool:
        return bool(json.loads(sprout(stack.cfg, "status", "--json").stdout)["board"]["paused"])

    assert sprout(stack.cfg, "pause", "--reason", "drill").returncode == 0
    try:
        wait_for(paused, what="the pause")
    finally:
        assert sprout(stack.cfg, "resume").returncode == 0
    wait_for(lambda: not paused(), what="the resumption")


def test_plan_asks_what_if_from_the_control_plane_s_inputs(
    stack: BackgroundStack, sprout: Sprout
) -> None:
    given = ("--intensity", "50", "--low", "50", "--high", "400", "--json")
    done = sprout(stack.cfg, "plan", *given)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["basis"] == "the control plane's inputs"
    assert found["floor"] == pytest.approx(1)
    assert found["shares"] == pytest.approx([1, 0, 0])


def test_a_second_up_of_the_same_name_is_refused(stack: BackgroundStack, sprout: Sprout) -> None:
    done = sprout(stack.cfg, "up")
    assert done.returncode == 1
    assert f"already up (process {stack.pid}" in done.stderr
    assert stack.state()["ready"]


def test_down_leaves_nothing_and_a_second_stack_is_not_touched(
    stack: BackgroundStack, stack_config: MakeConfig, tokenizer_dir: Path, sprout: Sprout
) -> None:
    other = BackgroundStack(stack_config("second", engine__tokenizer_dir=tokenizer_dir))
    with other:
        pids = processes(other)
        ends = set(other.state()["endpoints"].values()) & set(stack.state()["endpoints"].values())
        assert not ends
        for one in (stack, other):
            with Client(one.endpoint("grpc")) as client:
                assert client.ask("hello there", max_tokens=4).output_tokens == 4
        done = sprout(other.cfg, "down")
        assert done.returncode == 0, done.stderr
        assert not left_behind(other.paths, pids)
        assert not other.paths.stack_json.exists()
    with Client(stack.endpoint("grpc")) as client:
        assert client.ask("hello there", max_tokens=4).output_tokens == 4


def test_ctrl_c_does_not_wait_for_open_streams(
    stack_config: MakeConfig, tokenizer_dir: Path
) -> None:
    cfg = stack_config("ctrlc", engine__tokenizer_dir=tokenizer_dir, engine__echo_tokens_per_s=5)
    with BackgroundStack(cfg) as stack:
        pids = processes(stack)
        begun, ended = Event(), []

        def ask() -> None:
            with Client(stack_grpc) as client:
                try:
                    client.ask(
                        "hello",
                        max_tokens=1500,  # 5 minutes
                        on_text=lambda _: begun.set(),
                        timeout_s=300,
                    )
                except EngineError as error:
                    ended.append(str(error))

        stack_grpc = stack.endpoint("grpc")
        asking = Thread(target=ask)
        asking.start()
        assert begun.wait(PATIENCE_S)
        os.kill(stack.pid, signal.SIGINT)
        wait_for(lambda: start_time(stack.pid) is None, what="the end")
        asking.join(PATIENCE_S)
        assert len(ended) == 1  # it ended with an error and did not hang
        assert not left_behind(stack.paths, pids)


def test_a_killed_supervisor_takes_its_processes_along_and_the_next_one_cleans_up(
    stack_config: MakeConfig, tokenizer_dir: Path
) -> None:
    cfg = stack_config("killed", engine__tokenizer_dir=tokenizer_dir)
    stack = BackgroundStack(cfg)
    stack.start()
    try:
        stack.wait_ready()
        pids = processes(stack)
        os.kill(stack.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(start_time, pids[1:])), what="the children's end")
    finally:
        stack.stop()
    # As if Triton had been killed too hard to tidy up.
    stale = Path("/dev/shm") / f"{stack.paths.region_prefix}stale"
    stale.touch()
    with BackgroundStack(cfg) as again:
        assert not stale.exists()
        with Client(again.endpoint("grpc")) as client:
            assert client.ask("hello", max_tokens=4).output_tokens == 4
        pids = processes(again)
    assert not left_behind(again.paths, pids)


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing(
    stack_config: MakeConfig, tokenizer_dir: Path, sprout: Sprout
) -> None:
    cfg = stack_config("wrong", engine__tokenizer_dir=tokenizer_dir, control__prior_device_s="1")
    done = sprout(cfg, "up")
    assert done.returncode == 1
    assert "control.prior_device_s" in done.stderr
    assert not left_behind(StackPaths.of(cfg), [])


def test_triton_alone_serves_supervised_and_leaves_the_rest_alone(
    stack_config: MakeConfig, tokenizer_dir: Path, tmp_path: Path
) -> None:
    """No agent, no control plane: every request gets L0, counted as a fallback. A killed stub
    brings the server back; the shared-memory folder is not its to remove."""
    cfg = ports.resolve(stack_config("alone", engine__tokenizer_dir=tokenizer_dir))
    file, paths = tmp_path / "sprout.toml", StackPaths.of(cfg)
    file.write_text(dump_toml(cfg))
    process = subprocess.Popen(
        [sys.executable, "-m", "sprout.cli", "--config", str(file), "triton", "--json"],
        env=child_environment(paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        described = json.JSONDecoder().raw_decode(_until_brace(process.stdout))[0]
        assert list(described["processes"]) == ["triton"]
        stubs = described["processes"]["triton"]["stubs"]

        def level() -> int | None:
            try:
                with Client(f"127.0.0.1:{cfg.triton.grpc_port}") as client:
                    receipt = client.ask("hello", max_tokens=2, timeout_s=30).receipt
            except EngineError:
                return None
            return receipt.level if receipt else None

        assert level() == 0
        os.kill(stubs[0], signal.SIGKILL)
        wait_for(lambda: not any(map(start_time, stubs)), what="the end of the old stubs")
        wait_for(lambda: level() == 0, what="service")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        if process.stdout is not None:
            process.stdout.close()
        kept = paths.shm.is_dir()
        remove_shared_memory(paths)
    assert kept
    assert not left_behind(paths, [])


def _until_brace(stream: TextIO) -> str:
    """A JSON document that is printed over several lines, up to the line that closes it."""
    lines = []
    for line in stream:
        lines.append(line)
        if line == "}\n":
            break
    return "".join(lines)
