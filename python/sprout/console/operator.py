# SPDX-License-Identifier: Apache-2.0
"""Calls to the control plane that people make."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.json_format import MessageToDict

from sprout.channel import connect, control_address, translated
from sprout.config import Config
from sprout.console.output import emit_json
from sprout.errors import ControlError
from sprout.serve.state import StackPaths, read_stack
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

TIMEOUT_S = 5.0


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


def pause(cfg: Config, reason: str) -> pb.Policy:
    with control(cfg) as stub:
        return stub.Pause(pb.PauseRequest(reason=reason), timeout=TIMEOUT_S)


def resume(cfg: Config) -> pb.Policy:
    with control(cfg) as stub:
        return stub.Resume(pb.ResumeRequest(), timeout=TIMEOUT_S)


def override(cfg: Config, g_per_kwh: float, ttl_s: float) -> pb.Policy:
    """Decide as if the intensity were this, for `ttl_s` seconds."""
    request = pb.OverrideIntensityRequest(g_per_kwh=g_per_kwh)
    request.ttl.FromNanoseconds(int(ttl_s * 1e9))
    with control(cfg) as stub:
        return stub.OverrideIntensity(request, timeout=TIMEOUT_S)


def as_dict(message: Any) -> dict[str, Any]:
    """A message for JSON, under the names of the .proto file."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


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
    return ", ".join(f"{share.level} {100 * share.share:.0f} %" for share in policy.shares)


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
    sentences = [
        carbon,
        f"floor: at least {100 * e.floor:.1f} % of L0's preference{rests_on}, xi {e.xi:g}",
        f"limited by {e.active_constraint or 'nothing'}",
    ]
    if e.expected_l0_g_per_request > 0:
        saved = 100 * (1 - e.expected_g_per_request / e.expected_l0_g_per_request)
        sentences.append(
            f"expected: {saved:.0f} % less carbon per request than L0 "
            f"at {100 * e.expected_preference:.1f} % of its preference{rests_on}"
        )
    bases = sorted({f"e, p {p.energy_basis}; q {p.preference_basis}" for p in e.profile})
    if bases:
        sentences.append("profile: " + " | ".join(bases))
    return sentences
