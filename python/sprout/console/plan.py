# SPDX-License-Identifier: Apache-2.0
"""`sprout plan`: solve for given or current inputs and explain; changes nothing."""

from dataclasses import asdict, replace

from sprout.config import Config
from sprout.console import operator
from sprout.console.output import emit_json, err, out
from sprout.control.messages import plan_of
from sprout.control.plan import NO_RANGE, Plan, inputs_of, offline, plan
from sprout.errors import ConfigError, ControlError
from sprout.optimize.floor import Range


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
        solved, basis = offline(cfg, intensity, low, high), "declared priors (no control plane)"
    else:
        solved, basis = what_if(cfg, now, intensity, low, high), "the control plane's inputs"
    if json:
        emit_json(asdict(solved) | {"basis": basis, "saving_percent": solved.saving_percent})
        return
    err.print(f"[dim]from {basis}[/]")
    for line in solved.lines():
        out.print(line, markup=False)


def current(cfg: Config) -> Plan | None:
    """The plan behind the policy in force; None where there is none to be had."""
    try:
        status = operator.status(cfg)
    except ControlError:
        return None
    return plan_of(status.policy) if status.HasField("policy") else None


def what_if(
    cfg: Config, now: Plan, intensity: float | None, low: float | None, high: float | None
) -> Plan:
    """The present profile and range under other inputs. Raises ConfigError for half a range."""
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ConfigError("--low and --high go together, the lower one first")
    within = now.within if low is None or high is None else Range(low, high, "as given")
    k0 = now.intensity_g_per_kwh if intensity is None else intensity
    inputs = inputs_of(cfg, k0, within or NO_RANGE, now.profile)
    return plan(
        replace(
            inputs,
            xi=now.xi,
            control_share=now.control_share,
            canary_share=now.canary_share,
        )
    )
