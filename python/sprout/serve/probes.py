# SPDX-License-Identifier: Apache-2.0
"""Questions to running processes: None is "it serves", a string says what is wrong."""

import json
import time
from enum import StrEnum
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprout.channel import connect, control_address
from sprout.config import Config


def http_ok(url: str, timeout_s: float = 2.0) -> str | None:
    """GET answers 200."""
    try:
        status = httpx.get(url, timeout=timeout_s, trust_env=False).status_code
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__}"
    return None if status == httpx.codes.OK else f"{url}: HTTP {status}"


class Canary(StrEnum):
    """How a canary inference ended."""

    OK = "ok"
    REFUSED = "refused"  # the chain answered, with an error: the engine is away or full
    BROKEN = "broken"  # a stub is dead
    SILENT = "silent"  # no answer in time
    UNREACHABLE = "unreachable"


def canary(base_url: str, token: str, timeout_s: float) -> tuple[Canary, str]:
    """One token through `ensemble`, marked as Sprout's own probe: served at L0, told apart.

    (how it ended, what was said)
    """
    body = {"text_input": "ping", "max_tokens": 1, "sprout_probe": token}
    url = f"{base_url}/v2/models/ensemble/generate_stream"
    deadline = time.monotonic() + timeout_s
    said = ""
    try:
        with httpx.stream("POST", url, json=body, timeout=timeout_s, trust_env=False) as response:
            for line in response.iter_lines():
                said = line.removeprefix("data:").strip() or said
                if time.monotonic() > deadline:
                    return Canary.SILENT, f"no end within {timeout_s:g} s"
    except httpx.TimeoutException:
        return Canary.SILENT, f"no answer within {timeout_s:g} s"
    except httpx.HTTPError as error:
        return Canary.UNREACHABLE, type(error).__name__
    return _verdict(said)


def _verdict(said: str) -> tuple[Canary, str]:
    try:
        answer = json.loads(said)
    except ValueError:
        return Canary.REFUSED, said[:200] or "an empty answer"
    if "text_output" in answer:
        return Canary.OK, ""
    error = str(answer.get("error", said))[:300]
    # What Triton says of a stub that died; the server and the model stay "ready" all the same.
    dead = "is not healthy" in error or "Stub process" in error
    return (Canary.BROKEN if dead else Canary.REFUSED), error


def control_serving(cfg: Config, timeout_s: float = 3.0) -> str | None:
    """The control plane's own health service says SERVING."""
    address = control_address(cfg.control)
    try:
        with connect(address, cfg.control.tls) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
    except grpc.RpcError as error:
        return f"{address}: {error.code().name if isinstance(error, grpc.Call) else error}"
    serving = health_pb2.HealthCheckResponse.SERVING
    return None if answer.status == serving else f"{address}: not serving"


def clock_ticking(clock: Path, timeout_s: float) -> str | None:
    """The agent's energy clock moved within the last `timeout_s`."""
    from sprout_ext.clock import ClockReader  # noqa: PLC0415 - compiled; the CLI starts without it

    state = ClockReader(clock).state()
    if state is None:
        return f"no energy clock at {clock}"
    age_s = (time.monotonic_ns() - state.t_ns) / 1e9
    return None if age_s < timeout_s else f"the energy clock stands still ({age_s:.0f} s)"
