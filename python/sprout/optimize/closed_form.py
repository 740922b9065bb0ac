# SPDX-License-Identifier: Apache-2.0
"""The hourly program by enumeration, in plain arithmetic: the oracle of HiGHS.

    minimise c . x   subject to   q . x >= floor,   sum x = 1,   lower <= x <= upper

At a price y of quality the best mix is greedy: fill the levels in the order of c_i - y q_i. The
order changes only at the breakpoints y = (c_a - c_b) / (q_a - q_b) > 0, so the cheapest price at
which the greedy mix meets the floor is found by trying them in turn. The optimum there mixes the
greedy mix just below that price and the one just above it. Without bounds that is one level, or two
that straddle the floor with t = (floor - q_b) / (q_a - q_b) of the better one.

That price is what the *last* bit of quality cost, i.e. what a slightly lower floor would save per
unit of q (the left derivative of the optimal cost). What a higher one would cost is at least that.
"""

import math
from collections.abc import Sequence

from sprout.errors import InfeasibleError

# Absolute, for numbers of about 1, as HiGHS's tolerances are.
TOLERANCE = 1e-7


def closed_form(
    c: Sequence[float],
    q: Sequence[float],
    floor: float,
    lower: Sequence[float] | None = None,
    upper: Sequence[float] | None = None,
) -> tuple[tuple[float, ...], float]:
    """The optimum (levels,) and its price in cost per unit of q.

    Where several mixes are equally cheap it is one of the highest preference, then of the earlier
    level. InfeasibleError if no mix within the bounds meets the floor.
    """
    if lower is None or upper is None:
        return _unbounded(c, q, floor)
    prices = _breakpoints(c, q)
    worse: tuple[float, ...] = ()
    for k, price in enumerate(prices):
        # Between two breakpoints nothing is tied but what is equal throughout.
        above = 0.5 * (price + prices[k + 1]) if k + 1 < len(prices) else 2.0 * price + 1.0
        better = greedy(c, q, above, lower, upper)
        reached = dot(q, better)
        if reached >= floor - TOLERANCE:
            if not worse:
                return better, 0.0
            missing, gained = floor - dot(q, worse), reached - dot(q, worse)
            t = min(1.0, missing / gained)
            return tuple(y + t * (x - y) for x, y in zip(better, worse, strict=True)), price
        worse = better
    raise InfeasibleError(
        f"quality floor {floor:.4f} is above {dot(q, worse):.4f}, the most within the bounds"
    )


def greedy(
    c: Sequence[float],
    q: Sequence[float],
    price: float,
    lower: Sequence[float],
    upper: Sequence[float],
) -> tuple[float, ...]:
    """The mix that minimises (c - price q) . x within the bounds; ties go to the higher q."""
    return _fill(sorted(range(len(c)), key=lambda i: (c[i] - price * q[i], -q[i], i)), lower, upper)


def most_preferred(
    c: Sequence[float], q: Sequence[float], lower: Sequence[float], upper: Sequence[float]
) -> tuple[float, ...]:
    """The mix of the highest q . x within the bounds; ties go to the lower cost."""
    return _fill(sorted(range(len(q)), key=lambda i: (-q[i], c[i], i)), lower, upper)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _unbounded(
    c: Sequence[float], q: Sequence[float], floor: float
) -> tuple[tuple[float, ...], float]:
    """Singles and straddling pairs: microseconds, and nothing to go wrong."""
    n = len(c)
    best = (math.inf, 0.0, 0, 0, 1.0)  # cost, -q . x, a, b, share of a
    slack = 1e-9 * (1.0 + max(c))
    for a in range(n):
        ca, qa = c[a], q[a]
        if qa < floor - TOLERANCE:
            continue
        if ca < best[0] - slack or (ca <= best[0] + slack and -qa < best[1] - 1e-9):
            best = (ca, -qa, a, a, 1.0)
        for b in range(n):
            qb = q[b]
            if qb < floor <= qa and c[b] < ca:  # a dearer b would only make it worse
                t = (floor - qb) / (qa - qb)
                cost = t * ca + (1.0 - t) * c[b]
                if cost < best[0] - slack:
                    best = (cost, -floor, a, b, t)
    cost, _, a, b, t = best
    if cost == math.inf:
        raise InfeasibleError(f"quality floor {floor:.4f} is above every level's preference")
    shares = [0.0] * n
    shares[a] = t
    if b != a:
        shares[b] = 1.0 - t
        return tuple(shares), (c[a] - c[b]) / (q[a] - q[b])
    return tuple(shares), _price_of_single(c, q, floor, a)


def _price_of_single(c: Sequence[float], q: Sequence[float], floor: float, a: int) -> float:
    """One level alone is best: a slightly lower floor saves nothing unless it stands on that level,
    and then the steepest way down."""
    if q[a] > floor + TOLERANCE:
        return 0.0
    slopes = [(c[a] - c[b]) / (q[a] - q[b]) for b in range(len(c)) if q[b] < q[a] - TOLERANCE]
    return max(0.0, *slopes) if slopes else 0.0


def _breakpoints(c: Sequence[float], q: Sequence[float]) -> list[float]:
    """0 and every price at which two levels change places, ascending."""
    prices = {0.0}
    for a in range(len(c)):
        for b in range(len(c)):
            if q[a] > q[b] and c[a] > c[b]:
                prices.add((c[a] - c[b]) / (q[a] - q[b]))
    return sorted(prices)


def _fill(
    order: Sequence[int], lower: Sequence[float], upper: Sequence[float]
) -> tuple[float, ...]:
    shares = list(lower)
    left = 1.0 - math.fsum(lower)
    for i in order:
        more = min(upper[i] - lower[i], left)
        shares[i] += more
        left -= more
    return tuple(shares)
