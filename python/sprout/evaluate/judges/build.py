# SPDX-License-Identifier: Apache-2.0
"""The judge that the configuration names."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import assert_never

from sprout.carbon.secret import Secret
from sprout.channel import connectable
from sprout.config import Config, JudgeConfig
from sprout.errors import ConfigError, PrerequisiteError
from sprout.evaluate.judges.account import Rates
from sprout.evaluate.judges.cache import FILE
from sprout.evaluate.judges.exact import ExactMarker, Kind
from sprout.evaluate.judges.instructions import Instructions, read_criteria
from sprout.evaluate.judges.model import Line, ModelJudge, Turn
from sprout.evaluate.judges.openai import OpenAILine
from sprout.evaluate.judges.recorded import RecordedJudge
from sprout.evaluate.judges.verdict import Judge, Marker
from sprout.serve.state import evaluate_token_file


def judge(cfg: Config, *, address: str = "", turn: Turn = nullcontext) -> Judge | Marker:
    """address: of the stack's own Triton, "host:port" of gRPC, for a Triton judge without `url`.
    turn: entered around each of its calls, for it may share the server with clients.

    ConfigError names the setting.
    """
    config = cfg.evaluate.judge
    match config.kind:
        case "none":
            raise ConfigError(
                'evaluate.judge.kind is "none": name who judges (openai, triton, exact, recorded)'
            )
        case "openai":
            return _model(config, _openai(config))
        case "triton":
            return _model(config, _triton(cfg, address, turn))
        case "exact":
            pairs = (pair.partition("=") for pair in config.exact_kinds)
            kinds = {task: Kind(kind) for task, _, kind in pairs}
            return ExactMarker(kinds, separator=config.alias_separator)
        case "recorded":
            assert config.recorded_file is not None  # the configuration is complete
            return RecordedJudge(config.recorded_file, config.method)
    assert_never(config.kind)


def rates(config: JudgeConfig) -> Rates:
    return Rates(config.joules_per_token, config.price_per_1k_input, config.price_per_1k_output)


def cache_path(cfg: Config) -> Path:
    return cfg.stack.state / FILE


def _model(config: JudgeConfig, line: Line) -> ModelJudge:
    criteria = "" if config.instructions_file is None else read_criteria(config.instructions_file)
    instructions = Instructions(
        config.method,
        length=config.length_instruction,
        criteria=criteria,
        max_chars=config.max_answer_chars,
    )
    return ModelJudge(line, instructions, retries=config.retries)


def _openai(config: JudgeConfig) -> OpenAILine:
    key_file = config.key_file
    return OpenAILine(
        config.url,
        config.model,
        key=None if key_file is None else Secret(key_file, "evaluate.judge.key_file"),
        timeout_s=config.timeout_s,
        max_tokens=config.max_tokens,
        connections=config.concurrency,
        allow_plain_http=config.allow_plain_http,
    )


def _triton(cfg: Config, address: str, turn: Turn) -> Line:
    try:
        # Of an extra: the other judges work without.
        from sprout.evaluate.asking import token  # noqa: PLC0415
        from sprout.evaluate.judges.triton import TritonLine  # noqa: PLC0415
    except ImportError:
        raise PrerequisiteError(
            "a Triton judge needs tritonclient: pip install 'sprout-serve[local]'"
        ) from None
    config, schedule, own = cfg.evaluate.judge, cfg.evaluate.schedule, cfg.triton
    token_file: Path | None = None
    if not config.url:
        token_file = evaluate_token_file(cfg)
    elif config.url == schedule.endpoint:
        token_file = schedule.token_file
    address = config.url or address
    if not address:
        if own.grpc_port == 0:
            raise ConfigError("evaluate.judge.url is empty and triton.grpc_port 0: name one")
        address = f"{connectable(own.host)}:{own.grpc_port}"
    return TritonLine(
        address,
        config.model,
        timeout_s=config.timeout_s,
        max_tokens=config.max_tokens,
        token=None if token_file is None else partial(token, token_file),
        turn=turn,
    )
