# SPDX-License-Identifier: Apache-2.0
"""The NVML meter on a real GPU: it rises, faster under load, never falls, goes on after a restart.

`scripts/gpu_check` runs this on a machine with a GPU.
"""

import statistics
import time
from collections.abc import Iterator

import pytest
from busy import busy

from sprout.energy.nvml import NvmlMeter
from sprout.errors import PrerequisiteError

try:
    NvmlMeter([0]).close()
    ABSENT = ""
except PrerequisiteError as error:
    ABSENT = str(error)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]

SPAN_S = 3.0  # many steps of the counter


@pytest.fixture
def meter() -> Iterator[NvmlMeter]:
    made = NvmlMeter([0])
    yield made
    made.close()


def watts(meter: NvmlMeter, span_s: float = SPAN_S) -> float:
    """Mean power over a span, in which it never falls."""
    began, first = time.monotonic(), meter.read()
    readings = [first]
    while time.monotonic() - began < span_s:
        time.sleep(0.02)
        readings.append(meter.read())
    assert readings == sorted(readings)
    return (readings[-1] - first) / (time.monotonic() - began)


def test_power_is_plausible(meter: NvmlMeter) -> None:
    found = watts(meter)
    print(f"\n{meter.name}: {found:.1f} W, limit {meter.prior_watts:.0f} W")
    assert 1 < found < meter.prior_watts


def test_load_draws_more(meter: NvmlMeter) -> None:
    with busy():
        loaded = watts(meter)
    time.sleep(1)  # the clocks come down
    idle = watts(meter)
    print(f"\nidle {idle:.1f} W, under load {loaded:.1f} W")
    assert loaded > idle
    assert loaded <= 1.05 * meter.prior_watts


def test_a_restart_loses_nothing(meter: NvmlMeter) -> None:
    meter.read()
    memory = meter.memory()
    time.sleep(1)
    second = NvmlMeter([0], memory)
    assert second.read() >= meter.read() - 1e-9 > memory.joules
    second.close()


def test_the_counter_moves_often_and_reads_fast(meter: NvmlMeter) -> None:
    steps, costs, last = [], [], meter.read()
    at = None
    began = time.monotonic()
    while time.monotonic() - began < SPAN_S:
        before = time.perf_counter()
        joules = meter.read()
        now = time.perf_counter()
        costs.append(now - before)
        if joules > last:
            if at is not None:
                steps.append(now - at)
            last, at = joules, now
        time.sleep(0.001)
    print(
        f"\nsteps of {1e3 * statistics.median(steps):.0f} ms (longest {1e3 * max(steps):.0f}), "
        f"a read takes {1e6 * statistics.median(costs):.0f} us"
    )
    assert len(steps) >= 5
