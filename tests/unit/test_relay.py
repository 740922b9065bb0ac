# SPDX-License-Identifier: Apache-2.0
"""Policies to the board, outcomes to the control plane, over real gRPC on loopback."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from recorder import PACK, Recorder, make_policy, prompt_policy
from waiting import PATIENCE_S

from sprout import channel
from sprout.agent.policy import MAX_TTL_S, board_policy, boottime_ns
from sprout.agent.relay import LONGEST_BACKOFF_S, Reporter, Watcher, backoff_s
from sprout.agent.spool import Spool
from sprout.agent.weights import Weights
from sprout.errors import PolicyError
from sprout.policy_version import dotted, version
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext.board import (
    MAX_MIXES,
    BoardMix,
    BoardPoint,
    BoardPrices,
    BoardPrompt,
    BoardReader,
    BoardWriter,
)

# --- policy -------------------------------------------------------------------------------------


def test_a_policy_as_the_board_has_it() -> None:
    policy = make_policy(3, ttl_s=1.5)
    entry = board_policy(policy, PACK, 1000)
    assert entry.version == version(policy) == 7 << 32 | 3
    assert dotted(entry.version) == "7.3"
    assert entry.shares == (0.5, 0.3, 0.2)
    assert entry.deadline_boottime_ns == 1000 + 1_500_000_000
    assert (entry.seed, entry.pack_hash, entry.paused) == (42, PACK.hash, False)
    assert (entry.control_share, entry.canary_share) == (0.02, 1.0)
    assert (entry.intensity_g_per_kwh, entry.pue, entry.embodied_g_per_s) == (250.0, 1.2, 1e-4)


def test_the_control_planes_clock_is_not_looked_at() -> None:
    policy = make_policy()
    policy.issued_at.FromSeconds(0)  # 1970
    assert board_policy(policy, PACK, 1000) == board_policy(make_policy(), PACK, 1000)


def test_no_intensity_is_unknown() -> None:
    policy = make_policy()
    policy.ClearField("intensity")
    assert math.isnan(board_policy(policy, PACK, 0).intensity_g_per_kwh)


def test_another_pack_is_relayed_for_the_readers_to_refuse() -> None:
    policy = make_policy()
    policy.pack_hash ^= 1
    del policy.shares[2]
    policy.shares[1].share = 0.5
    assert board_policy(policy, PACK, 0).shares == (0.5, 0.5)


def shares(*values: float) -> list[pb.LevelShare]:
    return [pb.LevelShare(level=f"L{i}", share=share) for i, share in enumerate(values)]


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("version", {"counter": 0}),
    ("0 levels", {"shares": []}),
    ("9 levels", {"shares": shares(*[1 / 9] * 9)}),
    ("levels", {"shares": shares(0.5, 0.5)}),
    ("levels", {"shares": [pb.LevelShare(level="L9", share=1 / 3) for _ in range(3)]}),
    ("sum", {"shares": shares(0.5, 0.3, 0.1)}),
    ("L1", {"shares": shares(0.9, -0.1, 0.2)}),
    ("L0", {"shares": shares(math.nan, 0.5, 0.5)}),
    ("control", {"control_share": 1.5}),
    ("canary", {"canary_share": -0.1}),
    ("intensity", {"intensity": pb.Intensity(g_per_kwh=-1)}),
    ("intensity", {"intensity": pb.Intensity(g_per_kwh=math.nan)}),
    ("PUE", {"pue": 0.0}),
    ("PUE", {"pue": math.inf}),
    ("embodied", {"embodied_g_per_s": -1.0}),
    ("time to live", {"ttl_s": 0.0}),
    ("time to live", {"ttl_s": MAX_TTL_S + 1.0}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG)
def test_a_wrong_policy_is_refused_by_name(named: str, changes: dict[str, Any]) -> None:
    policy = make_policy(ttl_s=changes.get("ttl_s", 60.0))
    for field in changes.keys() - {"ttl_s"}:
        policy.ClearField(field)
    policy.MergeFrom(pb.Policy(**{k: v for k, v in changes.items() if k != "ttl_s"}))
    with pytest.raises(PolicyError, match=named):
        board_policy(policy, PACK, 0)


def mix(*values: float, **whose: str) -> pb.Mix:
    return pb.Mix(shares=shares(*values), **whose)


def test_mixes_as_the_board_has_them() -> None:
    policy = make_policy()
    assert board_policy(policy, PACK, 0).mixes == ()
    policy.mixes.extend([mix(1, 0, 0, tenant="acme"), mix(0, 0, 1, task="acme")])
    policy.mixes.append(mix(0.2, 0.3, 0.5, tenant="x" * 23))
    assert board_policy(policy, PACK, 0).mixes == (
        BoardMix("acme", "", (1, 0, 0)),
        BoardMix("", "acme", (0, 0, 1)),
        BoardMix("x" * 23, "", (0.2, 0.3, 0.5)),
    )
    del policy.mixes[:]
    policy.mixes.extend(mix(1, 0, 0, task=f"t{i}") for i in range(MAX_MIXES))
    assert len(board_policy(policy, PACK, 0).mixes) == MAX_MIXES


GOOD = mix(1, 0, 0, tenant="acme")
WRONG_MIXES: list[tuple[str, list[pb.Mix]]] = [
    ("has 33 mixes, of at most 32", [mix(1, 0, 0, task=f"t{i}") for i in range(33)]),
    ("mix 1 is of tenant '' and task '', not of one", [GOOD, mix(1, 0, 0)]),
    ("mix 0 is of tenant 'a' and task 'b', not of one", [mix(1, 0, 0, tenant="a", task="b")]),
    ("tenant 'x{24}' is no name of 1 to 23", [mix(1, 0, 0, tenant="x" * 24)]),
    ("task 'naïve' is no name", [mix(1, 0, 0, task="naïve")]),
    (r"task 'a\\x00' is no name", [mix(1, 0, 0, task="a\0")]),
    ("two mixes of tenant 'acme'", [GOOD, mix(0, 0, 1, task="acme"), GOOD]),
    (r"mix of tenant 'a': levels \('L0', 'L1'\) are not", [mix(0.5, 0.5, tenant="a")]),
    ("mix of task 'a': levels", [pb.Mix(task="a", shares=reversed(shares(0.5, 0.3, 0.2)))]),
    ("mix of tenant 'a': shares sum to 0.9", [mix(0.5, 0.3, 0.1, tenant="a")]),
    ("mix of tenant 'a': share of L1 is -0.1", [mix(0.9, -0.1, 0.2, tenant="a")]),
    ("mix of tenant 'a': share of L0 is nan", [mix(math.nan, 0.5, 0.5, tenant="a")]),
]


@pytest.mark.parametrize(("problem", "mixes"), WRONG_MIXES)
def test_a_wrong_mix_is_refused_by_name(problem: str, mixes: list[pb.Mix]) -> None:
    policy = make_policy()
    policy.mixes.extend(mixes)
    with pytest.raises(PolicyError, match=problem):
        board_policy(policy, PACK, 0)


def test_another_pack_s_mixes_have_its_levels() -> None:
    policy = make_policy()
    policy.pack_hash ^= 1
    policy.mixes.append(mix(0.5, 0.5, tenant="a"))
    with pytest.raises(PolicyError, match="not the policy's"):
        board_policy(policy, PACK, 0)


def test_prices_as_the_board_has_them() -> None:
    policy = make_policy()
    assert board_policy(policy, PACK, 0).prompt is None
    policy.prompt.CopyFrom(prompt_policy("5a" * 32))
    assert board_policy(policy, PACK, 0).prompt == BoardPrompt(
        (1.0, 2.0, 3.0),
        (BoardPoint(0.25, 0.5, (0.0, 0.0, 0.5)), BoardPoint(0.75, 0.0, (0.0, -1.0, 0.0))),
        "5a" * 32,
        0.75,
    )


def point(fraction: float = 1.0, price: float = 0.0, *g: float) -> pb.PricePoint:
    return pb.PricePoint(fraction=fraction, g_per_preference=price, g=g or (0.0, 0.0, 0.0))


WRONG_PRICES: list[tuple[str, dict[str, Any]]] = [
    ("weights '': no SHA-256", {"weights": ""}),
    ("no SHA-256", {"weights": "5A" * 32}),
    ("no SHA-256", {"weights": "5a" * 31}),
    ("no SHA-256", {"weights": "5a" * 32 + "\n"}),
    ("no SHA-256", {"weights": "../" + "5a" * 30 + "a"}),
    ("share by prompt is 1.5", {"share": 1.5}),
    ("share by prompt is -0.1", {"share": -0.1}),
    ("share by prompt is nan", {"share": math.nan}),
    ("grams a joule: 2 numbers for 3 levels", {"g_per_joule": [1, 1]}),
    ("grams a joule: 0 numbers for 3 levels", {"g_per_joule": []}),
    ("grams a joule: .* not all finite", {"g_per_joule": [1, math.nan, 1]}),
    ("has 0 prices, of 1 to 4", {"points": []}),
    ("has 5 prices, of 1 to 4", {"points": [point(0.2)] * 5}),
    ("price 0 is -1.0 g", {"points": [point(1, -1)]}),
    ("price 1 is inf g", {"points": [point(0.5), point(0.5, math.inf)]}),
    ("price 0 is nan g", {"points": [point(1, math.nan)]}),
    ("price 1: fraction -0.5", {"points": [point(1), point(-0.5), point(0.5)]}),
    ("price 0: fraction nan", {"points": [point(math.nan)]}),
    ("fractions of prices sum to 0.9", {"points": [point(0.5), point(0.4)]}),
    ("price 0: grams: 2 numbers for 3 levels", {"points": [point(1, 0, 1, 1)]}),
    ("price 0: grams: .* not all finite", {"points": [point(1, 0, 1, -math.inf, 1)]}),
]


@pytest.mark.parametrize(("problem", "changes"), WRONG_PRICES)
def test_wrong_prices_are_refused_by_name(problem: str, changes: dict[str, Any]) -> None:
    policy = make_policy()
    policy.prompt.CopyFrom(prompt_policy("5a" * 32))
    for field in changes:
        policy.prompt.ClearField(field)
    policy.prompt.MergeFrom(pb.PromptPolicy(**changes))
    with pytest.raises(PolicyError, match=problem):
        board_policy(policy, PACK, 0)


def test_prices_of_a_mix_as_the_board_has_them() -> None:
    policy = make_policy()
    policy.mixes.extend([mix(1, 0, 0, tenant="acme"), mix(0, 0, 1, task="chat")])
    policy.prompt.CopyFrom(prompt_policy("5a" * 32))
    given = pb.PromptPrices(g_per_joule=[3.0, 2.0, 1.0], points=[point(1.0, 2.0, 0.5, 0.0, -1.0)])
    policy.mixes[1].prompt.CopyFrom(given)
    prices = BoardPrices((3.0, 2.0, 1.0), (BoardPoint(1.0, 2.0, (0.5, 0.0, -1.0)),))
    found = board_policy(policy, PACK, 0)
    assert found.mixes == (
        BoardMix("acme", "", (1, 0, 0)),
        BoardMix("", "chat", (0, 0, 1), prices),
    )
    assert found.prices_of(b"", b"") == found.prompt
    assert found.prices_of(b"acme", b"chat") is None
    assert found.prices_of(b"", b"chat") == prices


OF_BOTH = [wrong for wrong in WRONG_PRICES if wrong[1].keys() <= {"g_per_joule", "points"}]


@pytest.mark.parametrize(("problem", "changes"), OF_BOTH)
def test_wrong_prices_of_a_mix_are_refused_by_name(problem: str, changes: dict[str, Any]) -> None:
    policy = make_policy()
    policy.prompt.CopyFrom(prompt_policy("5a" * 32))
    policy.mixes.append(mix(1, 0, 0, tenant="acme"))
    given = pb.PromptPrices(g_per_joule=[1.0, 2.0, 3.0], points=[point()])
    for field in changes:
        given.ClearField(field)
    given.MergeFrom(pb.PromptPrices(**changes))
    policy.mixes[0].prompt.CopyFrom(given)
    with pytest.raises(PolicyError, match=f"mix of tenant 'acme': .*{problem}"):
        board_policy(policy, PACK, 0)


# --- watch --------------------------------------------------------------------------------------


class Rig:
    """A watcher and a reporter against a recorder."""

    def __init__(self, tmp_path: Path, control: Recorder) -> None:
        self.control = control
        self.stop = threading.Event()
        self.board = BoardWriter(tmp_path / "policy.board")
        self.reader = BoardReader(tmp_path / "policy.board", PACK.hash, 1, 0, 0)
        self.spool = Spool(tmp_path / "spool.sqlite", 1000)
        self.channel = channel.connect(f"127.0.0.1:{control.port}")
        stub = ControlStub(self.channel)
        self.weights = Weights(stub, tmp_path)
        self.watcher = Watcher(stub, self.board, "node", PACK, self.weights)
        self.reporter = Reporter(
            stub, self.spool, self.watcher, pb.NodeStatus, node="node", batch=10, interval_s=0.05
        )
        self.threads: list[threading.Thread] = []

    def start(self, work: Callable[[threading.Event], None]) -> None:
        thread = threading.Thread(target=work, args=(self.stop,))
        self.threads.append(thread)
        thread.start()

    def version(self) -> int:
        policy = self.reader.policy()
        return policy.version & 0xFFFFFFFF if policy else 0

    def close(self) -> None:
        self.stop.set()
        self.watcher.reset()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        self.channel.close()
        self.spool.close()
        self.board.close()


@pytest.fixture
def control() -> Iterator[Recorder]:
    recorder = Recorder().start()
    yield recorder
    recorder.stop()


@pytest.fixture
def rig(tmp_path: Path, control: Recorder) -> Iterator[Rig]:
    with contextlib.closing(Rig(tmp_path, control)) as made:
        yield made


def test_every_policy_that_is_published_comes_to_the_board_on_one_stream(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.control.wait(lambda: rig.control.watches == 1)
    for counter in (1, 2, 3):
        rig.control.publish(make_policy(counter))
        rig.control.wait(lambda counter=counter: rig.version() == counter)  # type: ignore[misc]
    assert rig.reader.state() == "ok"
    assert rig.control.watches == 1


def test_a_wrong_policy_leaves_the_board_as_it_is(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.control.publish(make_policy(1))
    rig.control.wait(lambda: rig.version() == 1)
    rig.control.publish(make_policy(2, shares=(0.5, 0.5, 0.5)))
    rig.control.wait(lambda: rig.watcher.refused == 1)
    assert rig.version() == 1
    assert "sum" in rig.watcher.error
    rig.control.publish(make_policy(3))
    rig.control.wait(lambda: rig.version() == 3)
    assert rig.watcher.error == ""


def test_an_expired_policy_says_so(rig: Rig) -> None:
    rig.watcher.apply(make_policy(1))
    assert rig.reader.state() == "ok"
    rig.watcher.apply(make_policy(1, ttl_s=0.05))
    rig.control.wait(lambda: rig.reader.state() == "expired")
    rig.watcher.apply(make_policy(1))  # sent again: in force again
    assert rig.reader.state() == "ok"


def test_the_same_policy_sent_again_moves_the_deadline(rig: Rig) -> None:
    rig.watcher.apply(make_policy(1))
    first = rig.reader.policy()
    rig.watcher.apply(make_policy(1))
    second = rig.reader.policy()
    assert first is not None
    assert second is not None
    assert first.deadline_boottime_ns < second.deadline_boottime_ns
    assert second.deadline_boottime_ns <= boottime_ns() + 60 * 10**9


def test_another_packs_policy_is_on_the_board_and_in_the_status(rig: Rig) -> None:
    policy = make_policy(1)
    policy.pack, policy.pack_hash = "other", 1
    rig.watcher.apply(policy)
    assert rig.reader.state() == "pack"
    assert "other" in rig.watcher.error


def test_watches_again_after_the_control_plane_was_away(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.control.publish(make_policy(1))
    rig.control.wait(lambda: rig.version() == 1)
    call = rig.watcher._call
    rig.control.stop()
    rig.control.wait(lambda: rig.watcher._call is not call)  # it tries again
    assert rig.version() == 1  # in force until it runs out
    rig.control.publish(make_policy(2))
    rig.control.start()
    rig.control.wait(lambda: rig.version() == 2)


def test_a_stream_that_is_silent_for_most_of_the_ttl_is_opened_anew(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.start(rig.reporter.run)
    rig.control.publish(make_policy(1, ttl_s=0.5))
    rig.control.wait(lambda: rig.version() == 1)
    rig.control.mute = True  # alive, answers reports, sends nothing
    rig.control.wait(lambda: rig.control.watches > 1)
    assert rig.control.reports > 0


def test_a_quiet_stream_is_left_alone(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.start(rig.reporter.run)
    rig.control.publish(make_policy(1, ttl_s=60))
    rig.control.wait(lambda: rig.control.reports > 5)
    assert rig.control.watches == 1


def test_backoff_doubles_up_to_a_bound_with_jitter() -> None:
    for attempt in range(40):
        longest = min(0.1 * 2**attempt, LONGEST_BACKOFF_S)
        draws = {backoff_s(attempt) for _ in range(20)}
        assert len(draws) > 1
        assert all(longest / 2 <= draw <= longest for draw in draws)
    assert backoff_s(10**6) <= LONGEST_BACKOFF_S


# --- report -------------------------------------------------------------------------------------


def spooled(n: int, start: int = 1) -> list[bytes]:
    return [
        pb.Outcome(segment_uid=1, ticket=i).SerializeToString() for i in range(start, start + n)
    ]


def tickets(control: Recorder) -> list[int]:
    return [ticket for _, ticket in control.outcomes]


def test_everything_spooled_is_sent_in_batches_once(rig: Rig) -> None:
    rig.spool.append(spooled(35))
    rig.reporter.report(rig.stop)
    assert tickets(rig.control) == list(range(1, 36))
    assert (len(rig.spool), rig.control.duplicates, rig.control.reports) == (0, 0, 4)


def test_the_status_is_sent_with_nothing_spooled(rig: Rig) -> None:
    rig.reporter.report(rig.stop)
    assert rig.control.reports == 1


def test_outcomes_wait_while_the_control_plane_is_away(rig: Rig) -> None:
    rig.start(rig.reporter.run)
    rig.control.wait(lambda: rig.control.reports > 0)
    rig.control.stop()
    rig.spool.append(spooled(25))
    rig.control.wait(lambda: rig.reporter._unanswered > 1)
    assert len(rig.spool) == 25
    rig.control.start()
    rig.control.wait(lambda: len(rig.spool) == 0)
    assert tickets(rig.control) == list(range(1, 26))
    assert rig.control.duplicates == 0


def test_an_outcome_that_is_never_taken_does_not_hold_up_the_rest(rig: Rig) -> None:
    rig.control.refuse = {13: grpc.StatusCode.INVALID_ARGUMENT}
    rig.spool.append(spooled(25))
    for _ in range(3):
        rig.reporter.report(rig.stop)
    assert sorted(tickets(rig.control)) == [i for i in range(1, 26) if i != 13]
    assert (len(rig.spool), rig.spool.dropped, rig.reporter.refused) == (0, 1, 1)


def test_an_outcome_that_cant_be_read_does_not_stop_the_agent(rig: Rig) -> None:
    rig.spool.append([*spooled(3), b"\xff", *spooled(20, 4)])
    rig.reporter.report(rig.stop)
    assert tickets(rig.control) == list(range(1, 24))
    assert (len(rig.spool), rig.spool.dropped) == (0, 1)


def test_a_refused_status_costs_no_outcome(rig: Rig) -> None:
    rig.control.refuse_status = True
    rig.spool.append(spooled(25))
    for _ in range(6):
        rig.reporter.report(rig.stop)
    assert (len(rig.spool), rig.spool.dropped, rig.reporter.refused) == (25, 0, 0)
    rig.control.refuse_status = False
    rig.reporter.report(rig.stop)
    assert tickets(rig.control) == list(range(1, 26))


@pytest.mark.parametrize("n", [1, 25])
def test_a_busy_control_plane_is_given_time_and_costs_no_outcome(rig: Rig, n: int) -> None:
    rig.control.refuse = dict.fromkeys(range(1, n + 1), grpc.StatusCode.RESOURCE_EXHAUSTED)
    rig.spool.append(spooled(n))
    for _ in range(6):
        before = rig.control.calls
        rig.reporter.report(rig.stop)
        assert rig.control.calls == before + 1  # no hammering on who is busy
    assert (len(rig.spool), rig.spool.dropped, rig.reporter.refused) == (n, 0, 0)
    rig.control.refuse = {}
    rig.reporter.report(rig.stop)
    assert tickets(rig.control) == list(range(1, n + 1))


def test_a_batch_that_is_too_large_gets_smaller(rig: Rig) -> None:
    rig.control.most = 3
    rig.spool.append(spooled(25))
    for _ in range(20):
        rig.reporter.report(rig.stop)
    assert tickets(rig.control) == list(range(1, 26))
    assert (rig.spool.dropped, rig.control.duplicates) == (0, 0)


def test_a_failing_store_keeps_outcomes_here_and_the_watch_open(rig: Rig) -> None:
    rig.start(rig.watcher.run)
    rig.control.publish(make_policy(1))
    rig.control.wait(lambda: rig.version() == 1)
    rig.control.refuse = {2: grpc.StatusCode.INTERNAL}
    rig.spool.append(spooled(3))
    for _ in range(4):
        rig.reporter.report(rig.stop)
    assert len(rig.spool) == 3
    rig.control.refuse = {}
    rig.reporter.report(rig.stop)
    assert tickets(rig.control) == [1, 2, 3]
    assert rig.control.watches == 1
