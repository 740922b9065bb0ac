# SPDX-License-Identifier: Apache-2.0
"""Quality as a budget over a horizon, for several task classes: one linear program.

    minimise  sum_t sum_c n_tc  c_tc . x_tc
    subject   sum_t sum_c n_tc  r_tc . x_tc  >=  target sum_tc n_tc - carry        (the budget)
              sum_c n_tc  r_tc . x_tc        >=  hourly_minimum sum_c n_tc         each hour t
              q_c . x_tc / q_c0              >=  class_minimum_c                   each t, c
              sum_i x_tci = 1,   lower <= x <= upper                               each t, c

n_tc requests of class c are expected in hour t, c_tc (levels,) are grams per request, and r_tc
(levels,) is the preference relative to L0's:

    "own"     r_tci = q_ci / q_c0       each class against its own L0
    "pooled"  r_tci = q_ci / Q_t        against the hour's mean L0, Q_t = sum_c n_tc q_c0 / sum n_tc

so that all-L0 counts 1 in every hour either way. With one class they are the same. Pooled moves
short answers to the classes where q falls the least in absolute terms, and a class whose L0 is
seldom preferred counts for little; own treats a class's loss of 5 % alike wherever it stands.
One hour is the published program for classes jointly. Uncertainty of q: see `contrast`.

One price of quality holds in all hours: quality is spent where it saves the most grams per point,
i.e. in dirty hours. Receding horizon: solve for the next hours, apply hour 0, and when the hour is
over add what it over- or under-spent to the carry (`carry_on`) and solve again.

The horizon's end is no different from its middle. The budget is a mean over all hours of the
horizon, so nothing is saved up for its end nor left over there, and the last hour is only better or
worse than others by its intensity. But a horizon that recedes never ends: a debt is always planned
to be repaid within it, and may be planned so again. It can't grow beyond what all-L0 over one
horizon repays, (1 - target) sum n; from there on the mixes are all-L0. For a period that must end
even, let the horizon shrink towards its end.

A class that no request is expected from in an hour costs and counts nothing; should one come all
the same, it gets the cheapest mix at the horizon's price that meets the minima by itself, or the
most preferred one where none does.

The solver works on X = w x, w = n / mean(n). So n stands on the right side only, the matrix is kept
while r stays, and a reduced cost means the same in every hour. Each solve starts from the basis of
the greedy mixes at the horizon's price and not from the last solve's: nearly as fast, and the same
inputs give the same mixes, whatever was solved before.
"""

import math
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.errors import InfeasibleError
from sprout.optimize import greedy
from sprout.optimize.closed_form import closed_form
from sprout.optimize.cone import SCALE, Cone
from sprout.optimize.problem import POINT, ROUNDING, Problem, Solution
from sprout.optimize.program import AT_LOWER, BASIC, INFEASIBLE, INFINITY, OPTIMAL, Found, Program

Array = NDArray[np.float64]

MOST_ROUNDS = 300  # of tangents


def carry_on(
    carry_request_points: float,
    requests: float,
    preference: float,
    target: float,
    most_request_points: float,
) -> float:
    """The carry after an hour: + requests (preference - target) / 0.01.

    `preference` is the realised one, normalised. A surplus is kept up to `most_request_points` (an
    old one, spent at once, would be a bad hour for those who meet it); a debt is kept whole.
    """
    earned = requests * (preference - target) / POINT
    return min(carry_request_points + earned, most_request_points)


class BankModel:
    """The program for a number of hours, classes and levels, kept. For one thread at a time."""

    def __init__(self, hours: int, classes: int, levels: int) -> None:
        if min(hours, classes, levels) < 1:
            raise ValueError(f"no hours, classes or levels: {(hours, classes, levels)}")
        self.shape = (hours, classes, levels)
        self._mixes = hours * classes
        self._columns = self._mixes * levels  # and one more: what the budget lacks
        self._budget = self._mixes + hours  # its row
        self._program: Program | None = None
        self._made_of: tuple[Array, Array | None] | None = None

    def solve(self, problem: Problem) -> Solution:
        """ValueError for impossible numbers; InfeasibleError, with the hour and the amount, if an
        hourly or class minimum can't be met within the caps.

        A budget that can't be met is no error: the past may have overspent. Then the mixes are
        those of the highest preference (all-L0, unless a short level is preferred to it), and
        `short_request_points` is what still lacks.
        """
        if problem.shape != self.shape:
            raise ValueError(f"costs_g is {problem.shape}, the model is for {self.shape}")
        problem.check()
        wanted = problem.z_wanted
        lacking = problem.need - problem.attainable
        if lacking > ROUNDING * problem.total:
            return _answer(problem, problem.best.copy(), math.inf, lacking=lacking, z_wanted=wanted)

        scale = float(problem.costs_g.max()) or 1.0
        cone = None if problem.certainty is None else Cone(problem)
        if cone is not None and (cone.z == 0 or cone.certain):
            z, cone = cone.z, None
        else:
            z = 0.0 if cone is None else cone.z
        program = self._prepared(problem, scale, cone)
        found = program.run_surely()
        tangents, lacking, at_most = 0, 0.0, False
        if cone is not None:
            found, tangents = self._cut(program, found, problem, cone)
            if found.status == INFEASIBLE:  # the plain budget can be met, the sure one can't
                at_most = True
                found, more = self._least_lacking(program, problem, cone)
                tangents += more
                lacking = float(found.x[self._columns])
                lacking = lacking if lacking > ROUNDING * problem.total else 0.0
        duals = np.asarray(found.row_prices)
        unit = scale * POINT
        dual = float(duals[self._budget])
        if cone is not None:
            dual += SCALE * float(duals[program.rows - cone.rows + cone.price_row])
        price = dual * unit
        return _answer(
            problem,
            self._shares(found, problem),
            math.inf if at_most else max(0.0, price),
            hourly=np.abs(duals[self._mixes : self._budget]) * (0.0 if at_most else unit),
            lacking=lacking,
            z=z,
            z_wanted=wanted,
            status=found.status,
            pivots=program.pivots(),
            tangents=tangents,
        )

    def _prepared(self, problem: Problem, scale: float, cone: Cone | None) -> Program:
        """The kept model with this problem's numbers, at its greedy start. With a cone it is made
        anew: the covariance is in its matrix."""
        w, (lower, upper) = problem.weights, problem.bounds
        made_of = self._made_of
        fresh = (
            self._program is None
            or made_of is None
            or cone is not None
            or not np.array_equal(made_of[0], problem.relative)
            or (made_of[1] is None) != (problem.class_minimum is None)
        )
        program = _matrix(problem, cone) if fresh or self._program is None else self._program
        # One with a cone is for one solve.
        self._program = None if cone is not None else program
        self._made_of = (problem.relative, problem.class_minimum)
        more = cone.bounds if cone is not None else (np.zeros(0), np.zeros(0))
        program.set_costs(np.append(problem.costs_g / scale, np.zeros(1 + len(more[0]))))
        program.set_bounds(
            np.concatenate(((w[..., None] * lower).ravel(), [0.0], more[0])),
            np.concatenate(((w[..., None] * upper).ravel(), [0.0], more[1])),
        )
        right = [
            w.ravel(),
            # Rounding must not put a minimum above what was found to be attainable.
            np.minimum(
                problem.hourly_minimum * w.sum(1),
                (w[..., None] * problem.relative * problem.best).sum((1, 2)),
            ),
            [min(problem.need, problem.attainable)],
        ]
        if problem.class_minimum is not None:
            own = problem.preferences / problem.preferences[:, :1]
            most = (own * problem.best).sum(-1)
            right.append((w * np.minimum(problem.class_minimum, most)).ravel())
        row_lower = np.concatenate(right)
        row_upper = np.full(len(row_lower), INFINITY)
        row_upper[: self._mixes] = row_lower[: self._mixes]
        if cone is not None:
            low, high = cone.right_sides
            row_lower, row_upper = np.append(row_lower, low), np.append(row_upper, high)
        program.set_rows(row_lower, row_upper)
        codes, tight = greedy.start(
            problem.costs_g / scale, problem.relative, w, problem.bounds, row_lower[self._budget]
        )
        rows = np.full(program.rows, BASIC, dtype=np.int8)
        rows[: self._mixes] = AT_LOWER
        rows[self._budget] = AT_LOWER if tight else BASIC
        columns = np.append(codes.ravel(), np.int8(AT_LOWER))
        if cone is not None:
            theirs, rows[-cone.rows :] = (np.where(b, BASIC, AT_LOWER) for b in cone.basic)
            columns = np.append(columns, theirs.astype(np.int8))
        program.set_basis(columns, rows)
        return program

    def _cut(
        self, program: Program, found: Found, problem: Problem, cone: Cone
    ) -> tuple[Found, int]:
        """Add the tangents that solutions violate, until one violates none."""
        tangents = 0
        for _ in range(MOST_ROUNDS):
            if found.status == INFEASIBLE:
                return found, tangents
            if found.status != OPTIMAL:
                found = program.run_surely()
            lack = float(found.x[self._columns]) / problem.total
            if not cone.violated(self._shares(found, problem), lack):
                return found, tangents
            cuts = cone.cuts(np.asarray(found.x), self._columns + 1)
            for columns, values in cuts:
                program.add_row(0.0, INFINITY, columns, values)
            tangents += len(cuts)
            found = program.run()
        raise InfeasibleError(f"no policy: {tangents} tangents do not settle the contrast")

    def _least_lacking(self, program: Program, problem: Problem, cone: Cone) -> tuple[Found, int]:
        """Minimise what the contrast lacks, whatever it costs."""
        program.set_costs(np.zeros(program.columns))
        program.set_column(self._columns, 1.0, 0.0, INFINITY)
        return self._cut(program, program.run_surely(), problem, cone)

    def _shares(self, found: Found, problem: Problem) -> Array:
        """(T, C, L): X / w, without simplex noise; all-zero where w is 0."""
        x = np.asarray(found.x)[: self._columns].reshape(self.shape)
        x = np.where(x > 1e-12, x, 0.0)
        total = x.sum(-1, keepdims=True)
        return np.asarray(np.divide(x, total, out=np.zeros_like(x), where=total > 0))


def _matrix(problem: Problem, cone: Cone | None = None) -> Program:
    """The rows of one problem: mixes, hourly minima, budget, class minima where there are any, and
    those of the contrast."""
    hours, classes, levels = problem.shape
    mixes, r = hours * classes, problem.relative
    columns = mixes * levels
    index = np.arange(columns, dtype=np.int32)
    by_hour = classes * levels
    # Each block of rows takes the columns in their order, so indices and starts are ranges.
    starts: list[ArrayLike] = [
        np.arange(0, columns, levels),
        columns + np.arange(0, columns, by_hour),
        [2 * columns],
    ]
    indices: list[ArrayLike] = [index, index, index, [columns]]
    values: list[ArrayLike] = [np.ones(columns), r.ravel(), r.ravel(), [1.0]]
    end = 3 * columns + 1
    if problem.class_minimum is not None:
        own = np.broadcast_to(problem.preferences / problem.preferences[:, :1], problem.shape)
        starts.append(end + np.arange(0, columns, levels))
        indices.append(index)
        values.append(own.ravel())
        end += columns
    starts.append([end])
    columns += 1
    if cone is not None:
        theirs, at, ends = cone.matrix(columns)
        values.append(theirs)
        indices.append(at)
        starts.append(end + ends)
        columns += cone.columns
    begin = np.concatenate(starts).astype(np.int32)
    rows = len(begin) - 1
    return Program(
        costs=np.zeros(columns),
        lower=np.zeros(columns),
        upper=np.zeros(columns),
        row_lower=np.zeros(rows),
        row_upper=np.zeros(rows),
        starts=begin,
        indices=np.concatenate(indices).astype(np.int32),
        values=np.concatenate(values),
    )


def _answer(
    problem: Problem,
    shares: Array,
    price: float,
    *,
    lacking: float,
    z_wanted: float,
    hourly: Array | None = None,
    z: float = 0.0,
    status: str = "most preferred",
    pivots: int = 0,
    tangents: int = 0,
) -> Solution:
    """The solution with its sums, in grams and requests; quiet hours get their mixes."""
    _fill_quiet(problem, shares, price)
    n = problem.requests
    return Solution(
        shares=shares,
        price_g_per_point=price,
        hourly_price_g_per_point=np.zeros(len(shares)) if hourly is None else hourly,
        expected_g=float((n[..., None] * problem.costs_g * shares).sum()),
        expected_l0_g=float((n * problem.costs_g[..., 0]).sum()),
        expected_preference=float((n[..., None] * problem.relative * shares).sum() / n.sum()),
        short_request_points=lacking * problem.mean_requests / POINT,
        z=z,
        z_wanted=z_wanted,
        status=status,
        pivots=pivots,
        tangents=tangents,
    )


def _fill_quiet(problem: Problem, shares: Array, price: float) -> None:
    """Mixes for classes and hours without weight: see above."""
    for t, k in np.argwhere(problem.weights == 0):
        shares[t, k] = problem.best[t, k]
        if math.isinf(price):
            continue
        q = problem.preferences[k]
        least = problem.hourly_minimum * problem.norms[t, k]
        if problem.class_minimum is not None:
            least = max(least, problem.class_minimum[k] * q[0])
        net = problem.costs_g[t, k] - price / POINT * problem.relative[t, k]
        scale = (float(np.abs(net).max()) or 1.0), (float(q.max()) or 1.0)
        lower, upper = (bound[t, k].tolist() for bound in problem.bounds)
        # Where this class alone can't, the most preferred mix stays.
        with suppress(InfeasibleError):
            shares[t, k], _ = closed_form(
                (net / scale[0]).tolist(), (q / scale[1]).tolist(), least / scale[1], lower, upper
            )
