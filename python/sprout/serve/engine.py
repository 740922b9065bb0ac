# SPDX-License-Identifier: Apache-2.0
"""What each kind of engine needs, checked before any start: its address, tokenizer and model."""

from pathlib import Path
from urllib.parse import urlsplit

from sprout.channel import connectable, is_loopback
from sprout.config import Config
from sprout.engines.body import REPETITION_PENALTY, either
from sprout.errors import ConfigError, PrerequisiteError
from sprout.serve import weights
from sprout.serve.gguf import tokenizer_dir as from_gguf
from sprout.serve.state import StackPaths

# What the slot speaks; "vllm" differs in who starts the server alone.
DIALECTS = {"llama_cpp": "llama_cpp", "echo": "echo", "openai": "openai", "vllm": "openai"}

# Flags of vLLM's that a key of ours sets, and what else would part its server from the slot.
_OURS = {
    "--host": "engine.host",
    "--port": "engine.port",
    "--model": "engine.model",
    "--max-num-seqs": "engine.slots",
    "--max-model-len": "engine.context_tokens",
    "--served-model-name": "engine.served_model",
    "--api-key": "none: it is reached from this machine alone",
    "--uds": "none: the slot needs a port",
    "--root-path": "none",
    "--ssl-keyfile": "none: it is reached from this machine alone",
}


def of_kind(cfg: Config, kind: str) -> Config:
    """The configuration with another `engine.kind`. ConfigError where there is no such kind."""
    if kind == cfg.engine.kind:
        return cfg
    if kind not in DIALECTS:
        raise ConfigError(f"engine.kind: {kind!r} is unknown; there are {', '.join(DIALECTS)}")
    section = cfg.engine.model_dump() | {"kind": kind}
    return cfg.model_copy(update={"engine": type(cfg.engine).model_validate(section)})


def address(cfg: Config) -> str:
    """Where the slot connects to. ConfigError names what is missing or unsafe."""
    engine = cfg.engine
    here = f"http://{connectable(engine.host)}:{engine.port}"
    if engine.kind == "openai":
        return _checked_url(cfg)
    return f"{here}/v1" if engine.kind == "vllm" else here


def place(cfg: Config) -> str:
    """host:port of the engine, for people."""
    engine = cfg.engine
    if engine.kind == "openai":
        return urlsplit(engine.url).netloc.rpartition("@")[2]
    return f"{connectable(engine.host)}:{engine.port}"


def repetition_penalty(cfg: Config) -> float:
    """Where the client asks for none."""
    return either(cfg.engine.repetition_penalty, REPETITION_PENALTY.get(cfg.engine.kind, 1.0))


def key_file(cfg: Config) -> Path | None:
    """Absolute: Triton's stubs have another working directory."""
    file = cfg.engine.key_file
    return None if file is None else file.expanduser().absolute()


def ca_file(cfg: Config) -> Path | None:
    """Absolute."""
    file = cfg.engine.ca_file
    return None if file is None else file.expanduser().absolute()


def tokenizer_dir(cfg: Config) -> Path:
    """The folder of the model's tokenizer. ConfigError or PrerequisiteError where there is none.

    Written from the GGUF file for llama.cpp (and echo), the model's own folder for vLLM.
    """
    engine = cfg.engine
    if engine.tokenizer_dir is None and engine.kind in ("llama_cpp", "echo"):
        return from_gguf(weights.model_path(cfg), StackPaths.of(cfg).state / "tokenizer")
    if engine.tokenizer_dir is None and engine.kind != "vllm":
        raise ConfigError(
            f"engine.tokenizer_dir: missing; for engine.kind = {engine.kind} it is the folder with "
            "the tokenizer.json and tokenizer_config.json of the model that is served"
        )
    folder = (engine.tokenizer_dir or model_folder(cfg)).expanduser().absolute()
    if engine.kind in ("openai", "vllm"):
        key = "engine.model" if engine.tokenizer_dir is None else "engine.tokenizer_dir"
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).is_file():
                raise PrerequisiteError(f"{key}: no {name} in {folder}")
    return folder


def model_folder(cfg: Config) -> Path:
    """`engine.model` for vLLM: a checkpoint of its own. ConfigError, PrerequisiteError."""
    if cfg.engine.model is None:
        raise ConfigError("engine.model: missing; for engine.kind = vllm it is a model's folder")
    folder = cfg.engine.model.expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise PrerequisiteError(f"engine.model: no config.json in {folder}: not a model's folder")
    return folder


def vllm_python(cfg: Config) -> Path:
    """The interpreter of vLLM's environment. ConfigError, PrerequisiteError."""
    if cfg.engine.vllm_python is None:
        raise ConfigError(
            "engine.vllm_python: missing; the interpreter of the environment that vLLM is "
            "installed in, e.g. /opt/vllm/bin/python"
        )
    # Not resolved: a virtual environment is known by the name that its interpreter is called by.
    path = cfg.engine.vllm_python.expanduser().absolute()
    if not path.is_file():
        raise PrerequisiteError(f"engine.vllm_python: no such file: {path}")
    return path


def check_vllm(cfg: Config) -> None:
    """ConfigError or PrerequisiteError where `sprout up` could not start vLLM as it is told to."""
    vllm_python(cfg)
    model_folder(cfg)
    if not is_loopback(cfg.engine.host):
        raise ConfigError(
            f"engine.host: {cfg.engine.host} is not loopback, and vLLM's server asks nobody who "
            'they are; for a server elsewhere: engine.kind = "openai"'
        )
    for argument in cfg.engine.vllm_args:
        # argparse takes underscores too.
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in _OURS:
            raise ConfigError(f"engine.vllm_args: {flag} is set by {_OURS[flag]}")


def _checked_url(cfg: Config) -> str:
    engine = cfg.engine
    if not engine.url:
        raise ConfigError(
            'engine.url: missing; for engine.kind = "openai" it is the address of a server of '
            "OpenAI's completions API, up to and with /v1"
        )
    try:
        parts = urlsplit(engine.url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"engine.url: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError("engine.url must begin with http:// or https:// and a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("engine.url is host and path alone; a key goes by engine.key_file")
    if not parts.path.endswith("/v1"):
        raise ConfigError(f"engine.url must end with /v1, as in {parts.scheme}://{parts.netloc}/v1")
    beyond = not is_loopback(parts.hostname)
    if parts.scheme == "http" and beyond and not engine.allow_plain_http:
        raise ConfigError(
            "engine.url is http:// beyond loopback, so prompts, answers and the key would cross "
            "the network in the clear: use https://, or set engine.allow_plain_http"
        )
    return engine.url
