# SPDX-License-Identifier: Apache-2.0
"""The control plane as a process: signals, kill -9, restarts, what it remembers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from waiting import PATIENCE_S, wait_for

from sprout.channel import connect
from sprout.config import ControlConfig
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

pytestmark = pytest.mark.system

WAIT_S = PATIENCE_S
HEAD = "datetime_utc,gco2_per_kwh_direct,gco2_per_kwh_lifecycle\n"


class Plane:
    """One state folder and the process that serves from it."""

    def __init__(self, folder: Path, carbon: str, control: str = "") -> None:
        self.state = folder / "state"
        self._log = folder / "control.log"
        self._config = folder / "sprout.toml"
        self._config.write_text(
            f'[stack]\nstate_dir = "{self.state}"\n'
            f"[control]\nport = 0\ninterval_s = 0.1\n{control}\n"
            f"[carbon]\n{carbon}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        port = self.state / "control.port"
        port.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "sprout.control.run"],
                env={**_environment(), "SPROUT_CONFIG": str(self._config)},
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: port.exists() or self.process.poll() is not None, what="up")
        assert port.exists(), f"not up:\n{self.log()}"
        return f"127.0.0.1:{int(port.read_text())}"

    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int) -> int:
        """Send a signal; the status that the process ended with."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SPROUT_")}


@contextmanager
def plane(folder: Path, carbon: str, control: str = "") -> Iterator[Plane]:
    made = Plane(folder, carbon, control)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait(WAIT_S)


@contextmanager
def stub_of(address: str) -> Iterator[control_pb2_grpc.ControlStub]:
    with connect(address) as channel:
        yield control_pb2_grpc.ControlStub(channel)


def first(stub: control_pb2_grpc.ControlStub) -> pb.Policy:
    watch = stub.WatchPolicy(pb.WatchPolicyRequest(node="t"), timeout=WAIT_S)
    policy = next(iter(watch))
    watch.cancel()
    return policy


def report(first_ticket: int, count: int, **fields: Any) -> pb.ReportOutcomesRequest:
    values = {"ending": pb.ENDING_DELIVERED, "energy_joules": 6.0, "device_seconds": 1.0, **fields}
    return pb.ReportOutcomesRequest(
        node="node-a",
        outcomes=[
            pb.Outcome(segment_uid=2**64 - 9, ticket=first_ticket + i, **values)
            for i in range(count)
        ],
    )


CONSTANT = "constant_g_per_kwh = 300"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_cleanly_though_somebody_watches(tmp_path: Path, number: int) -> None:
    with plane(tmp_path, CONSTANT) as control:
        address = control.start()
        with stub_of(address) as stub:
            watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=10 * WAIT_S)
            next(watch)
            assert control.end(number) == 0, control.log()
            with pytest.raises(grpc.RpcError):
                list(watch)
        assert "Traceback" not in control.log()
        assert not (control.state / "control.port").exists()


def test_kill_9_keeps_outcomes_pause_and_raises_the_epoch(tmp_path: Path) -> None:
    with plane(tmp_path, CONSTANT) as control:
        with stub_of(control.start()) as stub:
            before = first(stub)
            assert stub.ReportOutcomes(report(1, 500), timeout=WAIT_S).stored == 500
            stub.Pause(pb.PauseRequest(reason="drill"), timeout=WAIT_S)
        control.end(signal.SIGKILL)
        assert (control.state / "control.port").exists()  # nobody was left to remove it
        with stub_of(control.start()) as stub:
            after = first(stub)
            assert after.paused
            assert after.epoch > before.epoch
            assert after.explanation.pause_reason == "drill"
            # The agent never heard of the acknowledgement and sends the batch again.
            again = stub.ReportOutcomes(report(1, 600), timeout=WAIT_S)
            assert (again.stored, again.duplicates) == (100, 500)
            assert stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).outcomes == 600
            assert not stub.Resume(pb.ResumeRequest(), timeout=WAIT_S).paused
        control.end(signal.SIGKILL)
        with stub_of(control.start()) as stub:
            assert not first(stub).paused


def test_kill_9_keeps_wishes_decisions_and_the_audit(tmp_path: Path) -> None:
    with plane(tmp_path, CONSTANT) as control:
        with stub_of(control.start()) as stub:
            first(stub)
            objective = pb.SetObjectiveRequest(objective=pb.Objective(xi=0.05), actor="ada")
            stub.SetObjective(objective, timeout=WAIT_S)
            mix = [pb.LevelShare(level="L1", share=1)]
            stub.Pin(pb.PinRequest(shares=mix, reason="drill"), timeout=WAIT_S)
            decisions = stub.ListDecisions(pb.ListDecisionsRequest(), timeout=WAIT_S).decisions
            entries = stub.ListAudit(pb.ListAuditRequest(), timeout=WAIT_S).entries
        control.end(signal.SIGKILL)
        assert [d.policy.explanation.trigger for d in decisions] == ["pin", "objective", "start"]
        assert [(e.action, e.claimed) for e in entries] == [("pin", ""), ("objective", "ada")]
        with stub_of(control.start()) as stub:
            after = first(stub)
            assert [s.share for s in after.shares] == [0, 1, 0]
            assert after.explanation.xi == 0.05
            request = pb.ListDecisionsRequest(before_version=after.epoch << 32 | after.counter)
            kept = stub.ListDecisions(request, timeout=WAIT_S).decisions
            assert list(kept) == list(decisions)
            audit = stub.ListAudit(pb.ListAuditRequest(), timeout=WAIT_S).entries
            assert list(audit) == list(entries)


def test_kill_9_amid_reports_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with plane(tmp_path, CONSTANT) as control:
        acknowledged = 0
        with stub_of(control.start()) as stub:
            first(stub)
            calls = [
                stub.ReportOutcomes.future(report(1 + 200 * i, 200), timeout=WAIT_S)
                for i in range(20)
            ]
            calls[5].result()
            control.end(signal.SIGKILL)
            for call in calls:
                if call.exception() is None:
                    acknowledged += call.result().stored
        assert acknowledged >= 200
        with stub_of(control.start()) as stub:
            stored = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).outcomes
            assert stored >= acknowledged
            assert stored % 200 == 0  # batches are whole
            every = [
                stub.ReportOutcomes(report(1 + 200 * i, 200), timeout=WAIT_S) for i in range(20)
            ]
            assert sum(answer.stored for answer in every) == 4000 - stored


def test_a_channel_finds_the_control_plane_again(tmp_path: Path) -> None:
    """Same port, new process: an agent's channel is back within seconds."""
    with plane(tmp_path, CONSTANT) as control:
        address = control.start()
        port = address.rpartition(":")[2]
        control.end(signal.SIGTERM)
        config = tmp_path / "sprout.toml"
        config.write_text(config.read_text().replace("port = 0", f"port = {port}"))
        with stub_of(control.start()) as stub:
            before = first(stub)
            control.end(signal.SIGKILL)
            with pytest.raises(grpc.RpcError) as error:
                stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            control.start()
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S, wait_for_ready=True)
            assert status.started_at.seconds >= before.epoch


def test_accelerated_trace_moves_the_policy(tmp_path: Path) -> None:
    """3,600 hours an hour: clean hours, dirty ones, and the end of the trace."""
    start = datetime(2023, 1, 1, tzinfo=UTC)
    past = [100 + 200 * (h % 2) for h in range(30)]
    rows = [*past, 100, 100, 100, 300, 300, 300]  # as long as a slow start may take
    (tmp_path / "trace.csv").write_text(
        HEAD
        + "".join(
            f"{(start + timedelta(hours=h)).isoformat()},{g},{g}\n" for h, g in enumerate(rows)
        )
    )
    carbon = (
        f'sources = ["trace"]\ntrace = "{tmp_path / "trace.csv"}"\nfactor_type = "direct"\n'
        f'trace_start = "{(start + timedelta(hours=30)).isoformat()}"\ntrace_speed = 3600'
    )
    with plane(tmp_path, carbon) as control, stub_of(control.start()) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        heard: list[pb.Policy] = []
        for policy in watch:
            heard.append(policy)
            if policy.explanation.degraded:
                break
        watch.cancel()
    clean, last = heard[0], heard[-1]
    dirty = next(policy for policy in heard if policy.intensity.g_per_kwh == 300)
    assert clean.intensity.g_per_kwh == 100
    assert clean.shares[0].share == pytest.approx(1)
    basis = clean.explanation.range_basis
    assert re.fullmatch(r"trailing 168 h \(3[1-3] h have a value\)", basis), basis
    assert dirty.explanation.expected_preference == pytest.approx(0.9)
    assert dirty.explanation.trigger == "intensity"
    assert list(last.explanation.degraded) == [
        "the carbon source fails: the trace ended at 2023-01-02T12:00:00+00:00"
    ]
    assert last.shares[0].share == pytest.approx(dirty.shares[0].share)


def test_reported_outcomes_become_the_profile(tmp_path: Path) -> None:
    with plane(tmp_path, CONSTANT) as control, stub_of(control.start()) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        policy = next(watch)
        version = policy.epoch << 32 | policy.counter
        pinned = report(1000, 100, level=0, policy_version=version, pinned=True, off=False)
        stub.ReportOutcomes(pinned, timeout=WAIT_S)
        stub.ReportOutcomes(report(1, 30, level=0, policy_version=version), timeout=WAIT_S)
        later = next(watch)
        watch.cancel()
        assert later.explanation.trigger == "profile"
        l0, l1, _ = later.explanation.profile
        assert (l0.energy_basis, l0.energy_joules, l0.outcomes) == ("measured", 6.0, 30)
        assert l1.energy_basis == "prior, scaled to the measured levels"
        prior = ControlConfig().prior_energy_joules
        assert l1.energy_joules == pytest.approx(6.0 * prior[1] / prior[0])
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert {a.arm: a.outcomes for a in status.arms} == {"L0": 30, "pinned": 100}


def test_wrong_settings_end_it_with_a_message(tmp_path: Path) -> None:
    control = Plane(tmp_path, CONSTANT, 'host = "0.0.0.0"')
    with pytest.raises(AssertionError, match="not loopback"):
        control.start()
