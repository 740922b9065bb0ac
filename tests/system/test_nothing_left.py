# SPDX-License-Identifier: Apache-2.0
"""Whoever is killed while the engine is stopped: no process of the stack is there afterwards.

In vLLM's place stands tests/vllm_double.py, whose core does not heed SIGTERM, nor end with its
server.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import vllm_double
from waiting import wait_for

from sprout.config import Config
from sprout.serve import reaper
from sprout.serve.state import StackPaths, dump_toml
from sprout.serve.vllm import segments_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

PARENT = """
import sys
from pathlib import Path
from sprout.config import load
from sprout.serve.background import BackgroundStack
with BackgroundStack(load(Path(sys.argv[1]), environ={})) as stack:
    print(stack.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("whom", "blow"),
    [
        ("parent", signal.SIGTERM),
        ("parent", signal.SIGKILL),
        ("supervisor", signal.SIGTERM),
        ("supervisor", signal.SIGKILL),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value,
)
def test_nothing_is_left_of_a_stack_whose_engine_is_stopped(
    whom: str,
    blow: signal.Signals,
    stack_config: Callable[..., Config],
    tokenizer_dir: Path,
    tmp_path: Path,
) -> None:
    model = tmp_path / "a-model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    cfg = stack_config(
        f"left-{whom}-{blow.name.lower()}",
        engine__kind="vllm",
        engine__model=model,
        engine__tokenizer_dir=tokenizer_dir,
        engine__vllm_python=vllm_double.interpreter(tmp_path, life_s=200.0),
        engine__context_tokens=512,
    )
    file = tmp_path / "sprout.toml"
    file.write_text(dump_toml(cfg))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    paths = StackPaths.of(cfg)
    everyone: dict[int, reaper.Seen] = {}
    segments: set[Path] = set()
    try:
        supervisor = int(parent.stdout.readline())
        engine = int(paths.pid("engine").read_text())
        everyone = of_stack(supervisor, paths)
        # Server, core, Python's resource tracker.
        wait_for(lambda: len(reaper.family(engine)) == 3, what="the engine's processes")
        segments = segments_of(engine)
        os.killpg(engine, signal.SIGSTOP)
        os.kill(parent.pid if whom == "parent" else supervisor, blow)
        # One that is about to end has no environment any more, and is still there.
        waited = wait_for(
            lambda: not of_stack(supervisor, paths) and not reaper.alive(everyone),
            what="the end of all",
        )
        print(f"\n{whom} {blow.name}: {len(everyone)} processes gone after {waited:.1f} s")
    finally:
        parent.kill()
        parent.communicate()
        for pid in reaper.alive(everyone | of_stack(supervisor, paths)):
            os.kill(pid, signal.SIGKILL)
        # What a killed supervisor could not remove.
        shutil.rmtree(paths.shm, ignore_errors=True)
        for segment in segments | {*Path("/dev/shm").glob(f"{paths.region_prefix}*")}:
            segment.unlink(missing_ok=True)


def of_stack(supervisor: int, paths: StackPaths) -> dict[int, reaper.Seen]:
    """The supervisor, its reaper and whatever has the stack's environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (seen := reaper.look(int(entry.name))) is not None:
            with contextlib.suppress(OSError):  # it has ended since
                environ = (entry / "environ").read_bytes().split(b"\0")
                own = f"SPROUT_CONFIG={paths.config}".encode() in environ
                if own or supervisor in (int(entry.name), seen.parent):
                    found[int(entry.name)] = seen
    return found
