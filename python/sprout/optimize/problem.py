# SPDX-License-Identifier: Apache-2.0
"""What the bank is asked and what it answers. T hours, C task classes, L levels."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize.caps import NO_CAPS, Caps
from sprout.optimize.contrast import Certainty
from sprout.optimize.greedy import most_preferred

Array = NDArray[np.float64]
POINT = 0.01  # of normalised preference

# Under this share of the mean traffic a class's hour has no weight in the program.
NO_TRAFFIC = 1e-6
ROUNDING = 1e-9  # what normalised preferences may differ by


@dataclass(frozen=True, eq=False)
class Problem:
    costs_g: Array  # (T, C, L) grams of CO2e per request
    requests: Array  # (T, C) expected; 0 where none is
    preferences: Array  # (C, L) q
    target: float  # mean normalised preference over the horizon
    hourly_minimum: float = 0.0  # of normalised preference, all classes of an hour together
    class_minimum: Array | None = None  # (C,) every hour, against the class's own L0
    carry_request_points: float = 0.0  # > 0: the past was better than its target
    against: Literal["own", "pooled"] = "own"  # which L0 a class's preference is relative to
    caps: Caps | tuple[Caps, ...] = NO_CAPS  # (C,) or for every class; the step limits hour 0
    previous: Array | None = None  # (C, L) the mixes in force, for the step; None: no limit
    certainty: Certainty | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        hours, classes, levels = self.costs_g.shape
        return hours, classes, levels

    @cached_property
    def mean_requests(self) -> float:
        return float(self.requests.mean())

    @cached_property
    def weights(self) -> Array:
        """(T, C) requests over their mean; 0 where there are next to none."""
        w = self.requests / self.mean_requests
        return np.where(w >= NO_TRAFFIC, w, 0.0)

    @cached_property
    def norms(self) -> Array:
        """(T, C) the q that counts as 1: the class's own q_c0, or the hour's mean of them."""
        q0 = self.preferences[:, 0]
        if self.against == "own":
            return np.broadcast_to(q0, self.requests.shape)
        by_hour = self.requests.sum(1, keepdims=True)
        # An hour without requests has the horizon's classes.
        n = np.where(by_hour > 0, self.requests, self.requests.sum(0))
        return np.broadcast_to(
            (n * q0).sum(1, keepdims=True) / n.sum(1, keepdims=True), self.requests.shape
        )

    @cached_property
    def relative(self) -> Array:
        """(T, C, L) normalised preference r."""
        return self.preferences / self.norms[..., None]

    @property
    def class_caps(self) -> tuple[Caps, ...]:
        """(C,)"""
        return (self.caps,) * self.shape[1] if isinstance(self.caps, Caps) else self.caps

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper (T, C, L) bounds on the shares. InfeasibleError if they leave no mix."""
        _, classes, levels = self.shape
        caps = self.class_caps
        if len(caps) != classes:
            raise ValueError(f"{len(caps)} caps for {classes} classes")
        lower, upper = np.empty(self.shape), np.empty(self.shape)
        for k, own in enumerate(caps):
            lower[:, k], upper[:, k] = own.bounds(levels)
            if self.previous is not None and own.step is not None:
                lower[0, k], upper[0, k] = own.bounds(levels, self.previous[k].tolist())
        return lower, upper

    @cached_property
    def best(self) -> Array:
        """(T, C, L) the mixes of the highest preference within the caps; the cheaper if tied."""
        return most_preferred(self.relative, self.costs_g, *self.bounds)

    @cached_property
    def total(self) -> float:
        """Sum of the weights: multiply by `mean_requests` for requests."""
        return float(self.weights.sum())

    @cached_property
    def need(self) -> float:
        """The budget's right side, in weights: target sum w - carry."""
        return self.target * self.total - self.carry_request_points * POINT / self.mean_requests

    @cached_property
    def attainable(self) -> float:
        """The most that the budget's left side can be."""
        return float((self.weights[..., None] * self.relative * self.best).sum())

    @cached_property
    def z_wanted(self) -> float:
        """How many standard deviations the contrast is to hold with; 0: the plain budget."""
        if self.certainty is None:
            return 0.0
        return self.certainty.z(self.preferences if self.against == "own" else None)

    def check(self) -> None:
        """ValueError for impossible numbers; InfeasibleError, with the hour and the amount, if an
        hourly or class minimum can't be met within the caps."""
        self._check_numbers()
        _, classes, _ = self.shape
        by_hour = self.weights.sum(1)
        most = (self.weights[..., None] * self.relative * self.best).sum((1, 2))
        short = self.hourly_minimum * by_hour - most
        if (short > ROUNDING * by_hour).any():
            t = int(np.argmax(short / np.maximum(by_hour, NO_TRAFFIC)))
            raise InfeasibleError(
                f"hourly minimum {self.hourly_minimum:.4f} is {short[t] / by_hour[t]:.4f} above "
                f"the most that hour {t} can have ({most[t] / by_hour[t]:.4f})"
            )
        if self.class_minimum is not None:
            own = self.preferences / self.preferences[:, :1]
            lacking = self.class_minimum - (own * self.best).sum(-1)
            lacking[self.weights == 0] = 0.0
            if (lacking > ROUNDING).any():
                t, k = divmod(int(np.argmax(lacking)), classes)
                raise InfeasibleError(
                    f"minimum {self.class_minimum[k]:.4f} of class {k} is {lacking[t, k]:.4f} "
                    f"above the most that it can have in hour {t}"
                )

    def _check_numbers(self) -> None:
        hours, classes, levels = self.shape
        shapes: list[tuple[str, Array | None, tuple[int, ...]]] = [
            ("requests", self.requests, (hours, classes)),
            ("preferences", self.preferences, (classes, levels)),
            ("class_minimum", self.class_minimum, (classes,)),
        ]
        for what, values, shape in (("costs_g", self.costs_g, self.shape), *shapes):
            if values is None:
                continue
            if values.shape != shape or values.size == 0:
                raise ValueError(f"{what} is {values.shape}, not {shape}")
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"{what} must be finite and not negative")
        if self.previous is not None and self.previous.shape != (classes, levels):
            raise ValueError(f"previous is {self.previous.shape}, not {(classes, levels)}")
        for what, number in (("target", self.target), ("hourly minimum", self.hourly_minimum)):
            if not 0 <= number < math.inf:
                raise ValueError(f"{what} must be finite and not negative: {number}")
        if not math.isfinite(self.carry_request_points):
            raise ValueError(f"carry must be finite: {self.carry_request_points}")
        if self.mean_requests == 0:
            raise ValueError("no request is expected in any hour: there is nothing to budget")
        own = self.against == "own" or self.class_minimum is not None
        if own and not self.preferences[:, 0].all():
            k = int(np.argmin(self.preferences[:, 0]))
            raise ValueError(f"q0 of class {k} is 0: nothing can be relative to it")
        if not (self.norms > 0).all():
            raise ValueError("no class has a q0 above 0: nothing can be relative to it")
        if self.certainty is not None:
            self.certainty.check(classes, levels)


@dataclass(frozen=True, eq=False)
class Solution:
    """The cheapest mixes within the budget; `shares[0]` is what to apply now."""

    shares: Array  # (T, C, L)
    # Grams that one more request-point of budget costs, >= 0: the price of quality, one for the
    # horizon. inf where no more can be had. At a kink it is one of the slopes that meet there.
    price_g_per_point: float
    hourly_price_g_per_point: Array  # (T,) what the hourly minimum adds to it
    expected_g: float  # over the horizon
    expected_l0_g: float
    expected_preference: float  # mean over the horizon's requests, normalised
    # What the budget lacks though quality is at its most; 0: it is met.
    short_request_points: float
    z: float  # that the contrast holds with; 0: the plain budget
    z_wanted: float  # larger than z where all-L0 itself would not be sure enough
    status: str  # HiGHS's own word, or "most preferred" where there was nothing to solve
    pivots: int  # simplex iterations of the last run
    tangents: int  # of the contrast's cone

    @property
    def saving_g(self) -> float:
        return self.expected_l0_g - self.expected_g
