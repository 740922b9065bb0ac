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
    from sprout.serve.weights import model_path

    if cfg.engine.kind != "llama_cpp":
        raise ConfigError(f"engine.kind = {cfg.engine.kind} has no process of its own")
    if cfg.engine.port == 0:
        raise ConfigError("engine.port must be set: whoever runs Triton must know it")
    command = EngineService(cfg, StackPaths.of(cfg), model_path(cfg)).command()
    os.execv(command[0], list(command))  # noqa: S606


def render(cfg: Config, engine_kind: str, folder: Path) -> None:
    """A model repository, filled in, at `folder`."""
    from sprout.channel import connectable
    from sprout.serve.gguf import tokenizer_dir
    from sprout.serve.render import placeholder_values, repository_source
    from sprout.serve.render import render as fill
    from sprout.serve.state import StackPaths
    from sprout.serve.weights import model_path

    if engine_kind != cfg.engine.kind:
        section = cfg.engine.model_dump() | {"kind": engine_kind}
        cfg = cfg.model_copy(update={"engine": type(cfg.engine).model_validate(section)})
    tokenizer = cfg.engine.tokenizer_dir
    if tokenizer is None:
        tokenizer = tokenizer_dir(model_path(cfg), StackPaths.of(cfg).state / "tokenizer")
    values = placeholder_values(
        cfg,
        engine_url=f"http://{connectable(cfg.engine.host)}:{cfg.engine.port}",
        tokenizer_dir=tokenizer,
        probe_token_file=StackPaths.of(cfg).probe_token,
        evaluate_token_file=cfg.evaluate.schedule.token_file,
    )
    fill(repository_source(), folder, values)
    out.print(f"model repository: {folder}")
