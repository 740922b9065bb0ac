# SPDX-License-Identifier: Apache-2.0
"""Triton's own energy metric, from a real server on loopback that shows what the test says."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from waiting import PATIENCE_S

from sprout.energy.tally import Memory
from sprout.energy.triton import LONGEST_STEP_S, TritonMeter, samples
from sprout.errors import PrerequisiteError

PAGE = """\
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{{model="ensemble",version="1"}} 12
# HELP nv_gpu_power_limit GPU power management limit in watts
# TYPE nv_gpu_power_limit gauge
nv_gpu_power_limit{{gpu_uuid="GPU-a"}} 700.000000
nv_gpu_power_limit{{gpu_uuid="GPU-b"}} 350.000000
# HELP nv_energy_consumption GPU energy consumption in joules since the Triton Server started
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="GPU-a"}} {a}
nv_energy_consumption{{gpu_uuid="GPU-b"}} {b}
"""


class Triton:
    """A metrics port."""

    def __init__(self) -> None:
        self.status, self.body = 200, ""
        triton = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                triton.asked.set()
                body = triton.body.encode()
                self.send_response(triton.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/metrics"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def show(self, a: float, b: float = 0.0) -> None:
        self.body = PAGE.format(a=a, b=b)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def triton() -> Iterator[Triton]:
    made = Triton()
    yield made
    made.stop()


class Meter:
    """A meter that asks when it is told to, with a clock that leaps over its ramp."""

    def __init__(self, triton: Triton, *args: object, **settings: object) -> None:
        self.now = 0.0
        self.meter = TritonMeter(
            triton.url,
            *args,
            poll_s=None,
            clock=lambda: self.now,
            **settings,  # type: ignore[arg-type]
        )

    def read(self) -> float:
        self.now += 100
        self.meter.poll()
        self.now += 100
        return self.meter.read()

    def close(self) -> None:
        self.meter.close()


def test_counts_from_the_first_answer(triton: Triton) -> None:
    triton.show(1000.5, 200)
    meter = Meter(triton)
    assert meter.read() == 0.0
    triton.show(1003, 201)
    assert meter.read() == 3.5
    assert meter.meter.prior_watts == 1050
    assert meter.meter.problem == ""
    assert not meter.meter.estimated
    meter.close()


def test_a_server_that_was_restarted_counts_on(triton: Triton) -> None:
    triton.show(1000)
    meter = Meter(triton)
    triton.show(1010)
    assert meter.read() == 10.0
    triton.show(4)
    assert meter.read() == 10.0  # the reading could be false
    triton.show(6)
    assert meter.read() == 16.0
    meter.close()


def test_goes_on_after_a_restart_of_the_agent(triton: Triton) -> None:
    triton.show(1000, 50)
    first = Meter(triton)
    triton.show(1010, 50)
    first.read()
    memory = first.meter.memory()
    first.close()
    triton.show(1020, 55)
    second = Meter(triton, memory)
    assert second.read() == 25.0
    second.close()


def test_the_named_gpus_alone(triton: Triton) -> None:
    triton.show(0, 0)
    meter = Meter(triton, gpus=["GPU-b"])
    triton.show(50, 7)
    assert meter.read() == 7.0
    assert meter.meter.prior_watts == 350
    meter.close()
    other = Meter(triton, gpus=["GPU-b", "GPU-c"])
    assert "no nv_energy_consumption of GPU-c" in other.meter.problem
    other.close()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, "", "does not answer .*500"),
        (200, "", "has no nv_energy_consumption"),
        (200, 'nv_energy_consumption{gpu_uuid="GPU-a"} NaN\n', "has no nv_energy_consumption"),
        (200, "\0\xff<html>", "has no nv_energy_consumption"),
    ],
)
def test_a_bad_answer_holds_the_count(triton: Triton, status: int, body: str, problem: str) -> None:
    triton.show(10)
    meter = Meter(triton)
    triton.show(12)
    assert meter.read() == 2.0
    triton.status, triton.body = status, body
    assert meter.read() == 2.0
    assert re.search(problem, meter.meter.problem)
    triton.status = 200
    triton.show(15)
    assert meter.read() == 5.0
    assert meter.meter.problem == ""
    meter.close()


def test_a_silence_is_not_whole_until_its_joules_are_handed_out(triton: Triton) -> None:
    triton.show(10)
    meter = Meter(triton)
    assert meter.meter.whole
    triton.status = 500
    meter.meter.poll()
    assert not meter.meter.whole
    triton.status = 200
    triton.show(300)
    meter.meter.poll()
    assert meter.meter.problem == ""
    assert not meter.meter.whole
    meter.now += LONGEST_STEP_S
    assert meter.meter.whole
    assert meter.meter.read() == 290.0
    meter.close()


def test_a_gpu_that_triton_tells_of_no_more_is_missed(triton: Triton) -> None:
    triton.show(10, 5)
    meter = Meter(triton)
    triton.body = 'nv_energy_consumption{gpu_uuid="GPU-a"} 12\n'
    assert meter.read() == 2.0
    assert meter.meter.problem.endswith("has no nv_energy_consumption of GPU-b")
    assert not meter.meter.whole
    meter.close()


@pytest.mark.parametrize(
    ("pages", "joules"),
    [
        (({"GPU-a": 1}, {"GPU-a": 3}), 3.0),  # its counter began anew
        (({"GPU-c": 1000}, {"GPU-c": 1002}), 2.0),
    ],
)
def test_a_new_triton_is_not_missed_the_gpus_of_the_one_before(
    triton: Triton, pages: tuple[dict[str, int], ...], joules: float
) -> None:
    triton.show(10, 5)
    meter = Meter(triton)
    for page in pages:
        triton.body = "".join(
            f'nv_energy_consumption{{gpu_uuid="{uuid}"}} {raw}\n' for uuid, raw in page.items()
        )
        counted = meter.read()
    assert counted == joules
    assert (meter.meter.problem, meter.meter.whole) == ("", True)
    meter.close()


def test_a_false_low_reading_is_no_new_triton(triton: Triton) -> None:
    triton.show(10, 5)
    meter = Meter(triton)
    for raw in (1, 12):
        triton.body = f'nv_energy_consumption{{gpu_uuid="GPU-a"}} {raw}\n'
        meter.read()
    assert meter.meter.problem.endswith("of GPU-b")
    meter.close()


def test_a_named_gpu_is_missed_of_a_new_triton_too(triton: Triton) -> None:
    triton.show(10, 5)
    meter = Meter(triton, gpus=["GPU-a", "GPU-b"])
    for raw in (1, 3):
        triton.body = f'nv_energy_consumption{{gpu_uuid="GPU-a"}} {raw}\n'
        meter.read()
    assert meter.meter.problem.endswith("of GPU-b")
    meter.close()


def test_waits_for_a_triton_that_is_not_up_yet(triton: Triton) -> None:
    triton.stop()
    meter = Meter(triton, Memory(5.0), fallback_watts=24.0)
    assert meter.read() == 5.0
    assert "does not answer" in meter.meter.problem
    assert meter.meter.prior_watts == 24
    meter.close()


def test_asks_on_a_thread_of_its_own(triton: Triton) -> None:
    triton.show(1)
    meter = TritonMeter(triton.url, poll_s=0.01)
    triton.asked.clear()
    assert triton.asked.wait(PATIENCE_S)
    meter.close()


def test_what_is_no_url_is_named() -> None:
    with pytest.raises(PrerequisiteError, match=r"energy\.triton_metrics_url is no URL"):
        TritonMeter("http://[::1/metrics", poll_s=None)


def test_samples_are_told_apart_by_metric_and_gpu() -> None:
    text = PAGE.format(a="1.5e3", b="-4")
    assert samples(text, "nv_energy_consumption") == {"GPU-a": 1500.0}  # no amount is negative
    assert samples(text, "nv_gpu_power_limit") == {"GPU-a": 700.0, "GPU-b": 350.0}
    assert samples(text, "nv_gpu_power_usage") == {}
