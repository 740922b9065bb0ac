# SPDX-License-Identifier: Apache-2.0
"""Windows x schemes x xi x seeds, summed up in one `Result` each."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sprout.carbon.intensity import FactorType
from sprout.errors import ConfigError
from sprout.optimize.means import Device
from sprout.predict.document import Predictor
from sprout.proof.interval import CONFIDENCE, student_t
from sprout.replay.bundle import Bundle
from sprout.replay.grid import Grid, read_grid
from sprout.replay.measure import measure
from sprout.replay.prompted import Prompted
from sprout.replay.prompted_bank import prompt_bank
from sprout.replay.receding import bank
from sprout.replay.schemes import SCHEMES, WITHOUT_XI
from sprout.replay.static import static_eq
from sprout.replay.window import Outcome, Plan, Window
from sprout.replay.workload import Workload, draw

Array = NDArray[np.float64]

BANK = "BANK"
PROMPT, PROMPT_BANK = "PROMPT", "PROMPT_BANK"
PREDICTED = (PROMPT, PROMPT_BANK)  # need a predictor
AIMED = (BANK, *PREDICTED)  # schemes that aim at a mean preference
EVERY = (*SCHEMES, *AIMED)
UNJUDGED = ("BASE", "CO2_OPT")  # those that need no preferences
DEFAULT_TARGETS = tuple(round(0.90 + 0.01 * step, 2) for step in range(16))
# Student's t of proof.interval holds from 10 degrees of freedom on.
LEAST_SEEDS = 11


@dataclass(frozen=True)
class Request:
    """What to run. Empty zones, starts or xi: the bundle's own."""

    zones: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    schemes: tuple[str, ...] = tuple(SCHEMES)
    xis: tuple[float, ...] = ()
    targets: tuple[float, ...] = DEFAULT_TARGETS
    seeds: int = 1
    requests_per_hour: int = 10_000
    factor_type: FactorType = "direct"
    predictor: Predictor | None = None
    hourly_minimum: float = 0.0  # of PROMPT_BANK
    device: Device = "cpu"  # of draws, scores of texts and choices at prices


@dataclass(frozen=True)
class Case:
    """One row of results.csv. `target` is nan for schemes that take none."""

    zone: str
    start: int
    xi: float
    scheme: str
    target: float = math.nan

    @property
    def key(self) -> tuple[str, int, float, str]:
        """As `Published.key`."""
        return self.zone, self.start, round(self.xi, 6), self.scheme


@dataclass(eq=False)
class Runs:
    """A case over its seeds; each list has one value a seed."""

    case: Case
    device: Device = "cpu"
    saving: list[float] = field(default_factory=list)
    preference: list[float] = field(default_factory=list)  # nan without judgments
    expected: list[float] = field(default_factory=list)  # without the noise of assessments
    low_hours: list[float] = field(default_factory=list)  # share of hours expected under 1 - xi
    static_saving: list[float] = field(default_factory=list)  # nan: no static mix has it
    base_mg: list[float] = field(default_factory=list)
    mixes: list[Array] = field(default_factory=list)
    mismatches: int = 0  # of HiGHS and the closed form
    first: tuple[Window, Plan, Outcome] | None = None  # the first seed's, for hourly.csv

    def add(self, window: Window, plan: Plan, outcome: Outcome) -> None:
        self.saving.append(1 - float(outcome.grams.sum() / outcome.base_grams.sum()))
        self.preference.append(float(outcome.preference.mean()))
        self.expected.append(float(outcome.expected.mean()))
        under = outcome.expected < 1 - self.case.xi - 1e-9
        self.low_hours.append(float(under.mean()) if window.bundle.judged else math.nan)
        fixed = static_eq(window, self.preference[-1]) if window.bundle.judged else None
        self.static_saving.append(math.nan if fixed is None else fixed)
        self.base_mg.append(1e3 * float(outcome.base_grams.mean()))
        self.mixes.append(plan.shares.mean(axis=0))
        self.mismatches += plan.mismatches
        if self.first is None:
            self.first = window, plan, outcome

    @property
    def gain(self) -> list[float]:
        """On the best static mix at the same preference, by seed."""
        return [a - b for a, b in zip(self.saving, self.static_saving, strict=True)]


def plan_of(request: Request, bundle: Bundle) -> tuple[list[Case], list[str]]:
    """What will be run, and what is left out and why. ConfigError for what does not exist."""
    zones = request.zones or bundle.zones
    if unknown := [zone for zone in zones if zone not in bundle.zones]:
        raise ConfigError(
            f"{bundle.folder} has no zone {', '.join(unknown)}: there are {', '.join(bundle.zones)}"
        )
    _check_schemes(request)
    if request.seeds < 1 or request.requests_per_hour < 0:
        raise ConfigError("--seeds must be at least 1, --requests at least 0")
    xis = request.xis or (bundle.meta.xi,)
    if wrong := [xi for xi in xis if not 0 <= xi <= 1]:
        raise ConfigError(f"xi must be in [0, 1]: {wrong}")
    schemes, left_out = [], []
    for name in request.schemes:
        if name not in UNJUDGED and not bundle.judged:
            left_out.append(f"{name}: not every task has judged prompts")
        elif name == "MODEL_OPT" and not _has_small(bundle):
            left_out.append(f"{name}: the bundle has no small model")
        elif name == "ORACLE" and request.requests_per_hour == 0:
            left_out.append(f"{name}: it knows every request, and none is drawn")
        else:
            schemes.append(name)
    cases: list[Case] = []
    for zone, start, name in product(zones, request.starts or bundle.meta.starts, schemes):
        if name in AIMED:
            cases += [Case(zone, start, xis[0], name, target) for target in request.targets]
        else:
            own = xis[:1] if name in WITHOUT_XI else xis
            cases += [Case(zone, start, xi, name) for xi in own]
    return cases, left_out


def _check_schemes(request: Request) -> None:
    if unknown := [name for name in request.schemes if name not in EVERY]:
        raise ConfigError(f"no scheme {', '.join(unknown)}: choose of {', '.join(EVERY)}")
    unmet = [name for name in request.schemes if name in PREDICTED and request.predictor is None]
    if unmet:
        raise ConfigError(f"{', '.join(unmet)}: needs --predictor FILE, of `sprout predictor fit`")


def replay(
    bundle: Bundle,
    cases: Sequence[Case],
    request: Request,
    done: Callable[[], None] = lambda: None,
) -> list[Runs]:
    """`done` is called after each case and seed."""
    grids = {
        zone: read_grid(bundle.folder / "carbon" / f"{zone}.csv", request.factor_type)
        for zone in dict.fromkeys(case.zone for case in cases)
    }
    prompted = None
    if request.predictor is not None and any(case.scheme in PREDICTED for case in cases):
        prompted = Prompted(bundle, request.predictor, request.device)
    runs = [Runs(case, request.device) for case in cases]
    for seed in range(request.seeds):
        work = draw(bundle, bundle.meta.window_h, request.requests_per_hour, seed)
        for window, group in _by_window(bundle, grids, work, runs):
            for each in group:
                each.add(window, *_run(window, each.case, prompted, request))
                done()
    return runs


def _run(
    window: Window, case: Case, prompted: Prompted | None, request: Request
) -> tuple[Plan, Outcome]:
    if case.scheme in PREDICTED:
        if prompted is None:
            raise ValueError(f"{case.scheme} without a predictor: ask `plan_of` first")
        if case.scheme == PROMPT:
            return prompted.plan(window, case.target)
        return prompt_bank(prompted, window, case.target, request.hourly_minimum)
    if case.scheme == BANK:
        plan = bank(window, case.target)
    else:
        plan = SCHEMES[case.scheme](window, case.xi)
    return plan, measure(window, plan, case.scheme, request.device)


def _by_window(
    bundle: Bundle, grids: dict[str, Grid], work: Workload, runs: Sequence[Runs]
) -> Iterator[tuple[Window, list[Runs]]]:
    for zone, start in dict.fromkeys((each.case.zone, each.case.start) for each in runs):
        group = [each for each in runs if (each.case.zone, each.case.start) == (zone, start)]
        yield Window(bundle, grids[zone], start, work), group


def _has_small(bundle: Bundle) -> bool:
    return bundle.small_energy_kwh is not None and bundle.meta.small_model_preference is not None


def interval_of_a_run(values: Sequence[float]) -> tuple[float, float]:
    """What one more run falls between, with 95 % confidence: mean ± t s √(1 + 1/n). nan under 11
    runs."""
    n = len(values)
    if n < LEAST_SEEDS or not np.isfinite(values).all():
        return math.nan, math.nan
    centre, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_t((1 + CONFIDENCE) / 2, n - 1) * spread * math.sqrt(1 + 1 / n)
    return centre - half, centre + half


def interval_of_the_mean(values: Sequence[float]) -> tuple[float, float]:
    """What the mean over seeds falls between, with 95 % confidence. nan under 11 runs."""
    n = len(values)
    if n < LEAST_SEEDS or not np.isfinite(values).all():
        return math.nan, math.nan
    centre, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_t((1 + CONFIDENCE) / 2, n - 1) * spread / math.sqrt(n)
    return centre - half, centre + half
