# SPDX-License-Identifier: Apache-2.0
"""What the prompt-aware program says for the present hour: prices that make a level of a prompt.

It is solved on the prompts that the predictor was judged on, by predictions of models that had not
seen them; a part of the requests for each mix (all others, a tenant's, a class's), w its weights by
the traffic's classes. Per prompt i of a part and level l, with e, p and q of its mix and bars for
its weighted means:

    cost_il  =  k0 PUE (e_l / jbar_l) joules_il  +  k1 p_l                             grams
    worth_il =  preference_il / qbar_0  +  (q_l / q_0 - qbar_l / qbar_0)               of L0's

So a level's mean cost and mean worth are those that the mix is decided on, and only who is above
and who below them is the predictor's. The correction of the worth adds and does not multiply: the
rule has one price for all levels, and in it only what adds can be had.

All parts have the floor in common; what was promised to one of them, and the caps on its shares,
are its own rows, and their duals its own prices (optimize/blocks.py).

Who gains by a choice is predicted, and choosing by predictions picks those that flatter. So what
the choice comes to is counted by how the same prompts were *judged*, where that is less, corrected
by how an evaluation judged prompts of today, and prices are raised until this keeps the floor. See
docs/prompt_aware.md.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sprout.control import expected, joint
from sprout.control.inputs import Group, Inputs, Prompts, Traffic
from sprout.control.part import LEAST_PROMPTS, MOST_POINTS, Made, Part, counted, weights
from sprout.control.plan import Plan, PromptGroup, PromptPlan
from sprout.control.predicted import Predicted
from sprout.control.quality import Judgments
from sprout.errors import InfeasibleError
from sprout.optimize.blocks import Blocks
from sprout.optimize.contrast import deviation
from sprout.profile import LevelProfile

Array = NDArray[np.float64]
T = TypeVar("T")

ROUNDING = 1e-7  # of preference and of shares
ROUNDS = 20  # in which prices must be found that keep the floor
CLOSE = 1e-4  # of preference, from above: where its search ends
LEAST_SHARE = 1e-6  # of the requests, so that a part without any has prices, too
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


def price(
    inputs: Inputs, plan: Plan, known: Predicted, today: Judgments | None = None
) -> tuple[PromptPlan | None, str]:
    """(the prices, "") or (None, why there are none). plan: of these inputs, not `excluded`. today:
    of the evaluation that they name.

    Takes tenths of a second for some thousand prompts, seconds with many classes and a confidence.
    """
    if inputs.prompts is None or inputs.intensity_g_per_kwh is None:
        return None, "nothing to decide on"
    try:
        return _Program(inputs, plan, known, today).solved()
    except InfeasibleError as error:
        return None, f"prices can't be set: {error}"


@dataclass(frozen=True, eq=False)
class _Row:
    """A mix, and its part where its prompts may choose."""

    group: Group
    shares: Array  # (L,) of the mix
    q: Array  # (L,)
    mix_g: float  # per request
    part: Part | None
    why: str = ""  # there is no part


@dataclass(frozen=True, eq=False)
class _Total:
    """What all parts come to. Preferences are of L0's."""

    made: Sequence[Made | None]  # of each row; None: it keeps its mix
    told: Array  # (rows,) what telling prompts apart gains: as predicted or judged, and as heard
    surely: float  # the preference less z standard deviations of its contrast with the floor
    g: float  # per request
    heard: str  # what an evaluation's prompts changed of it, for people; "": none were heard


class _Program:
    def __init__(
        self, inputs: Inputs, plan: Plan, known: Predicted, today: Judgments | None
    ) -> None:
        self._inputs, self._plan, self._known = inputs, plan, known
        self._other = today is not None and today.weights != known.weights_sha256
        self._today = None if self._other else today
        assert inputs.prompts is not None
        self._parts: dict[object, Part] = {}  # by all that makes a difference to one
        self._guarded: dict[tuple[Part, float], tuple[float, Made] | None] = {}
        self._tightened: dict[Part, Part | None] = {}
        taking_part = [g for g in inputs.groups if not g.opted_out]
        self._rows = [self._row(group) for group in (joint.default(inputs), *taking_part)]
        if self._rows[0].part is None:
            raise InfeasibleError(self._rows[0].why)
        traffic = np.array([row.group.traffic for row in self._rows])
        self._n = np.maximum(traffic / traffic.sum(), LEAST_SHARE)
        self._n /= self._n.sum()
        q0 = np.array([row.q[0] for row in self._rows])
        if not q0.min() > 0:
            raise InfeasibleError("L0 of a class has no preference to compare with")
        pooled = inputs.against == "pooled"
        # What a row's own normalised preference counts in that of all.
        self._v = self._n * (q0 / float(self._n @ q0) if pooled else 1.0)
        self._q0 = q0
        self._z = plan.confidence.z if plan.confidence is not None else 0.0
        self._guards: dict[int, tuple[float, Made]] = {}  # by row: its least, as predicted
        for number in range(len(self._rows)):
            self._guard(number)

    @cached_property
    def _covariance(self) -> Array:
        return joint.covariance([row.group for row in self._rows])

    def _row(self, group: Group) -> _Row:
        inputs, plan = self._inputs, self._plan
        assert inputs.prompts is not None
        profile = group.profile or inputs.profile
        mixes = {("", ""): plan.shares} | {g.key: g.shares for g in plan.groups}
        shares = np.array(mixes[group.key])
        cost = expected.grams(inputs, profile, inputs.intensity_g_per_kwh)
        part, why = None, ""
        if group.minimum > 0 and joint.highest(inputs, group, inputs.caps) < group.minimum:
            why = "what it was promised is above what the caps allow"
        else:
            try:
                part = self._part(group, profile)
            except InfeasibleError as error:
                why = str(error)
        q = np.array([p.preference for p in profile])
        return _Row(group, shares, q, float(shares @ cost), part, why)

    def _part(self, group: Group, profile: tuple[LevelProfile, ...]) -> Part:
        """Of the mix; mixes that are alike, as those of tenants without traffic of their own, have
        one. InfeasibleError as in `Part`."""
        inputs = self._inputs
        assert inputs.prompts is not None
        today, traffic = self._of_today(group), _traffic(inputs.prompts, group)
        key = traffic, profile, group.previous, None if today is None else group.key
        if key not in self._parts:
            w = _weights(traffic, group, self._known)
            self._parts[key] = Part(inputs, group, w, self._known, today)
        return self._parts[key]

    def _of_today(self, group: Group) -> Judgments | None:
        """Those of a mix's requests. Whose tenant's they were is not known: all but the classes'
        count as everybody's."""
        if self._today is None or group.tenant:
            return None
        apart = {each.task for each in self._inputs.groups if each.task}
        own = [
            i
            for i, task in enumerate(self._today.task)
            if (task == group.task if group.task else task not in apart)
        ]
        return self._today.rows(own)

    def _guard(self, number: int) -> None:
        """What a part that was promised something must have, as predicted, so that it has it as
        judged. Who can't be promised it by prices keeps its mix."""
        row = self._rows[number]
        if row.part is None or row.group.minimum == 0:
            return
        key = row.part, row.group.minimum
        if key not in self._guarded:
            self._guarded[key] = _guard_of(*key)
        found = self._guarded[key]
        if found is not None:
            self._guards[number] = found
        else:
            why = f"no prices keep {100 * row.group.minimum:.2f} % of its L0's preference"
            self._keeps(number, why)

    def _keeps(self, number: int, why: str) -> None:
        """A mix, as it is."""
        self._rows[number] = replace(self._rows[number], part=None, why=why)
        self._guards.pop(number, None)

    @cached_property
    def _floor(self) -> tuple[float, float]:
        """(what the preference of all must surely be, the floor that its contrast is with).

        The floor of the mixes. Under a budget it is of all hours ahead: what this hour's mixes have
        is what they leave to it, and that must stay.
        """
        if self._plan.budget is None:
            return self._plan.floor, self._plan.floor
        has = sum(v * self._has(k) for k, v in enumerate(self._v))
        shares = [row.shares for row in self._rows]
        return has - self._z * self._sd(shares, np.zeros(len(shares)), has, 0.0), has

    def _has(self, row: int) -> float:
        """Normalised preference of a mix."""
        return float(self._rows[row].shares @ self._rows[row].q) / float(self._q0[row])

    def _sd(self, shares: Sequence[Array], told: Array, floor: float, told_sd: float) -> float:
        """Of the contrast with a floor, over L0's preference: by the judgments that q rests on, and
        by those that say what telling prompts apart gains, `told` (rows,)."""
        if self._z == 0.0:
            return 0.0
        y = np.array(shares)
        y[:, 0] += told - floor
        y *= (self._v / self._q0)[:, None]
        return math.hypot(deviation(y, self._covariance), told_sd)

    def solved(self) -> tuple[PromptPlan | None, str]:
        """The lowest predicted mean of which `surely` keeps the floor: more L0 is both dearer and
        surer."""
        while True:
            found = self._lowest()
            if found is None:
                base, _ = self._floor
                return None, f"no prices surely keep {100 * base:.2f} % of L0's preference"
            if not self._too_many(found[0].made):
                return self._worthwhile(*found)
            if self._rows[0].part is None:
                raise InfeasibleError(self._rows[0].why)

    def _lowest(self) -> tuple[_Total, float] | None:
        base, _ = self._floor
        alike: dict[tuple[Part, float], list[int]] = {}  # rows of one part and guard: one block
        for k, row in enumerate(self._rows):
            if row.part is not None:
                least = self._guards[k][0] if k in self._guards else -math.inf
                alike.setdefault((row.part, least), []).append(k)
        priced = {k for rows in alike.values() for k in rows}
        kept = sum(self._v[k] * self._has(k) for k in range(len(self._v)) if k not in priced)
        blocks = Blocks(
            [
                part.block(float(self._n[rows].sum()), float(self._v[rows].sum()), least)
                for (part, least), rows in alike.items()
            ]
        )

        def at(least: float) -> _Total:
            made: list[Made | None] = [None] * len(self._rows)
            for ((part, _), rows), blend in zip(
                alike.items(), blocks.solve(least - kept), strict=True
            ):
                guard = self._guards.get(rows[0])
                bound = guard is not None and blend.gain <= guard[0] + ROUNDING
                both = guard[1] if guard is not None and bound else part.made(blend)
                for k in rows:
                    made[k] = both
            return self._total(made)

        return lowest(base, at, lambda total: total.surely)

    def _too_many(self, made: Sequence[Made | None]) -> bool:
        """Whether some have more points than a policy. They get caps that take fewer; else they
        keep their mixes."""
        over = {k: len(m.points) for k, m in enumerate(made) if m and len(m.points) > MOST_POINTS}
        for k, count in over.items():
            part = self._rows[k].part
            assert part is not None
            if part not in self._tightened:
                self._tightened[part] = part.tightened()
            tighter = self._tightened[part]
            if tighter is None:
                self._keeps(k, f"its prices take {count} points, a policy has {MOST_POINTS}")
                continue
            self._tightened[tighter] = None  # once
            self._rows[k] = replace(self._rows[k], part=tighter)
            self._guards.pop(k, None)
            self._guard(k)
        return bool(over)

    def _total(self, made: Sequence[Made | None]) -> _Total:
        n, v = self._n, self._v
        rows = list(zip(self._rows, made, strict=True))
        shares = [row.shares if m is None else m.shares for row, m in rows]
        drawn = np.array([self._has(k) if m is None else m.drawn for k, m in enumerate(made)])
        predicted = np.array([0.0 if m is None else m.predicted for m in made])
        judged = np.array([0.0 if m is None else m.judged for m in made])
        told = predicted if v @ predicted <= v @ judged else judged
        influence = sum(
            (v[k] * m.influence for k, m in enumerate(made) if m is not None), start=np.zeros(1)
        )
        told_sd = float(np.sqrt(np.square(influence).sum()))
        told, heard, told_sd = self._corrected(made, told, told_sd)
        preference = float(v @ (drawn + told))
        g = [row.mix_g if m is None else m.g for row, m in rows]
        base, target = self._floor
        surely = preference - self._z * self._sd(shares, told, target, told_sd)
        for row, m in rows:  # who has more than its guard asks may have gained less as judged
            if m is not None and m.least < row.group.minimum:
                surely = min(surely, base - (row.group.minimum - m.least))
        return _Total(made, told, surely, float(n @ g), heard)

    def _corrected(
        self, made: Sequence[Made | None], told: Array, told_sd: float
    ) -> tuple[Array, str, float]:
        """(told, what was heard, told_sd) with what an evaluation's prompts say of it, all parts
        together: of one alone they are few."""
        v, gaps, variance, prompts = self._v, np.zeros(len(made)), 0.0, 0
        for k, m in enumerate(made):
            if m is not None and m.heard is not None:
                gaps[k] = m.heard.gain - told[k]
                variance += float(v[k]) ** 2 * m.heard.variance
                prompts += m.heard.prompts
        if prompts == 0:
            return told, "", told_sd
        gap, sd = float(v @ gaps), math.hypot(math.sqrt(variance), told_sd)
        part = counted(gap, sd) / gap if gap != 0 else 0.0
        heard = (
            f"{prompts} prompts of the evaluation, by what they chose: {100 * gap:+.1f} ± "
            f"{100 * sd:.1f} points, {100 * part * gap:+.1f} counted"
        )
        return told + part * gaps, heard, math.hypot(told_sd, part * math.sqrt(variance))

    def _worthwhile(self, found: _Total, least: float) -> tuple[PromptPlan | None, str]:
        inputs, known = self._inputs, self._known
        assert inputs.prompts is not None
        mix_g = float(self._n @ [row.mix_g for row in self._rows])
        if not found.g < mix_g * (1 - 1e-6):
            return None, (
                f"no lower: {1e3 * found.g:.3g} mg predicted, {1e3 * mix_g:.3g} mg of the mix"
            )
        corrected = f"corrected to {self._plan.preference_basis}"
        other = "the evaluation's prompts were scored by another predictor" if self._other else ""
        heard = found.heard or other
        first, others = self._rows[0].part, found.made[0]
        assert first is not None
        assert others is not None
        return (
            PromptPlan(
                weights=known.weights_sha256,
                share=inputs.prompts.share,
                g_per_joule=tuple(map(float, first.g_per_joule)),
                points=others.points,
                expected_preference=others.drawn + float(found.told[0]),
                expected_g=others.g,
                shares=tuple(map(float, others.shares)),
                least=least,
                basis="; ".join(filter(None, [known.basis, corrected, heard])),
                mix_g=self._rows[0].mix_g,
                groups=tuple(self._groups(found)),
                kept=tuple((*row.group.key, row.why) for row in self._rows if row.part is None),
            ),
            "",
        )

    def _groups(self, found: _Total) -> Iterator[PromptGroup]:
        for number, (row, made) in enumerate(zip(self._rows, found.made, strict=True)):
            if number > 0 and row.part is not None and made is not None:
                yield PromptGroup(
                    tenant=row.group.tenant,
                    task=row.group.task,
                    g_per_joule=tuple(map(float, row.part.g_per_joule)),
                    points=made.points,
                    expected_preference=made.drawn + float(found.told[number]),
                    expected_g=made.g,
                    shares=tuple(map(float, made.shares)),
                    least=self._guards[number][0] if number in self._guards else 0.0,
                )


def lowest(
    base: float, at: Callable[[float], T], surely: Callable[[T], float]
) -> tuple[T, float] | None:
    """(what is surely `base`, the least that it was asked to be predicted); None: nothing is.

    From the base upwards, to within `CLOSE` of the lowest. InfeasibleError: not even predicted.
    """
    least = low = base
    ceiling, best = math.inf, None  # what can't be had even as predicted
    step = 0.0
    for _ in range(ROUNDS):
        try:
            found = at(least)
        except InfeasibleError:
            if least == base:
                raise
            ceiling, least = least, (low + least) / 2
            continue
        missing = base - surely(found)
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
    return best


def _guard_of(part: Part, minimum: float) -> tuple[float, Made] | None:
    """(what must be predicted, what that comes to) so that a part has its minimum; None: nothing
    does."""
    alone = part.alone()
    try:
        found = lowest(minimum, lambda least: part.made(alone.solve(least)[0]), lambda m: m.least)
    except InfeasibleError:
        return None
    return None if found is None else (found[1], found[0])


def _traffic(prompts: Prompts, group: Group) -> Traffic:
    """Of a mix's requests by class."""
    if group.task:
        return ((group.task, 1.0),)
    return dict(prompts.tenants).get(group.tenant, prompts.traffic)


def _weights(traffic: Traffic, group: Group, known: Predicted) -> Array:
    """(m,) of the predictor's prompts, as they stand for a mix's requests."""
    if group.task:
        number = known.classes.index(group.task) if group.task in known.classes else -1
        judged = int((known.label == number).sum())
        if judged < LEAST_PROMPTS:
            raise InfeasibleError(f"the predictor was judged on {judged} prompts of the class")
    return weights(known, traffic)
