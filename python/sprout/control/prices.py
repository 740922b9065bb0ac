# SPDX-License-Identifier: Apache-2.0
"""What the prompt-aware program says for the present hour: prices that make a level of a prompt.

It is solved on the prompts that the predictor was judged on, by predictions of models that had not
seen them; w their weights, by the traffic's classes. Per prompt i and level l, with e, p and q of
the decision and bars for the sample's weighted means:

    cost_il  =  k0 PUE (e_l / jbar_l) joules_il  +  k1 p_l                             grams
    worth_il =  preference_il / qbar_0  +  (q_l / q_0 - qbar_l / qbar_0)               of L0's

So a level's mean cost and mean worth are those that the mix is decided on, and only who is above
and who below them is the predictor's. The correction of the worth adds and does not multiply: the
rule has one price for all levels, and in it only what adds can be had.

Who gains by a choice is predicted, and choosing by predictions picks those that flatter. So what
the choice comes to is counted by how the same prompts were *judged*, where that is less, and prices
are raised until this keeps the floor. See docs/prompt_aware.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sprout.control import expected
from sprout.control.inputs import Inputs
from sprout.control.plan import Plan, PromptPlan, PromptPoint
from sprout.control.predicted import Predicted
from sprout.errors import InfeasibleError
from sprout.optimize.contrast import deviation
from sprout.optimize.program import INFINITY, Program
from sprout.optimize.prompt import Row, solve
from sprout.units import operational_g

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_POINTS = 4  # of a policy
ROUNDING = 1e-7  # of preference and of shares
ROUNDS = 20  # in which prices must be found that keep the floor
CLOSE = 1e-4  # of preference, from above: where its search ends
# Beside a price one that is by so much lower and higher: prompts tied at it go one way whole.
NUDGES = (0.0, -1e-9, 1e-9)
SLACK = 1e-8  # that sums of the solver's may be off
SHARE = 1e-9  # a point of a smaller fraction is rounding
NOT_DECIDED = {
    "paused": "paused",
    "pinned": "pinned",
    "no intensity": "no intensity",
    "infeasible": "no feasible policy",
    "shadow": "shadow mode",
    "block": "a block of L0",
}


def excluded(plan: Plan) -> str:
    """Why this plan has no part for prompts, whatever they are; "": it may have one."""
    if plan.active_constraint in NOT_DECIDED:
        return NOT_DECIDED[plan.active_constraint]
    return "" if plan.profile[0].preference > 0 else "L0 has no preference to compare with"


def price(inputs: Inputs, plan: Plan, known: Predicted) -> tuple[PromptPlan | None, str]:
    """(the prices, "") or (None, why there are none). plan: of these inputs, not `excluded`.

    Takes tenths of a second for some thousand prompts.
    """
    if inputs.prompts is None or inputs.intensity_g_per_kwh is None:
        return None, "nothing to decide on"
    try:
        return _Program(inputs, plan, known).solved()
    except InfeasibleError as error:
        return None, f"prices can't be set: {error}"


def weights(known: Predicted, traffic: tuple[tuple[str, float], ...]) -> Array:
    """(m,) that sum to 1: each class as in the traffic; what is of no class that the predictor
    knows ("") is spread over all prompts, and so is everything where nothing is known."""
    m = len(known.label)
    shares = dict(traffic)
    counts = np.bincount(known.label, minlength=len(known.classes))
    w = np.full(m, shares.pop("", 0.0) / m)
    for c, name in enumerate(known.classes):
        if counts[c] and name in shares:
            w[known.label == c] += shares[name] / counts[c]
    total = float(w.sum())
    return w / total if total > 0 else np.full(m, 1 / m)


@dataclass(frozen=True, eq=False)
class _Made:
    """What the published rule comes to on the sample, in expectation."""

    points: tuple[PromptPoint, ...]
    shares: Array  # (L,)
    preference: float  # as predicted, or as judged where that is less
    g: float
    surely: float  # the preference less z standard deviations of its contrast with the floor


@dataclass(frozen=True)
class _Cap:
    """sign * (the level's share) >= least"""

    level: int
    sign: float
    least: float


class _Program:
    def __init__(self, inputs: Inputs, plan: Plan, known: Predicted) -> None:
        self._inputs, self._plan, self._known = inputs, plan, known
        assert inputs.prompts is not None
        assert inputs.intensity_g_per_kwh is not None
        self._w = weights(known, inputs.prompts.traffic)
        profile = plan.profile
        joules = self._w @ known.joules
        q = np.array([p.preference for p in profile])
        e = np.array([p.energy_joules for p in profile])
        means = self._w @ known.preferences
        if means[0] <= 0 or joules.min() <= 0:
            raise InfeasibleError("of these prompts a level is expected to use or to be nothing")
        k0, pue = inputs.intensity_g_per_kwh, inputs.pue
        self._q, self._mean0 = q, float(means[0])
        self._g_per_joule = np.array([operational_g(1.0, k0, pue) for _ in profile]) * e / joules
        self._embodied = inputs.embodied_g_per_s * np.array([p.device_seconds for p in profile])
        self._more = q / q[0] - means / means[0]  # (L,)
        self._costs = self._g_per_joule * known.joules + self._embodied
        self._worth = known.preferences / self._mean0 + self._more
        self._won = np.eye(len(q))[known.preferred]
        if not (self._w @ self._won[:, 0]) > 0:
            raise InfeasibleError("of these prompts none was judged to be best at L0")
        self._covariance = np.array(inputs.covariance)
        self._z = plan.confidence.z if plan.confidence is not None else 0.0
        self._base, self._target = self._floor()
        self._caps = self._of_mix()

    def _floor(self) -> tuple[float, float]:
        """(what the preference must surely be, the floor that its contrast is with).

        The floor of the mix where that one answers for itself. Where others share it (a budget over
        hours, classes, tenants) what the mix has is what they leave to it, and that must stay.
        """
        inputs, plan = self._inputs, self._plan
        alone = plan.budget is None and all(group.opted_out for group in inputs.groups)
        if alone:
            return plan.floor, plan.floor
        mix = np.array(plan.shares)
        has = float(mix @ self._q) / float(self._q[0])
        return has - self._z * self._sd(mix, 0.0, has), has

    def _sd(self, shares: Array, told: float, floor: float, told_sd: float = 0.0) -> float:
        """Of the contrast with a floor, over L0's preference: by the judgments that q rests on, and
        by those that say what telling prompts apart gains, `told`."""
        if self._z == 0.0:
            return 0.0
        y = shares.copy()
        y[0] += told - floor
        q_sd = deviation(y[None, :], self._covariance[None]) / float(self._q[0])
        return math.hypot(q_sd, told_sd)

    def solved(self) -> tuple[PromptPlan | None, str]:
        """The lowest predicted mean of which `surely` keeps the floor, from the floor upwards: more
        L0 is both dearer and surer."""
        least = low = self._base
        ceiling, best = math.inf, None  # what can't be had even as predicted
        step = 0.0
        for _ in range(ROUNDS):
            try:
                found = self._at(least)
            except InfeasibleError:
                if least == self._base:
                    raise
                ceiling, least = least, (low + least) / 2
                continue
            points = len(found.points)
            if points > MOST_POINTS:
                return None, f"it takes {points} points, a policy has {MOST_POINTS}"
            missing = self._base - found.surely
            if missing > ROUNDING:
                low = least
            else:
                best = found, least
            if best is not None:
                if best[1] - low <= CLOSE:
                    break
                least = (low + best[1]) / 2
            elif ceiling - low <= CLOSE:
                break
            else:
                step = max(2 * step, missing + ROUNDING / 2)
                least = least + step if least + step < ceiling else (low + ceiling) / 2
        if best is None:
            return None, f"no prices surely keep {100 * self._base:.2f} % of L0's preference"
        return self._worthwhile(*best)

    def _worthwhile(self, found: _Made, least: float) -> tuple[PromptPlan | None, str]:
        inputs, plan, known = self._inputs, self._plan, self._known
        assert inputs.prompts is not None
        cost = expected.grams(inputs, plan.profile, inputs.intensity_g_per_kwh)
        mix_g = math.fsum(c * x for c, x in zip(cost, plan.shares, strict=True))
        if not found.g < mix_g * (1 - 1e-6):
            return None, (
                f"no lower: {1e3 * found.g:.3g} mg predicted, {1e3 * mix_g:.3g} mg of the mix"
            )
        return (
            PromptPlan(
                weights=known.weights_sha256,
                share=inputs.prompts.share,
                g_per_joule=tuple(map(float, self._g_per_joule)),
                points=found.points,
                expected_preference=found.preference,
                expected_g=found.g,
                shares=tuple(map(float, found.shares)),
                least=least,
                basis=f"{known.basis}; corrected to {plan.preference_basis}",
                mix_g=mix_g,
            ),
            "",
        )

    def _of_mix(self) -> list[_Cap]:
        """The mix's own, on the shares of those decided by their prompt. Not its exploration: what
        is learnt of levels is learnt from the mix."""
        lower, upper = self._inputs.caps.bounds(len(self._q), self._inputs.previous)
        most = [_Cap(level, -1.0, -high) for level, high in enumerate(upper) if high < 1]
        return most + [_Cap(level, 1.0, low) for level, low in enumerate(lower) if low > 0]

    def _row(self, cap: _Cap) -> Row:
        gains = np.zeros_like(self._costs)
        gains[:, cap.level] = cap.sign
        return Row(f"{'most' if cap.sign < 0 else 'least'} L{cap.level}", gains, cap.least)

    def _at(self, least: float) -> _Made:
        """The best at a mean preference, in the request path's own arithmetic.

        Its sums may put a prompt that is tied at a price on another side than the solver's do. So
        what each price really comes to is measured, and blended anew.
        """
        rows = [Row("preference", self._worth, least), *map(self._row, self._caps)]
        prices = solve(self._costs, self._w, rows).prices
        points = [self._point(vector, nudge) for vector in prices.vectors for nudge in NUDGES]
        chosen = [self._chosen(point) for point in points]
        measured = np.array([self._measured(levels) for levels in chosen])  # (K, 2 + L)
        fractions = self._blend(measured, least)
        used = np.flatnonzero(fractions > SHARE)
        parts = fractions[used] / fractions[used].sum()
        g, predicted, *rest = (parts @ measured[used]).tolist()
        shares = np.array(rest)
        drawn = float(shares @ self._q) / float(self._q[0])  # these shares, whoever got them
        judged, judged_sd = self._judged(shares, [chosen[k] for k in used], parts)
        told = min(predicted - drawn, judged)
        return _Made(
            tuple(
                replace(points[k], fraction=float(part))
                for k, part in zip(used, parts, strict=True)
            ),
            shares,
            drawn + told,
            g,
            drawn + told - self._z * self._sd(shares, told, self._target, judged_sd),
        )

    def _judged(
        self, shares: Array, chosen: Sequence[Indices], parts: Array
    ) -> tuple[float, float]:
        """What these levels gain over drawing the same shares, as the prompts were judged, of L0's;
        and its standard error (of a ratio of means, linearised)."""
        w, won, at = self._w, self._won, np.arange(len(self._w))
        gained = sum(
            (part * won[at, levels] for part, levels in zip(parts, chosen, strict=True)),
            start=-(won @ shares),
        )
        l0 = float(w @ won[:, 0])
        told = float(w @ gained) / l0
        return told, float(np.sqrt(np.square(w * (gained - told * won[:, 0])).sum())) / l0

    def _point(self, vector: Array, nudge: float) -> PromptPoint:
        """vector: prices (1 + caps,)."""
        worth = float(vector[0]) * (1 + nudge)
        g = self._embodied - worth * self._more
        for cap, dual in zip(self._caps, vector[1:], strict=True):
            g[cap.level] -= cap.sign * dual
        return PromptPoint(1.0, worth / self._mean0, tuple(map(float, g)))

    def _chosen(self, point: PromptPoint) -> Indices:
        """(m,) levels where all are at this point."""
        return choose(self._g_per_joule, point, self._known.joules, self._known.preferences)

    def _measured(self, levels: Indices) -> list[float]:
        """Grams, predicted worth and (levels) shares of the sample at these levels (m,)."""
        w, at = self._w, np.arange(len(self._w))
        shares = np.bincount(levels, weights=w, minlength=len(self._q))
        means = w @ self._costs[at, levels], w @ self._worth[at, levels]
        return [*map(float, means), *shares.tolist()]

    def _blend(self, measured: Array, least: float) -> Array:
        """(K,) fractions of the least grams. InfeasibleError: not even these can meet the rows."""
        k, caps = len(measured), self._caps
        scale = float(measured[:, 0].max()) or 1.0
        matrix = [np.ones(k), measured[:, 1], *(c.sign * measured[:, 2 + c.level] for c in caps)]
        lower = [1.0, least - SLACK, *(c.least - SLACK for c in caps)]
        upper = [1.0, *[INFINITY] * (1 + len(caps))]
        found = Program(
            costs=measured[:, 0] / scale,
            lower=np.zeros(k),
            upper=np.ones(k),
            row_lower=np.array(lower),
            row_upper=np.array(upper),
            starts=np.arange(len(matrix) + 1, dtype=np.int32) * k,
            indices=np.tile(np.arange(k, dtype=np.int32), len(matrix)),
            values=np.concatenate(matrix),
        ).run_surely()
        return np.maximum(np.asarray(found.x), 0.0)


def choose(g_per_joule: Array, point: PromptPoint, joules: Array, preferences: Array) -> Indices:
    """(n,) levels at one point, by the rule of PromptPolicy in control.proto."""
    costs = np.array(point.g) + g_per_joule * joules
    found: Indices = np.argmin(costs - point.g_per_preference * preferences, axis=1)
    return found
