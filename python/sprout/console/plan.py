# SPDX-License-Identifier: Apache-2.0
"""`sprout plan`: solve for given or current inputs and explain; changes nothing."""

from dataclasses import asdict, replace

from sprout.config import Config
from sprout.console import operator, record
from sprout.console.operator import mix
from sprout.console.output import emit_json, err, out
from sprout.control.decide import offline, plan
from sprout.control.history import load, solve_again
from sprout.control.inputs import Inputs, Prompts
from sprout.control.plan import Plan
from sprout.control.predicted import fitting
from sprout.control.prompted import Prompted
from sprout.directives import pack
from sprout.errors import ConfigError, ControlError, PredictorError
from sprout.optimize.floor import Range
from sprout.predict.document import load as load_predictor


def run(
    cfg: Config,
    intensity: float | None,
    low: float | None,
    high: float | None,
    *,
    json: bool,
) -> None:
    """What the control plane goes by, with what was given in its place; priors where it is away."""
    now = current(cfg)
    if now is None:
        if intensity is None:
            raise ConfigError("no control plane to ask for the intensity: give --intensity")
        given, basis = offline(cfg, intensity, low, high), "declared priors (no control plane)"
    else:
        given, basis = what_if(now, intensity, low, high), "the control plane's inputs"
    solved = with_prompts(cfg, given, alone=now is None)
    if json:
        emit_json(asdict(solved) | {"basis": basis, "saving_percent": solved.saving_percent})
        return
    err.print(f"[dim]from {basis}[/]")
    for line in solved.lines():
        out.print(line, markup=False)


def again(cfg: Config, version: str, *, json: bool) -> bool:
    """Solve a decision of the past from its own inputs; whether it is what was published."""
    wanted = record.number(version)
    then = record.decision(cfg, wanted)
    solved, same = solve_again(then)
    if json:
        emit_json(asdict(solved) | {"version": wanted, "same_as_published": same})
        return same
    for line in solved.lines():
        out.print(line, markup=False)
    published = "the mix that was published" if same else f"NOT as published: {mix(then.policy)}"
    out.print(f"solved again: {published}", markup=False)
    return same


def current(cfg: Config) -> Inputs | None:
    """What the policy in force was solved from; None where there is none to be had."""
    try:
        if not operator.status(cfg).HasField("policy"):
            return None
        newest = next(record.decisions(cfg, 1), None)
        return None if newest is None else load(newest.inputs_json)
    except ControlError:
        return None


def with_prompts(cfg: Config, given: Inputs, *, alone: bool) -> Plan:
    """The plan, with its part for prompts where the predictor that it is decided with is here.

    alone: without a control plane; PredictorError where `control.prompt.predictor` can't be used.
    """
    path = cfg.control.prompt.predictor
    if given.prompts is None and (path is None or not alone):
        return plan(given)
    try:
        known = None if path is None else fitting(load_predictor(path), pack(cfg.request.pack))
    except PredictorError:
        if alone:
            raise
        known = None
    if given.prompts is None and known is not None:
        given = replace(given, prompts=Prompts(known.sha256, cfg.control.prompt.share))
    made, prompted = plan(given), Prompted()
    whole = prompted.known(given, made)
    if whole is not None:
        return whole
    if known is None or given.prompts is None or known.sha256 != given.prompts.predictor:
        return replace(made, no_prompt="the control plane's predictor is not here")
    prompted.solve(given, made, known)
    return prompted.known(given, made) or made


def what_if(now: Inputs, intensity: float | None, low: float | None, high: float | None) -> Inputs:
    """The present inputs with others in their place, and nothing that stands in for a solution.

    Raises ConfigError for half a range.
    """
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ConfigError("--low and --high go together, the lower one first")
    within = now.within if low is None or high is None else Range(low, high, "as given")
    k0 = now.intensity_g_per_kwh if intensity is None else intensity
    free = replace(now, paused=False, pinned=None, held="", block="")
    return replace(free, intensity_g_per_kwh=k0, within=within)
