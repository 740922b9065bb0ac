# SPDX-License-Identifier: Apache-2.0
"""What each kind of engine needs before it is started or spoken to, and what the doctor says."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm_double
from completions_server import CompletionsServer, DyingServer
from engine_fakes import FakeLlama
from waiting import PATIENCE_S

from sprout.config import Config, EnergyConfig, StackConfig, load
from sprout.engines.settings import SlotSettings
from sprout.errors import ConfigError, PrerequisiteError, SproutError, StackError
from sprout.serve import deployment, doctor, engine, probes
from sprout.serve.engine_process import EngineProcess
from sprout.serve.finding import Finding, Mark
from sprout.serve.probes import Canary
from sprout.serve.process import start_time, wait_gone
from sprout.serve.render import placeholder_values, render, repository_source
from sprout.serve.services import EngineService
from sprout.serve.stack import Stack
from sprout.serve.standstill import Standstill
from sprout.serve.state import StackPaths, dump_toml
from sprout.serve.supervisor import Backoff, Phase, Supervisor
from sprout.serve.triton import TritonService
from sprout.serve.vllm import VllmService
from sprout_ext.ledger import Flights, Role, Segment


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    fake = CompletionsServer()
    yield fake
    fake.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint's folder, as far as anything here looks into it."""
    folder = tmp_path / "a-model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def a_process(pid: int = 0) -> Any:
    """As much of one as a look at it needs; by default this one."""
    return SimpleNamespace(pid=pid or os.getpid())


def configure(kind: str, **more: Any) -> Config:
    flags = {f"engine.{key}": value for key, value in more.items()}
    return load(environ={}, flags={"engine.kind": kind} | flags)


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/v1", "http://[::1]:9/v1", "https://gpu.example/llm/v1"]
)
def test_an_address_that_may_be_used(url: str) -> None:
    assert engine.address(configure("openai", url=url)) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "engine.url: missing"),
        ("127.0.0.1:9000/v1", "must begin with http"),
        ("ftp://127.0.0.1/v1", "must begin with http"),
        ("http://127.0.0.1:99999/v1", "engine.url: "),
        ("http://user:pass@127.0.0.1/v1", "key_file"),
        ("http://127.0.0.1/v1?key=1", "key_file"),
        ("http://127.0.0.1:9000", "end with /v1"),
        ("http://127.0.0.1:9000/v1/completions", "end with /v1"),
        ("http://gpu.example/v1", "allow_plain_http"),
        ("http://10.0.0.7:8000/v1", "allow_plain_http"),
    ],
)
def test_an_address_that_may_not(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        engine.address(configure("openai", url=url))
    assert "pass" not in str(refused.value)


def test_plain_http_beyond_loopback_where_it_is_allowed() -> None:
    url = "http://10.0.0.7:8000/v1"
    assert engine.address(configure("openai", url=url, allow_plain_http=True)) == url


def test_addresses_of_engines_that_are_started_here(model: Path) -> None:
    assert engine.address(configure("llama_cpp", port=5)) == "http://127.0.0.1:5"
    assert engine.address(configure("vllm", port=5, model=model)) == "http://127.0.0.1:5/v1"


def test_people_are_told_host_and_port(model: Path) -> None:
    assert engine.place(configure("openai", url="https://gpu.example:8/v1")) == "gpu.example:8"
    assert engine.place(configure("vllm", port=5, model=model)) == "127.0.0.1:5"


# --- tokenizer and model ----------------------------------------------------------------------


def test_a_deployment_s_tokenizer_must_be_given(tmp_path: Path, model: Path) -> None:
    cfg = configure("openai", url="http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match=r"engine\.tokenizer_dir: missing"):
        engine.tokenizer_dir(cfg)
    given = configure("openai", url="http://127.0.0.1:1/v1", tokenizer_dir=model)
    assert engine.tokenizer_dir(given) == model
    (model / "tokenizer.json").unlink()
    with pytest.raises(PrerequisiteError, match=r"engine\.tokenizer_dir: no tokenizer\.json"):
        engine.tokenizer_dir(given)


def test_vllm_has_the_model_s_tokenizer(model: Path, tmp_path: Path) -> None:
    assert engine.tokenizer_dir(configure("vllm", model=model)) == model
    with pytest.raises(ConfigError, match=r"engine\.model: missing"):
        engine.tokenizer_dir(configure("vllm"))
    with pytest.raises(PrerequisiteError, match=r"no config\.json in"):
        engine.tokenizer_dir(configure("vllm", model=tmp_path))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"vllm_python": None}, "engine.vllm_python: missing"),
        ({"vllm_python": "/nowhere/python"}, "no such file"),
        ({"model": None}, "engine.model: missing"),
        ({"host": "0.0.0.0"}, "engine.host: 0.0.0.0 is not loopback"),
        ({"vllm_args": "--port=9"}, "--port is set by engine.port"),
        ({"vllm_args": "--max_num_seqs,8"}, "--max-num-seqs is set by engine.slots"),
    ],
)
def test_a_vllm_that_can_not_be_started_is_refused_by_name(
    model: Path, more: dict[str, Any], said: str
) -> None:
    given = {"model": model, "vllm_python": sys.executable} | more
    cfg = configure("vllm", **{key: value for key, value in given.items() if value is not None})
    with pytest.raises((ConfigError, PrerequisiteError), match=said):
        engine.check_vllm(cfg)


def test_another_kind_for_one_command(model: Path) -> None:
    cfg = configure("llama_cpp", slots=7)
    assert engine.of_kind(cfg, "llama_cpp") is cfg
    other = engine.of_kind(cfg, "vllm")
    assert (other.engine.kind, other.engine.slots) == ("vllm", 7)
    with pytest.raises(ConfigError, match="'vlm' is unknown; there are llama_cpp"):
        engine.of_kind(cfg, "vlm")


# --- what the slot is told --------------------------------------------------------------------


def told(tmp_path: Path, cfg: Config) -> SlotSettings:
    """Through the rendered config.pbtxt, read as Triton's Python backend hands it over."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    values = placeholder_values(
        cfg, engine_url=engine.address(cfg), tokenizer_dir=tmp_path, probe_token_file=None
    )
    render(repository_source(), tmp_path / "out", values)
    text = (tmp_path / "out" / "tensorrt_llm" / "config.pbtxt").read_text()
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    config = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    for parameter in config["parameters"].values():
        parameter.setdefault("string_value", "")
    return SlotSettings.from_model_config(config)


def test_a_deployment_s_slot(tmp_path: Path) -> None:
    key = tmp_path / "key"
    url = "https://gpu.example/v1"
    settings = told(
        tmp_path,
        configure(
            "openai", url=url, key_file=key, ca_file=tmp_path / "ca", served_model="m", slots=64
        ),
    )
    assert (settings.engine, settings.engine_url) == ("openai", url)
    assert (settings.engine_key_file, settings.engine_ca_file) == (key, tmp_path / "ca")
    assert (settings.engine_model, settings.engine_slots) == ("m", 64)
    assert settings.repetition_penalty == 1.0  # a deployment's answers stay as they are


def test_vllm_s_slot_speaks_the_same(tmp_path: Path, model: Path) -> None:
    settings = told(tmp_path, configure("vllm", port=5, model=model))
    assert (settings.engine, settings.engine_url) == ("openai", "http://127.0.0.1:5/v1")
    assert (settings.engine_key_file, settings.engine_model) == (None, "")


def test_the_small_model_s_penalty_is_its_own(tmp_path: Path) -> None:
    assert told(tmp_path, configure("llama_cpp", port=5)).repetition_penalty == 1.1
    assert engine.repetition_penalty(configure("llama_cpp", repetition_penalty=1.3)) == 1.3
    assert engine.repetition_penalty(configure("openai", repetition_penalty=1.3)) == 1.3


# --- the local vLLM as a service --------------------------------------------------------------


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    return vllm_double.interpreter(tmp_path)


@pytest.fixture
def local(tmp_path: Path, model: Path, interpreter: Path) -> Config:
    from sprout.serve import ports

    cfg = load(
        environ={},
        flags={
            "stack.state_dir": tmp_path / "state",
            "stack.shm_dir": tmp_path / "shm",
            "engine.kind": "vllm",
            "engine.model": model,
            "engine.vllm_python": interpreter,
            "engine.context_tokens": 512,
            "engine.slots": 8,
            "engine.vllm_args": "--dtype,bfloat16",
        },
    )
    return ports.resolve(cfg, {"engine"})


def test_vllm_s_command_line(local: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "VLLM_API_KEY", "SPROUT_ENGINE__SLOTS"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    service = VllmService(local, StackPaths.of(local))
    command = service.command()
    assert command[0] == str(local.engine.vllm_python)
    assert command[-2:] == ["--dtype", "bfloat16"]
    flags = dict(zip(command[5::2], command[6::2], strict=True))
    assert (flags["--max-num-seqs"], flags["--max-model-len"]) == ("8", "512")
    assert (flags["--host"], flags["--served-model-name"]) == ("127.0.0.1", "a-model")
    env = service.environment()
    assert not {"PYTHONPATH", "VLLM_API_KEY", "SPROUT_ENGINE__SLOTS"} & set(env)
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"]) == ("0", "1")
    assert env["SPROUT_CONFIG"] == str(StackPaths.of(local).config)


def test_vllm_is_started_watched_started_again_and_stopped(local: Config) -> None:
    paths = StackPaths.of(local)
    paths.ensure()
    service = VllmService(local, paths)
    service.check_interval_s = 0.1
    supervisor = Supervisor([service], paths, backoff=Backoff(first_s=0.05))
    [unit] = supervisor.units
    pids: list[int] = []
    seen: list[str] = []

    def act() -> None:
        changed = threading.Event()
        deadline_s = 60.0
        while deadline_s > 0 and len(pids) < 2:
            if unit.phase is Phase.READY and unit.process and unit.process.pid not in pids:
                pids.append(unit.process.pid)
                cfg = local.model_copy(
                    update={
                        "engine": local.engine.model_copy(
                            update={"kind": "openai", "url": engine.address(local)}
                        )
                    }
                )
                seen.append(deployment.served(cfg).name)
                if len(pids) == 1:
                    unit.process.signal(9)
            changed.wait(0.05)
            deadline_s -= 0.05
        supervisor.request_stop()

    thread = threading.Thread(target=act)
    thread.start()
    supervisor.run()  # on the main thread
    thread.join()
    assert len(set(pids)) == 2
    assert unit.restarts == 1
    assert seen == ["the-model", "the-model"]
    assert all(start_time(pid) is None or wait_gone(pid, PATIENCE_S) for pid in pids)
    said = paths.log("engine").read_text()
    assert said.count("offline=1") == 2
    names = re.findall(r"segment=(\w+)", said)
    assert len(set(names)) == 2
    assert not [name for name in names if (Path("/dev/shm") / name).exists()]
    assert not list(paths.shm.glob("vllm*"))


class HangingLlama(FakeLlama):
    """The same of llama.cpp's server."""

    def __init__(self, port: int) -> None:
        self.hung, self.ended = threading.Event(), threading.Event()
        self.questions: list[str] = []
        super().__init__(port)

    def engine_hangs(self) -> None:
        self.hung.set()

    def get(self, handler: Any) -> None:
        self.questions.append(handler.path)
        super().get(handler)

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        if self.hung.is_set():
            self.ended.wait()
        super().post(handler, body)


@contextlib.contextmanager
def at_work(shm: Path) -> Iterator[None]:
    """One request, begun and alive."""
    segment, flights = Segment.create(shm, Role.PREPROCESSING, 0, 1, 8), Flights(shm)
    ticket = segment.open_flight(
        **{"level": 0, "flags": 0, "policy_version": 0, "policy_seed": 0, "sequence": 0},
        **{"task": b"", "input_tokens": 1, "max_tokens": 9, "intensity_g_per_kwh": 1.0},
        **{"pue": 1.0, "embodied_g_per_s": 0.0, "opened_ns": time.monotonic_ns()},
    )
    assert flights.scheduled(ticket, time.monotonic_ns())
    flights.progress(ticket, 0, time.monotonic_ns())
    try:
        yield
    finally:
        segment.close(True)


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
def test_a_core_that_hangs_behind_a_healthy_server_is_found(
    local: Config, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By the ledger, and a question of our own: one that answers is left alone."""
    monkeypatch.setattr(deployment, "_PATIENCE_S", 0.5)
    cfg = engine.of_kind(local, kind)
    paths = StackPaths.of(cfg)
    paths.ensure()
    service: EngineProcess
    server: DyingServer | HangingLlama
    if kind == "vllm":
        service = VllmService(cfg, paths)
        server = DyingServer(cfg.engine.port, max_model_len=512)
    else:
        service = EngineService(cfg, paths, Path("a.gguf"))
        server = HangingLlama(cfg.engine.port)
    service._standstill = Standstill(paths.shm, 0.0)
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    here, successor = a_process(child.pid), a_process()
    try:
        with at_work(paths.shm):
            service.prepare()
            for _ in range(2):
                assert service.check(here) is None
            assert len(server.questions) > 2  # it was asked for a token, beside its health
            assert service.watch(here) is None
            server.engine_hangs()
            for _ in range(2):
                assert service.check(here) is None  # its health is fine
        said = service.watch(here)
        assert said is not None
        assert "hangs: no token for" in said
        assert "with 1 requests at work" in said
        assert service.watch(successor) is None
    finally:
        child.kill()
        child.wait()
        server.ended.set()
        server.close()


def test_an_embedded_engine_that_reads_a_long_prompt_does_not_hang(
    local: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no token for minutes, not for the supervisor either, and its threads work."""
    monkeypatch.setattr(deployment, "_PATIENCE_S", 2.0)
    cfg = engine.of_kind(local, "llama_cpp")
    paths = StackPaths.of(cfg)
    paths.ensure()
    service = EngineService(cfg, paths, Path("a.gguf"))
    service._standstill = Standstill(paths.shm, 0.0)
    server = HangingLlama(cfg.engine.port)
    server.engine_hangs()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
    here = a_process(child.pid)
    try:
        with at_work(paths.shm):
            assert service.check(here) is None
        assert service.watch(here) is None
    finally:
        child.kill()
        child.wait()
        server.ended.set()
        server.close()


def test_a_hang_is_that_of_the_process_which_was_asked(
    local: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end, and its successor start, while the supervisor waits for its token."""
    paths = StackPaths.of(local)
    paths.ensure()
    service = VllmService(local, paths)
    asked, replaced = threading.Event(), threading.Event()

    def absent(_: Config) -> str:
        asked.set()
        assert replaced.wait(PATIENCE_S)
        return "has not answered"

    monkeypatch.setattr(deployment, "absent", absent)
    monkeypatch.setattr(service, "ready", lambda _: None)
    monkeypatch.setattr(service._standstill, "look", lambda: "no token")
    before, successor = a_process(), a_process()
    check = threading.Thread(target=service.check, args=(before,))
    check.start()
    assert asked.wait(PATIENCE_S)
    service.prepare()
    replaced.set()
    check.join()
    assert service.watch(successor) is None
    assert "no token" in str(service.watch(before))


def test_a_vllm_that_does_not_start_is_quoted(local: Config, tmp_path: Path) -> None:
    main = tmp_path / "site" / "vllm" / "entrypoints" / "cli" / "main.py"
    main.write_text("raise SystemExit('CUDA out of memory')")
    paths = StackPaths.of(local)
    paths.ensure()
    supervisor = Supervisor([VllmService(local, paths)], paths, backoff=Backoff(first_s=0.05))
    with pytest.raises(StackError, match=r"(?s)engine ended with status 1.*CUDA out of memory"):
        supervisor.run()


def failed_start(server: int, core: int, cause: str) -> str:
    """The log of a vLLM 0.20.2 whose engine core does not come up."""
    api, engine = f"(APIServer pid={server})", f"(EngineCore pid={core})"
    error = f"{engine} ERROR 11-25 13:50:44 [core.py:1136]"
    frames = [f'  File "/x/vllm/v1/worker/f{n}.py", line {n}, in init_device' for n in range(20)]
    return "\n".join(
        [
            f"{api} INFO 11-25 13:50:10 [model.py:555] Resolved architecture: LlamaForCausalLM",
            f"{api} WARNING 11-25 13:50:11 [x.py:1] ImportError: not fatal",
            f"{error} EngineCore failed to start.",
            f"{error} Traceback (most recent call last):",
            *(f"{error} {frame}" for frame in frames),
            f"{error} {cause}",
            f"{engine} Process EngineCore:",
            f"{engine} Traceback (most recent call last):",
            *(f"{engine} {frame}" for frame in frames),
            f"{engine} {cause}",
            "[rank0]:[W1125 13:50:45.1 ProcessGroupNCCL.cpp:1575] Warning: WARNING: not called",
            f"{api} Traceback (most recent call last):",
            *(f"{api} {frame}" for frame in frames),
            f"{api} RuntimeError: Engine core initialization failed. See root cause above.",
        ]
    )


def test_what_a_vllm_raised_is_quoted_cause_first_and_once(local: Config, tmp_path: Path) -> None:
    service, log = VllmService(local, StackPaths.of(local)), tmp_path / "engine.log"
    free = "ValueError: Free memory on device cuda:0 ({}/79.2 GiB) on startup is less than desired"
    starts = [failed_start(1, 2, free.format("1.1")), failed_start(3, 4, free.format("2.2"))]
    log.write_text("\n".join(starts) + "\n")
    assert service.last_words(log).splitlines() == [
        f"(EngineCore pid=4) {free.format('2.2')}",  # of the last start
        "(APIServer pid=3) RuntimeError: Engine core initialization failed. See root cause above.",
    ]


def test_a_message_of_more_than_one_line_and_a_log_without_any(
    local: Config, tmp_path: Path
) -> None:
    service, log = VllmService(local, StackPaths.of(local)), tmp_path / "engine.log"
    said = ["pydantic_core._pydantic_core.ValidationError: 1 error", "  Value error, no such dtype"]
    api = "(APIServer pid=7) "
    log.write_text("".join(f"{api}{line}\n" for line in [*said, "Traceback", "  File x"]))
    assert service.last_words(log).splitlines() == [api + line for line in said]
    log.write_text("vllm serve: error: unrecognized arguments: --tensor-paralel-size\n")
    assert "unrecognized arguments" in service.last_words(log)


def test_the_stack_starts_no_engine_where_one_is_deployed(tmp_path: Path, model: Path) -> None:
    cfg = load(
        environ={},
        flags={
            "stack.state_dir": tmp_path / "state",
            "engine.kind": "openai",
            "engine.url": "http://127.0.0.1:9/v1",
            "engine.tokenizer_dir": model,
            "control.port": 5,
        },
    )
    stack = Stack(cfg)
    assert [service.name for service in stack._services()] == ["control", "agent", "triton"]
    assert stack.describe()["endpoints"]["engine"] == "127.0.0.1:9"
    assert load(toml(tmp_path, cfg), environ={}).engine == cfg.engine


def test_triton_need_not_wait_for_a_deployment_that_is_away(
    server: CompletionsServer, tmp_path: Path
) -> None:
    """Its canary is refused then, and Triton can't heal that."""
    given = {"engine.kind": "openai", "engine.url": server.url, "stack.state_dir": tmp_path}
    stack = Stack(load(environ={}, flags=given))
    assert stack._engine_ready()
    server.close()
    assert not stack._engine_ready()


def test_a_deployment_that_hangs_behind_its_list_of_models_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Triton, whose canary is silent then, would be ended for it, again and again."""
    monkeypatch.setattr(deployment, "_PATIENCE_S", 0.5)
    server = DyingServer()
    given = {"engine.kind": "openai", "engine.url": server.url, "stack.state_dir": tmp_path}
    stack = Stack(load(environ={}, flags=given))
    try:
        assert stack._engine_ready()
        server.engine_hangs()
        assert not stack._engine_ready()
    finally:
        server.ended.set()
        server.close()


@pytest.mark.parametrize("how", [Canary.SILENT, Canary.REFUSED])
def test_triton_is_not_ended_for_an_engine_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Canary
) -> None:
    ready: list[bool] = []
    cfg = configure("echo")
    service = TritonService(
        cfg.model_copy(update={"stack": StackConfig(state_dir=tmp_path, shm_dir=tmp_path)}),
        StackPaths.of(cfg),
        engine_url="",
        tokenizer_dir=tmp_path,
        engine_ready=ready.pop,
    )
    monkeypatch.setattr(probes, "canary", lambda *_: (how, "no answer"))
    monkeypatch.setattr(probes, "http_ok", lambda _: None)
    here = a_process()
    ready[:] = [False, False]
    assert service.ready(here) is None
    assert service.check(here) is None
    # An engine that answers by itself, and not through Triton.
    ready[:] = [True, True]
    assert "no answer" in str(service.ready(here))
    assert (service.check(here) is None) == (how is Canary.REFUSED)


def test_triton_is_not_ended_while_its_engine_has_requests_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long prompt on a slow processor: nothing moves, and the engine has no token for anybody."""
    cfg = configure("echo")
    paths = StackPaths(tmp_path / "state", tmp_path / "shm")
    paths.ensure()
    service = TritonService(cfg, paths, engine_url="", tokenizer_dir=tmp_path)
    monkeypatch.setattr(probes, "canary", lambda *_: (Canary.SILENT, "no answer"))
    monkeypatch.setattr(probes, "http_ok", lambda _: None)
    here = a_process()
    with at_work(paths.shm):
        assert service.check(here) is None
        assert service.ready(here) is None
    assert "no answer" in str(service.check(here))
    assert "no answer" in str(service.ready(here))


def test_an_embedded_engine_that_hangs_behind_its_health_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_PATIENCE_S", 0.5)
    server = HangingLlama(0)
    given = {"engine.kind": "llama_cpp", "engine.port": server.port, "stack.state_dir": tmp_path}
    stack = Stack(load(environ={}, flags=given))
    try:
        assert stack._engine_ready()
        server.engine_hangs()
        assert not stack._engine_ready()
    finally:
        server.ended.set()
        server.close()


def test_an_engine_whose_last_check_failed_is_not_ready(local: Config) -> None:
    paths = StackPaths.of(local)
    paths.ensure()
    stack = Stack(local)
    stack._supervisor = Supervisor([VllmService(local, paths)], paths)
    [unit] = stack._supervisor.units
    server = DyingServer(local.engine.port, max_model_len=512)
    try:
        assert not stack._engine_ready()  # not started
        unit.enter(Phase.READY)
        assert stack._engine_ready()
        unit.bad_checks = 1
        assert not stack._engine_ready()
    finally:
        server.close()


def test_the_stack_starts_vllm(local: Config) -> None:
    assert [type(service) for service in Stack(local)._services()][2] is VllmService


def toml(folder: Path, cfg: Config) -> Path:
    file = folder / "again.toml"
    file.write_text(dump_toml(cfg))
    return file


# --- the doctor -------------------------------------------------------------------------------


def found(cfg: Config) -> dict[str, Finding]:
    findings = [*doctor._guarded(doctor._weights, cfg), *doctor._guarded(doctor._engine, cfg)]
    return {finding.what: finding for finding in findings}


def test_doctor_finds_a_deployment_fit(server: CompletionsServer, model: Path) -> None:
    cfg = configure("openai", url=server.url, tokenizer_dir=model, context_tokens=1024)
    cfg = cfg.model_copy(update={"energy": EnergyConfig(meters=("cpu_model",))})
    says = found(cfg)
    assert {what: finding.mark for what, finding in says.items()} == {
        "tokenizer": Mark.OK,
        "engine": Mark.OK,
        "engine meter": Mark.NOTE,
    }
    assert "cpu_model counts this stack's processes" in says["engine meter"].found
    assert "the-model of vllm, context of 1024 tokens" in says["engine"].found


def test_doctor_says_what_a_deployment_lacks(server: CompletionsServer, model: Path) -> None:
    cfg = configure("openai", url=server.url)
    says = found(cfg)
    assert says["weights"].mark is Mark.BAD
    assert "tokenizer.json" in says["weights"].remedy
    assert says["engine context"].mark is Mark.NOTE
    assert "requests above 1024 tokens" in says["engine context"].remedy
    server.text_only = True
    assert "without token ids" in str(found(cfg)["engine"])
    server.text_only, server.key = False, "some"
    assert "without a key" in str(found(cfg)["engine"])
    server.close()
    assert "no engine at" in found(cfg)["engine"].found
    assert "engine.url" in str(found(configure("openai"))["engine"])


def test_an_absent_deployment_is_told_from_one_that_is_there(server: CompletionsServer) -> None:
    cfg = configure("openai", url=server.url)
    assert deployment.absent(cfg) is None
    server.close()
    assert "nobody answers" in str(deployment.absent(cfg))
    with pytest.raises(SproutError):
        deployment.served(cfg)


def test_a_deployment_that_answers_byte_by_byte_is_given_up(
    server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                handler.wfile.write(b" ")

    monkeypatch.setattr(server, "get", drip)
    monkeypatch.setattr(deployment, "_PATIENCE_S", 0.5)
    try:
        assert "has not answered within 1 s" in str(
            deployment.absent(configure("openai", url=server.url))
        )
    finally:
        over.set()


@pytest.mark.parametrize("status", [200, 400])
def test_a_deployment_that_answers_without_end_is_given_up(
    server: CompletionsServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def pour(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b" " * 65536)

    monkeypatch.setattr(server, "get", pour)
    assert "more than 16777216 bytes" in str(deployment.absent(configure("openai", url=server.url)))


def test_doctor_finds_vllm_without_importing_it(local: Config) -> None:
    says = found(local)["engine"]
    assert says.mark is Mark.OK
    assert "vLLM 1.2.3" in says.found


def test_doctor_says_that_there_is_no_vllm(local: Config) -> None:
    engine_ = local.engine.model_copy(update={"vllm_python": Path(sys.executable)})
    says = found(local.model_copy(update={"engine": engine_}))["engine"]
    assert says.mark is Mark.BAD
    assert "pip install vllm" in says.found + says.remedy
