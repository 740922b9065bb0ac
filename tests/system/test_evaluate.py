# SPDX-License-Identifier: Apache-2.0
"""Evaluations on whole stacks: answered by a real engine, judged over real HTTP, followed by the
policy; and the process that runs them whenever they are due."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from judge_api import Asked, said, serving
from loopback_api import Answer
from outcomes import settled, status
from waiting import wait_for

from sprout.config import Config
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths, dump_toml

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

MakeConfig = Callable[..., Config]

CAPITALS = (
    ("France", "Paris"),
    ("Italy", "Rome"),
    ("Germany", "Berlin"),
    ("Spain", "Madrid"),
    ("Japan", "Tokyo"),
    ("England", "London"),
)


def test_q_is_measured_on_the_real_engine_and_the_policy_follows(
    real_stack: BackgroundStack, tmp_path: Path
) -> None:
    prompts = tmp_path / "capitals.jsonl"
    prompts.write_text(
        "\n".join(
            json.dumps(
                {
                    "task": "capitals",
                    "prompt": f"What is the capital of {country}? Answer with its name.",
                    "reference": capital,
                }
            )
            for country, capital in CAPITALS
        )
    )
    file = tmp_path / "sprout.toml"
    file.write_text(dump_toml(real_stack.cfg))
    before = status(real_stack)
    assert "prior" in before.policy.explanation.preference_basis
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sprout.cli", "--config", str(file)),
            *("--set", "evaluate.judge.kind=exact", "--set", "evaluate.schedule.max_tokens=24"),
            *("evaluate", "--prompts", str(prompts), "--whole", "--json"),
        ],
        env=child_environment(StackPaths.of(real_stack.cfg)),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["evaluation"]
    of_all = found["classes"][0]
    assert int(of_all["judged"]) == len(CAPITALS)
    assert of_all["preference"][0] > 0
    assert float(found["cost"]["energy_joules"]) > 0

    after = status(real_stack)
    why = after.policy.explanation
    assert after.evaluation.latest.id == found["id"]
    assert why.trigger == "evaluation"
    assert why.evaluation == found["id"]
    assert why.preference_basis.startswith(f"evaluated by exact on {len(CAPITALS)} prompts")
    assert [p.preference for p in why.profile] == pytest.approx(of_all["preference"])
    assert [s.share for s in after.policy.shares] != [s.share for s in before.policy.shares]

    # What went to the judge is in an arm of its own, and in no client's.
    def arms() -> dict[str, int]:
        return {arm.arm: arm.outcomes for arm in status(real_stack).arms}

    settled(real_stack)
    assert arms().pop("evaluation") == 3 * len(CAPITALS)
    assert set(arms()) <= {"evaluation", "probe"}


def test_sampled_prompts_are_judged_when_it_is_due_and_never_touch_a_disk(
    stack_config: MakeConfig, tokenizer_dir: Path, tmp_path: Path
) -> None:
    secret = "xylophone-quartz"

    def judge(asked: Asked) -> Answer:
        """Who says less is better here; it sees what clients asked."""
        assert secret in asked.user
        shown = {title: text for title, text in asked.blocks.items() if title.startswith("ANSWER")}
        lengths = {title[-1]: len(text) for title, text in shown.items()}
        least = min(lengths.values())
        best = [letter for letter, length in lengths.items() if length == least]
        return said({"better": best[0] if len(best) == 1 else "tie"})

    with serving() as api:
        api.program = judge
        cfg = stack_config(
            "evaluator",
            engine__tokenizer_dir=tokenizer_dir,
            request__hints="sprout_task,sprout_tenant",
            evaluate__sampling={"share": 1.0, "refuse_tenants": ["clinic"]},
            evaluate__judge={"kind": "openai", "url": api.url, "model": "judge"},
            evaluate__schedule={
                "rule": "fixed",
                "fixed_hours": 1000,
                "grace_hours": 1,
                "least_prompts": 10,
                "max_tokens": 16,
            },
        )
        with BackgroundStack(cfg) as stack, Client(stack.endpoint("grpc")) as client:
            evaluator = stack.state()["processes"]["evaluator"]["pid"]
            for number in range(12):
                client.ask(f"{secret} {number}: say it", max_tokens=4 + number, task="chat")
            client.ask(f"{secret}: not this one", max_tokens=4, tenant="clinic")
            wait_for(
                lambda: status(stack).evaluation.prompts.get("chat", 0) >= 12, what="the prompts"
            )
            os.killpg(evaluator, signal.SIGKILL)  # it comes back, and finds what to do
            wait_for(
                lambda: status(stack).evaluation.HasField("latest"),
                150,
                "an evaluation that is due",
            )
            wait_for(
                lambda: (
                    (now := status(stack)).policy.explanation.evaluation == now.evaluation.latest.id
                ),
                what="a policy that rests on it",
            )
            found = status(stack)
            latest = found.evaluation.latest
            assert latest.prompts == "sampled"
            assert latest.trigger.startswith("never evaluated")
            assert {c.task for c in latest.classes} == {"", "chat"}
            assert latest.cost.judge_calls > 0
            assert not found.evaluation.due
            assert all("not this one" not in asked.user for asked in api.asked)
            settled(stack)
            arms = {arm.arm: arm.outcomes for arm in status(stack).arms}
            assert arms["evaluation"] >= 3 * latest.classes[0].judged
            state = StackPaths.of(stack.cfg).state
            for path in state.rglob("*"):
                if path.is_file():
                    assert secret.encode() not in path.read_bytes(), path
