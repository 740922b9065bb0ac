# SPDX-License-Identifier: Apache-2.0
"""The gRPC services on loopback: real server, real client, one process."""

import asyncio
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_plane import (
    WAIT_S,
    Running,
    code_of,
    configure,
    first,
    make_authority,
    running,
    stub_of,
    tls_of,
)
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sprout import cli
from sprout.channel import connect, control_address, translated
from sprout.config import CarbonConfig, ControlConfig, TlsConfig
from sprout.control.run import run, serve
from sprout.errors import ConfigError, ControlError, StackError
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc


def outcome(ticket: int, **fields: Any) -> pb.Outcome:
    values: dict[str, Any] = {
        "segment_uid": 2**64 - 3,
        "ticket": ticket,
        "ending": pb.ENDING_DELIVERED,
        "energy_joules": 5.0,
        "output_tokens": 20,
    }
    return pb.Outcome(**{**values, **fields})


def report(*outcomes: pb.Outcome, node: str = "node-a") -> pb.ReportOutcomesRequest:
    return pb.ReportOutcomesRequest(node=node, batch=1, outcomes=outcomes)


# --- policies ------------------------------------------------------------------------------------


def test_get_and_watch_agree(stub: control_pb2_grpc.ControlStub) -> None:
    got = stub.GetPolicy(pb.GetPolicyRequest(node="t"), timeout=WAIT_S)
    watched = first(stub)
    assert (got.epoch, got.counter, got.seed) == (watched.epoch, watched.counter, watched.seed)
    assert sum(s.share for s in got.shares) == pytest.approx(1)
    assert [s.level for s in got.shares] == ["L0", "L1", "L2"]
    assert got.pack == "explicit"
    assert got.intensity.g_per_kwh == 300
    assert got.explanation.range_basis.startswith("configured fraction: ")
    assert got.explanation.preference_basis == "prior, not this model"
    assert 0 < got.ttl.seconds < 900


def test_no_policy_yet(tmp_path: Path) -> None:
    """Until the source has answered or failed once, there is nothing to decide on."""
    with deaf_server() as url:
        patient = CarbonConfig(sources=("gb",), zone="GB", gb_url=url, timeout_s=10 * WAIT_S)
        with running(configure(tmp_path, patient)) as address, stub_of(address) as stub:
            with pytest.raises(grpc.RpcError) as error:
                stub.GetPolicy(pb.GetPolicyRequest(), timeout=WAIT_S)
            assert code_of(error) is grpc.StatusCode.FAILED_PRECONDITION
        carbon = CarbonConfig(sources=("gb",), zone="GB", gb_url=url, timeout_s=0.5)
        with running(configure(tmp_path, carbon)) as address, stub_of(address) as stub:
            policy = first(stub)
            assert [s.share for s in policy.shares] == [1, 0, 0]
            assert not policy.paused
            why = "no carbon intensity yet: gb: no answer within 0.5 s"
            assert list(policy.explanation.degraded) == [why]
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
            assert status.degraded
            assert list(status.reasons) == [why]


@contextmanager
def deaf_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_unset_constant_is_degraded_and_says_so(tmp_path: Path) -> None:
    with running(configure(tmp_path, CarbonConfig())) as address, stub_of(address) as stub:
        assert [s.share for s in first(stub).shares] == [1, 0, 0]
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert status.degraded
        assert "carbon.constant_g_per_kwh is not set" in status.reasons[0]


def test_a_constant_declared_anew_counts_from_the_first_policy(tmp_path: Path) -> None:
    for g in (300.0, 400.0):
        carbon = CarbonConfig(constant_g_per_kwh=g)
        with running(configure(tmp_path, carbon)) as address, stub_of(address) as stub:
            assert first(stub).intensity.g_per_kwh == g


def test_kill_switch_is_on_every_watch_before_the_next_look(tmp_path: Path) -> None:
    with running(configure(tmp_path, interval_s=10 * WAIT_S)) as address, stub_of(address) as stub:
        watches = [
            stub.WatchPolicy(pb.WatchPolicyRequest(node=f"n{i}"), timeout=WAIT_S) for i in range(20)
        ]
        assert not any(next(watch).paused for watch in watches)
        stub.Pause(pb.PauseRequest(reason="drill"), timeout=WAIT_S)
        policies = [next(watch) for watch in watches]
        assert all(p.paused and p.shares[0].share == 1 for p in policies)
        assert policies[0].explanation.pause_reason == "drill"
        resumed = stub.Resume(pb.ResumeRequest(), timeout=WAIT_S)
        assert not resumed.paused
        assert not any(next(watch).paused for watch in watches)
        for watch in watches:
            watch.cancel()


def test_watchers_hear_the_same_policy_again(tmp_path: Path) -> None:
    """How early: test_control_loop.py, on a clock of its own."""
    with running(configure(tmp_path, ttl_s=0.9)) as address, stub_of(address) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        heard = [next(watch) for _ in range(5)]
        watch.cancel()
        assert len({(policy.epoch, policy.counter, policy.seed) for policy in heard}) == 1
        for one, later in pairwise(heard):
            assert later.issued_at.ToNanoseconds() > one.issued_at.ToNanoseconds()


def test_override_on_the_wire(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        next(watch)
        request = pb.OverrideIntensityRequest(g_per_kwh=0, ttl=Duration(nanos=500_000_000))
        stub.OverrideIntensity(request, timeout=WAIT_S)
        during, after = next(watch), next(watch)
        watch.cancel()
        assert (during.intensity.g_per_kwh, during.intensity.override) == (0, True)
        assert (after.intensity.g_per_kwh, after.intensity.override) == (300, False)


@pytest.mark.parametrize(
    "request_",
    [
        pb.OverrideIntensityRequest(g_per_kwh=math.nan),
        pb.OverrideIntensityRequest(g_per_kwh=-1),
        pb.OverrideIntensityRequest(g_per_kwh=5001),
        pb.OverrideIntensityRequest(g_per_kwh=1, ttl=Duration(seconds=0)),
        pb.OverrideIntensityRequest(g_per_kwh=1, ttl=Duration(seconds=-5)),
        pb.OverrideIntensityRequest(g_per_kwh=1, ttl=Duration(seconds=8 * 86_400)),
    ],
)
def test_impossible_overrides_are_refused(
    stub: control_pb2_grpc.ControlStub, request_: pb.OverrideIntensityRequest
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.OverrideIntensity(request_, timeout=WAIT_S)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert not first(stub).intensity.override


def test_overlong_reason_is_refused(stub: control_pb2_grpc.ControlStub) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.Pause(pb.PauseRequest(reason="x" * 501), timeout=WAIT_S)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert not first(stub).paused


# --- outcomes ------------------------------------------------------------------------------------


def test_reports_are_idempotent_and_counted(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        batch = report(*(outcome(i, level=i % 2) for i in range(1, 1001)))
        one = stub.ReportOutcomes(batch, timeout=WAIT_S)
        two = stub.ReportOutcomes(batch, timeout=WAIT_S)
        assert (one.stored, one.duplicates) == (1000, 0)
        assert (two.stored, two.duplicates) == (0, 1000)
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert status.outcomes == 1000
        assert {a.arm: (a.outcomes, a.energy_joules) for a in status.arms} == {
            "L0": (500, 2500.0),
            "L1": (500, 2500.0),
        }


def test_node_status_is_kept_and_replaced(stub: control_pb2_grpc.ControlStub) -> None:
    for active in (3, 4):
        request = report(node="node-s")
        request.node_status.CopyFrom(
            pb.NodeStatus(active=active, meter="cpu_model", counters={"requests": 7})
        )
        answer = stub.ReportOutcomes(request, timeout=WAIT_S)
        assert (answer.stored, answer.duplicates) == (0, 0)
    nodes = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).nodes
    node = next(n for n in nodes if n.node == "node-s")
    assert (node.active, node.counters["requests"]) == (4, 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"energy_joules": math.nan}, "energy_joules must be finite"),
        ({"energy_joules": math.inf}, "energy_joules must be finite"),
        ({"energy_joules": -1.0}, "energy_joules must be finite and not negative"),
        ({"device_seconds": math.nan}, "device_seconds"),
        ({"carbon_g": math.inf}, "carbon_g"),
        ({"intensity_g_per_kwh": math.nan}, "intensity_g_per_kwh"),
        ({"segment_uid": 0}, "must not be 0"),
        ({"ticket": 0}, "must not be 0"),
        ({"level": 8}, "level 8, at most 7"),
        ({"ending": pb.ENDING_UNSPECIFIED}, "ending 0"),
        ({"ending": 99}, "ending 99"),
        ({"task": "x" * 65}, "task is longer"),
        ({"level_name": "x" * 254}, "level_name is longer"),
    ],
)
def test_a_bad_outcome_refuses_its_batch(
    stub: control_pb2_grpc.ControlStub, fields: dict[str, Any], message: str
) -> None:
    before = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).outcomes
    values = {"ticket": 2, **fields}
    batch = report(outcome(1), outcome(**values))
    with pytest.raises(grpc.RpcError, match=r"outcomes\[1\]: .*" + message) as error:
        stub.ReportOutcomes(batch, timeout=WAIT_S)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).outcomes == before


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (report(node=""), "node must be 1 to 253"),
        (report(node="x" * 254), "node must be 1 to 253"),
        (report(node="a\nb"), "printable"),
        (
            pb.ReportOutcomesRequest(node="a", node_status=pb.NodeStatus(node="b")),
            "node_status of 'b' in a report of 'a'",
        ),
        (
            pb.ReportOutcomesRequest(node="a", node_status=pb.NodeStatus(idle_joules=math.nan)),
            "node_status.idle_joules",
        ),
        (
            pb.ReportOutcomesRequest(
                node="a", node_status=pb.NodeStatus(counters={str(i): i for i in range(129)})
            ),
            "over 128 entries",
        ),
        (report(*(outcome(i) for i in range(1, 10_002))), "10001 outcomes, at most 10000"),
    ],
)
def test_bad_reports_are_refused(
    stub: control_pb2_grpc.ControlStub, request_: pb.ReportOutcomesRequest, message: str
) -> None:
    with pytest.raises(grpc.RpcError, match=message) as error:
        stub.ReportOutcomes(request_, timeout=WAIT_S)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT


def test_overlarge_message_is_refused(shared: str) -> None:
    with grpc.insecure_channel(shared) as channel:
        method = channel.unary_unary("/sprout.v1.Control/ReportOutcomes")
        with pytest.raises(grpc.RpcError) as error:
            method(b"\x0a\xff\xff\xff\x0f" + b"x" * (9 << 20), timeout=WAIT_S)
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_garbage_is_refused_and_the_server_lives(
    shared: str, stub: control_pb2_grpc.ControlStub
) -> None:
    with grpc.insecure_channel(shared) as channel:
        method = channel.unary_unary("/sprout.v1.Control/ReportOutcomes")
        with pytest.raises(grpc.RpcError):
            method(b"\xff\xff\xff", timeout=WAIT_S)
    assert first(stub).counter >= 1


# --- the server ----------------------------------------------------------------------------------


def test_health_and_reflection(shared: str) -> None:
    with grpc.insecure_channel(shared) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "sprout.v1.Control"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = next(iter(reflection.ServerReflectionInfo(iter([ask]), timeout=WAIT_S)))
        names = {service.name for service in listed.list_services_response.service}
    assert {"sprout.v1.Control", "grpc.health.v1.Health"} <= names


def test_stops_with_watchers_connected(tmp_path: Path) -> None:
    control = Running(configure(tmp_path))
    address = control.start()
    with stub_of(address) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=10 * WAIT_S)
        next(watch)
        control.stop()
        with pytest.raises(grpc.RpcError) as error:
            list(watch)
        assert code_of(error) is grpc.StatusCode.UNAVAILABLE
    assert not (tmp_path / "control.port").exists()


def test_stops_while_its_source_hangs(tmp_path: Path) -> None:
    with deaf_server() as url:
        carbon = CarbonConfig(sources=("gb",), zone="GB", gb_url=url, timeout_s=10 * WAIT_S)
        control = Running(configure(tmp_path, carbon))
        control.start()
        control.stop()


def test_second_control_plane_on_the_same_state_is_refused(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with running(config), pytest.raises(StackError, match="another control plane"):
        asyncio.run(run(config, asyncio.Event()))


def test_taken_port_is_refused(shared: str, tmp_path: Path) -> None:
    config = configure(tmp_path, port=int(shared.rpartition(":")[2]))
    with pytest.raises(StackError, match="can't listen on"):
        asyncio.run(run(config, asyncio.Event()))


def test_whole_trace_range_needs_a_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="range_mode"):
        serve(configure(tmp_path, range_mode="trace"))


def test_translated_names_code_and_details(stub: control_pb2_grpc.ControlStub) -> None:
    message = "pause: INVALID_ARGUMENT: reason is longer"
    with pytest.raises(ControlError, match=message), translated("pause"):
        stub.Pause(pb.PauseRequest(reason="x" * 501), timeout=WAIT_S)


# --- beyond loopback -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def guarded(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state = tmp_path_factory.mktemp("guarded")
    with running(configure(state, tls=tls_of(authority, "server"))) as address:
        yield address


def test_tls_and_token_let_in(authority: Path, guarded: str) -> None:
    with stub_of(guarded, tls_of(authority, "client")) as stub:
        assert first(stub).counter >= 1  # a stream
        assert not stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).degraded


@pytest.mark.parametrize("token", ["wrong", None])
def test_wrong_or_no_token(authority: Path, guarded: str, token: str | None) -> None:
    with stub_of(guarded, tls_of(authority, "client", token)) as stub:
        with pytest.raises(grpc.RpcError) as error:
            stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as error:
            first(stub)
        assert code_of(error) is grpc.StatusCode.UNAUTHENTICATED


def test_strangers_certificate(authority: Path, guarded: str) -> None:
    with stub_of(guarded, tls_of(authority, "stranger")) as stub:
        with pytest.raises(grpc.RpcError) as error:
            stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.UNAVAILABLE


def test_client_refuses_a_strange_server(authority: Path, guarded: str) -> None:
    with stub_of(guarded, tls_of(authority, "client", ca="other")) as stub:
        with pytest.raises(grpc.RpcError) as error:
            stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.UNAVAILABLE


def test_no_tls_at_all(guarded: str) -> None:
    with stub_of(guarded) as stub:
        with pytest.raises(grpc.RpcError) as error:
            stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.UNAVAILABLE


def test_token_alone_works_on_loopback(authority: Path, tmp_path: Path) -> None:
    tls = TlsConfig(token_file=authority / "token")
    with running(configure(tmp_path, tls=tls)) as address:
        with stub_of(address, tls) as stub:
            assert first(stub).counter >= 1
        with stub_of(address) as stub, pytest.raises(grpc.RpcError) as error:
            stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.UNAUTHENTICATED


def test_an_operator_s_commands_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        ours = [f"control.port={address.rpartition(':')[2]}", f"stack.state_dir={tmp_path}"]
        options = [part for setting in ours for part in ("--set", setting)]
        for command, paused in ((["pause", "--reason", "drill"], True), (["resume"], False)):
            assert cli.run([*options, *command, "--json"]) == 0
            policy = json.loads(capsys.readouterr().out)
            assert policy["paused"] is paused
            assert policy["explanation"]["pause_reason"] == ("drill" if paused else "")
        assert cli.run([*options, "pause"]) == 0
        assert capsys.readouterr().out == "paused: L0 for all\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "control.example"])
def test_nothing_but_loopback_without_tls_and_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="is not loopback"):
        asyncio.run(run(configure(tmp_path, host=host), asyncio.Event()))
    with pytest.raises(ConfigError, match="is not loopback"):
        connect(f"{host}:8003")


def test_tls_without_a_token_is_not_enough(authority: Path, tmp_path: Path) -> None:
    config = configure(tmp_path, tls=tls_of(authority, "server", None), host="0.0.0.0")
    with pytest.raises(ConfigError, match="is not loopback"):
        asyncio.run(run(config, asyncio.Event()))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:8003"),
        ("control.example", "control.example:8003"),
        ("0.0.0.0", "127.0.0.1:8003"),
        ("::", "[::1]:8003"),
        ("::1", "[::1]:8003"),
        ("[2001:db8::7]", "[2001:db8::7]:8003"),
    ],
)
def test_where_to_connect_to(host: str, address: str) -> None:
    assert control_address(ControlConfig(host=host)) == address


def test_half_a_tls_configuration(authority: Path, tmp_path: Path) -> None:
    tls = TlsConfig(certificate=authority / "server.pem")
    with pytest.raises(ConfigError, match="key, ca missing"):
        asyncio.run(run(configure(tmp_path, tls=tls), asyncio.Event()))


def test_secrets_that_cant_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path, message in ((empty, "is empty"), (tmp_path / "none", "can't read")):
        with pytest.raises(ConfigError, match=message):
            connect("127.0.0.1:1", TlsConfig(token_file=path))


def test_token_is_never_logged(
    authority: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    tls = TlsConfig(token_file=authority / "token")
    with running(configure(tmp_path, tls=tls)) as address, stub_of(address, tls) as stub:
        first(stub)
    assert "correct-horse" not in caplog.text


def test_state_is_private(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    with running(configure(state)):
        assert os.stat(state).st_mode & 0o777 == 0o700
        assert os.stat(state / "control.sqlite").st_mode & 0o777 == 0o600
