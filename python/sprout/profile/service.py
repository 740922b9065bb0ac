# SPDX-License-Identifier: Apache-2.0
"""How long the engine works on a request, and how many are in flight under given traffic.

    seconds = fixed + p * input tokens + (d + g * in flight) * output tokens

A decoding step serves all that are in flight, the request itself included, and takes a little
longer for each of them. A request that comes at random finds the mean number n of others (Poisson
arrivals see time averages), so it is one of n + 1. With Little's law n then has a closed form: the
sum of rates x seconds is linear in n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.profile.nnls import nnls

Floats = NDArray[np.float64]

# Nearer to the engine's capacity than this the closed form promises what no queue keeps.
MOST_UTILISED = 0.95


@dataclass(frozen=True)
class Demand:
    """Traffic of one level on one node."""

    level: str
    per_s: float  # requests
    input_tokens: float  # mean
    output_tokens: float


@dataclass(frozen=True)
class ServiceModel:
    fixed_s: float
    prefill_s_per_token: float
    decode_s_per_token: float
    decode_s_per_token_in_flight: float
    r2: float  # of seconds, over requests
    requests: int

    def seconds(self, demand: Demand, in_flight: float) -> float:
        """Of one request that finds `in_flight` others at work."""
        company = self.decode_s_per_token_in_flight * in_flight * demand.output_tokens
        return self._alone(demand) + company

    def in_flight(self, traffic: Sequence[Demand]) -> float | None:
        """Mean number in flight; None where the traffic is (nearly) more than the node can do."""
        room = self._room(traffic)
        if room < 1 - MOST_UTILISED:
            return None
        return math.fsum(d.per_s * self._alone(d) for d in traffic) / room

    def added_in_flight(self, demand: Demand, traffic: Sequence[Demand], in_flight: float) -> float:
        """d(in flight) / d(rate of the demand's level): its own seconds and the others' delay."""
        return self.seconds(demand, in_flight) / self._room(traffic)

    def _alone(self, demand: Demand) -> float:
        """Seconds but for the company of others."""
        per_token = self.decode_s_per_token + self.decode_s_per_token_in_flight
        return (
            self.fixed_s
            + self.prefill_s_per_token * demand.input_tokens
            + per_token * demand.output_tokens
        )

    def _room(self, traffic: Sequence[Demand]) -> float:
        tokens_per_s = math.fsum(d.per_s * d.output_tokens for d in traffic)
        return 1 - self.decode_s_per_token_in_flight * tokens_per_s


def fit_service(
    seconds: Floats, input_tokens: Floats, output_tokens: Floats, in_flight: Floats
) -> ServiceModel:
    """Non-negative least squares over requests; all (n,). ValueError for fewer than 8 of them."""
    if len(seconds) < 8:
        raise ValueError(f"{len(seconds)} requests are too few to learn how long they take")
    ones = np.ones_like(seconds)
    design = np.column_stack((ones, input_tokens, output_tokens, output_tokens * in_flight))
    x = nnls(design, seconds)
    residual = seconds - design @ x
    total = float(np.square(seconds - seconds.mean()).sum())
    r2 = 1 - float(np.square(residual).sum()) / total if total > 0 else 0.0
    fixed, prefill, decode, company = map(float, x)
    return ServiceModel(fixed, prefill, decode, company, r2, len(seconds))
