# SPDX-License-Identifier: Apache-2.0
"""Exit codes and messages: 0 done, 1 failed, 2 wrong usage; never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from sprout import __version__
from sprout.cli import _globals_first, run


@pytest.fixture
def nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Global options of a stack that is not up, with no control plane behind its port."""
    monkeypatch.chdir(tmp_path)
    settings = (
        f"stack.state_dir={tmp_path / 'state'}",
        f"stack.shm_dir={tmp_path / 'shm'}",
        "control.port=1",
        "triton.grpc_port=1",
    )
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize("arguments", [["--help"], ["up", "--help"], ["--version"]])
def test_help_is_done(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert capsys.readouterr().out


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--version"])
    assert capsys.readouterr().out == f"sprout {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "frobnicate"),
        (["ask"], "Missing argument"),
        (["--set", "nonsense", "status"], "KEY=VALUE"),
        (["--set", "control.exi=1", "status"], "did you mean control.xi?"),
        (["status", "--set", "control.xi=7"], "control.xi"),
        (["--config", "/nonexistent.toml", "status"], "can't read /nonexistent.toml"),
        (["ask", "hello", "--max-tokens", "0"], "max-tokens"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_ask_says_whose_it_is(nothing_up: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Triton:
        def __init__(self, address: str) -> None:
            assert address == "127.0.0.1:1"

        def async_stream_infer(self, *_: Any, parameters: dict[str, Any], **__: Any) -> None:
            asked.append(parameters)
            raise InferenceServerException("enough")

        def start_stream(self, *_: Any, headers: Any) -> None: ...

        def stop_stream(self, **_: Any) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("tritonclient.grpc.InferenceServerClient", Triton)
    assert run([*nothing_up, "ask", "hello", "--tenant", "acme", "--task", "chat"]) == 1
    assert run([*nothing_up, "ask", "hello", "--off"]) == 1
    assert asked == [{"sprout_tenant": "acme", "sprout_task": "chat"}, {"sprout_off": True}]


def test_a_failure_is_1_and_one_line(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "ask", "hello"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sprout: Triton at 127.0.0.1:1 is not reachable")
    assert said.count("\n") == 1


def test_status_of_nothing_is_1_and_still_shows_what_is_here(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "status", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["stack"] is None
    assert document["control"] is None
    assert "127.0.0.1:1" in document["control_error"]
    assert document["board"] == {"state": "absent"}
    assert document["energy"] is None


def test_down_of_nothing_is_done(nothing_up: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*nothing_up, "down"]) == 0
    assert "was not up" in capsys.readouterr().out


def test_down_in_json(nothing_up: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*nothing_up, "--stack", "nobody", "down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stack": "nobody", "stopped": False}


def test_plan_without_a_control_plane_uses_the_priors(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Floor 0.9 of 0.40 between L0 (0.40) and L1 (0.34): a third of the requests stay at L0."""
    arguments = ["plan", "--intensity", "400", "--low", "100", "--high", "400", "--json"]
    priors = ["--set", "control.prior_preference=0.40,0.34,0.26"]
    priors += ["--set", "control.exploration_share=0"]
    assert run([*nothing_up, *arguments, *priors]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["basis"] == "declared priors (no control plane)"
    assert document["shares"] == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-6)


def test_plan_needs_an_intensity_from_somewhere(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "plan"]) == 2
    assert "--intensity" in capsys.readouterr().err


def test_profile_needs_a_stack_and_sound_numbers(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "profile.json"
    assert run([*nothing_up, "profile", "--out", str(out)]) == 1
    assert "control plane" in capsys.readouterr().err
    assert run([*nothing_up, "profile", "--concurrency", "none"]) == 2
    assert "--concurrency" in capsys.readouterr().err
    assert run([*nothing_up, "profile", "--prompts", str(tmp_path / "absent")]) == 2
    assert "--prompts" in capsys.readouterr().err
    assert not out.exists()


def test_pause_says_that_the_control_plane_is_away(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "pause"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_a_control_plane_on_no_port_is_nowhere(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "--set", "control.port=0", "pause"]) == 1
    assert "is not up" in capsys.readouterr().err
    assert run([*nothing_up, "--set", "control.port=0", "status", "--json"]) == 1
    assert "is not up" in json.loads(capsys.readouterr().out)["control_error"]


def test_render_fills_a_repository(nothing_up: list[str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    own = ["--set", f"engine.tokenizer_dir={tmp_path / 'tokenizer'}"]
    out = tmp_path / "repository"
    assert run([*nothing_up, *own, "render", "--engine", "echo", "--out", str(out)]) == 0
    assert 'string_value: "echo"' in (out / "tensorrt_llm" / "config.pbtxt").read_text()
    assert (out / "ensemble" / "1").is_dir()


def test_an_engine_alone_needs_a_port(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "engine"]) == 2
    assert "engine.port" in capsys.readouterr().err


def test_global_options_may_stand_anywhere_but_after_two_dashes() -> None:
    assert _globals_first(["up", "--stack", "a", "-q", "--set=b.c=d"]) == [
        *("--stack", "a", "--set=b.c=d"),
        *("up", "-q"),
    ]
    assert _globals_first(["ask", "--", "--stack"]) == ["ask", "--", "--stack"]
    assert _globals_first(["up", "--config"]) == ["--config", "up"]


def test_an_engine_of_no_kind_is_refused_with_those_that_there_are(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*nothing_up, "up", "--engine", "vlm"]) == 2
    assert "'vlm' is unknown; there are llama_cpp, echo, openai, vllm" in capsys.readouterr().err


def test_an_engine_that_lacks_something_is_refused_by_name(
    nothing_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ports = ("control.port", "triton.http_port", "triton.grpc_port", "triton.metrics_port")
    free = [argument for port in ports for argument in ("--set", f"{port}=0")]
    for kind, key in (("openai", "engine.url"), ("vllm", "engine.vllm_python")):
        assert run([*nothing_up, *free, "up", "--engine", kind]) == 2
        assert key in capsys.readouterr().err
