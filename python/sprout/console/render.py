# SPDX-License-Identifier: Apache-2.0
"""`sprout render`: what was written, and what it was written for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from sprout.config import Config, EngineConfig
from sprout.console import alone
from sprout.console.output import emit_json, out
from sprout.errors import ConfigError
from sprout.serve.trtllm.deployment import ENGINES as CONTAINER_ENGINES
from sprout.serve.trtllm.deployment import Deployment


def repository(cfg: Config, engine: str, folder: Path, *, json: bool) -> None:
    """For an engine that Sprout starts, or speaks to, itself."""
    kinds = get_args(EngineConfig.model_fields["kind"].annotation)
    known = [*(kind for kind in kinds if kind != "external"), *CONTAINER_ENGINES]
    if engine not in known:
        raise ConfigError(f"--engine {engine!r} is none of {', '.join(known)}")
    if not json:
        alone.render(cfg, engine, folder)
        return
    with out.capture():
        alone.render(cfg, engine, folder)
    emit_json({"engine": engine, "model_repository": str(folder)})


def deployment(
    cfg: Config, engine: Any, folder: Path, given: Mapping[str, Any], *, json: bool
) -> None:
    """For one of NVIDIA's containers. given: fields of Deployment."""
    from sprout.serve.trtllm.write import write

    wanted = Deployment(
        engine=engine, **({"max_batch_size": cfg.triton.max_batch_size} | dict(given))
    )
    written = write(cfg, wanted, folder)
    if json:
        emit_json(
            {
                "engine": engine,
                "image": wanted.image,
                "tensor_parallel": wanted.tensor_parallel,
                "gpus": list(wanted.devices),
                "decoupled": wanted.decoupled,
                "unary_model": wanted.unary,
                "files": [str(path) for path in written],
            }
        )
        return
    out.print(f"for {wanted.image}, tensor parallelism {wanted.tensor_parallel}:", markup=False)
    for path in written:
        out.print(f"  {path}{'/' if path.is_dir() else ''}", markup=False)
    out.print(
        f"not run yet: the steps and a checklist stand in {folder / 'README.md'}", markup=False
    )
