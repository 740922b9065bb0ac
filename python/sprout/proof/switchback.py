# SPDX-License-Identifier: Apache-2.0
"""Whole nodes in turn at L0 and under the policy: the experiment behind "carbon saved".

Time is cut into blocks, and blocks into pairs. In each pair one block, chosen by a fair draw,
serves L0 to everybody and the other serves the policy; the beginning of every block is wash-out,
not measured, so that requests and heat of the block before don't count for it. The blocks of a pair
stand next to each other in time, so that traffic and grid differ little, and by chance alone.

What is compared is what nodes used, idle included, per request that was opened. The draws are
Philox's: seed and pair number give the same blocks on every machine.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sprout.proof.bootstrap import RESAMPLES, difference, log_ratio, studentized
from sprout.proof.interval import CONFIDENCE, Absent, Interval, saved_of_log_ratio
from sprout.units import operational_g

L0, POLICY = "L0", "policy"
MIN_PAIRS = 6  # with fewer, resamples differ too little for the ends of an interval
_WORD = 1 << 64


@dataclass(frozen=True)
class Schedule:
    seed: int  # unsigned, below 2^64
    started_at: float  # seconds, of any clock
    block_s: float
    washout_s: float  # of each block, from its start
    share: float = 1.0  # of the pairs; the rest is the policy all through, and not measured

    def index(self, time_s: float) -> int:
        """Of the block that the time is in; 0 is the first, negative before it."""
        return math.floor((time_s - self.started_at) / self.block_s)

    def block(self, index: int) -> "Block":
        pair, second = divmod(index, 2)
        wanted, order = _draw(self.seed, pair)
        measured = wanted < round(self.share * _WORD)
        at_l0 = measured and (order & 1) == second
        start_s = self.started_at + index * self.block_s
        return Block(
            seed=self.seed,
            index=index,
            pair=pair,
            arm=L0 if at_l0 else POLICY,
            measured=measured,
            start_s=start_s,
            measured_from_s=start_s + self.washout_s,
            end_s=start_s + self.block_s,
        )


def _draw(seed: int, pair: int) -> tuple[int, int]:
    """Two words of 64 bits that depend on nothing else."""
    if pair < 0:
        raise ValueError("a schedule has no block before its start")
    words = np.random.Philox(key=seed, counter=[pair, 0, 0, 0]).random_raw(2)
    return int(words[0]), int(words[1])


def label(seed: int, index: int) -> str:
    """What the name of a block begins with."""
    return f"block {index} of switchback {seed:x}, "


@dataclass(frozen=True)
class Block:
    seed: int
    index: int
    pair: int
    arm: str  # L0 or POLICY
    measured: bool  # in a pair that is an experiment
    start_s: float
    measured_from_s: float
    end_s: float

    @property
    def name(self) -> str:
        """For people: which block this is."""
        what = f"arm {self.arm}" if self.measured else "not in the experiment"
        return f"{label(self.seed, self.index)}{what}"


@dataclass(frozen=True)
class Cell:
    """One node in one block behind its wash-out."""

    seed: int
    pair: int
    arm: str
    node: str
    joules: float  # metered, idle included
    requests: int  # opened
    g_per_kwh: float  # mean intensity of the block; nan: not known
    series: str = ""  # of the intensity: grams of two are never added


@dataclass(frozen=True)
class System:
    pairs: int
    nodes: int
    requests: int  # in all measured blocks
    policy_joules: float  # per request, idle included
    l0_joules: float
    energy_saved: Interval  # fraction of L0's joules per request
    policy_g: float  # per request, operational
    l0_g: float
    carbon_saved: Interval  # fraction of L0's grams per request
    carbon_saved_g: Interval  # in the measured policy blocks together
    series: str  # of the intensity that all of this is priced at
    pairs_of_others: int  # left out: whole, but priced in another series, or in two


def estimate(
    cells: Iterable[Cell],
    *,
    pue: float,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> System | Absent:
    """Compare the arms over the pairs that are whole: same nodes, both blocks, intensity known.

    Both blocks of a pair are priced at the pair's mean intensity: that the grid was cleaner in one
    of them is chance, not a saving. Pairs of the series that has most of them are compared; where
    the intensity came from elsewhere in between, those pairs are left out and counted, and a pair
    with two series is never compared: their mean is no intensity. Embodied carbon is the same in
    both arms and not counted. seed: of the resampling.
    """
    by_series, mixed = _pairs(cells)
    series = max(by_series, key=lambda own: (len(by_series[own]), own), default="")
    pairs = by_series.get(series, [])
    rows, nodes = [row for row, _ in pairs], {name for _, names in pairs for name in names}
    others = mixed + sum(len(own) for own in by_series.values()) - len(pairs)
    if len(rows) < MIN_PAIRS:
        of_others = f" (and {others} of another intensity's series, or of two)" if others else ""
        return Absent(
            f"{len(rows)} whole pairs of blocks{of_others}; an interval needs {MIN_PAIRS}"
        )
    table = np.array(rows)  # (pairs, 5): policy J, requests, L0 J, requests, g/kWh
    energy, weights = table[:, :4], table[:, 4:]
    joules_1, requests_1, joules_0, requests_0 = energy.sum(axis=0)
    if min(requests_1, requests_0) <= 0:
        return Absent("no requests in the measured blocks of an arm")
    if min(joules_1, joules_0) <= 0:
        return Absent("the meter counted nothing in the measured blocks of an arm")
    carbon = energy.copy()
    carbon[:, 0::2] = operational_g(energy[:, 0::2], weights, np.float64(pue))  # type: ignore[type-var]
    grams_1, _, grams_0, _ = carbon.sum(axis=0)
    if min(grams_1, grams_0) <= 0:
        return Absent("the grid emitted nothing in the measured blocks")
    interval = partial(studentized, seed=seed, confidence=confidence, resamples=resamples)
    return System(
        pairs=len(rows),
        nodes=len(nodes),
        requests=int(requests_1 + requests_0),
        policy_joules=float(joules_1 / requests_1),
        l0_joules=float(joules_0 / requests_0),
        energy_saved=saved_of_log_ratio(interval(energy, log_ratio)),
        policy_g=float(grams_1 / requests_1),
        l0_g=float(grams_0 / requests_0),
        carbon_saved=saved_of_log_ratio(interval(carbon, log_ratio)),
        carbon_saved_g=interval(carbon, difference).times(float(requests_1)),
        series=series,
        pairs_of_others=others,
    )


def _pairs(
    cells: Iterable[Cell],
) -> tuple[dict[str, list[tuple[tuple[float, ...], frozenset[str]]]], int]:
    """By series, "" among them: of each pair the sums over the nodes that were measured in both of
    its blocks, and these nodes. And how many pairs have two series."""
    by_pair: dict[tuple[int, int], dict[str, dict[str, Cell]]] = {}
    for cell in cells:
        by_pair.setdefault((cell.seed, cell.pair), {}).setdefault(cell.node, {})[cell.arm] = cell
    found: dict[str, list[tuple[tuple[float, ...], frozenset[str]]]] = {}
    mixed = 0
    for _, nodes in sorted(by_pair.items()):
        whole = {
            name: arms
            for name, arms in nodes.items()
            if arms.keys() == {L0, POLICY}
            and not any(math.isnan(cell.g_per_kwh) for cell in arms.values())
        }
        if not whole:
            continue
        policy = [arms[POLICY] for arms in whole.values()]
        held = [arms[L0] for arms in whole.values()]
        series = {c.series for c in policy + held}
        if len(series) > 1:
            mixed += 1
            continue
        row = (
            math.fsum(c.joules for c in policy),
            sum(c.requests for c in policy),
            math.fsum(c.joules for c in held),
            sum(c.requests for c in held),
            math.fsum(c.g_per_kwh for c in policy + held) / (2 * len(whole)),
        )
        found.setdefault(series.pop(), []).append((row, frozenset(whole)))
    return found, mixed
