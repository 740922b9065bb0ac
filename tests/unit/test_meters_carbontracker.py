# SPDX-License-Identifier: Apache-2.0
"""CarbonTracker at arm's length: its log is read, and nothing that it does can hurt.

The log is one that carbontracker 2.4.7 wrote around six seconds of a busy loop on a machine without
GPU and RAPL. In place of its interpreter stand scripts that do what it could do at its worst.
"""

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from sprout.energy.carbontracker import CarbonTracker, Reading, Unmeasured, parse
from sprout.errors import PrerequisiteError

LOG = """\
2026-11-24 23:52:41 - carbontracker version 2.4.7
2026-11-24 23:52:41 - Only predicted and actual consumptions are multiplied by a PUE coefficient \
of 1.58 (Daniel Bizo, 2023, Uptime Institute Global Data Center Survey).
2026-11-24 23:52:42 - The following components were found: CPU with device(s) AMD EPYC.
2026-11-24 23:52:42 - Monitoring thread started.
2026-11-24 23:52:47 - Epoch 1:
2026-11-24 23:52:47 - Duration: 0:00:04.43
2026-11-24 23:52:47 - Average power usage (W) for cpu: 60.0
2026-11-24 23:52:47 - Carbon intensities (gCO2eq/kWh) fetched every 900 s at detected location: \
Unknown: [445.0]
2026-11-24 23:52:47 - Average carbon intensity during training was 445.00 gCO2eq/kWh. \n\
2026-11-24 23:52:47 - Monitoring thread ended.
"""
OUTPUT = """\
2026-11-24 23:52:42 - CarbonTracker: The following components were found: CPU with device(s) \
AMD EPYC.
2026-11-24 23:52:47 - CarbonTracker: Average carbon intensity during training was 445.00 \
gCO2eq/kWh. \n\
2026-11-24 23:52:47 - CarbonTracker:\x20
Actual consumption:
\tTime:\t0:00:04
\tEnergy:\t0.000116548499 kWh
\tCO2eq:\t0.051864081891 g
2026-11-24 23:52:47 - CarbonTracker: Finished monitoring.
"""
ERRORS = """\
2026-11-24 23:52:42,785 - MainThread - WARNING - No API keys provided. Skipping intensity provider \
initialization.
2026-11-24 23:52:42,789 - MainThread - WARNING - No carbon intensity provider specified and no \
location detected. Defaulting to global average carbon intensity for 2024: 445.00 gCO2eq/kWh.
"""
SAID = """\
CarbonTracker: INFO - Detected CPU: AMD EPYC
CarbonTracker: INFO - Matched CPU AMD EPYC to AMD EPYC 7232P with TDP 120.0W
CarbonTracker: INFO - Using TDP of 60.00W for AMD EPYC at 50% utilization
"""


def logs(folder: Path, log: str = LOG, output: str = OUTPUT, errors: str = ERRORS) -> Path:
    stem = "27389.925988_2026-11-24T235241Z_carbontracker"
    (folder / f"{stem}.log").write_text(log)
    (folder / f"{stem}_output.log").write_text(output)
    (folder / f"{stem}_err.log").write_text(errors)
    (folder / "said.log").write_text(SAID)
    return folder


def test_a_real_log(tmp_path: Path) -> None:
    found = parse(logs(tmp_path))
    assert isinstance(found, Reading)
    assert found.pue == 1.58
    assert found.joules == pytest.approx(60.0 * 4.43, rel=2e-3)  # its PUE is out again
    assert (found.seconds, found.watts) == (4.43, {"cpu": 60.0})
    assert found.estimated
    assert found.version == "2.4.7"


def test_one_gpu_beside_one_cpu(tmp_path: Path) -> None:
    power = "2026-11-24 23:52:47 - Average power usage (W) for"
    log = LOG.replace("found: CPU", "found: GPU with device(s) NVIDIA H100 80GB HBM3. CPU")
    log = log.replace(f"{power} cpu", f"{power} gpu: [371.25]\n{power} cpu")
    found = parse(logs(tmp_path, log=log))
    assert isinstance(found, Reading)
    assert found.watts == {"gpu": 371.25, "cpu": 60.0}


@pytest.mark.parametrize("devices", ["GPU with device(s) A 40.GB, A 40.GB. CPU", "CPU"])
def test_several_devices_are_no_reading(tmp_path: Path, devices: str) -> None:
    """2.4.7 gives the mean of two devices, 200 W of 100 and 300, as if it were both."""
    log = LOG.replace("found: CPU", f"found: {devices}")
    log = log if "GPU" in devices else log.replace("AMD EPYC.", "cpu:0, cpu:1.")
    found = parse(logs(tmp_path, log=log))
    assert isinstance(found, Unmeasured)
    assert "takes the mean over several devices" in found.reason
    assert ("(GPU)" if "GPU" in devices else "(CPU)") in found.reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"log": ""}, "says no energy"),
        ({"output": OUTPUT.partition("Actual")[0]}, "says no energy"),
        ({"log": LOG.replace("cpu: 60.0", "cpu: None")}, "the span is too short"),
        (
            {
                "errors": f"{ERRORS}2026-11-24 23:52:44,1 - CarbonTrackerThread - CRITICAL - Could "
                "not read CPU/DRAM energy consumption due to lack of read-permissions.\n\tPlease\n"
            },
            "lack of read-permissions. Please",
        ),
    ],
)
def test_a_log_without_a_figure_is_no_reading(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    found = parse(logs(tmp_path, **changed))
    assert isinstance(found, Unmeasured)
    assert reason in found.reason


def interpreter(tmp_path: Path, body: str) -> Path:
    """Called as `-I SCRIPT LOG_DIR READY_FD`, with LOG_DIR as its working directory."""
    file = tmp_path / "python"
    file.write_text(
        f"#!{sys.executable}\nimport os, signal, subprocess, sys, time\n"
        f"folder, ready = sys.argv[3], int(sys.argv[4])\n{body}\n"
    )
    file.chmod(0o700)
    return file


WRITES = "\n".join(
    f"open(os.path.join(folder, '1_carbontracker{name}.log'), 'w').write({text!r})"
    for name, text in (("", LOG), ("_output", OUTPUT))
)


def test_tracks_from_ready_until_the_body_ends(tmp_path: Path) -> None:
    body = f"os.write(ready, b'1')\nassert sys.stdin.read() == ''\n{WRITES}\nprint('TDP of')"
    with CarbonTracker(interpreter(tmp_path, body)).span() as span:
        assert isinstance(span.result, Unmeasured)
    assert isinstance(span.result, Reading)
    assert span.result.estimated


def test_it_asks_nobody_where_it_is(tmp_path: Path) -> None:
    body = f"print('proxy', os.environ['http_proxy'])\nos._exit(3)\n{WRITES}"
    with CarbonTracker(interpreter(tmp_path, body)).span() as span:
        pass
    assert span.result == Unmeasured("carbontracker died at its start: proxy http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(70)", "died at its start"),
        ("print('No module named carbontracker'); sys.exit(1)", "No module named carbontracker"),
        ("os.write(ready, b'1'); os._exit(70)", "ended with status 70"),
        ("os.write(ready, b'1'); os.kill(os.getpid(), 9)", "ended with status -9"),
        ("os.write(ready, b'1'); sys.stdin.read()", "says no energy"),
        ("time.sleep(600)", "was not ready within 0.2 s"),
        ("os.write(ready, b'1'); time.sleep(600)", "did not end within 0.3 s"),
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(ready, b'1'); time.sleep(600)",
            "did not end within 0.3 s",
        ),
    ],
)
def test_whatever_it_does_the_body_runs_and_it_is_gone(
    tmp_path: Path, body: str, reason: str
) -> None:
    pid_file = tmp_path / "pid"
    file = interpreter(tmp_path, f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n{body}")
    ready_s = 0.2 if "0.2" in reason else 60.0
    stop_s = 0.3 if "0.3" in reason else 60.0
    ran = False
    with CarbonTracker(file, start_timeout_s=ready_s, stop_timeout_s=stop_s).span() as span:
        ran = True
    assert ran
    assert isinstance(span.result, Unmeasured)
    assert reason in span.result.reason
    if pid_file.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


def test_what_it_started_goes_with_it(tmp_path: Path) -> None:
    body = (
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "os.write(ready, b'1'); sys.stdin.read()"
    )
    with CarbonTracker(interpreter(tmp_path, body)).span():
        child = os.pidfd_open(int((tmp_path / "child").read_text()))
        assert select.select([child], [], [], 0)[0] == []  # it lives
    assert select.select([child], [], [], 60)[0] == [child]
    os.close(child)


def test_it_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    """A signal to its group, as a shell's Ctrl-C, is not one to ours."""
    body = "os.write(ready, b'1'); os.killpg(0, signal.SIGTERM); time.sleep(600)"
    with CarbonTracker(interpreter(tmp_path, body)).span() as span:
        pass
    assert span.result == Unmeasured(f"carbontracker ended with status {-signal.SIGTERM}")


def test_an_error_of_the_body_is_the_body_s(tmp_path: Path) -> None:
    body = f"os.write(ready, b'1')\nsys.stdin.read()\n{WRITES}"
    with (
        pytest.raises(KeyError, match="ours"),
        CarbonTracker(interpreter(tmp_path, body)).span() as span,
    ):
        raise KeyError("ours")
    assert isinstance(span.result, Reading)


def test_no_such_interpreter(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"carbontracker_python .*: .*pip install"):
        CarbonTracker(tmp_path / "python")
