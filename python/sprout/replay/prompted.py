# SPDX-License-Identifier: Apache-2.0
"""PROMPT: each prompt's level by what its own text says of it, at one price of quality per window.

In every hour each prompt takes the level of the least carbon - price q / Q0, Q0 being the hour's
mean preference of L0; carbon and q are *predicted*. One price holds for all hours of a window, so
quality goes where it is cheapest, over prompts and over hours.

The price for a target is chosen on the prompts that the predictor was fitted on, by their
cross-fitted predictions and by how they were *judged* (a price set by predictions alone would
inherit their errors). It knows the window's grid and mix in hindsight, as static mixes here do, but
not what comes of the bundle's prompts. Realised are the bundle's judged prompts in every hour's
mix, in expectation: nothing is drawn. One that the predictor was fitted on is predicted by a model
without it, and gets the price of the other folds: in-sample is nothing but that the two share the
predictor's design.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sprout.errors import ConfigError
from sprout.optimize.means import THREADS, Device
from sprout.predict.document import Predictor
from sprout.predict.sample import FOLDS, fingerprint
from sprout.replay.bundle import UNKNOWN, Bundle
from sprout.replay.window import Outcome, Plan, Window
from sprout.units import JOULES_PER_KWH
from sprout_ext.price_table import PriceTable

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

STEPS = 240  # of a price, from a thousandth to a thousand times the mean energy
SPAN = 1e3
INTENSITIES = 12  # at which the embodied share of a cost is tabled
UNSEEN = -1  # the fold of a prompt that the predictor was not fitted on


@dataclass(frozen=True, eq=False)
class Prompts:
    """m judged prompts, C of the bundle's tasks, L levels."""

    weights: Array  # (C, m) each prompt's share in its task; rows sum to 1
    preferred: Indices  # (m,)
    energy_kwh: Array  # (m, L) measured
    seconds: Array  # (m, L)
    q: Array  # (m, L) predicted
    predicted_kwh: Array  # (m, L)
    fold: Indices  # (m,)


class Prompted:
    """One bundle under one predictor. ConfigError where they don't fit.

    On "cuda" the bundle's texts are scored and the fitting prompts' choices found: the choices are
    the CPU's bits, scores differ by 1e-11 relative."""

    def __init__(self, bundle: Bundle, predictor: Predictor, device: Device = "cpu") -> None:
        meta = predictor.meta
        if len(meta.levels) != bundle.levels:
            raise ConfigError(
                f"--predictor knows {len(meta.levels)} levels, {bundle.folder} has {bundle.levels}"
            )
        if missing := [task for task in bundle.tasks if task not in meta.classes]:
            raise ConfigError(
                f"--predictor was not fitted on {', '.join(missing)}: no price can be set for a "
                "mix of them"
            )
        self._seconds_per_kwh = np.array(meta.seconds_per_joule) * JOULES_PER_KWH
        self.fitted = _fitted(bundle, predictor)
        self.own = _own(bundle, predictor, device)
        self._device: Device = device
        self._curves: dict[tuple[object, ...], tuple[Array, Array]] = {}

    @property
    def seen(self) -> int:
        """How many of the bundle's judged prompts the predictor was fitted on."""
        return int((self.own.fold != UNSEEN).sum())

    def price(self, window: Window, target: float, fold: int = UNSEEN) -> float:
        """Grams per unit of normalised preference at which the fitting prompts, one fold of them
        left out, have the target in this window. The largest where none has."""
        prices, reached = self._curve(window, fold)
        return float(np.exp(np.interp(target, reached, np.log(prices))))

    def plan(self, window: Window, target: float) -> tuple[Plan, Outcome]:
        return self.measure(window, self.levels(window, target))

    def levels(self, window: Window, target: float) -> NDArray[np.int8]:
        """(H, m) of the bundle's judged prompts."""
        return self.levels_at(
            window, lambda fold: self.price(window, target, fold) / self.q0(window, fold)
        )

    def levels_at(self, window: Window, prices: Callable[[int], Array]) -> NDArray[np.int8]:
        """(H, m) at prices (H,) in grams per unit of q, for those of a fold."""
        own, meta = self.own, window.bundle.meta
        embodied = meta.embodied_g_per_s * (own.predicted_kwh * self._seconds_per_kwh)
        found = np.empty((window.hours, len(own.fold)), dtype=np.int8)
        for fold in np.unique(own.fold).tolist():
            at = np.flatnonzero(own.fold == fold)
            # That an hour's kWh cost pue k0 is a price too: one table serves all hours.
            rows = -own.predicted_kwh[at], own.q[at]
            table = PriceTable(embodied[at], rows, device=self._device, threads=THREADS)
            found[:, at] = table.choose(np.stack([meta.pue * window.k0, prices(fold)], axis=1))
        return found

    def measure(self, window: Window, levels: NDArray[np.int8]) -> tuple[Plan, Outcome]:
        """What levels (H, m) come to."""
        own = self.own
        weights = window.bundle.mix_of(window.hours) @ own.weights
        at = np.arange(len(own.preferred))
        grams, won = np.empty(window.hours), np.empty(window.hours)
        shares = np.empty((window.hours, window.levels))
        for hour, (w, chosen) in enumerate(zip(weights, levels, strict=True)):
            energy, seconds = own.energy_kwh[at, chosen], own.seconds[at, chosen]
            grams[hour] = window.grams(w @ energy, w @ seconds, window.k0[hour])
            won[hour] = w @ (own.preferred == chosen)
            shares[hour] = np.bincount(chosen, weights=w, minlength=window.levels)
        base = window.grams(weights @ own.energy_kwh[:, 0], weights @ own.seconds[:, 0], window.k0)
        preference = won / (weights @ (own.preferred == 0))
        plan = Plan(shares, tuple(range(window.levels)))
        return plan, Outcome(grams, base, preference, preference)

    @cached_property
    def table(self) -> "Table":
        return Table(self.fitted, self._seconds_per_kwh, self._device)

    def q0(self, window: Window, fold: int) -> Array:
        """(H,) preference of L0 in the hour's mix, by the fitting prompts without a fold."""
        found: Array = window.bundle.mix_of(window.hours) @ self.table.q0(fold)
        return found

    def _curve(self, window: Window, fold: int) -> tuple[Array, Array]:
        """Prices, ascending, and the preference at each: judged, made monotone."""
        key = (window.grid.zone, window.start, id(window.grid), fold)
        if key not in self._curves:
            meta = window.bundle.meta
            mix, q0 = window.bundle.mix_of(window.hours), self.q0(window, fold)
            grams_per_kwh = meta.pue * np.maximum(window.k0, 1e-9)
            prices = self.table.grid * float((grams_per_kwh * q0).mean())
            kwh = prices[None] / (grams_per_kwh * q0)[:, None]
            embodied = meta.embodied_g_per_s / grams_per_kwh
            won = np.einsum("hc,chp->hp", mix, self.table.won(kwh, embodied, fold))
            self._curves[key] = prices, monotone((won / q0[:, None]).mean(axis=0))
        return self._curves[key]


class Table:
    """How often the fitting prompts' choices won, by fold, task, price and weight of seconds.

    A choice is argmin e (1 + embodied r) - price q, in kWh: `embodied` kWh per second that a
    device is worth at the hour's intensity, r seconds per kWh of the level.
    """

    def __init__(self, prompts: Prompts, seconds_per_kwh: Array, device: Device = "cpu") -> None:
        scale = float(prompts.energy_kwh.mean())
        self.grid = np.geomspace(scale / SPAN, scale * SPAN, STEPS)  # kWh per unit of preference
        # From no embodied carbon to as much as that of energy, evenly in its root.
        self._embodied = np.linspace(0, 1, INTENSITIES) ** 2 / float(seconds_per_kwh.max())
        folds = np.where(prompts.fold == UNSEEN, 0, prompts.fold)
        split = np.eye(FOLDS)[folds].T[:, None, :] * prompts.weights[None]  # (F, C, m)
        self._weight = split.sum(axis=2)  # (F, C)
        self._q0 = split @ (prompts.preferred == 0)  # (F, C)
        flat = split.reshape(-1, split.shape[2])
        self._won = np.empty((FOLDS, split.shape[1], INTENSITIES, STEPS))
        for b, embodied in enumerate(self._embodied):
            costs = prompts.predicted_kwh * (1 + embodied * seconds_per_kwh)
            prices = PriceTable(costs, [prompts.q], device=device, threads=THREADS)
            won = prices.choose(self.grid[:, None]) == prompts.preferred
            self._won[:, :, b] = (flat @ won.T).reshape(FOLDS, -1, STEPS)

    def q0(self, fold: int) -> Array:
        """(C,) without a fold."""
        found: Array = self._without(self._q0, fold) / self._without(self._weight, fold)
        return found

    def won(self, kwh: Array, embodied: Array, fold: int) -> Array:
        """(C, H, prices) share of each task whose choice won, at prices kwh (H, prices) and
        embodied kWh per second (H,)."""
        rate = self._without(self._won, fold) / self._without(self._weight, fold)[:, None, None]
        nearest = np.abs(self._embodied[None] - embodied[:, None]).argmin(axis=1)
        by_hour = rate[:, nearest]
        at = np.log(kwh / self.grid[0]) / np.log(self.grid[1] / self.grid[0])
        at = np.clip(at, 0, STEPS - 1)
        low = np.minimum(at.astype(np.int64), STEPS - 2)
        part = at - low
        rows = np.arange(len(kwh))[:, None]
        found: Array = (1 - part) * by_hour[:, rows, low] + part * by_hour[:, rows, low + 1]
        return found

    def _without(self, by_fold: Array, fold: int) -> Array:
        total: Array = by_fold.sum(axis=0)
        return total if fold == UNSEEN else total - by_fold[fold]


def in_sample(bundle: Bundle, predictor: Predictor) -> str:
    """What a reader must know of PROMPT's figures."""
    rows = np.flatnonzero(bundle.preferred != UNKNOWN)
    known = set(predictor.judged.fingerprint.tolist())
    seen = sum(fingerprint(_bytes(bundle.prompts[i])) in known for i in rows)
    return (
        f"PROMPT, PROMPT_BANK: {seen:,} of {len(rows):,} judged prompts are those that the "
        "predictor was fitted on; these are cross-fitted, prediction and price alike. PROMPT's "
        "price knows the window's grid and mix in hindsight, PROMPT_BANK's does not"
    )


def _bytes(prompt: str) -> bytes:
    return prompt.encode("utf-8", "surrogatepass")


def monotone(values: Array) -> Array:
    """The nearest ascending sequence (least squares): neighbours that fall are pooled."""
    sums: list[tuple[float, int]] = []
    for value in values.tolist():
        total, count = value, 1
        while sums and sums[-1][0] * count > total * sums[-1][1]:
            before, many = sums.pop()
            total, count = total + before, count + many
        sums.append((total, count))
    return np.array([total / count for total, count in sums for _ in range(count)])


def _weights(label: Indices, classes: int) -> Array:
    ones = np.eye(classes)[label].T
    found: Array = ones / np.maximum(ones.sum(axis=1, keepdims=True), 1)
    return found


def _fitted(bundle: Bundle, predictor: Predictor) -> Prompts:
    """The predictor's own judged prompts, those of the bundle's tasks."""
    judged, classes = predictor.judged, predictor.meta.classes
    task = np.array([bundle.tasks.index(c) if c in bundle.tasks else UNKNOWN for c in classes])
    label = task[judged.label]
    rows = np.flatnonzero(label != UNKNOWN)
    return Prompts(
        _weights(label[rows], len(bundle.tasks)),
        judged.preferred[rows],
        judged.joules[rows] / JOULES_PER_KWH,
        judged.seconds[rows],
        judged.predicted_preference[rows],
        judged.predicted_joules[rows] / JOULES_PER_KWH,
        judged.fold[rows],
    )


def _own(bundle: Bundle, predictor: Predictor, device: Device) -> Prompts:
    """The bundle's judged prompts: predicted by the scorer, or cross-fitted where it knows them."""
    rows = np.flatnonzero(bundle.preferred != UNKNOWN)
    texts = [_bytes(bundle.prompts[i]) for i in rows]
    scores = predictor.scorer().score_many(texts, cuda=device == "cuda")
    q, joules = scores[:, : bundle.levels].copy(), scores[:, bundle.levels :].copy()
    fold = np.full(len(rows), UNSEEN, dtype=np.int64)
    judged = predictor.judged
    known = {int(each): i for i, each in enumerate(judged.fingerprint)}
    for row, text in enumerate(texts):
        at = known.get(fingerprint(text))
        if at is not None:
            q[row], joules[row] = judged.predicted_preference[at], judged.predicted_joules[at]
            fold[row] = judged.fold[at]
    return Prompts(
        _weights(bundle.task[rows], len(bundle.tasks)),
        bundle.preferred[rows],
        bundle.energy_kwh[rows],
        bundle.seconds[rows],
        q,
        joules / JOULES_PER_KWH,
        fold,
    )
