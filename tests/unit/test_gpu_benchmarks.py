# SPDX-License-Identifier: Apache-2.0
"""The GPU benchmarks' own arithmetic, and their scripts over an engine that takes no time."""

import argparse
import math
import sys
from collections.abc import Iterable
from itertools import islice, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
import closed_loop
import energy_tokens
import open_loop
from _drive import Batches, Closed, Open, drive
from _engine import SHAPES, Step, config
from _figures import mean, percentile, power_fit, saved
from _meter import between
from _run import Bench
from _work import Lengths, Request, lengths, poisson, read
from table import render

from sprout.profile.power import PowerModel, Window

TRUTH = PowerModel(100.0, 0.01, 0.05, 200.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


class Machine:
    """One token of every request in each step of `step_s`; its power is TRUTH's, exactly."""

    def __init__(self, clock: Clock, step_s: float = 0.02) -> None:
        self.clock, self.step_s = clock, step_s
        self.left: dict[str, int] = {}
        self.submitted: list[tuple[int, int]] = []
        self.most = 0
        self.joules = [(clock.now, 0.0)]
        self._prefill = 0

    def submit(self, key: str, prompt_tokens: int, output_tokens: int) -> None:
        self.left[key] = output_tokens
        self.submitted.append((prompt_tokens, output_tokens))
        self.most = max(self.most, len(self.left))
        self._prefill += prompt_tokens

    def step(self) -> list[Step]:
        self.spend_idle()
        self.clock.now += self.step_s
        joules = self.step_s * (TRUTH.idle_watts + TRUTH.busy_watts)
        joules += TRUTH.prefill_j_per_token * self._prefill
        joules += TRUTH.decode_j_per_token * len(self.left)
        self._prefill = 0
        self.joules.append((self.clock.now, self.joules[-1][1] + joules))
        steps = [Step(key, 1, left == 1) for key, left in self.left.items()]
        self.left = {key: left - 1 for key, left in self.left.items() if left > 1}
        return steps

    def abort(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self.left[key]

    def spend_idle(self) -> None:
        at, joules = self.joules[-1]
        if self.clock.now > at:
            self.joules.append((self.clock.now, joules + (self.clock.now - at) * TRUTH.idle_watts))

    def between(self, since: float, until: float) -> float:
        self.spend_idle()
        at, joules = np.array(self.joules).T
        low, high = np.interp([since, until], at, joules)
        return float(high - low)


def bench(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Machine]:
    """On a clock of its own, for the scripts too."""
    clock = Clock()
    machine = Machine(clock)
    real = drive
    for module in (energy_tokens, closed_loop, open_loop):
        monkeypatch.setattr(
            module, "drive", lambda *args: real(*args, clock=clock, sleep=clock.sleep)
        )
    monkeypatch.setattr("time.monotonic", clock)
    monkeypatch.setattr("time.sleep", clock.sleep)
    rng = np.random.default_rng(3)
    joules = rng.exponential(600, (200, 1)) * np.array([1.0, 0.25, 0.15])
    return Bench(machine, machine.between, lengths(rng.integers(20, 900, 200), joules, longest=400),
                 7), machine  # fmt: skip


HEAD = {
    "commit": "abc",
    "gpu": "NVIDIA H100 80GB HBM3",
    "driver": "1",
    "vllm": "2",
    "torch": "3",
    "model": "Llama-2-13b-shaped, random weights",
    "seed": 7,
    "requests_at_once": 128,
}


# --- the counter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [0.0, 0.03, 0.07])
def test_a_counter_of_steps_is_read_between_them(phase: float) -> None:
    """400 W, a counter that moves every 0.1 s and is polled every 10 ms."""
    times = np.arange(0, 10, 0.01)
    joules = 400 * np.floor((times + phase) / 0.1 + 1e-9) * 0.1
    assert between(times, joules, 1.234, 6.789) == pytest.approx(400 * 5.555, rel=2e-3)


def test_a_counter_that_does_not_enclose_the_window_gives_no_energy() -> None:
    times = np.arange(0, 2, 0.01)
    joules = np.floor(times / 0.1)
    with pytest.raises(ValueError, match="covers"):
        between(times, joules, 0.5, 2.5)
    with pytest.raises(ValueError, match="covers nothing"):
        between(times, np.ones_like(times), 0.5, 1.0)


# --- lengths and arrivals ------------------------------------------------------------------------


def test_lengths_come_from_recorded_energy_and_text() -> None:
    joules = np.array([[590.0, 59.0, 1.0], [1e6, 5.9, 5.9]])
    made = lengths(np.array([401, 0]), joules, longest=1024)
    assert made.output.tolist() == [[100, 10, 1], [1024, 1, 1]]
    assert made.prompt.tolist() == [[101, 118, 119], [1, 17, 18]]


def test_a_bundle_gives_the_lengths(tmp_path: Path) -> None:
    import gzip

    text = 'id,task,prompt,wh_l0,wh_l1,wh_l2\na,t,"two\nlines",0.59,0.059,0.0059\n'
    (tmp_path / "requests.csv.gz").write_bytes(gzip.compress(text.encode()))
    made = read(tmp_path, 1024)
    assert made.output.tolist() == [[360, 36, 4]]
    assert made.prompt[0, 0] == 3


def test_arrivals_are_poisson_and_follow_from_the_seed() -> None:
    times = poisson(20.0, 500.0, np.random.default_rng(1))
    assert len(times) == pytest.approx(10_000, abs=4 * 100)
    gaps = np.diff(times)
    assert (gaps > 0).all()
    assert times[-1] < 500
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    assert np.array_equal(times, poisson(20.0, 500.0, np.random.default_rng(1)))
    with pytest.raises(ValueError, match="no arrivals"):
        poisson(0.0, 1.0, np.random.default_rng(1))


def test_config_has_the_published_sizes() -> None:
    """Llama-2: 6.74 and 13.02 billion parameters."""
    for shape, billions in (("7b", 6.74), ("13b", 13.02)):
        made = config(shape)
        h, f = made["hidden_size"], made["intermediate_size"]
        layer = 4 * h * h + 3 * h * f + 2 * h
        total = made["num_hidden_layers"] * layer + 2 * made["vocab_size"] * h + h
        assert total / 1e9 == pytest.approx(billions, abs=0.01)
    assert set(SHAPES) == {"7b", "13b"}


# --- the driver ----------------------------------------------------------------------------------


def test_closed_loop_keeps_so_many_in_flight() -> None:
    clock = Clock()
    machine = Machine(clock)
    trace = drive(machine, Closed(5, repeat(Request(10, 7))), 3.0, clock=clock, sleep=clock.sleep)
    assert machine.most == 5
    assert not machine.left  # aborted
    ended = [f for f in trace.flights if not math.isnan(f.ended)]
    assert {round(f.ended - f.arrived, 6) for f in ended} == {0.14}
    window = trace.window(1.0, 1000.5, 1002.5, block=0, level="L0", kind="closed", setting=5)
    assert window.active_seconds == pytest.approx(10.0)
    assert window.busy_seconds == pytest.approx(2.0)
    assert window.decode_tokens + len(
        [f for f in trace.flights if 1000.5 <= f.first < 1002.5]
    ) == pytest.approx(5 * 100, abs=5)


def test_open_loop_counts_latency_from_the_arrival() -> None:
    """The second comes while a step is under way: it waits for it, and that is in its latency."""
    clock = Clock()
    machine = Machine(clock, step_s=1.0)
    feed = Open(np.array([0.5, 0.75]), [Request(10, 2), Request(20, 2)])
    trace = drive(machine, feed, 100.0, clock=clock, sleep=clock.sleep)
    assert [f.ended - f.arrived for f in trace.flights] == pytest.approx([2.0, 2.75])
    assert trace.ended == pytest.approx(1003.5)  # nothing left to wait for


def test_batches_are_whole() -> None:
    clock = Clock()
    machine = Machine(clock)
    feed = Batches(4, Request(10, 6), 0.3)
    trace = drive(machine, feed, 100.0, clock=clock, sleep=clock.sleep)
    assert feed.whole == 3  # 0.12 s each
    assert len(trace.latencies(0.0, math.inf)) == 12


# --- figures -------------------------------------------------------------------------------------


def test_intervals_are_student_s() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["half_width"] == pytest.approx(4.30265 / math.sqrt(3), rel=1e-4)
    assert mean([1.0])["half_width"] is None
    assert saved([10.0, 20.0], [5.0, 10.0])["mean"] == 0.5
    with pytest.raises(ValueError, match="zip"):
        saved([1.0], [1.0, 2.0])


def test_a_tail_needs_requests() -> None:
    assert percentile(range(99), 99) is None
    assert percentile(range(101), 99) == pytest.approx(99.0)
    assert percentile(range(9), 50) is None


def test_fit_finds_the_truth_and_what_it_misses() -> None:
    rng = np.random.default_rng(1)
    made = [Window(100, "", "idle", 0.0, 10.0, 1000.0, 0.0, 0.0, 0.0, 0.0, 0)]
    for block in range(12):
        prefill, decode, busy = rng.uniform((0, 0, 0.2), (2000, 3000, 1.0))
        watts = TRUTH.watts(prefill, decode, busy) + (30.0 if block == 3 else 0.0)
        made.append(
            Window(block, "L0", "open", 1.0, 10.0, 10 * watts, 10 * prefill, 10 * decode,
                   10 * busy, 10 * busy, 5)
        )  # fmt: skip
    found = power_fit(made, seed=1)
    assert found["model"]["busy_watts"] == pytest.approx(200, abs=30)
    assert len(found["residuals_watts"]) == len(made)
    assert found["left_out_rmse_watts"] > found["rmse_watts"] > 1
    assert max(found["residuals_watts"]) == found["residuals_watts"][4]


# --- the scripts ---------------------------------------------------------------------------------


def test_energy_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = bench(monkeypatch)
    given = argparse.Namespace(seed=1, energy_seconds=30.0, quick=False)
    found = energy_tokens.measure(made, given)
    assert [w["watts"] for w in found["idle"]] == pytest.approx([100.0, 100.0])
    assert len(found["cells"]) % len(energy_tokens.cells()) == 0
    by = {(c["batch"], c["prompt_tokens"], c["output_tokens"]): c for c in found["cells"]}
    alone = by[1, 128, 64]["joules_per_request"]
    assert alone == pytest.approx(64 * (0.02 * 300 + 0.05) + 1.28)
    assert by[32, 128, 64]["joules_per_request"] == pytest.approx(64 * (6 / 32 + 0.05) + 1.28)
    text = render([{"measurement": "energy_tokens", **HEAD, **found}])
    assert "| 32 | 128 | 64 | 16.5" in text
    assert "embodied carbon at 0.00173" in text


def test_closed_loop_script(monkeypatch: pytest.MonkeyPatch) -> None:
    made, machine = bench(monkeypatch)
    given = argparse.Namespace(seed=1, closed_seconds=200.0, quick=False)
    found = closed_loop.measure(made, given)
    assert len(found["cells"]) == 24  # 7 s each, two rounds and no half one
    assert machine.most == 128
    for cell in found["cells"]:
        n = cell["concurrency"]
        assert made.lengths is not None
        tokens = made.lengths.output[:, cell["level"]].mean()
        joules = (0.02 * 300 + 0.05 * n) / n * tokens  # and the prefill's
        assert joules < cell["joules_per_request"] < joules + 4 + 0.1 * joules
    assert "saved against L0" in render([{"measurement": "closed_loop", **HEAD, **found}])


def test_open_loop_script(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = bench(monkeypatch)
    given = argparse.Namespace(seed=1, open_seconds=450.0, quick=False)
    found: dict[str, Any] = open_loop.measure(made, given)
    first = [c for c in found["cells"] if c["round"] == 0]
    assert len(first) == 17
    assert len(found["cells"]) > 17
    for share in open_loop.SHARES:
        same = [c for c in first if c["kind"] == "equal" and c["share"] == share]
        assert len({c["arrived"] for c in same}) == 1
        by = {c["level"]: c["watts"] for c in same}
        assert by[0] > by[1] > by[2]
    fit = found["fit"]["model"]  # the machine's power is of the fitted form, so nothing is left
    assert fit["idle_watts"] == pytest.approx(100, rel=0.05)
    assert fit["busy_watts"] == pytest.approx(200, rel=0.05)
    assert fit["decode_j_per_token"] == pytest.approx(0.05, rel=0.1)
    assert found["fit"]["r2"] > 0.99
    text = render([{"measurement": "open_loop", **HEAD, **found}])
    assert "Estimated from it, not measured" in text


def test_levels_share_prompts() -> None:
    made = Lengths(np.arange(30).reshape(10, 3) + 1, np.arange(30).reshape(10, 3) + 1)
    drawn = [
        [r.prompt_tokens for r in islice(closed_loop.requests(made, level, 8, 5), 2000)]
        for level in range(3)
    ]
    assert len(set(drawn[0])) == 10
    assert all(b - a == 1 for pair in pairwise(drawn) for a, b in zip(*pair, strict=True))
