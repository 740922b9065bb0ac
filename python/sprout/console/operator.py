# SPDX-License-Identifier: Apache-2.0
"""Calls to the control plane that people make."""

import getpass
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sprout.channel import as_dict, connect, control_address, translated
from sprout.config import Config
from sprout.console.output import emit_json
from sprout.control.messages import mix_g
from sprout.errors import ConfigError, ControlError
from sprout.serve.state import StackPaths, read_stack
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

TIMEOUT_S = 5.0
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def address(cfg: Config) -> str:
    """Of this stack's control plane if it is up (its port may have been a free one).

    Raises ControlError where it is not, and no port is configured.
    """
    stack = read_stack(StackPaths.of(cfg))
    if stack is not None:
        return str(stack["endpoints"]["control"])
    if cfg.control.port == 0:
        raise ControlError(f"stack {cfg.stack.name!r} is not up, and control.port = 0 names none")
    return control_address(cfg.control)


@contextmanager
def control(cfg: Config) -> Iterator[ControlStub]:
    """A stub; calls inside raise ControlError."""
    where = address(cfg)
    with translated(f"control plane {where}"), connect(where, cfg.control.tls) as channel:
        yield ControlStub(channel)


def status(cfg: Config) -> pb.Status:
    with control(cfg) as stub:
        return stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)


def evaluations(cfg: Config) -> list[pb.Evaluation]:
    """All that the control plane has, newest first."""
    found: list[pb.Evaluation] = []
    with control(cfg) as stub:
        while True:
            page = pb.ListEvaluationsRequest(page_size=200, before_id=found[-1].id if found else "")
            answer = stub.ListEvaluations(page, timeout=TIMEOUT_S)
            found.extend(answer.evaluations)
            if not answer.next_before_id:
                return found


def watch(cfg: Config) -> Iterator[pb.Status]:
    """The status, then whenever it changes; ends with a ControlError or the caller."""
    with control(cfg) as stub:
        yield from stub.WatchStatus(pb.WatchStatusRequest())


def myself() -> str:
    """What the audit is told of who calls: the login name, as a claim; "" where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def pause(cfg: Config, reason: str) -> pb.Policy:
    with control(cfg) as stub:
        return stub.Pause(pb.PauseRequest(reason=reason, actor=myself()), timeout=TIMEOUT_S)


def resume(cfg: Config) -> pb.Policy:
    with control(cfg) as stub:
        return stub.Resume(pb.ResumeRequest(actor=myself()), timeout=TIMEOUT_S)


def set_objective(
    cfg: Config, wanted: Mapping[str, Any], *, reset: bool, reason: str
) -> pb.SetObjectiveResponse:
    """wanted: the fields of pb.Objective to set; the others stay."""
    request = pb.SetObjectiveRequest(
        objective=pb.Objective(**wanted), reset=reset, reason=reason, actor=myself()
    )
    with control(cfg) as stub:
        return stub.SetObjective(request, timeout=TIMEOUT_S)


def pin(cfg: Config, shares: Mapping[str, float], ttl_s: float, reason: str) -> pb.Policy:
    """One mix for everything, for `ttl_s` seconds."""
    request = pb.PinRequest(
        shares=[pb.LevelShare(level=level, share=share) for level, share in shares.items()],
        reason=reason,
        actor=myself(),
    )
    request.ttl.FromNanoseconds(int(ttl_s * 1e9))
    with control(cfg) as stub:
        return stub.Pin(request, timeout=TIMEOUT_S)


def unpin(cfg: Config) -> pb.Policy:
    with control(cfg) as stub:
        return stub.Unpin(pb.UnpinRequest(actor=myself()), timeout=TIMEOUT_S)


def set_schedule(cfg: Config, windows: Sequence[pb.Window]) -> pb.Policy:
    request = pb.SetScheduleRequest(windows=windows, actor=myself())
    with control(cfg) as stub:
        return stub.SetSchedule(request, timeout=TIMEOUT_S)


def override(cfg: Config, g_per_kwh: float, ttl_s: float) -> pb.Policy:
    """Decide as if the intensity were this, for `ttl_s` seconds."""
    request = pb.OverrideIntensityRequest(g_per_kwh=g_per_kwh, actor=myself())
    request.ttl.FromNanoseconds(int(ttl_s * 1e9))
    with control(cfg) as stub:
        return stub.OverrideIntensity(request, timeout=TIMEOUT_S)


def seconds(text: str) -> float:
    """Of "90s", "10m", "1h", "2d". ConfigError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no duration: write 90s, 10m, 1h or 2d")
    return float(found[1]) * _UNITS_S[found[2]]


def shares(parts: Sequence[str]) -> dict[str, float]:
    """Of "L1", or of "L0=0.4" "L1=0.6". ConfigError for anything else."""
    if len(parts) == 1 and "=" not in parts[0]:
        return {parts[0]: 1.0}
    found: dict[str, float] = {}
    for part in parts:
        level, equals, share = part.partition("=")
        try:
            if not equals or level in found:
                raise ValueError
            found[level] = float(share)
        except ValueError:
            raise ConfigError(f"{part!r}: write one level, or LEVEL=SHARE for each once") from None
    return found


def window(text: str) -> pb.Window:
    """Of "22:00-06:00=L0" or "mon,tue@22:00-06:00=L0" (UTC). ConfigError for anything else."""
    found = re.fullmatch(r"(?:([a-z,]+)@)?(\d\d:\d\d)-(\d\d:\d\d)=(\w+)", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no window: write 22:00-06:00=L0 or sat,sun@00:00-23:59=L1")
    days = found[1].split(",") if found[1] else []
    return pb.Window(start=found[2], end=found[3], weekdays=days, level=found[4])


def show(policy: pb.Policy, *, json: bool) -> None:
    """The policy that is in force now: its mix, or all of it as JSON."""
    if json:
        emit_json(as_dict(policy))
    else:
        print(mix(policy))


def mix(policy: pb.Policy) -> str:
    """L0 12 %, L1 88 %"""
    if policy.paused:
        return "paused: L0 for all"
    held = "pinned: " if policy.explanation.active_constraint == "pinned" else ""
    return held + ", ".join(f"{share.level} {100 * share.share:.0f} %" for share in policy.shares)


def why(policy: pb.Policy) -> list[str]:
    """Sentences on what the mix rests on."""
    e, k = policy.explanation, policy.intensity
    if policy.HasField("intensity"):
        source = "set by an operator" if k.override else f"from {k.source or 'an unnamed source'}"
        position = f"at {100 * e.fraction:.0f} % of the range ({e.range_basis})"
        carbon = f"intensity {k.g_per_kwh:.0f} g/kWh, {source}, {position}"
    else:
        carbon = "intensity unknown"
    rests_on = f" ({e.preference_basis})" if e.preference_basis else ""
    enforced = "not enforced: " if e.active_constraint == "pinned" else ""
    sentences = [
        carbon,
        f"floor: {enforced}at least {100 * e.floor:.1f} % of L0's preference{rests_on}, "
        f"xi {e.xi:g}",
        f"limited by {e.active_constraint or 'nothing'}",
    ]
    if e.HasField("budget"):
        b = e.budget
        sentences.append(
            f"budget: {100 * b.target:.1f} % on average over {b.hours} h, "
            f"{b.carry_request_points:+.4g} request-points carried on; {b.basis}"
        )
    if e.would_be:
        wanted = ", ".join(f"{share.level} {100 * share.share:.0f} %" for share in e.would_be)
        sentences.append(f"decided, not applied ({e.active_constraint}): {wanted}")
    if e.block:
        sentences.append(e.block)
    if e.expected_l0_g_per_request > 0:
        saved = 100 * (1 - e.expected_g_per_request / e.expected_l0_g_per_request)
        verb = "would be" if e.active_constraint == "shadow" else "expected:"
        sentences.append(
            f"{verb} {saved:.0f} % less carbon per request than L0 "
            f"at {100 * e.expected_preference:.1f} % of its preference{rests_on}"
        )
    if e.HasField("confidence"):
        c = e.confidence
        short = f", not {c.z_wanted:.3g}: too few judgments" if c.z < c.z_wanted else ""
        sentences.append(
            f"the floor holds with {100 * c.wanted:g} % confidence (z {c.z:.3g}{short})"
        )
    for each in policy.mixes:
        name = f"tenant {each.tenant}" if each.tenant else f"class {each.task}"
        shares = ", ".join(f"{share.level} {100 * share.share:.0f} %" for share in each.shares)
        sentences.append(
            f"{name}: {shares} ({each.basis}; {100 * each.traffic_share:.0f} % of requests, "
            f"{100 * each.expected_preference:.1f} % of its L0's preference)"
        )
    if policy.HasField("prompt"):
        sentences.append(_by_prompt(policy))
    elif e.no_prompt:
        sentences.append(f"no level is chosen by its prompt: {e.no_prompt}")
    bases = sorted({f"e, p {p.energy_basis}; q {p.preference_basis}" for p in e.profile})
    if bases:
        sentences.append("profile: " + " | ".join(bases))
    return sentences


def _by_prompt(policy: pb.Policy) -> str:
    prompt = policy.prompt
    shares = ", ".join(
        f"{s.level} {100 * x:.0f} %"
        for s, x in zip(policy.shares, prompt.expected_shares, strict=False)
    )
    others = [mix.tenant or mix.task for mix in policy.mixes if mix.HasField("prompt")]
    beside = f" (and of {', '.join(others)}, by prices of their own)" if others else ""
    return (
        f"by prompt: {100 * prompt.share:g} % of requests without a mix of their own{beside}, "
        f"expected {shares}; predicted {1e3 * prompt.expected_g_per_request:.3g} mg per request at "
        f"{100 * prompt.expected_preference:.1f} % of L0's preference, beside the mix's "
        f"{1e3 * mix_g(policy):.3g} mg; {prompt.basis}"
    )
