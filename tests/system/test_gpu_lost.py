# SPDX-License-Identifier: Apache-2.0
"""One of two GPUs falls off the bus under a whole stack: what clients, status and metrics say.

All processes are real; in NVML's place stands tests/nvml_module.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from engine_load import PROMPT, ClockWatch, balanced
from outcomes import status
from waiting import wait_for

from sprout.config import Config
from sprout.console.status import remarks
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client, Receipt

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

MODULE = Path(__file__).parents[1] / "nvml_module"


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPU-b is lost while this file is there."""
    return tmp_path_factory.mktemp("nvml") / "GPU-b.lost"


@pytest.fixture(scope="module")
def stack(
    stack_config: Callable[..., Config], tokenizer_dir: Path, lost: Path
) -> Iterator[BackgroundStack]:
    cfg = stack_config(
        "lost",
        engine__tokenizer_dir=tokenizer_dir,
        engine__echo_tokens_per_s=100.0,
        energy__meters="nvml",
        control__interval_s=0.5,
        agent__report_interval_s=0.2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(MODULE), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("NVML_DOUBLE", str(lost.parent))
        with BackgroundStack(cfg) as running:
            yield running


def receipt(stack: BackgroundStack) -> Receipt:
    """Of a request that lasts for several ticks."""
    with Client(stack.endpoint("grpc")) as client:
        found = client.ask(PROMPT, max_tokens=50).receipt
    assert found is not None
    return found


def unmetered_nodes(stack: BackgroundStack) -> float:
    page = httpx.get(f"http://{status(stack).metrics_address}/metrics", trust_env=False).text
    [line] = [line for line in page.splitlines() if line.startswith("sprout_nodes_unmetered ")]
    return float(line.rpartition(" ")[2])


def test_served_marked_and_taught_nothing(stack: BackgroundStack, lost: Path) -> None:
    with ClockWatch(stack):
        before = receipt(stack)
        # 600 W for half a second, and the time that the chain takes.
        assert 100 < before.energy_joules < 10_000
        assert balanced(stack)
        lost.touch()
        wait_for(lambda: bool(status(stack).nodes[0].meter_problem), what="it is said")
        during = [receipt(stack) for _ in range(2)]
        assert all(math.isnan(r.energy_joules) and math.isnan(r.carbon_g) for r in during)
        assert all(r.policy_version > 0 for r in during)
        [node] = status(stack).nodes
        assert node.meter_problem == "GPU GPU-b (NVIDIA H100 80GB HBM3): GPU is lost"
        assert node.meter.startswith("nvml (2 x NVIDIA H100 80GB HBM3); GPU GPU-b")
        assert "no joules" in " ".join(remarks(node))
        assert unmetered_nodes(stack) == 1
        lost.unlink()
        wait_for(lambda: not status(stack).nodes[0].meter_problem, what="it is found again")
        after = receipt(stack)
        assert 100 < after.energy_joules < 3 * before.energy_joules
        assert balanced(stack)
    assert unmetered_nodes(stack) == 0
    [node] = status(stack).nodes
    assert node.unattributed_joules > 300  # GPU-b's of all that time, at the least
    parts = node.settled_joules + node.idle_joules + node.unattributed_joules
    assert parts == pytest.approx(node.metered_joules)
    assert sum(arm.unmetered for arm in status(stack).arms) == 2
    # Of those at L0 to L2 none but the two that were metered has come to the profile.
    policy = status(stack).policy
    assert sum(p.outcomes for p in policy.explanation.profile) <= 2
