# SPDX-License-Identifier: Apache-2.0
"""Inputs of a joint decision, for tests."""

from dataclasses import replace

import numpy as np
from round_priors import ROUND_PRIORS
from some_evaluation import PACK

from sprout.config import Config, ControlConfig
from sprout.control.inputs import Group, Inputs, inputs_of, priors
from sprout.optimize.contrast import multinomial
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile

CONFIG = Config(control=ControlConfig(**ROUND_PRIORS))

L0 = (1, 0, 0)


def inputs(k0: float = 200.0, **fields: object) -> Inputs:
    made = inputs_of(CONFIG, k0, Range(100, 300, "test"), priors(CONFIG, PACK.levels))
    return replace(made, **fields)  # type: ignore[arg-type]


def profile(
    q: tuple[float, ...], joules: tuple[float, ...] = (60, 20, 15)
) -> tuple[LevelProfile, ...]:
    rows = priors(CONFIG, PACK.levels)
    return tuple(
        replace(row, preference=a, energy_joules=b)
        for row, a, b in zip(rows, q, joules, strict=True)
    )


def covariance(q: tuple[float, ...], judged: int) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, multinomial(np.array(q), judged).tolist()))


Q = (0.40, 0.34, 0.20)

ACME, QUIET = Group(tenant="acme", traffic=0.3, minimum=0.9), Group(tenant="quiet", opted_out=True)
CODE = Group(task="code", traffic=0.3, profile=profile(Q))


def everyone(**fields: object) -> Inputs:
    return inputs(profile=profile(Q), groups=(ACME, QUIET, CODE), **fields)
