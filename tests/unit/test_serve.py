# SPDX-License-Identifier: Apache-2.0
"""The stack's own files: lock, ports, weights, Triton's command line, leftovers, the doctor."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_S

from sprout.config import Config, load
from sprout.errors import ConfigError, PrerequisiteError, StackError
from sprout.serve import bundle, doctor, ports, weights
from sprout.serve.finding import Mark
from sprout.serve.probes import Canary, _verdict
from sprout.serve.services import EngineService
from sprout.serve.stack import Stack, clean_stale
from sprout.serve.state import StackLock, StackPaths, lock_owner, read_stack, write_stack
from sprout.serve.triton import remove_leftovers, server_command


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths(tmp_path / "state", tmp_path / "shm")
    made.ensure()
    return made


def test_folders_are_this_user_s_alone(paths: StackPaths) -> None:
    for folder in (paths.state, paths.shm, paths.state / "logs", paths.state / "pids"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StackError, match="not a folder of this user"):
        StackPaths(tmp_path / "state", tmp_path / "shm").ensure()


def test_a_second_stack_of_one_name_is_refused_with_the_first_s_pid(paths: StackPaths) -> None:
    with (
        StackLock(paths),
        pytest.raises(StackError, match=rf"already up \(process {os.getpid()}.*sprout down"),
        StackLock(paths),
    ):
        pass
    with StackLock(paths):
        assert lock_owner(paths) == os.getpid()
    assert lock_owner(paths) is None


def test_triton_alone_is_refused_beside_a_whole_stack_and_not_after_it(paths: StackPaths) -> None:
    with StackLock(paths), pytest.raises(StackError), StackLock(paths, whole=False):
        pass
    with StackLock(paths, whole=False):
        assert lock_owner(paths) is None


def test_two_stacks_may_not_share_memory(paths: StackPaths, tmp_path: Path) -> None:
    other = StackPaths(tmp_path / "other", paths.shm)
    other.ensure()
    with StackLock(paths), pytest.raises(StackError, match="shm_dir"), StackLock(other):
        pass
    with StackLock(other):
        pass


def test_stack_json_counts_only_while_the_stack_is_up(paths: StackPaths) -> None:
    write_stack(paths, {"ready": True})
    assert read_stack(paths) is None
    with StackLock(paths):
        assert read_stack(paths) == {"ready": True}


def test_region_prefixes_differ_and_none_begins_another(tmp_path: Path) -> None:
    prefixes = [StackPaths(tmp_path / name, tmp_path).region_prefix for name in ("a", "a-b", "b")]
    assert len(set(prefixes)) == 3
    assert not any(a != b and b.startswith(a) for a in prefixes for b in prefixes)


def test_free_ports_are_chosen_and_differ() -> None:
    cfg = load(environ={}, flags={f"triton.{kind}_port": 0 for kind in ("http", "grpc", "metrics")})
    resolved = ports.resolve(cfg, {"triton"})
    triton = resolved.triton
    assert len({triton.http_port, triton.grpc_port, triton.metrics_port, 0}) == 4
    assert resolved.control == cfg.control


def test_a_taken_port_is_named_with_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        cfg = load(environ={}, flags={"control.port": taken})
        with pytest.raises(StackError, match=rf"control\.port: 127\.0\.0\.1:{taken}"):
            ports.resolve(cfg, {"control"})


def test_weights_are_those_of_the_package_and_changed_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights.sha256(weights.default_weights()) == weights.SHA256
    forged = tmp_path / "forged.gguf"
    forged.write_bytes(b"GGUF")
    monkeypatch.setattr(weights, "default_weights", lambda: forged)
    with pytest.raises(PrerequisiteError, match="not the file that it should be"):
        weights.verify_default()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    cfg = load(environ={}, flags={"engine.model": tmp_path / "absent.gguf"})
    with pytest.raises(PrerequisiteError, match=r"engine\.model: no such file"):
        weights.model_path(cfg)


def test_triton_listens_where_it_is_told_with_complete_configs_and_no_cache(tmp_path: Path) -> None:
    command = server_command(
        bundle.find(),
        Config(),
        repository=tmp_path,
        backends=tmp_path,
        region_prefix="p.",
        exit_timeout_s=2,
    )
    assert {f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")} <= set(command)
    assert "--disable-auto-complete-config" in command
    assert "--backend-config=python,shm-region-prefix-name=p." in command
    assert not any("cache" in argument for argument in command)


def test_the_backend_folder_has_what_the_backend_looks_for(tmp_path: Path) -> None:
    bundle.install_backend(bundle.find(), tmp_path / "backends")
    bundle.install_backend(bundle.find(), tmp_path / "backends")  # again, over the first
    names = {path.name for path in (tmp_path / "backends" / "python").iterdir() if path.exists()}
    wanted = {"libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"}
    assert wanted <= names


def test_leftovers_go_by_their_own_prefix_alone() -> None:
    mine, other = (Path("/dev/shm") / f"sproutpb-test{os.getpid()}{x}.r" for x in ("a", "b"))
    try:
        mine.touch()
        other.touch()
        remove_leftovers(mine.name[:-1])
        remove_leftovers("")
        assert not mine.exists()
        assert other.exists()
    finally:
        mine.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("host", "wanted"), [("::", "[::1]"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1")]
)
def test_addresses_are_ones_to_connect_to(host: str, wanted: str, tmp_path: Path) -> None:
    hosts = {f"{section}.host": host for section in ("triton", "control", "engine")}
    given = hosts | {"stack.state_dir": tmp_path, "control.port": 0, "engine.port": 5}
    cfg = load(environ={}, flags=given)
    endpoints = Stack(cfg, processes=("triton",)).describe()["endpoints"]
    assert {where.rpartition(":")[0] for where in endpoints.values()} == {wanted}
    assert EngineService(cfg, StackPaths.of(cfg), tmp_path).url == f"http://{wanted}:5"


def test_stale_processes_are_killed_and_strangers_are_not(paths: StackPaths) -> None:
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    ours = subprocess.Popen(sleep, env={"SPROUT_CONFIG": str(paths.config)}, start_new_session=True)
    stranger = subprocess.Popen(sleep, env={}, start_new_session=True)
    try:
        paths.pid("agent").write_text(str(ours.pid))
        paths.pid("engine").write_text(str(stranger.pid))
        clean_stale(paths)
        assert ours.wait(PATIENCE_S) == -9
        assert stranger.poll() is None
        assert not list((paths.state / "pids").iterdir())
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ('{"text_output": ""}', Canary.OK),
        ('{"error": "engine unavailable"}', Canary.REFUSED),
        ('{"error": "Stub process \'preprocessing_0_0\' is not healthy."}', Canary.BROKEN),
        ("", Canary.REFUSED),
        ("<html>", Canary.REFUSED),
    ],
)
def test_what_a_canary_s_answer_means(said: str, verdict: Canary) -> None:
    assert _verdict(said)[0] is verdict


# --- doctor ----------------------------------------------------------------------------------


def marks(cfg: Config) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(cfg)}


@pytest.fixture
def free(tmp_path: Path) -> dict[str, object]:
    return {
        "stack.state_dir": tmp_path / "state",
        "stack.shm_dir": f"/dev/shm/sprout-doctor-{os.getpid()}",
        "triton.http_port": 0,
        "triton.grpc_port": 0,
        "triton.metrics_port": 0,
        "control.port": 0,
    }


def test_doctor_finds_this_machine_fit(free: dict[str, object]) -> None:
    found = marks(load(environ={}, flags=free))
    bad = [finding for finding in found.values() if finding.mark is Mark.BAD]
    assert not bad
    assert {"python", "triton", "weights", "numpy", "shared memory", "ports"} <= set(found)


def test_doctor_names_a_taken_port_and_goes_on(free: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        found = marks(load(environ={}, flags=free | {"triton.http_port": taken}))
    assert found["ports"].mark is Mark.BAD
    assert str(taken) in found["ports"].found + found["ports"].remedy
    assert found["model repository"].mark is Mark.OK


def test_doctor_refuses_shared_memory_on_a_disk(free: dict[str, object]) -> None:
    found = marks(load(environ={}, flags=free | {"stack.shm_dir": Path(__file__).parent / "x"}))
    assert found["stack.shm_dir"].mark is Mark.BAD
    assert "memory-backed" in found["stack.shm_dir"].remedy


def test_doctor_notes_a_control_plane_that_is_not_there(free: dict[str, object]) -> None:
    """Wherever it would be looked for; requests go on without."""
    for port in (0, 1):
        given = load(environ={}, flags=free | {"control.port": port, "control.host": "::1"})
        found = list(doctor._control_plane(given))
        assert [finding.mark for finding in found] == [Mark.NOTE]
        assert ("[::1]:1" if port else "control.port = 0") in found[0].found


def test_doctor_survives_a_check_that_breaks(
    free: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bundle.Bundle:
        raise PrerequisiteError("no Triton here: install it")

    monkeypatch.setattr(bundle, "find", broken)
    found = marks(load(environ={}, flags=free))
    assert (found["triton"].mark, found["triton"].remedy) == (Mark.BAD, "install it")
    assert found["weights"].mark is Mark.OK


def test_the_example_day_is_what_its_formula_says() -> None:
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, root / "examples" / "make_day.py"], capture_output=True, check=True
    )
    assert made.stdout == (root / "examples" / "synthetic-day.csv").read_bytes()
    load(root / "examples" / "sprout.toml", environ={})


def test_an_engine_that_is_started_elsewhere_is_not_started_here(tmp_path: Path) -> None:
    cfg = load(
        flags={"engine.kind": "external", "stack.name": "ext", "stack.state_dir": str(tmp_path)}
    )
    with pytest.raises(ConfigError, match="started elsewhere"):
        Stack(cfg).run()
