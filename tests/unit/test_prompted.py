# SPDX-License-Identifier: Apache-2.0
"""Levels by prompt as the control loop publishes and withdraws them."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from control_grid import TTL_S
from control_plane import WAIT_S, configure, first, running, stub_of
from predicted_synthetic import PACK, write
from round_priors import ROUND_PRIORS
from some_evaluation import evaluation
from test_control_loop import Grid, current, make, shares
from waiting import wait_beside

from sprout.agent.policy import board_policy
from sprout.config import Config, ControlConfig, PromptConfig, TenantConfig
from sprout.console import operator
from sprout.console.plan import with_prompts
from sprout.control import history, inbox, messages, predicted, prices
from sprout.control.decide import offline
from sprout.control.inputs import Group, Prompts
from sprout.control.loop import Loop
from sprout.control.messages import plan_of
from sprout.control.part import choose
from sprout.control.plan import PromptPoint
from sprout.control.predicted import PredictorFile
from sprout.control.store import Store
from sprout.directives import pack
from sprout.errors import PredictorError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb
from sprout_ext import weights
from sprout_ext.board import BoardReader, BoardWriter, Flag, weights_name

pytest.importorskip("scipy")

BOOTTIME = time.CLOCK_BOOTTIME


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told") / "bundle"


@pytest.fixture
def file(bundle: Path, tmp_path: Path) -> Path:
    write(bundle, tmp_path / "predictor")
    return tmp_path / "predictor"


async def started(grid: Grid, store: Store, file: Path | None, **control: Any) -> Loop:
    prompt = PromptConfig(predictor=file, share=0.8)
    loop, feed = make(grid, store, prompt=prompt, **control)
    await feed.poll()
    await loop.step()
    return loop


def by_prompt(loop: Loop) -> pb.PromptPolicy:
    policy = current(loop)
    assert policy.HasField("prompt"), policy.explanation.no_prompt
    return policy.prompt


def without(loop: Loop) -> str:
    """Why no level is chosen by its prompt."""
    policy = current(loop)
    assert not policy.HasField("prompt")
    return policy.explanation.no_prompt


def test_prices_and_weights_are_published(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        plain = await started(Grid(), store, None)
        policy, made = current(loop), by_prompt(loop)
        assert shares(policy) == shares(current(plain))  # the mix is what it was
        assert made.share == 0.8
        assert len(made.g_per_joule) == len(made.expected_shares) == 3
        assert sum(p.fraction for p in made.points) == pytest.approx(1)
        assert all(len(p.g) == 3 and p.g_per_preference >= 0 for p in made.points)
        assert made.expected_preference >= policy.explanation.floor - 1e-6
        assert made.expected_g_per_request < policy.explanation.expected_g_per_request
        packed = loop.weights.get(made.weights)
        assert packed is not None
        assert weights.name(packed) == made.weights
        assert loop.reasons() == {}
        assert policy.explanation.no_prompt == ""

    asyncio.run(scenario())


def test_off_by_default(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, None)
        assert without(loop) == ""
        assert loop.reasons() == {}

    asyncio.run(scenario())


def test_another_file_is_taken_up_as_it_comes(
    grid: Grid, store: Store, file: Path, bundle: Path
) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        before = by_prompt(loop).weights
        write(bundle, file, turn=0.9)
        await loop.step()
        policy = current(loop)
        assert (policy.counter, policy.explanation.trigger) == (2, "prompts")
        assert by_prompt(loop).weights != before
        assert loop.weights.get(before) is not None  # a node may still ask
        os.utime(file, ns=(1, 1))  # touched: the same predictor
        await loop.step()
        assert current(loop).counter == 2

    asyncio.run(scenario())


def damaged(file: Path, bundle: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-20] ^= 1
    file.write_bytes(raw)


def of_another_pack(file: Path, bundle: Path) -> None:
    write(bundle, file, pack=pack("paper"))


def of_fewer_levels(file: Path, bundle: Path) -> None:
    renamed = replace(PACK, directives=(*PACK.directives, "One word."))
    with pytest.raises(Exception, match="does not fit its weights"):
        write(bundle, file, pack=renamed)  # written, not loaded


def gone(file: Path, bundle: Path) -> None:
    file.unlink()


def a_folder(file: Path, bundle: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "damaged: its SHA-256"),
        (of_another_pack, "fitted on another directive of L1: 'Always answer briefly'"),
        (of_fewer_levels, "does not fit its weights"),
        (gone, "can't read"),
        (a_folder, "can't read"),
    ],
)
def test_a_file_that_can_t_be_used_is_said_and_the_mix_goes_on(
    grid: Grid, store: Store, file: Path, bundle: Path, spoil: Any, why: str
) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        mix = shares(current(loop))
        assert current(loop).HasField("prompt")
        spoil(file, bundle)
        await loop.step()
        assert why in without(loop)
        assert why in loop.reasons()["prompt"]
        assert any(why in reason for reason in current(loop).explanation.degraded)
        assert shares(current(loop)) == mix
        assert current(loop).counter == 2
        await loop.step()  # nothing new: nothing published
        assert current(loop).counter == 2
        if file.is_dir():
            file.rmdir()
        write(bundle, file)
        await loop.step()
        assert by_prompt(loop).share == 0.8
        assert loop.reasons() == {}

    asyncio.run(scenario())


def test_a_predictor_that_is_no_better_than_means_is_refused(
    grid: Grid, store: Store, file: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sprout.predict.check import Report

    monkeypatch.setattr(Report, "refusal", lambda _: "it is no better than class means")

    async def scenario() -> None:
        loop = await started(grid, store, file)
        assert "no better than class means" in without(loop)
        assert "no better than class means" in loop.reasons()["prompt"]

    asyncio.run(scenario())


def test_operators_stand_above_it(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        await loop.pause("drill")
        assert without(loop) == "paused"
        assert shares(current(loop)) == [1, 0, 0]
        await loop.resume()
        assert current(loop).HasField("prompt")
        await loop.pin((0.0, 1.0, 0.0), 3600, "a look")
        assert without(loop) == "pinned"
        await loop.unpin()
        assert current(loop).HasField("prompt")
        assert loop.reasons() == {}

    asyncio.run(scenario())


def test_in_shadow_nothing_is_chosen(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file, shadow=True)
        assert without(loop) == "shadow mode"

    asyncio.run(scenario())


def test_an_evaluation_moves_the_prices(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file, confidence=0.5, classes=False)
        before = by_prompt(loop)
        grid.now_s = 1_800_000_000.0
        worse = evaluation(q=(0.5, 0.3, 0.2))
        worse.finished_at.FromNanoseconds(int(grid.now_s * 1e9))
        await loop.evaluated(worse)
        after = by_prompt(loop)
        assert current(loop).explanation.trigger == "evaluation"
        assert "evaluated by exact" in after.basis
        # Short answers are worth less than was thought: more of L0, at a higher price.
        assert after.expected_shares[0] > before.expected_shares[0]
        assert after.expected_g_per_request > before.expected_g_per_request
        assert after.expected_preference >= current(loop).explanation.floor - 1e-6

    asyncio.run(scenario())


def test_what_prompts_chose_leaves_the_profile_alone(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        policy = current(loop)

        def outcome(ticket: int, joules: float, **flags: Any) -> inbox.Row:
            return inbox.row(
                "n",
                pb.Outcome(
                    segment_uid=5,
                    ticket=ticket,
                    level=1,
                    policy_version=version(policy),
                    ending=pb.ENDING_DELIVERED,
                    energy_joules=joules,
                    device_seconds=1.0,
                    **flags,
                ),
            )

        store.add_outcomes([outcome(i, 500.0, prompt=True) for i in range(1, 40)])
        await loop.step()
        assert current(loop).counter == 1
        store.add_outcomes([outcome(100 + i, 20.0) for i in range(3)])
        await loop.step()
        row = current(loop).explanation.profile[1]
        assert (row.outcomes, row.energy_basis) == (3, "measured")
        assert row.energy_joules == pytest.approx(20)
        arms = {row["arm"]: row["outcomes"] for row in store.totals()}
        assert arms == {"prompt": 39, "L1": 3}

    asyncio.run(scenario())


def test_prices_follow_what_is_asked(grid: Grid, store: Store, file: Path) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        policy = current(loop)

        def asked(first: int, count: int, task: str) -> list[inbox.Row]:
            return [
                inbox.row(
                    "n",
                    pb.Outcome(
                        segment_uid=5,
                        ticket=first + i,
                        policy_version=version(policy),
                        ending=pb.ENDING_DELIVERED,
                        task=task,
                        prompt=True,
                    ),
                )
                for i in range(count)
            ]

        store.add_outcomes(asked(1, 400, "sums"))
        await loop.step()
        assert current(loop).explanation.trigger == "prompts"
        first_prices = by_prompt(loop).points
        store.add_outcomes(asked(1000, 1, "trivia"))  # under a twentieth
        await loop.step()
        assert current(loop).counter == 2
        store.add_outcomes(asked(2000, 1000, "trivia"))
        await loop.step()
        assert (current(loop).counter, current(loop).explanation.trigger) == (3, "prompts")
        assert list(by_prompt(loop).points) != list(first_prices)

    asyncio.run(scenario())


def test_prices_that_fail_are_a_reason_and_no_end(
    grid: Grid, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(prices, "price", fails)

    async def scenario() -> None:
        loop = await started(grid, store, file)
        assert "ZeroDivisionError" in without(loop)
        assert "ZeroDivisionError" in loop.reasons()["prompt"]
        assert shares(current(loop)) == pytest.approx([2 / 3, 1 / 3, 0])
        await loop.step()
        assert current(loop).counter == 1
        file.unlink()
        await loop.step()
        assert "can't read" in loop.reasons()["prompt"]

    asyncio.run(scenario())


def test_a_pause_waits_for_no_prices(
    grid: Grid, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they were for is not published over it."""

    async def scenario() -> None:
        loop = await started(grid, store, file)
        at_work, go_on = asyncio.Event(), asyncio.Event()
        events, real = asyncio.get_running_loop(), prices.price

        def slow(*args: Any) -> Any:
            events.call_soon_threadsafe(at_work.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), events).result(WAIT_S)
            return real(*args)

        monkeypatch.setattr(prices, "price", slow)
        asking = asyncio.create_task(loop.set_objective({"xi": 0.05}))
        await at_work.wait()
        await loop.pause("now")
        assert current(loop).paused
        go_on.set()
        await asking
        assert current(loop).paused
        assert without(loop) == "paused"

    asyncio.run(scenario())


def test_the_policy_lives_on_while_prices_are_set(
    grid: Grid, store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file, interval_s=0.001)
        at_work, go_on = threading.Event(), threading.Event()
        real = prices.price

        def slow(*args: Any) -> Any:
            at_work.set()
            assert go_on.wait(WAIT_S)
            return real(*args)

        monkeypatch.setattr(prices, "price", slow)
        asking = asyncio.create_task(loop.set_objective({"xi": 0.05}))
        assert await asyncio.to_thread(at_work.wait, WAIT_S)
        running = asyncio.create_task(loop.run())  # its step waits, too
        for _ in range(2):
            grid.now_s += 0.4 * TTL_S
            await wait_beside(lambda: loop.publisher.since_issued_s() == 0)
        grid.now_s += 0.4 * TTL_S  # longer than it would have lived
        assert current(loop).counter == 1
        go_on.set()
        await asking
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


def test_weights_over_the_wire(file: Path, tmp_path: Path) -> None:
    prompt = PromptConfig(predictor=file)
    tenants = {"acme": TenantConfig(minimum=0.99)}
    config = configure(tmp_path / "state", prompt=prompt, tenants=tenants, **ROUND_PRIORS)
    with running(config) as address, stub_of(address) as stub:
        policy = first(stub)
        request = pb.GetWeightsRequest(sha256=policy.prompt.weights)
        answer = stub.GetWeights(request, timeout=WAIT_S)
        assert weights.name(answer.weights) == policy.prompt.weights
        assert weights.scorer(answer.weights).heads_many([b"name one river"]).shape == (1, 5)
        metrics = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).metrics_address
        scraped = httpx.get(f"http://{metrics}/metrics", timeout=WAIT_S).text
        assert "sprout_prompt_share_ratio 0.9" in scraped
        expected = policy.prompt.expected_preference
        assert f"sprout_prompt_expected_preference_ratio {expected}" in scraped
        own = policy.mixes[0].prompt.expected_preference
        name = "sprout_mix_prompt_expected_preference_ratio"
        assert f'{name}{{task="",tenant="acme"}} {own}' in scraped
        grams = policy.prompt.expected_g_per_request
        assert f'sprout_expected_request_grams{{mix="prompt"}} {grams}' in scraped
        for unknown in ("", "0" * 64, "../../etc/passwd"):
            with pytest.raises(grpc.RpcError) as failed:
                stub.GetWeights(pb.GetWeightsRequest(sha256=unknown), timeout=WAIT_S)
            assert failed.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_tenant_s_requests_choose_by_its_own_prices_on_the_node(
    grid: Grid, store: Store, file: Path, tmp_path: Path
) -> None:
    """From the control plane to a stub: the policy as relayed, the board, real weights, texts."""

    async def scenario() -> tuple[pb.Policy, bytes]:
        tenants = {"acme": TenantConfig(minimum=0.99), "quiet": TenantConfig(opt_out=True)}
        loop = await started(grid, store, file, tenants=tenants)
        packed = loop.weights.get(by_prompt(loop).weights)
        assert packed is not None
        return current(loop), packed

    policy, packed = asyncio.run(scenario())
    acme, quiet = policy.mixes
    assert acme.prompt.expected_preference >= 0.99 - 1e-6
    assert acme.prompt.expected_g_per_request < acme.expected_g_per_request
    assert (acme.no_prompt, quiet.no_prompt, quiet.HasField("prompt")) == ("", "", False)
    read = plan_of(policy)
    assert read.prompt is not None
    assert [messages.mix(group, PACK.levels, read.prompt) for group in read.groups] == [acme, quiet]
    assert "tenant acme by prompt: L0 " in "\n".join(read.lines())
    assert "and of acme, by prices of their own" in "\n".join(operator.why(policy))
    path = tmp_path / "policy.board"
    (tmp_path / weights_name(weights.name(packed))).write_bytes(packed)
    policy.prompt.share, policy.control_share = 1.0, 0.0  # nobody is left to the mix, or to L0
    BoardWriter(path).publish(board_policy(policy, PACK, time.clock_gettime_ns(BOOTTIME)))
    texts = [f"name {i} rivers of {word}".encode() for i, word in enumerate(["a", "b c d"] * 40)]
    scores = weights.scorer(packed).score_many(texts)
    reader = BoardReader(path, PACK.hash, 1, 2, 3)
    for tenant, priced in ((b"", policy.prompt), (b"other", policy.prompt), (b"acme", acme.prompt)):
        found = reader.choose_many(0, len(texts), [(tenant, b"")] * len(texts), texts)
        assert all(choice.flags == Flag.PROMPT for choice in found)
        options = [
            choose(np.array(priced.g_per_joule), point, scores[:, 3:], scores[:, :3])
            for point in map(_point, priced.points)
        ]
        for choice, *some in zip(found, *options, strict=True):
            assert choice.level in some
    mixed = reader.choose_many(0, len(texts), [(b"quiet", b"")] * len(texts), texts)
    assert {(choice.level, choice.flags) for choice in mixed} == {(0, 0)}


def _point(given: pb.PricePoint) -> PromptPoint:
    return PromptPoint(given.fraction, given.g_per_preference, tuple(given.g))


def test_what_people_read_of_it(grid: Grid, store: Store, file: Path, bundle: Path) -> None:
    async def scenario() -> pb.Policy:
        return current(await started(grid, store, file))

    policy = asyncio.run(scenario())
    read = plan_of(policy)
    assert read.prompt is not None
    assert messages.prompt(read.prompt) == policy.prompt
    assert read.prompt.mix_g == pytest.approx(policy.explanation.expected_g_per_request)
    lines = "\n".join(read.lines())
    assert "by prompt   80 % of those without a mix of their own: L0 " in lines
    assert f"{100 * read.prompt.points[0].fraction:.1f} % at " in lines
    told = "\n".join(operator.why(policy))
    assert "by prompt: 80 % of requests without a mix of their own" in told
    assert "corrected to prior, not this model" in told
    policy.ClearField("prompt")
    policy.explanation.no_prompt = "paused"
    assert "no level is chosen by its prompt: paused" in "\n".join(operator.why(policy))


def test_sprout_plan_sets_prices_with_the_file_at_hand(file: Path, bundle: Path) -> None:
    prompt = PromptConfig(predictor=file, share=0.7)
    cfg = Config(control=ControlConfig(prompt=prompt, **ROUND_PRIORS))
    given = offline(cfg, 200.0, 100.0, 300.0)
    found = with_prompts(cfg, given, alone=True)
    assert found.prompt is not None
    assert found.prompt.share == 0.7
    assert found.prompt.expected_g < found.expected_g
    # With a control plane its predictor decides, and it may be another one.
    theirs = replace(given, prompts=Prompts("0" * 64, 0.5))
    away = with_prompts(cfg, theirs, alone=False)
    assert (away.prompt, away.no_prompt) == (None, "the control plane's predictor is not here")
    assert with_prompts(cfg, given, alone=False).no_prompt == ""  # it has none
    write(bundle, file, pack=pack("paper"))
    with pytest.raises(PredictorError, match="another directive"):
        with_prompts(cfg, given, alone=True)


def test_a_decision_with_prices_is_solved_again(grid: Grid, store: Store, file: Path) -> None:
    """The mix; prices need the predictor, whose hash the inputs keep."""

    async def scenario() -> None:
        loop = await started(grid, store, file)
        _, message, inputs = store.decisions(1)[0]
        decision = pb.Decision(policy=pb.Policy.FromString(message), inputs_json=inputs)
        assert decision.policy.prompt == by_prompt(loop)
        _, same = history.solve_again(decision)
        assert same
        assert history.load(inputs).prompts is not None

    asyncio.run(scenario())


def test_prompts_that_an_evaluation_judged_correct_the_prices(
    grid: Grid, store: Store, file: Path
) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        known = loop._facts.predicted
        assert known is not None
        plain = evaluation("plain", covariance=False)
        await loop.evaluated(plain)
        before = by_prompt(loop)
        assert "of the evaluation" not in before.basis
        scored = evaluation("scored", covariance=False, age_s=30.0)
        scored.weights = before.weights
        rows = zip(known.preferences, known.joules, known.preferred, strict=True)
        for preferences, joules, preferred in rows:
            scored.by_prompt.add(
                weight=1.0, predicted=[*preferences, *joules], scores=np.eye(3)[preferred]
            )
        await loop.evaluated(scored)
        after = by_prompt(loop)
        assert f"; {len(known.preferred)} prompts of the evaluation, by what they chose" in (
            after.basis
        )
        assert loop.reasons() == {}
        # Judged as the sample was, they say what the sample says, and nothing is counted.
        assert after.basis.endswith(" +0.0 counted")
        assert after.expected_preference == pytest.approx(before.expected_preference, abs=1e-3)

    asyncio.run(scenario())


def test_traffic_is_of_those_without_a_mix_of_their_own(store: Store, file: Path) -> None:
    control = ControlConfig(
        prompt=PromptConfig(predictor=file), tenants={"acme": TenantConfig(minimum=0.9)}
    )
    looked = PredictorFile(control, PACK)
    store.add_policy(0, 7, PACK.hash, 0.0, b"")
    number = itertools.count(1)

    def add(count: int, task: str, tenant: str = "", **arm: bool) -> None:
        store.add_outcomes(
            [
                inbox.row(
                    "n",
                    pb.Outcome(
                        segment_uid=5,
                        ticket=next(number),
                        policy_version=7,
                        ending=pb.ENDING_DELIVERED,
                        task=task,
                        tenant=tenant,
                        **arm,
                    ),
                )
                for _ in range(count)
            ]
        )

    def traffic(*apart: str) -> dict[str, float]:
        _, found, problem = looked.look(store, [Group(task=task) for task in apart])
        assert found is not None, problem
        return dict(found.traffic)

    assert traffic() == {}
    add(100, "poems")  # the predictor knows none of it
    assert traffic() == {}
    add(50, "sums", prompt=True)
    assert traffic() == {}  # too few to weigh by
    add(150, "sums", prompt=True)
    add(50, "sums", control=True)
    add(150, "trivia")
    add(300, "trivia", pinned=True)
    add(400, "trivia", tenant="acme")
    assert traffic() == {"sums": 0.5, "trivia": 0.3, "": 0.2}
    assert traffic("trivia") == {"sums": 0.71, "": 0.29}  # it has a mix of its own
    assert traffic("trivia", "sums") == {}
    _, found, _ = looked.look(store, [])
    assert found is not None
    assert found.tenants == (("acme", (("trivia", 1.0),)),)


def test_whatever_ends_the_reading_of_a_file_it_is_said_and_tried_again(
    grid: Grid, store: Store, file: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop = await started(grid, store, file)
        assert current(loop).HasField("prompt")

        def fails(*_: Any) -> Any:
            raise MemoryError

        before = current(loop).prompt.weights
        monkeypatch.setattr(predicted, "parse", fails)
        write(bundle, file, turn=0.8)
        await loop.step()
        assert "MemoryError" in loop.reasons()["prompt"]
        assert current(loop).prompt.weights == before  # as it was last
        monkeypatch.undo()
        await loop.step()
        assert "prompt" not in loop.reasons()
        assert current(loop).prompt.weights != before

    asyncio.run(scenario())


def test_a_pipe_in_the_place_of_a_predictor_does_not_hold_the_loop_up(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    control = ControlConfig(prompt=PromptConfig(predictor=path))
    found = PredictorFile(control, PACK).look(store, [])
    assert found == (None, None, f"{path}: no plain file")
