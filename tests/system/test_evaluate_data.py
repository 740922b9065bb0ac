# SPDX-License-Identifier: Apache-2.0
"""Published tasks through the real engine: two classes, judged against their references; and what a
server says to an evaluator that it does not know."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from outcomes import settled, status

from sprout.evaluate import journal
from sprout.serve.background import BackgroundStack
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths, dump_toml

PROMPTS = (
    Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "prompts"
)
CLASSES = ("gsm8k", "triviaqa")
OF_EACH = 8

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def evaluate(stack: BackgroundStack, folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    file = folder / "sprout.toml"
    file.write_text(dump_toml(stack.cfg))
    return subprocess.run(
        [
            *(sys.executable, "-m", "sprout.cli", "--config", str(file)),
            *("--set", "evaluate.judge.kind=exact", "--set", "evaluate.schedule.max_tokens=96"),
            *("--set", "evaluate.schedule.concurrency=2"),
            *given,
        ],
        env=child_environment(StackPaths.of(stack.cfg)),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.data
@pytest.mark.skipif(not PROMPTS.is_dir(), reason=f"no prompts at {PROMPTS} (SPROUT_DATA)")
def test_sums_and_questions_of_two_published_sets(
    real_stack: BackgroundStack, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        line
        for task in CLASSES
        for line in (PROMPTS / f"{task}.jsonl").read_text().split("\n")[:OF_EACH]
    ]
    prompts.write_text("\n".join(lines))
    done = evaluate(
        real_stack, tmp_path, "evaluate", "--prompts", str(prompts), "--whole", "--json"
    )
    # A small model: L0 may well get none right, in one class or in both. Then that is said, and no
    # q is made up.
    if done.returncode != 0:
        assert "L0 was never preferred, or never right, in 16 prompts" in done.stderr, done.stderr
        assert not status(real_stack).evaluation.HasField("latest")
        return
    found = json.loads(done.stdout)["evaluation"]
    (kept,) = journal.finished(StackPaths.of(real_stack.cfg).state / "evaluations")
    assert kept.evaluation is not None
    assert kept.id == found["id"]
    assert {(e.task, e.unusable) for e in kept.entries} == {(task, ()) for task in CLASSES}
    own = {one.get("task", ""): one for one in found["classes"]}
    assert int(own[""]["judged"]) == len(CLASSES) * OF_EACH
    for task in CLASSES:
        right = [e.scores for e in kept.entries if e.task == task]
        assert len(right) == OF_EACH
        if task in own:
            assert int(own[task]["judged"]) == OF_EACH
        else:
            assert not any(scores[0] for scores in right)
            said = f"{task}: L0 was never right, so it has no q of its own"
            assert said in kept.evaluation["notes"]
    # The pooled q is what the marks say, and what the policy goes by.
    n = len(kept.entries)
    means = [sum(e.scores[level] for e in kept.entries) / n for level in range(3)]
    assert own[""]["preference"] == pytest.approx(means)
    cost = found["cost"]
    assert int(cost["requests"]) == 3 * n
    assert int(cost["output_tokens"]) == sum(sum(e.output_tokens) for e in kept.entries)
    assert not cost.get("carbon_unknown")
    after = status(real_stack)
    assert after.evaluation.latest.id == found["id"]
    why = after.policy.explanation
    assert why.evaluation == found["id"]
    assert [p.preference for p in why.profile] == pytest.approx(means)


def test_a_token_that_triton_does_not_know_ends_it_before_anything_is_served(
    real_stack: BackgroundStack, tmp_path: Path
) -> None:
    """With clients' hints allowed, its requests would be served as pinned ones of a client's."""
    prompts, token = tmp_path / "prompts.jsonl", tmp_path / "token"
    prompts.write_text(
        json.dumps({"prompt": "What is the capital of France?", "reference": "Paris"})
    )
    token.write_text("of-another-stack")
    before = settled(real_stack)
    done = evaluate(
        *(real_stack, tmp_path, "--set", f"evaluate.schedule.token_file={token}"),
        *("evaluate", "--prompts", str(prompts), "--fresh"),
    )
    assert done.returncode != 0
    assert "does not know the token" in done.stderr
    assert "this token of an evaluation is not the server's" in done.stderr
    assert settled(real_stack) == before
