# SPDX-License-Identifier: Apache-2.0
"""What is known of each level: energy e and device time p per request, preference q.

Which outcomes count for e and p: delivered ones whose level was chosen by the policy's draws, the
control group and the canary's rest included, and those of a paused policy. Pinned ones are left
out, because whoever pins a level picks the prompts as well; so are `off` ones (the client picks),
probes and evaluations (Sprout's own prompts) and fallbacks (no policy, hence no pack to say what
the level meant), and those whose prompt chose the level, which then goes with the prompt.
Cancelled, failed and lost ones have no whole answer.

A level with fewer than `min_outcomes` of them stays on its declared prior. Priors say how levels
relate, hardly how large they are, so as soon as some levels are measured the other priors are
scaled by (sum of the measured means) / (sum of their priors): mixing joules measured here with
joules declared elsewhere would make an unmeasured level look free or ruinous.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sprout.profile.energy import MarginalEnergy

PRIOR = "prior"
RESCALED = "prior, scaled to the measured levels"
MEASURED = "measured"
MARGINAL = "marginal, at the present load"  # e and p; from a profile that `sprout profile` made
PREFERENCE_PRIOR = "prior, not this model"


@dataclass(frozen=True)
class Measured:
    """Means over the newest eligible outcomes of one level; how they are made: live.py."""

    outcomes: int
    energy_joules: float  # per request, attributed
    device_seconds: float  # per request
    output_tokens: float
    energy_estimated: bool  # at least one came from a declared model, not from a meter
    input_tokens: float = 0.0
    # None: not known, or too few to say.
    effective_outcomes: float | None = None  # so many of equal weight would say as much
    energy_se_joules: float | None = None  # standard error of `energy_joules`
    device_se_s: float | None = None
    age_s: float | None = None  # since the newest one


NOTHING = Measured(0, 0.0, 0.0, 0.0, False)


@dataclass(frozen=True)
class LevelProfile:
    level: str
    energy_joules: float  # e, per request, on the node
    device_seconds: float  # p, per request
    preference: float  # q
    energy_basis: str  # PRIOR, RESCALED or MEASURED, of p too; or MARGINAL
    preference_basis: str
    outcomes: int  # eligible ones seen, at most `profile_outcomes`
    mean_output_tokens: float
    energy_estimated: bool
    mean_input_tokens: float = 0.0
    effective_outcomes: float | None = None  # None: nothing was measured
    energy_se_joules: float | None = None  # of a measured e
    age_s: float | None = None  # since the newest outcome: a level without traffic grows old
    preference_se: float | None = None  # standard error of an evaluated q


def build(
    levels: Sequence[str],
    measured: Sequence[Measured],
    *,
    prior_energy_joules: Sequence[float],
    prior_device_s: Sequence[float],
    prior_preference: Sequence[float],
    min_outcomes: int,
) -> tuple[LevelProfile, ...]:
    """The profile (levels,). ValueError if the sequences differ in length."""
    lengths = {
        len(levels),
        len(measured),
        len(prior_energy_joules),
        len(prior_device_s),
        len(prior_preference),
    }
    if len(lengths) != 1:
        raise ValueError(f"levels, measurements and priors differ in length: {sorted(lengths)}")
    known = [m.outcomes >= min_outcomes for m in measured]
    e_scale = _scale(known, [m.energy_joules for m in measured], prior_energy_joules)
    p_scale = _scale(known, [m.device_seconds for m in measured], prior_device_s)
    rows = []
    for i, (level, m) in enumerate(zip(levels, measured, strict=True)):
        rows.append(
            LevelProfile(
                level=level,
                energy_joules=m.energy_joules if known[i] else prior_energy_joules[i] * e_scale,
                device_seconds=m.device_seconds if known[i] else prior_device_s[i] * p_scale,
                preference=prior_preference[i],
                energy_basis=MEASURED if known[i] else RESCALED if any(known) else PRIOR,
                preference_basis=PREFERENCE_PRIOR,
                outcomes=m.outcomes,
                mean_output_tokens=m.output_tokens,
                energy_estimated=m.energy_estimated if known[i] else True,
                mean_input_tokens=m.input_tokens,
                effective_outcomes=m.effective_outcomes,
                energy_se_joules=m.energy_se_joules if known[i] else None,
                age_s=m.age_s,
            )
        )
    return tuple(rows)


def decide_on(
    rows: Sequence[LevelProfile], energies: Sequence[MarginalEnergy]
) -> tuple[LevelProfile, ...]:
    """The profile to decide on: e and p become marginal, q stays. Receipts keep the attributed."""
    return tuple(
        replace(
            row,
            energy_joules=e.joules,
            device_seconds=e.device_seconds,
            energy_basis=MARGINAL,
            energy_estimated=e.estimated,
            energy_se_joules=None,
        )
        for row, e in zip(rows, energies, strict=True)
    )


def moved(old: Sequence[LevelProfile], new: Sequence[LevelProfile], ratio: float) -> bool:
    """Whether an e, p or q differs by more than `ratio` of its old value, or a basis changed."""
    if [p.level for p in old] != [p.level for p in new]:
        return True
    for a, b in zip(old, new, strict=True):
        if (a.energy_basis, a.preference_basis) != (b.energy_basis, b.preference_basis):
            return True
        pairs = (
            (a.energy_joules, b.energy_joules),
            (a.device_seconds, b.device_seconds),
            (a.preference, b.preference),
        )
        if any(abs(y - x) > ratio * abs(x) for x, y in pairs):
            return True
    return False


def _scale(known: Sequence[bool], values: Sequence[float], priors: Sequence[float]) -> float:
    measured = math.fsum(v for v, k in zip(values, known, strict=True) if k)
    prior = math.fsum(p for p, k in zip(priors, known, strict=True) if k)
    # A meter that reads nothing says nothing about the other levels.
    return measured / prior if measured > 0 and prior > 0 else 1.0
