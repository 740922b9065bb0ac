# SPDX-License-Identifier: Apache-2.0
"""Blocks of traffic, the policies that are put in force for them, and the prompts that are sent."""

import asyncio
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
import _blocks
import _policies
from _arms import ARMS, L0, MIX, PROMPT
from _blocks import IDLE_POLL_S, Block, Stream, Traffic, figures, play
from _judged import Served
from _policies import Decision, Policies
from _send import Ask, Sent
from _work import Lengths

from sprout.config import Config
from sprout.console import operator
from sprout.control.plan import PromptPoint
from sprout.v1 import control_pb2 as pb

LEVELS = 3


def ask(key: int = 0) -> Ask:
    return Ask("why?", max_tokens=4, key=key)


def sent(due: float, ended: float, *, level: int = 0, key: int = 0, **more: Any) -> Sent:
    return Sent(key, due, ended=ended, level=level, joules=1.0, grams=0.1, tokens=5, **more)


# --- blocks --------------------------------------------------------------------------------------


def test_a_stream_gives_what_is_due_and_ends_only_when_it_is_closed() -> None:
    now = 1000.0
    stream = Stream(clock=lambda: now)
    assert stream.due(0.0, 0) is None
    assert stream.wait(0.0) == IDLE_POLL_S
    stream.add(1000.0 + np.array([0.5, 0.75]), [ask(1), ask(2)])
    assert stream.due(0.4, 0) is None
    assert stream.wait(0.4) == pytest.approx(0.1)
    at, first = stream.due(0.6, 0) or (math.nan, ask())
    assert (at, first.key) == (0.5, 1)
    stream.close()
    assert stream.wait(0.7) == pytest.approx(0.05)
    assert stream.due(0.8, 9) == (0.75, ask(2))
    assert stream.wait(0.8) == math.inf


def test_a_block_measures_what_follows_its_wash_out() -> None:
    now = [50.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    streams = [Stream(clock=lambda: now[0]) for _ in range(2)]
    parts = [
        (np.array([0.0, 1.9, 2.0, 4.9]), [ask(i) for i in range(4)]),
        (np.array([3.0]), [ask(9)]),
    ]
    block = play(streams, parts, 2.0, 3.0, [7, 8], clock=lambda: now[0], sleep=sleep)
    assert (block.expected, block.policies) == (3, [7, 8])
    assert block.since == pytest.approx(50.0 + IDLE_POLL_S + 2.0)
    assert now[0] == pytest.approx(block.until)
    assert block.seconds == pytest.approx(3.0)


def test_a_request_belongs_to_the_block_that_it_was_due_in_wherever_it_ends() -> None:
    block = Block(100.0, 110.0, expected=5, policies=[3, 8], joules=[4000.0, 1000.0])
    ended = [
        sent(99.0, 104.0, policy=3),  # of the wash-out: at work for 4 s
        sent(101.0, 102.0, level=1, key=1, policy=3),
        sent(109.0, 125.0, level=0, key=2, policy=2),
        sent(105.0, 106.0, level=2, key=3, policy=8, target=1),
        sent(106.0, math.nan, policy=3, error="refused"),
        sent(110.0, 111.0, policy=3),  # of the next
    ]
    found = figures(block, ended, LEVELS, lambda key, level: (key, level) in {(1, 1), (2, 0)})
    assert found["watts"] == pytest.approx(500.0)
    assert (found["arrived"], found["answered"], found["failed"]) == (5, 3, 2)  # one never ended
    assert found["errors"] == {"refused": 1}
    assert found["latencies_s"] == [1.0, 16.0, 1.0]
    assert found["levels"] == [1, 1, 1]
    assert found["in_flight"] == pytest.approx((4 + 1 + 1 + 1) / 10)
    assert found["ended_per_s"] == pytest.approx(0.3)  # two of its own and one of the wash-out
    assert (found["preferred"], found["preferred_at_l0"]) == (2, 1)
    assert found["under_an_older_policy"] == 1
    assert found["receipt_joules"] == [1.0, 1.0, 1.0]


# --- traffic -------------------------------------------------------------------------------------


def test_each_stack_s_requests_are_known_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(address: str, stream: Stream, longest_s: float, *, on_end: Any) -> None:
        while not math.isinf(stream.wait(0.0)):
            while (found := stream.due(1e9, 0)) is not None:
                on_end(sent(found[0], 1.0, key=found[1].key))
            await asyncio.sleep(0)

    monkeypatch.setattr(_blocks, "send", answer)
    with Traffic(["a:1", "b:2"], 10.0) as traffic:
        for stack, stream in enumerate(traffic.streams):
            stream.add(np.array([0.0, 1.0]), [ask(stack), ask(stack)])
    assert sorted((r.target, r.key) for r in traffic.ended) == [(0, 0), (0, 0), (1, 1), (1, 1)]


def test_what_the_sending_fails_with_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such stack")

    monkeypatch.setattr(_blocks, "send", fail)
    with pytest.raises(OSError, match="no such stack"), Traffic(["a:1"], 10.0):
        pass


# --- policies ------------------------------------------------------------------------------------


def decided(**more: Any) -> Decision:
    return Decision(
        shares={"L0": 0.5, "L1": 0.5, "L2": 0.0},
        mix_preference=0.9,
        prompt_preference=0.96,
        prompt_share=0.9,
        prompt_shares=[0.0, 0.5, 0.5],
        **{
            "g_per_joule": [1.0, 1.0, 1.0],
            "points": [
                PromptPoint(0.75, 100.0, (0.0, 0.0, 0.0)),
                PromptPoint(0.25, 0.0, (0.0, 0.0, 0.0)),
            ],
            "g_per_kwh": 300.0,
            **more,
        },
    )


def pool() -> Served:
    """Four prompts: the first two are long ones that L0 is good for, by the scores."""
    scores = np.array(
        [[0.9, 0.05, 0.05, 50.0, 10.0, 5.0]] * 2 + [[0.1, 0.1, 0.8, 50.0, 10.0, 5.0]] * 2
    )
    output = np.array([[200, 40, 30]] * 4)
    return Served(("a", "b", "c", "d"), np.array([0, 1, 2, 0]), Lengths(output, output), scores)


def test_what_a_policy_is_worth_on_the_prompts_is_counted_as_they_were_judged() -> None:
    found = pool().expected(decided())
    # A price of 100 g gives L0 to the first two, L2 to the others; none gives L2 to all.
    chosen = (0.75 * (1 + 0 + 1 + 0) + 0.25 * (0 + 0 + 1 + 0)) / 2
    mix = (0.5 * 2 + 0.5 * 1) / 2
    assert found == {
        L0: 1.0,
        MIX: pytest.approx(mix),
        PROMPT: pytest.approx(0.9 * chosen + 0.1 * mix),
    }
    assert decided().blended_preference == pytest.approx(0.9 * 0.96 + 0.1 * 0.9)


def test_requests_have_the_lengths_of_their_prompts_at_every_level() -> None:
    asks = pool().asks(8, np.random.default_rng(1), stream=True)
    assert {a.lengths for a in asks} == {(200, 40, 30)}
    assert all(a.text == "abcd"[a.key] and a.stream and a.max_tokens == 200 for a in asks)
    assert [a.key for a in asks] == [
        a.key for a in pool().asks(8, np.random.default_rng(1), stream=True)
    ]
    assert pool().won(2, 2)
    assert not pool().won(2, 0)


def policy(counter: int, *, prompt: bool = True, override: bool = True) -> pb.Policy:
    made = pb.Policy(epoch=7, counter=counter)
    made.shares.add(level="L0", share=0.4)
    made.shares.add(level="L1", share=0.6)
    made.intensity.g_per_kwh, made.intensity.override = 250.0, override
    made.explanation.expected_preference = 0.94
    if prompt:
        made.prompt.share = 0.9
        made.prompt.points.add(fraction=1.0, g_per_preference=2.0, g=[0.0, 0.0])
    else:
        made.explanation.no_prompt = "there is no predictor"
    return made


class Plane:
    """The control plane's calls, each written down; a node that has every policy a look later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **made: bool) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.made, self.counter, self.board = made, 0, 0
        self.error = ""
        for name in ("override", "set_objective", "pin", "unpin"):
            monkeypatch.setattr(operator, name, self._answering(name))
        monkeypatch.setattr(operator, "status", self.status)

    def _answering(self, name: str) -> Any:
        def call(cfg: Any, *given: Any, **more: Any) -> pb.Policy:
            self.counter += 1
            self.calls.append((name, given[0] if given else None))
            return policy(self.counter, **self.made)

        return call

    def status(self, cfg: Any) -> pb.Status:
        found = pb.Status()
        found.nodes.add(policy_version=self.board, policy_error=self.error)
        self.board = 7 << 32 | self.counter
        return found


def test_arms_are_put_in_force_by_the_operator_s_own_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane(monkeypatch)
    policies = Policies(Config())
    found = policies.decide(250.0, 0.94)
    assert found.shares == {"L0": pytest.approx(0.4), "L1": pytest.approx(0.6)}
    versions = [policies.apply(arm, found) for arm in ARMS]
    assert versions == [7 << 32 | n for n in (4, 5, 6)]
    assert plane.calls == [
        ("override", 250.0),
        ("set_objective", {"xi": pytest.approx(0.06)}),
        ("unpin", None),
        ("pin", {"L0": 1.0}),
        ("pin", found.shares),
        ("unpin", None),
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [({"prompt": False}, "there is no predictor"), ({"override": False}, "the hour's intensity")],
)
def test_a_policy_that_is_not_what_is_to_be_measured_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, bool], said: str
) -> None:
    Plane(monkeypatch, **made)
    with pytest.raises(SystemExit, match=said):
        Policies(Config()).decide(250.0, 0.94)


def test_a_node_that_can_t_apply_a_policy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane(monkeypatch)
    plane.error = "no level by prompt: weights NOT_FOUND"
    monkeypatch.setattr(_policies, "IN_FORCE_S", 0.0)
    with pytest.raises(SystemExit, match="weights NOT_FOUND"):
        Policies(Config()).apply(PROMPT, decided())
