# SPDX-License-Identifier: Apache-2.0
"""Writes a deployment's folder: model repository, commands, container files, README."""

import json
import shutil
import socket
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType

from sprout.config import Config
from sprout.errors import ConfigError
from sprout.serve.render import render, repository_source
from sprout.serve.state import dump_toml
from sprout.serve.trtllm import commands, secrets, versions, wiring
from sprout.serve.trtllm.deployment import Deployment
from sprout.serve.trtllm.values import SHM, STATE, UNHEARD_LEASE_S, values

_EXECUTABLE = {"build_engine.sh", "launch.sh"}
_YOURS = {"options.json"}  # written once: people fill it in
_NONE: Mapping[str, Path] = MappingProxyType({})
_MARK = {"tensorrtllm": "build_engine.sh", "llmapi": "options.json"}  # that one engine alone has


class _Text(Template):
    """@{name}, because `$` belongs to the shell."""

    delimiter = "@"


def write(cfg: Config, deployment: Deployment, out: Path) -> list[Path]:
    """The files and folders in `out`. ConfigError: `out` holds something else, or what is to be
    filled in can't be."""
    _check_folder(deployment, out)
    node = cfg.agent.node or socket.gethostname()
    secret_files = secrets.named(cfg)
    cfg = _on_the_node(cfg, deployment, node, secret_files)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model_repository"
        rewire(deployment, repository_source(), source)
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        render(source, out / "model_repository", values(cfg, deployment))
    for name, text in texts(deployment, node, secret_files).items():
        if name not in _YOURS or not (out / name).exists():
            _write(out / name, text)
    _write(out / "sprout.toml", dump_toml(cfg))
    (out / "secrets").mkdir(mode=0o700, exist_ok=True)
    return sorted(out.iterdir())


def _check_folder(deployment: Deployment, out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is no folder")
    found = {path.name for path in out.iterdir()}
    other = set(_MARK.values()) - {_MARK[deployment.engine]}
    if found and ("model_repository" not in found or found & other):
        raise ConfigError(f"{out} holds something else: name a new folder")


def rewire(deployment: Deployment, source: Path, target: Path) -> None:
    """A copy of the model repository with what this engine needs otherwise. Not filled yet."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    change = wiring.tensorrtllm if deployment.engine == "tensorrtllm" else wiring.llmapi
    for config in sorted(target.glob("*/config.pbtxt")):
        config.write_text(change(config.parent.name, config.read_text()))
    if deployment.engine == "tensorrtllm":
        (target / "tensorrt_llm" / "1" / "model.py").unlink()  # the backend needs an empty folder
        (target / "tensorrt_llm" / "1" / ".keep").touch()


def texts(
    deployment: Deployment, node: str, secret_files: Mapping[str, Path] = _NONE
) -> dict[str, str]:
    """Every file besides repository and configuration, by name. secret_files: `secrets.named`."""
    engine = deployment.engine
    checks = _template(f"checks.{engine}.md")
    if deployment.decoupled:
        checks = _template("checks.stream.md") + checks
    fields: dict[str, object] = {
        "engine": engine,
        "container": deployment.container,
        "image": deployment.image,
        "tensorrt_llm": versions.container(deployment.container).tensorrt_llm,
        "tensor_parallel": deployment.tensor_parallel,
        "gpus": ", ".join(deployment.devices),
        "device_ids": ", ".join(map(json.dumps, deployment.devices)),
        "node": node,
        "unary": deployment.unary,
        "transport": _transport(deployment),
        "launch": commands.launch(deployment),
        "convert": commands.convert(deployment),
        "build": commands.build(deployment),
    }
    shown = fields | {name: _indented(str(fields[name])) for name in ("launch", "convert", "build")}
    if engine == "tensorrtllm":
        own_volume = "      - ./build:/models/build\n"
        shown["files"] = "| `build_engine.sh` | checkpoint → engine, in `build/` |\n"
    else:
        own_volume = "      - ./options.json:/models/options.json:ro\n"
        shown["files"] = "| `options.json` | further keywords of `tensorrt_llm.LLM` |\n"
    fields["engine_volumes"] = own_volume + secrets.triton_volume(secret_files)
    fields["secrets"] = secrets.SECRETS
    shown["secrets"] = secrets.steps(secret_files)
    shown["steps"] = _filled(f"README.{engine}.md", shown)
    shown["checks"] = checks
    made = {name: _filled(name, fields) for name in ("Containerfile", "compose.yaml", "launch.sh")}
    made["README.md"] = _filled("README.md", shown).rstrip() + "\n"
    if engine == "tensorrtllm":
        made["build_engine.sh"] = _filled("build_engine.sh", fields)
    else:
        made["options.json"] = "{}\n"
    return made


def _on_the_node(
    cfg: Config, deployment: Deployment, node: str, secret_files: Mapping[str, Path]
) -> Config:
    """The configuration of agent and control plane beside this Triton."""
    tree = cfg.model_dump()
    secrets.moved(tree, secret_files)
    tree["stack"] |= {"shm_dir": SHM, "state_dir": STATE}
    # Nothing here speaks to the configured engine, so no key of it travels.
    tree["engine"] |= {"kind": "external", "key_file": None, "ca_file": None}
    tree["triton"] |= {
        "http_port": 8000,
        "grpc_port": 8001,
        "metrics_port": 8002,
        "max_batch_size": deployment.max_batch_size,
    }
    tree["agent"] |= {"node": node}
    if deployment.engine == "tensorrtllm":
        tree["agent"] |= {"queue_lease_s": UNHEARD_LEASE_S}
    if cfg.control.port == 0:
        tree["control"] |= {"port": 8003}
    return Config.model_validate(tree)


def _transport(deployment: Deployment) -> str:
    if deployment.decoupled:
        return f"decoupled: `ensemble` streams, `{deployment.unary}` answers unary calls"
    return f"coupled: no streams, `{deployment.unary}` answers unary calls"


def _template(name: str) -> str:
    return (files("sprout.serve.trtllm") / "templates" / name).read_text(encoding="utf-8")


def _filled(name: str, fields: Mapping[str, object]) -> str:
    return _Text(_template(name)).substitute(fields)


def _indented(command: str) -> str:
    return "\n".join(f"   {line}" for line in command.splitlines())


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700 if path.name in _EXECUTABLE else 0o600)
