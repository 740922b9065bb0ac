# SPDX-License-Identifier: Apache-2.0
"""One process or one step by itself, for real deployments."""

import logging
import os
import sys
from pathlib import Path

from sprout.config import Config
from sprout.console.output import out
from sprout.errors import ConfigError


def _log() -> None:
    """To stderr, which the supervisor sends to `logs/<process>.log`."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per poll


def control(cfg: Config) -> None:
    """Until SIGTERM or SIGINT."""
    from sprout.control.run import serve

    _log()
    serve(cfg)


def agent(cfg: Config) -> None:
    """Until SIGTERM or SIGINT."""
    from sprout.agent.run import serve

    _log()
    serve(cfg)


def engine(cfg: Config) -> None:
    """Becomes the engine process. Does not return."""
    from sprout.serve.services import EngineService
    from sprout.serve.state import StackPaths
    from sprout.serve.vllm import VllmService
    from sprout.serve.weights import model_path

    if cfg.engine.kind not in ("llama_cpp", "vllm"):
        raise ConfigError(f"engine.kind = {cfg.engine.kind} has no process of its own")
    if cfg.engine.port == 0:
        raise ConfigError("engine.port must be set: whoever runs Triton must know it")
    paths = StackPaths.of(cfg)
    service: EngineService | VllmService
    if cfg.engine.kind == "vllm":
        service = VllmService(cfg, paths)
    else:
        service = EngineService(cfg, paths, model_path(cfg))
    paths.ensure()
    service.prepare()
    command = list(service.command())
    os.execve(command[0], command, dict(service.environment()))  # noqa: S606


def render(cfg: Config, engine_kind: str, folder: Path) -> None:
    """A model repository, filled in, at `folder`."""
    from sprout.serve.engine import address, of_kind, tokenizer_dir
    from sprout.serve.render import placeholder_values, repository_source
    from sprout.serve.render import render as fill
    from sprout.serve.state import StackPaths

    cfg = of_kind(cfg, engine_kind)
    values = placeholder_values(
        cfg,
        engine_url=address(cfg),
        tokenizer_dir=tokenizer_dir(cfg),
        probe_token_file=StackPaths.of(cfg).probe_token,
        evaluate_token_file=cfg.evaluate.schedule.token_file,
    )
    fill(repository_source(), folder, values)
    out.print(f"model repository: {folder}")
