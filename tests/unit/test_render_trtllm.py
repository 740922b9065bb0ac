# SPDX-License-Identifier: Apache-2.0
"""Rendering for NVIDIA's containers: what is refused, by name; commands, files, command line."""

import itertools
import json
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from sprout.cli import run
from sprout.config import Config, load
from sprout.engines.llmapi_load import WRITTEN_AGAINST
from sprout.errors import ConfigError
from sprout.serve.trtllm import commands, secrets, versions
from sprout.serve.trtllm.deployment import ENGINES, Deployment
from sprout.serve.trtllm.write import texts, write
from sprout.units import node_id

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "max_position_embeddings": 4096,
}


def checkpoint(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    (folder / "tokenizer.json").touch()
    return folder


def words(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "))  # a line goes on


# What can't be.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"engine": "tensorrt"}, "engine 'tensorrt' is none of tensorrtllm, llmapi"),
        ({"container": "26.08"}, "container '26.08' is not known"),
        ({"container": "latest"}, "container 'latest' is not known"),
        ({"container": "26.03"}, r"26\.03 carries TensorRT-LLM 1\.2\.0"),
        ({"container": "25.05"}, r"25\.05 carries TensorRT-LLM 0\.19\.0"),
        ({"tensor_parallel": 0}, "tensor_parallel 0"),
        ({"tensor_parallel": 4, "gpus": ("0", "1")}, r"tensor_parallel 4 .* gpus names 2 \(0,1\)"),
        ({"tensor_parallel": 1, "gpus": ("0", "1")}, r"tensor_parallel 1 .* gpus names 2"),
        ({"tensor_parallel": 2, "gpus": ("0", "0")}, "gpus 0,0: each once"),
        ({"tensor_parallel": 2, "gpus": ("0", " 0")}, "gpus 0,0: each once"),
        ({"tensor_parallel": 2, "gpus": ("0", "all")}, "'all' is neither an index nor a UUID"),
        ({"gpus": ("all",)}, "'all' is neither"),
        ({"gpus": ('GPU-x", "GPU-y',)}, "is neither an index nor a UUID"),
        ({"gpus": ("GPU-x\n",), "tensor_parallel": 2}, "gpus names 1"),
        ({"gpus": ("GPU-x\ny",)}, "is neither"),
        ({"gpus": ("",)}, "'' is neither"),
        ({"gpus": ("-1",)}, "'-1' is neither"),
        ({"gpus": ("01",)}, "'01' is neither"),
        ({"gpus": ("٣",)}, "is neither"),
        ({"unary_model": "ensemble"}, "unary_model ensemble while decoupled.*UNIMPLEMENTED"),
        ({"unary_model": "tensorrt_llm"}, "unary_model 'tensorrt_llm' is none of"),
        ({"postprocessing_instances": 2}, "postprocessing_instances 2 while decoupled"),
        ({"postprocessing_instances": 0}, "postprocessing_instances: at least 1"),
        ({"dtype": "fp8"}, "dtype 'fp8' is none of float16, bfloat16"),
        ({"kv_cache_fraction": 0.0}, "kv_cache_fraction 0"),
        ({"kv_cache_fraction": 1.1}, "kv_cache_fraction 1.1"),
        ({"max_input_len": 4096}, "max_input_len 4096 leaves no room"),
        ({"max_num_tokens": 1024}, "max_num_tokens 1024 is less than max_input_len 3072"),
        ({"engine": "llmapi", "dtype": "float16"}, "dtype is trtllm-build's"),
        ({"engine": "llmapi", "max_num_tokens": 9000}, "max_num_tokens is trtllm-build's"),
        (
            {"engine": "llmapi", "max_input_len": 9},
            "max_input_len is .* what fits into max_seq_len",
        ),
    ],
)
def test_what_can_not_be_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Deployment(**({"engine": "tensorrtllm"} | fields))


def test_refused_containers_show_the_matrix() -> None:
    for tag in ("26.03", "27.01"):
        with pytest.raises(ConfigError) as caught:
            versions.container(tag)
        for good in ("26.04", "26.05", "26.06", "26.07"):
            assert f"{good}: TensorRT-LLM 1.2.1, TensorRT 10.14.1.48" in str(caught.value)
            assert versions.container(good).tensorrt_llm == WRITTEN_AGAINST


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({}, {"tensor_parallel": 3}, "does not divide the 40 attention heads"),
        ({"num_key_value_heads": 5}, {"tensor_parallel": 8}, "the 5 key-value heads"),
        ({}, {"max_seq_len": 8192}, "beyond the model's context of 4096"),
        ({"architectures": ["Qwen2ForCausalLM"]}, {}, "is Qwen2ForCausalLM; .* llmapi"),
        ({"architectures": None}, {}, "of no stated architecture"),
        ({"num_attention_heads": None}, {}, "num_attention_heads"),
    ],
)
def test_checkpoint_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    folder = checkpoint(tmp_path / "c", **changes)
    with pytest.raises(ConfigError, match=message):
        Deployment("tensorrtllm", checkpoint=folder, **fields)


def test_checkpoint_that_fits(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "c")
    Deployment("tensorrtllm", checkpoint=folder, tensor_parallel=8)
    grouped = checkpoint(tmp_path / "g", num_key_value_heads=2)
    Deployment("tensorrtllm", checkpoint=grouped, tensor_parallel=4)  # they are repeated
    other = checkpoint(tmp_path / "o", architectures=["Qwen2ForCausalLM"])
    Deployment("llmapi", checkpoint=other)
    longer = checkpoint(tmp_path / "l", rope_scaling={"factor": 4})
    Deployment("llmapi", checkpoint=longer, max_seq_len=16384)


def test_checkpoint_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        Deployment("llmapi", checkpoint=tmp_path)
    folder = checkpoint(tmp_path / "c")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        Deployment("llmapi", checkpoint=folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds no object"):
        Deployment("llmapi", checkpoint=folder)


# Commands.


def options(command: str) -> dict[str, str]:
    parts = words(command)
    return {a: b for a, b in itertools.pairwise(parts) if a.startswith("--")}


def test_build_lets_prompts_share_their_prefix() -> None:
    given = options(commands.build(Deployment("tensorrtllm", dtype="bfloat16", max_batch_size=8)))
    assert given["--use_paged_context_fmha"] == "enable"
    assert given["--kv_cache_type"] == "paged"
    assert given["--gemm_plugin"] == given["--gpt_attention_plugin"] == "bfloat16"
    sizes = {name: given[f"--max_{name}"] for name in ("batch_size", "input_len", "seq_len")}
    assert sizes == {"batch_size": "8", "input_len": "3072", "seq_len": "4096"}
    assert given["--max_num_tokens"] == "8192"


def test_convert_splits_by_rank() -> None:
    parts = words(commands.convert(Deployment("tensorrtllm", tensor_parallel=2)))
    assert parts[:2] == ["python3", commands.CONVERTER]
    given = options(commands.convert(Deployment("tensorrtllm", tensor_parallel=2)))
    assert (given["--tp_size"], given["--dtype"]) == ("2", "float16")
    assert (
        given["--output_dir"]
        == options(commands.build(Deployment("tensorrtllm")))["--checkpoint_dir"]
    )


def test_launch_has_a_process_for_each_rank() -> None:
    parts = words(commands.launch(Deployment("tensorrtllm", tensor_parallel=3)))
    assert parts[:2] == ["mpirun", "--allow-run-as-root"]
    ranks = " ".join(parts[2:]).split(" : ")
    assert len(ranks) == 3
    for number, rank in enumerate(ranks):
        assert rank.startswith("-n 1 tritonserver --model-repository=/models/repository ")
        assert f"shm-region-prefix-name=prefix{number}_" in rank
        # The first one serves every model, the others hold their part of the engine.
        assert ("--load-model=tensorrt_llm" in rank) == (number > 0)


def test_launch_of_the_llm_api_is_one_server() -> None:
    parts = words(commands.launch(Deployment("llmapi", tensor_parallel=3)))
    assert parts[0] == "tritonserver"
    assert parts.count("tritonserver") == 1
    assert "--disable-auto-complete-config" in parts


# Files.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_files(tmp_path: Path, engine: Any, tensor_parallel: int) -> None:
    cfg = load(
        environ={}, flags={"agent.node": "node-1", "carbon.sources": "gb", "carbon.zone": "GB"}
    )
    out = tmp_path / "out"
    deployment = Deployment(engine, tensor_parallel=tensor_parallel)
    written = write(cfg, deployment, out)
    own = {"tensorrtllm": "build_engine.sh", "llmapi": "options.json"}[engine]
    common = {"Containerfile", "README.md", "compose.yaml", "launch.sh", "sprout.toml"}
    assert {path.name for path in written} == common | {own, "model_repository", "secrets"}
    assert stat.S_IMODE((out / "secrets").stat().st_mode) == 0o700
    assert not list((out / "secrets").iterdir())
    for path in out.glob("*.sh"):
        subprocess.run(["bash", "-n", path], check=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "sprout.toml").stat().st_mode) == 0o600
    beside = load(out / "sprout.toml", environ={})
    assert (beside.engine.kind, beside.agent.node) == ("external", "node-1")
    assert (str(beside.stack.shm_dir), beside.carbon.sources) == ("/run/sprout", ("gb",))
    preprocessing = (out / "model_repository" / "preprocessing" / "config.pbtxt").read_text()
    assert f'"{node_id("node-1")}"' in preprocessing
    # Flights of the C++ backend are lost by design: they must not fill the ledger.
    lost = engine == "tensorrtllm"
    assert beside.agent.queue_lease_s == (60 if lost else cfg.agent.queue_lease_s)
    assert f'"{16384 if lost else cfg.request.flights}"' in preprocessing
    readme = (out / "README.md").read_text()
    assert "@{" not in readme
    launch = commands.launch(deployment)
    assert launch in (out / "launch.sh").read_text()
    assert words(launch)[-1] in readme
    assert deployment.image in readme
    if engine == "tensorrtllm":
        assert commands.convert(deployment) in (out / "build_engine.sh").read_text()
        assert commands.build(deployment) in (out / "build_engine.sh").read_text()


@pytest.mark.parametrize("engine", ENGINES)
def test_compose_file(engine: Any) -> None:
    yaml = pytest.importorskip("yaml")
    made = texts(Deployment(engine, tensor_parallel=2, gpus=("GPU-a", " GPU-b")), "n")
    compose = yaml.safe_load(made["compose.yaml"])
    services = compose["services"]
    assert set(services) == {"triton", "control", "agent"}
    for name in ("triton", "agent"):
        [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == ["GPU-a", "GPU-b"]
    # The agent knows the living by their processes, and all three meet in one memory.
    assert services["agent"]["pid"] == "service:triton"
    assert all("shm:/run/sprout" in service["volumes"] for service in services.values())
    # Not a folder of whoever rendered it: private_folder refuses another user's.
    for name in ("control", "agent"):
        [state] = [each for each in services[name]["volumes"] if each.endswith(":/var/lib/sprout")]
        assert state.split(":")[0] in compose["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in services["triton"]["ports"])
    stages = {service["build"]["target"] for service in services.values() if "build" in service}
    containerfile = made["Containerfile"]
    assert all(f"AS {stage}" in containerfile for stage in stages)
    mounted = [volume.split(":")[0] for volume in services["triton"]["volumes"]]
    assert ("./options.json" in mounted) == (engine == "llmapi")
    assert ("./build" in mounted) == (engine == "tensorrtllm")


def with_files(folder: Path) -> tuple[Config, dict[str, Path]]:
    """A configuration that names a file in each setting that can, and what it names."""
    files = {setting: folder / f"my {setting}" for setting in secrets.SETTINGS}
    flags = {setting: str(path) for setting, path in files.items()}
    return load(environ={}, flags=flags | {"engine.key_file": str(folder / "my engine")}), files


@pytest.mark.parametrize("engine", ENGINES)
def test_each_file_that_the_configuration_names_is_mounted(tmp_path: Path, engine: Any) -> None:
    yaml = pytest.importorskip("yaml")
    cfg, files = with_files(tmp_path)
    out = tmp_path / "out"
    write(cfg, Deployment(engine), out)
    beside = load(out / "sprout.toml", environ={})
    there = {setting: secrets.SECRETS / setting for setting in files}
    assert secrets.named(beside) == there
    services = yaml.safe_load((out / "compose.yaml").read_text())["services"]
    for name in ("control", "agent"):
        assert f"./secrets:{secrets.SECRETS}:ro" in services[name]["volumes"]
    # Triton gets the one that it reads, and not as the folder that Docker makes of a missing file.
    token = "evaluate.schedule.token_file"
    [bound] = [each for each in services["triton"]["volumes"] if isinstance(each, dict)]
    assert (bound["source"], bound["target"]) == (f"./secrets/{token}", str(there[token]))
    assert bound["read_only"] is True
    assert bound["bind"] == {"create_host_path": False}
    assert not any("secrets" in each for each in services["triton"]["volumes"] if each != bound)
    preprocessing = (out / "model_repository" / "preprocessing" / "config.pbtxt").read_text()
    assert f'"{there[token]}"' in preprocessing
    # The README alone says where they were, by commands that put them where they are mounted from.
    readme = (out / "README.md").read_text()
    for path in out.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert str(tmp_path) not in path.read_text(), path
    installs = [shlex.split(line) for line in readme.splitlines() if line.startswith("install ")]
    assert {line[-1]: Path(line[-2]) for line in installs} == {
        f"secrets/{setting}": path for setting, path in files.items()
    }
    assert not list((out / "secrets").iterdir())


def test_the_readme_s_commands_fill_secrets(tmp_path: Path) -> None:
    cfg, files = with_files(tmp_path)
    out = tmp_path / "out"
    for setting, path in files.items():
        path.write_text(setting)
    write(cfg, Deployment("llmapi"), out)
    block = (out / "README.md").read_text().split("```bash\n")[1].split("```")[0]
    subprocess.run(["bash", "-euc", block], cwd=out, check=True)
    filled = {path.name: path.read_text() for path in (out / "secrets").iterdir()}
    assert filled == {setting: setting for setting in files}
    write(cfg, Deployment("llmapi", max_seq_len=2048), out)  # again: they stay
    assert {path.name for path in (out / "secrets").iterdir()} == set(files)


def test_no_file_named_none_needed(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    write(load(environ={}), Deployment("llmapi"), tmp_path / "out")
    assert "install -m" not in (tmp_path / "out" / "README.md").read_text()
    compose = yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text())
    assert all(isinstance(each, str) for each in compose["services"]["triton"]["volumes"])


def test_no_path_of_the_configuration_is_forgotten() -> None:
    """A new setting that names a file is either mounted, or it is said here why it need not be."""
    not_read = {
        *("stack.state_dir", "stack.shm_dir"),  # set to the containers' own
        *("triton.model_repositories", "engine.model", "engine.tokenizer_dir"),  # a stack's own
        *("engine.key_file", "engine.ca_file", "engine.vllm_python"),  # of other engines
        "energy.rapl_root",  # the kernel's
        "energy.carbontracker_python",  # of profiling runs
    }
    assert set(paths_of(Config)) - not_read == set(secrets.SETTINGS)


def paths_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from paths_of(kind, f"{prefix}{name}.")
        elif kind is Path or Path in get_args(kind):
            yield f"{prefix}{name}"


def test_readme_names_the_model_for_unary_calls() -> None:
    decoupled = texts(Deployment("llmapi"), "n")["README.md"]
    assert "v2/models/tensorrt_llm_bls/generate" in decoupled
    assert "generate_stream" in decoupled
    coupled = texts(Deployment("llmapi", decoupled=False), "n")["README.md"]
    assert "v2/models/ensemble/generate " in coupled
    assert "generate_stream" not in coupled


def test_rendering_again_keeps_what_people_filled_in(tmp_path: Path) -> None:
    cfg, out = load(environ={}), tmp_path / "out"
    write(cfg, Deployment("llmapi"), out)
    (out / "options.json").write_text('{"dtype": "bfloat16"}')
    write(cfg, Deployment("llmapi", max_seq_len=2048), out)
    assert json.loads((out / "options.json").read_text()) == {"dtype": "bfloat16"}
    config = (out / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert '"2048"' in config


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    cfg = load(environ={})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    write(cfg, Deployment("llmapi"), tmp_path / "llmapi")
    for folder in ("mine", "llmapi"):
        before = sorted((tmp_path / folder).rglob("*"))
        with pytest.raises(ConfigError, match="holds something else"):
            write(cfg, Deployment("tensorrtllm"), tmp_path / folder)
        assert sorted((tmp_path / folder).rglob("*")) == before
    with pytest.raises(ConfigError, match="is no folder"):
        write(cfg, Deployment("llmapi"), tmp_path / "mine" / "notes.txt")


# The command line.


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["render", "--engine", "tensorrtllm", "--out", str(out), "--tensor-parallel", "2"]
    assert run([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["image"], said["gpus"]) == (Deployment("tensorrtllm").image, ["0", "1"])
    assert str(out / "model_repository") in said["files"]
    shutil.rmtree(out)
    assert run(command) == 0
    assert "not run yet" in capsys.readouterr().out


def test_command_that_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert run(["render", "--engine", "llmapi", *out, "--container", "24.12"]) == 2
    assert "26.07: TensorRT-LLM 1.2.1" in capsys.readouterr().err
    assert run(["render", "--engine", "vllmm", *out]) == 2
    assert "'vllmm' is none of llama_cpp" in (said := capsys.readouterr().err)
    assert "tensorrtllm, llmapi" in said
    assert run(["render", "--engine", "echo", *out, "--tensor-parallel", "2"]) == 2
    assert "--tensor-parallel" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
