# SPDX-License-Identifier: Apache-2.0
"""What a decision is made from."""

import math
from dataclasses import dataclass
from typing import Literal

from sprout.config import Config
from sprout.errors import ConfigError
from sprout.optimize.caps import NO_CAPS, Caps
from sprout.optimize.floor import Range
from sprout.profile import NOTHING, LevelProfile, build

Matrix = tuple[tuple[float, ...], ...]
Traffic = tuple[tuple[str, float], ...]
NO_RANGE = Range(math.nan, math.nan, "no range")


@dataclass(frozen=True)
class Horizon:
    """What the mode "bank" looks ahead at, this hour first. See optimize/bank.py."""

    intensities_g_per_kwh: tuple[float, ...]  # (hours,); the first is that of the decision
    requests: tuple[float, ...]  # (hours,) expected
    target: float  # mean normalised preference over the horizon
    carry_request_points: float  # what the past earned (> 0) or overspent
    basis: str  # of forecast and traffic


@dataclass(frozen=True)
class Group:
    """Requests that get a mix of their own: those of one tenant, or of one task class.

    The rest is under the default mix, with the profile of all requests together.
    """

    tenant: str = ""  # one of the two is set
    task: str = ""
    traffic: float = 0.0  # share of the requests under the policy
    minimum: float = 0.0  # normalised preference asked of it alone, against its own L0
    opted_out: bool = False  # L0, and no part in the program
    profile: tuple[LevelProfile, ...] = ()  # (): that of all requests
    covariance: Matrix = ()  # (levels, levels) of its own q; (): that of all requests
    judged: int = 0  # prompts of its own behind q
    shrunk: float = 0.0  # 0: q is its own … 1: that of all requests
    weight_share: float = 0.0  # of what all judged prompts stand for; 0: not known
    previous: tuple[float, ...] | None = None  # as in Inputs; None: the default's

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.task


@dataclass(frozen=True)
class Prompts:
    """What levels are chosen by."""

    predictor: str  # SHA-256 of its file
    share: float  # of the requests under the policy, at random; the others are drawn from the mix
    # Of those without a mix of their own: (task class, its share of them), those that the predictor
    # does not know as ""; (): not known.
    traffic: Traffic = ()
    # (tenant with a minimum, the same of its requests); one that is not named: as `traffic`
    tenants: tuple[tuple[str, Traffic], ...] = ()


@dataclass(frozen=True)
class Inputs:
    intensity_g_per_kwh: float | None  # k0; None: not known
    within: Range
    profile: tuple[LevelProfile, ...]
    xi: float
    configured_fraction: float  # where there is no range
    pue: float
    embodied_g_per_s: float  # k1
    control_share: float = 0.0
    canary_share: float = 1.0
    paused: bool = False
    pinned: tuple[float, ...] | None = None  # (levels,) shares in place of a solution
    block: str = ""  # which block of the switchback this is; "" = none runs
    held: str = ""  # why the decision is not applied: "shadow" or "block"; "" = it is
    caps: Caps = NO_CAPS
    previous: tuple[float, ...] | None = None  # (levels,) the mix that `caps.step` counts from
    exploration_share: float = 0.0  # the least share of each level; yields to the floor
    mode: Literal["paper", "bank"] = "paper"  # a floor each hour, or a budget over a horizon
    horizon: Horizon | None = None  # for "bank"
    no_horizon: str = ""  # why there is none
    evaluation: str = ""  # id of the evaluation that q rests on; "": none
    covariance: Matrix = ()  # (levels, levels) of q; (): not known
    judged: int = 0  # prompts behind q
    confidence: float = 0.5  # that the floor holds, where there is a covariance; 0.5: the plain one
    # of a mix set beforehand, or of whichever is chosen by these estimates; see optimize/choice.py
    confidence_of: Literal["mix", "choice"] = "mix"
    against: Literal["own", "pooled"] = "own"  # which L0 the preference of a class is relative to
    groups: tuple[Group, ...] = ()
    prompts: Prompts | None = None  # None: no level is chosen by its prompt


def priors(config: Config, levels: tuple[str, ...]) -> tuple[LevelProfile, ...]:
    """The declared profile. ConfigError if it has not one prior per level, or an impossible one."""
    c = config.control
    columns = {
        "prior_energy_joules": c.prior_energy_joules,
        "prior_device_s": c.prior_device_s,
        "prior_preference": c.prior_preference,
    }
    for key, values in columns.items():
        if len(values) != len(levels):
            raise ConfigError(
                f"control.{key} has {len(values)} values, the pack {config.request.pack!r} has "
                f"{len(levels)} levels ({', '.join(levels)})"
            )
        if any(v < 0 for v in values):
            raise ConfigError(f"control.{key} must not be negative: {values}")
    return build(
        levels,
        [NOTHING] * len(levels),
        prior_energy_joules=c.prior_energy_joules,
        prior_device_s=c.prior_device_s,
        prior_preference=c.prior_preference,
        min_outcomes=c.min_outcomes,
    )


def inputs_of(
    config: Config,
    intensity_g_per_kwh: float | None,
    within: Range,
    profile: tuple[LevelProfile, ...],
    *,
    paused: bool = False,
) -> Inputs:
    """Inputs with everything else from the configuration."""
    return Inputs(
        intensity_g_per_kwh=intensity_g_per_kwh,
        within=within,
        profile=profile,
        xi=config.control.xi,
        configured_fraction=config.control.range_fraction,
        pue=config.energy.pue,
        embodied_g_per_s=config.energy.embodied_g_per_s,
        control_share=config.control.control_share,
        canary_share=config.control.canary_share,
        paused=paused,
        exploration_share=config.control.exploration_share,
        mode=config.control.mode,
        confidence=config.control.confidence,
        confidence_of=config.control.confidence_of,
        against=config.control.class_against,
    )
