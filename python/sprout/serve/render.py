# SPDX-License-Identifier: Apache-2.0
"""The model repository, filled in for one deployment.

Placeholders are filled as TensorRT-LLM's own `fill_template.py` fills them, so that either tool
works on the same files. A placeholder inside quotes that nobody fills is an unset parameter, which
the models have defaults for; one that stands for a number or a type must be filled.
"""

import os
import re
import shutil
import socket
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from sprout.config import Config
from sprout.errors import ConfigError
from sprout.serve.engine import DIALECTS, ca_file, key_file, repetition_penalty
from sprout.units import node_id

# Unary calls that run at once. Each holds one of the Python backend's threads, and the stop of a
# cancelled one needs another: with too few, stops would wait for the very calls that they end.
BLS_MAX_IN_FLIGHT = 128
BLS_THREAD_POOL = BLS_MAX_IN_FLIGHT + 16

# fill_template.py's own
_DEFAULTS = {"max_queue_size": "0", "max_queue_delay_microseconds": "0"}
_BARE = re.compile(r"""^[^"#]*\$\{(\w+)\}""", re.MULTILINE)
_COUNTS = re.compile(r"triton_max_batch_size|\w+_instance_count")


def repository_source() -> Path:
    """`model_repository/` of the installed package, or of the checkout it is developed in."""
    package = Path(str(files("sprout")))
    for folder in (package / "model_repository", package.parents[1] / "model_repository"):
        if (folder / "ensemble" / "config.pbtxt").is_file():
            return folder
    raise ConfigError(f"no model_repository beside {package}: install the package again")


def placeholder_values(
    cfg: Config,
    *,
    engine_url: str,
    tokenizer_dir: Path,
    probe_token_file: Path | None,
    evaluate_token_file: Path | None = None,
) -> dict[str, str]:
    """What a stack's configuration says, by placeholder."""
    request, engine, sampling = cfg.request, cfg.engine, cfg.evaluate.sampling
    values = {
        "triton_backend": "python",
        "triton_max_batch_size": cfg.triton.max_batch_size,
        "decoupled_mode": True,
        # Of tensors that only TensorRT-LLM knows; a type must be stated all the same.
        "logits_datatype": "TYPE_FP32",
        "encoder_input_features_data_type": "TYPE_FP16",
        "prompt_embedding_table_data_type": "TYPE_FP16",
        "preprocessing_instance_count": cfg.triton.preprocessing_instances,
        "postprocessing_instance_count": 1,
        "bls_instance_count": 1,
        "bls_max_in_flight": BLS_MAX_IN_FLIGHT,
        "tokenizer_dir": tokenizer_dir,
        "sprout_shm_dir": cfg.stack.shm,
        "sprout_node_id": node_id(cfg.agent.node or socket.gethostname()),
        "sprout_pack": request.pack,
        "sprout_chat_template": request.chat_template,
        "sprout_hints": ",".join(request.hints),
        "sprout_accept_rendered": request.accept_rendered,
        "sprout_max_prompt_bytes": request.max_prompt_bytes,
        "sprout_flights": request.flights,
        "sprout_send_end_id": False,  # engines of ours know their model's own
        "sprout_probe_token_file": probe_token_file or "",
        "sprout_evaluate_token_file": evaluate_token_file or "",
        "sprout_sample_share": sampling.share,
        "sprout_sample_prompt_bytes": sampling.prompt_bytes,
        "sprout_sample_ring_prompts": sampling.ring_prompts,
        "sprout_sample_refuse_tenants": ",".join(sampling.refuse_tenants),
        "sprout_engine": DIALECTS.get(engine.kind, engine.kind),
        "sprout_engine_url": engine_url,
        "sprout_engine_model": engine.served_model,
        "sprout_engine_key_file": key_file(cfg) or "",
        "sprout_engine_ca_file": ca_file(cfg) or "",
        "sprout_engine_slots": engine.slots,
        "sprout_engine_queue": engine.queue,
        "sprout_engine_context_tokens": engine.context_tokens,
        "sprout_chunk_interval_ms": engine.chunk_interval_ms,
        "sprout_chunks_per_s": engine.chunks_per_s,
        "sprout_repetition_penalty": repetition_penalty(cfg),
        "sprout_echo_tokens_per_s": engine.echo_tokens_per_s,
    }
    return {key: str(value) for key, value in values.items()}


def render(source: Path, out: Path, values: Mapping[str, str]) -> None:
    """Writes every model of `source` to `out`, with `values` in its config.pbtxt.

    Files get mode 0600 and folders 0700. ConfigError: a key that no file has, a value that can't
    be, or a placeholder that must be filled and is not. Nothing is written in that case.
    """
    _check(values)
    if out.resolve() == source.resolve():
        raise ConfigError(f"{out} is the source itself: render to another folder")
    texts = {path.parent.name: path.read_text() for path in sorted(source.glob("*/config.pbtxt"))}
    if not texts:
        raise ConfigError(f"no models in {source}")
    for key in values:
        if not any(key in text for text in texts.values()):
            raise ConfigError(f"unknown placeholder {key!r}: no config.pbtxt has it")
    filled = {
        model: Template(text).safe_substitute(_DEFAULTS | dict(values))
        for model, text in texts.items()
    }
    for model, text in filled.items():
        if missing := _BARE.search(text):
            raise ConfigError(f"{model}/config.pbtxt: a value for {missing[1]} is needed")
    for model, text in filled.items():
        _copy(source / model, out / model)
        _write(out / model / "config.pbtxt", text.encode())


def _check(values: Mapping[str, str]) -> None:
    for key, value in values.items():
        if set(value) & set('"\\\n'):
            raise ConfigError(f"{key}: {value!r} can't stand in a config.pbtxt")
        if _COUNTS.fullmatch(key) and (not value.isdigit() or int(value) < 1):
            raise ConfigError(f"{key}: {value!r} is no positive number")
    decoupled = values.get("decoupled_mode", "").lower() == "true"
    if decoupled and values.get("postprocessing_instance_count", "1") != "1":
        raise ConfigError(
            "postprocessing_instance_count must be 1 while decoupled_mode is True: several"
            " instances deliver the chunks of a stream out of order"
        )


def _copy(source: Path, target: Path) -> None:
    """A model's files but config.pbtxt; what else stood in its place goes."""
    if (target / "config.pbtxt").exists():
        shutil.rmtree(target)
    for path in sorted((source, *source.rglob("*"))):
        if "__pycache__" in path.parts or path.name == "config.pbtxt":
            continue
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            _write(place, path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
