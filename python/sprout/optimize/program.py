# SPDX-License-Identifier: Apache-2.0
"""A linear program kept in HiGHS and changed in place: the only file that knows the solver.

    minimise  c . x      subject to   row_lower <= A x <= row_upper,   lower <= x <= upper

The matrix is passed once; costs, bounds and right sides change between solves. Not for several
threads at once: a model has one basis, and HiGHS lets go of Python's lock while it solves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from sprout.errors import InfeasibleError

Vector = NDArray[np.float64]
INFINITY = highspy.kHighsInf
OPTIMAL, INFEASIBLE = "Optimal", "Infeasible"

# What HiGHS may miss a row or a reduced cost by; absolute, so callers scale their numbers to about
# 1. The smallest that it takes is 1e-10.
TOLERANCE = 1e-9

# A column or row of a basis: HiGHS's names for it, in this order.
AT_LOWER, BASIC, AT_UPPER = range(3)
_STATUS = np.array(
    [
        highspy.HighsBasisStatus.kLower,
        highspy.HighsBasisStatus.kBasic,
        highspy.HighsBasisStatus.kUpper,
    ],
    dtype=object,
)


@dataclass(frozen=True)
class Found:
    status: str  # HiGHS's own word; the rest is only of use if it is OPTIMAL
    x: Sequence[float]  # (columns,)
    row_prices: Sequence[float]  # (rows,) what the objective gains per unit of the right side
    objective: float


class _Solver(highspy.Highs):
    """Without callbacks: HiGHS 1.16 prints its banner when they are enabled, before any option can
    silence it, and a command's standard output may be JSON."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:  # noqa: N802 - theirs
        pass


class Program:
    """Columns of bounds [lower, upper], rows by compressed rows (starts, indices, values)."""

    def __init__(
        self,
        *,
        costs: Vector,
        lower: Vector,
        upper: Vector,
        row_lower: Vector,
        row_upper: Vector,
        starts: NDArray[np.int32],  # (rows + 1,)
        indices: NDArray[np.int32],
        values: Vector,
    ) -> None:
        self.columns, self.rows = len(costs), len(row_lower)
        self._all_columns = np.arange(self.columns, dtype=np.int32)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.columns, self.rows
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = costs, lower, upper
        lp.row_lower_, lp.row_upper_ = row_lower, row_upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = starts, indices, values
        self._highs = highs = _Solver()
        options: dict[str, bool | int | float | str] = {
            "output_flag": False,
            "threads": 1,
            "solver": "simplex",
            "simplex_strategy": 1,  # dual, serial
            "presolve": "off",  # it would cost more than it saves from a good basis
            "primal_feasibility_tolerance": TOLERANCE,
            "dual_feasibility_tolerance": TOLERANCE,
        }
        for name, value in options.items():
            _done(highs.setOptionValue(name, value), f"option {name}")
        _done(highs.passModel(lp), "the model")

    def set_costs(self, costs: Vector) -> None:
        done = self._highs.changeColsCost(self.columns, self._all_columns, costs)
        _done(done, "costs")

    def set_bounds(self, lower: Vector, upper: Vector) -> None:
        done = self._highs.changeColsBounds(self.columns, self._all_columns, lower, upper)
        _done(done, "bounds")

    def set_column(self, column: int, cost: float, lower: float, upper: float) -> None:
        _done(self._highs.changeColCost(column, cost), "a cost")
        _done(self._highs.changeColBounds(column, lower, upper), "bounds")

    def set_rows(self, lower: Vector, upper: Vector) -> None:
        rows = np.arange(len(lower), dtype=np.int32)
        change = self._highs.changeRowsBounds  # type: ignore[attr-defined]
        _done(change(len(rows), rows, lower, upper), "right sides")

    def set_row(self, row: int, lower: float, upper: float) -> None:
        _done(self._highs.changeRowBounds(row, lower, upper), "a right side")

    def set_value(self, row: int, column: int, value: float) -> None:
        _done(self._highs.changeCoeff(row, column, value), "a coefficient")

    def add_row(
        self, lower: float, upper: float, columns: NDArray[np.int32], values: Vector
    ) -> None:
        done = self._highs.addRow(lower, upper, len(columns), columns, values)
        _done(done, "a row")

    def set_basis(self, columns: NDArray[np.int8], rows: NDArray[np.int8]) -> None:
        """Start the next run here, whatever was solved before. As many BASIC as there are rows."""
        # Its weights and factors would still be those of the last run, and so the pivots' order.
        _done(self._highs.clearSolver(), "the solver")
        basis = highspy.HighsBasis()
        basis.col_status = _STATUS[columns].tolist()
        basis.row_status = _STATUS[rows].tolist()
        basis.valid = True
        _done(self._highs.setBasis(basis), "a basis")

    def run(self) -> Found:
        """Solve from the basis at hand. Never raises for what HiGHS finds; see `status`."""
        highs = self._highs
        highs.run()
        status = highs.modelStatusToString(highs.getModelStatus())
        solution = highs.getSolution()
        return Found(status, solution.col_value, solution.row_dual, highs.getObjectiveValue())

    def pivots(self) -> int:
        """Simplex iterations of the last run."""
        return int(self._highs.getInfo().simplex_iteration_count)

    def run_twice(self) -> Found:
        """As `run`; what fails from the basis at hand is tried once more from none."""
        found = self.run()
        if found.status != OPTIMAL:
            _done(self._highs.clearSolver(), "the solver")
            found = self.run()
        return found

    def run_surely(self) -> Found:
        """As `run_twice`; InfeasibleError if that does not end in an optimum."""
        found = self.run_twice()
        if found.status != OPTIMAL:
            raise InfeasibleError(f"no policy: HiGHS ends with {found.status!r}")
        return found


def _done(status: highspy.HighsStatus, what: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise ValueError(f"HiGHS refuses {what}")
