# SPDX-License-Identifier: Apache-2.0
"""Whether two judges say the same of the same comparisons, beyond what chance would make them.

Cohen's kappa (1960; weighted: 1968), with weights w_ij of how much verdicts i and j agree:

    kappa = (p_o - p_e) / (1 - p_e)      p_o = sum w_ij p_ij,   p_e = sum w_ij p_i. p_.j

Its interval is by the large-sample standard error of Fleiss, Cohen and Everitt (1969), with
Student's t, cut to [-1, 1]. In the table half a judgment is added, spread as chance would have it,
for the standard error alone: without it, two judges who agreed three times would be sure to agree
for ever.
"""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout.proof.interval import CONFIDENCE, Absent, Interval, student_t

Array = NDArray[np.float64]
LEAST_DEGREES = 10


def kappa(
    one: Sequence[Hashable],
    other: Sequence[Hashable],
    *,
    verdicts: Sequence[Hashable],
    weights: Literal["none", "linear"] = "none",
    confidence: float = CONFIDENCE,
) -> Interval | Absent:
    """Of two judges' verdicts (n,) on the same comparisons.

    `verdicts` lists what a verdict can be; with "linear" weights in their order, e.g. lost, tied,
    won: a neighbour is half an agreement. ValueError for other verdicts and different lengths.
    """
    if len(one) != len(other):
        raise ValueError(f"{len(one)} verdicts of one judge, {len(other)} of the other")
    place = {verdict: i for i, verdict in enumerate(verdicts)}
    if len(place) < 2 or len(place) != len(verdicts):
        raise ValueError("want at least two different verdicts")
    strange = {v for v in (*one, *other) if v not in place}
    if strange:
        raise ValueError(f"verdicts that are not in the list: {sorted(map(repr, strange))}")
    n, k = len(one), len(verdicts)
    if n < 2:
        return Absent(f"{n} shared comparisons: 2 are needed")
    table = np.zeros((k, k))
    for a, b in zip(one, other, strict=True):
        table[place[a], place[b]] += 1
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1)
    w = 1 - distance if weights == "linear" else np.eye(k)
    by_one, by_other = table.sum(1) / n, table.sum(0) / n
    if float(by_one @ w @ by_other) > 1 - 1e-12:
        return Absent("both judges always say the same one thing: chance would make them agree too")
    value = _kappa(table / n, w)
    blank = 0.5 * np.outer(by_one, by_other)
    if not np.outer(by_one > 0, by_other > 0).all():
        blank = np.full((k, k), 0.5 / k**2)
    error = _standard_error((table + blank) / (n + 0.5), w, n)
    half = student_t((1 + confidence) / 2, max(n - 1, LEAST_DEGREES)) * error
    return Interval(value, max(-1.0, value - half), min(1.0, value + half), confidence)


def _kappa(p: Array, w: Array) -> float:
    seen, chance = float((w * p).sum()), float(p.sum(1) @ w @ p.sum(0))
    return (seen - chance) / (1 - chance)


def _standard_error(p: Array, w: Array, n: int) -> float:
    """Fleiss, Cohen and Everitt (1969), equation 8."""
    rows, columns = p.sum(1), p.sum(0)
    seen, chance = float((w * p).sum()), float(rows @ w @ columns)
    mean = np.add.outer(w @ columns, rows @ w)  # w_i. + w_.j
    inner = (p * (w * (1 - chance) - mean * (1 - seen)) ** 2).sum()
    variance = inner - (seen * chance - 2 * chance + seen) ** 2
    return float(np.sqrt(max(0.0, variance) / n) / (1 - chance) ** 2)
