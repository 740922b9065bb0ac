# SPDX-License-Identifier: Apache-2.0
"""A level for each prompt on a whole stack: a predictor's file in, levels by text out; replaced and
withdrawn while it runs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from predicted_synthetic import PACK, write
from waiting import wait_for

from sprout.channel import connect
from sprout.config import Config
from sprout.control.messages import plan_of
from sprout.control.part import choose
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths, dump_toml
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights
from sprout_ext.board import BoardReader

pytest.importorskip("scipy")
pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MakeConfig = Callable[..., Config]

PROMPTS = [
    "explain in depth why river stone cloud table green plus 3",
    "explain in depth why garden winter seven north table plus 5",
    "name one river stone cloud table green who 4",
    "name one winter winter seven stone north plus 6",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told") / "bundle"


@pytest.fixture(scope="module")
def file(bundle: Path) -> Path:
    write(bundle, bundle.parent / "predictor")
    return bundle.parent / "predictor"


@pytest.fixture(scope="module")
def prompted(
    stack_config: MakeConfig, tokenizer_dir: Path, file: Path
) -> Iterator[BackgroundStack]:
    cfg = stack_config(
        "prompted",
        engine__tokenizer_dir=tokenizer_dir,
        control__interval_s=0.2,
        control__prompt__predictor=file,
        control__prompt__share=1.0,
        # What the bundle's prompts are judged like: half of them are worth L0.
        control__prior_preference="0.45,0.28,0.27",
    )
    with BackgroundStack(cfg) as running:
        yield running


def status(stack: BackgroundStack) -> pb.Status:
    with connect(stack.endpoint("control"), stack.cfg.control.tls) as channel:
        return ControlStub(channel).GetStatus(pb.GetStatusRequest(), timeout=10)


def fetched(stack: BackgroundStack, sha256: str) -> bytes:
    request = pb.GetWeightsRequest(sha256=sha256)
    with connect(stack.endpoint("control"), stack.cfg.control.tls) as channel:
        return ControlStub(channel).GetWeights(request, timeout=10).weights


def on_board(stack: BackgroundStack) -> str:
    """The SHA-256 of the weights that the node chooses with; "": it draws every level."""
    policy = BoardReader(stack.paths.shm / "policy.board", PACK.hash, 0, 0, 0).policy()
    return "" if policy is None or policy.prompt is None else policy.prompt.weights


def allowed(stack: BackgroundStack, policy: pb.Policy) -> list[set[int]]:
    """By prompt, the levels of all points, worked out anew from what was published."""
    scored = weights.scorer(fetched(stack, policy.prompt.weights)).score_many(
        [text.encode() for text in PROMPTS]
    )
    made = plan_of(policy).prompt
    assert made is not None
    each = [
        choose(np.array(made.g_per_joule), point, scored[:, 3:], scored[:, :3])
        for point in made.points
    ]
    return [set(levels) for levels in np.array(each).T.tolist()]


def test_prompts_get_the_levels_that_the_published_prices_say(prompted: BackgroundStack) -> None:
    wait_for(lambda: on_board(prompted) != "", 20, "weights on the board")
    policy = status(prompted).policy
    expected = allowed(prompted, policy)
    assert set.union(*expected) == {0, 1, 2}  # or any level would do
    assert all(len(levels) == 1 for levels in expected)
    with Client(prompted.endpoint("grpc")) as client:
        for text, levels in zip(PROMPTS, expected, strict=True):
            for _ in range(3):
                receipt = client.ask(text, max_tokens=8).receipt
                assert receipt is not None
                assert receipt.level in levels, text

    def counted() -> int:
        return sum(arm.outcomes for arm in status(prompted).arms if arm.arm == "prompt")

    wait_for(lambda: counted() == 3 * len(PROMPTS), 20, "the outcomes")
    found = status(prompted)
    assert {arm.arm for arm in found.arms} == {"probe", "prompt"}
    # What prompts chose says nothing of a level.
    assert {p.outcomes for p in found.policy.explanation.profile} == {0}


def test_status_says_it(prompted: BackgroundStack, tmp_path: Path) -> None:
    config = tmp_path / "sprout.toml"
    config.write_text(dump_toml(prompted.cfg))

    def sprout(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sprout.cli", "--config", str(config), *arguments],
            env=child_environment(StackPaths.of(prompted.cfg)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    assert "by prompt: 100 % of requests" in " ".join(sprout("status").split())
    document = json.loads(sprout("status", "--json"))
    assert document["control"]["policy"]["prompt"]["weights"] == on_board(prompted)
    planned = json.loads(sprout("plan", "--json"))
    assert planned["prompt"]["weights"] == on_board(prompted)
    assert planned["prompt"]["expected_g"] < planned["prompt"]["mix_g"]


def test_a_new_file_reaches_the_node_and_a_bad_one_ends_it(
    prompted: BackgroundStack, bundle: Path, file: Path, tmp_path: Path
) -> None:
    before = on_board(prompted)
    fresh = tmp_path / "fresh"
    write(bundle, fresh, turn=0.9)
    fresh.replace(file)
    wait_for(lambda: on_board(prompted) not in ("", before), 20, "the new weights on the board")
    file.write_bytes(b"sprout-predictor 1 " + b"0" * 64 + b"\nnone")
    wait_for(lambda: on_board(prompted) == "", 20, "a board without weights")
    found = status(prompted)
    assert any("no level is chosen by its prompt" in reason for reason in found.reasons)
    assert found.policy.shares
    with Client(prompted.endpoint("grpc")) as client:
        assert client.ask(PROMPTS[0], max_tokens=8).receipt is not None
    wait_for(lambda: any(a.arm.startswith("L") for a in status(prompted).arms), 20, "a draw")
