# SPDX-License-Identifier: Apache-2.0
"""What an operator allows a mix to be, whatever the costs: bounds on each level's share.

    lower_i = max(least_i, previous_0 - step if i = 0)
    upper_i = min(most_i, max(least_i, previous_i + step) if i > 0)

The step limits moves *away from L0* alone: no level but L0 grows by more than `step`, and L0 does
not shrink by more than it. Moves towards L0 are free. So the previous mix is always within reach,
and so is all-L0: a floor that rises, or a q that falls, is answered at once and not a step at a
time. An exploration share (`least`) is not held up by the step either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sprout.errors import InfeasibleError

SLACK = 1e-12  # what sums of shares may be off 1 by


@dataclass(frozen=True)
class Caps:
    least: tuple[float, ...] | None = None  # (levels,): exploration, or L0's own share
    most: tuple[float, ...] | None = None  # (levels,)
    step: float | None = None  # against the previous mix, where there is one

    def bounds(
        self, levels: int, previous: Sequence[float] | None = None
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper (levels,) bounds on the shares.

        ValueError for lengths that differ and numbers outside [0, 1]; InfeasibleError if no mix is
        within the bounds, with what leaves none and by how much.
        """
        least = self._of(self.least, levels, "least", 0.0)
        most = self._of(self.most, levels, "most", 1.0)
        for i, (low, high) in enumerate(zip(least, most, strict=True)):
            if low > high:
                raise InfeasibleError(
                    f"caps on L{i}: least {low:g} is {low - high:g} above most {high:g}"
                )
        if (total := math.fsum(least)) > 1 + SLACK:
            raise InfeasibleError(f"caps: the least shares are {total - 1:g} more than 1 together")
        if (total := math.fsum(most)) < 1 - SLACK:
            raise InfeasibleError(f"caps: the most shares are {1 - total:g} less than 1 together")
        if self.step is None or previous is None:
            return least, most
        if not 0 <= self.step <= 1:
            raise ValueError(f"largest change per step must be in [0, 1]: {self.step}")
        if len(previous) != levels or abs(math.fsum(previous) - 1) > 1e-6 or min(previous) < -1e-9:
            raise ValueError(f"the previous mix must have {levels} shares that add up to 1")
        lower = (min(max(least[0], previous[0] - self.step), most[0]), *least[1:])
        upper = (
            most[0],
            *(
                min(high, max(low, before + self.step))
                for low, high, before in zip(least[1:], most[1:], previous[1:], strict=True)
            ),
        )
        if math.fsum(lower) > 1 + SLACK:  # L0 held up by the step, the others by `least`
            lower = (1.0 - math.fsum(least[1:]), *least[1:])
        if (total := math.fsum(upper)) < 1 - SLACK:
            raise InfeasibleError(
                f"caps: with most L0 {most[0]:g}, a step of {self.step:g} from the previous mix "
                f"leaves {1 - total:g} of the requests without a level"
            )
        return lower, upper

    def without(self) -> dict[str, "Caps"]:
        """These caps with one of them lifted, by that one's name: to say which is in the way."""
        lifted: dict[str, Caps] = {}
        for i, low in enumerate(self.least or ()):
            if low > 0:
                lifted[f"least L{i}"] = replace(self, least=_but(self.least, i, 0.0))
        for i, high in enumerate(self.most or ()):
            if high < 1:
                lifted[f"most L{i}"] = replace(self, most=_but(self.most, i, 1.0))
        if self.step is not None:
            lifted["step"] = replace(self, step=None)
        return lifted

    def binding(
        self, shares: Sequence[float], previous: Sequence[float] | None = None
    ) -> tuple[str, ...]:
        """The names of the caps that the mix lies on."""
        levels = len(shares)
        lower, upper = self.bounds(levels, previous)
        least = self._of(self.least, levels, "least", 0.0)
        most = self._of(self.most, levels, "most", 1.0)
        names = []
        for i, x in enumerate(shares):
            if lower[i] > 0 and x <= lower[i] + 1e-9:
                names.append(f"least L{i}" if lower[i] <= least[i] else f"step L{i}")
            elif upper[i] < 1 and x >= upper[i] - 1e-9:
                names.append(f"most L{i}" if upper[i] >= most[i] else f"step L{i}")
        return tuple(names)

    @staticmethod
    def _of(
        values: tuple[float, ...] | None, levels: int, what: str, default: float
    ) -> tuple[float, ...]:
        if values is None:
            return (default,) * levels
        if len(values) != levels:
            raise ValueError(f"{what} share: {len(values)} values for {levels} levels")
        if any(not 0 <= v <= 1 for v in values):
            raise ValueError(f"{what} share must be in [0, 1]: {list(values)}")
        return values


def _but(values: tuple[float, ...] | None, i: int, value: float) -> tuple[float, ...]:
    assert values is not None
    return (*values[:i], value, *values[i + 1 :])


NO_CAPS = Caps()
