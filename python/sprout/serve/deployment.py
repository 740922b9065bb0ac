# SPDX-License-Identifier: Apache-2.0
"""Questions of the supervisor's own to an engine's server, deployed or started here."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sprout.config import Config
from sprout.engines.http import EngineHttp
from sprout.engines.llama_http import LlamaHttp
from sprout.engines.openai_body import ServedModel
from sprout.engines.openai_http import OpenAIHttp
from sprout.errors import EngineUnavailable, SproutError
from sprout.serve import engine

_PATIENCE_S = 10.0  # for each answer; a full server answers later than an idle one
_ANSWERS = 2  # its models, and one token
_Info = TypeVar("_Info")


def absent(cfg: Config) -> str | None:
    """None while it has a token for us, else what is wrong: it may well list its models while what
    computes behind it hangs. Bounded in time."""
    try:
        if cfg.engine.kind == "llama_cpp":
            _asked(lambda: _llama(cfg))
        else:
            served(cfg)
    except SproutError as error:
        return str(error)
    return None


def served(cfg: Config) -> ServedModel:
    """The model that requests will get, after one token of it. SproutError says what is wrong."""
    return _asked(lambda: _openai(cfg))


def _openai(cfg: Config) -> OpenAIHttp:
    return OpenAIHttp(
        engine.address(cfg),
        model=cfg.engine.served_model,
        key_file=engine.key_file(cfg),
        ca_file=engine.ca_file(cfg),
        connections=1,
        retry_s=0,
        stall_s=_PATIENCE_S,
    )


def _llama(cfg: Config) -> LlamaHttp:
    return LlamaHttp(engine.address(cfg), connections=1, retry_s=0, stall_s=_PATIENCE_S)


def _asked(connect: Callable[[], EngineHttp[_Info]]) -> _Info:
    limit_s = _ANSWERS * _PATIENCE_S  # of the whole, however slowly its bytes come

    async def ask() -> _Info:
        http = connect()
        try:
            async with asyncio.timeout(limit_s):
                return await http.info()
        except TimeoutError:
            raise EngineUnavailable(f"{http.url} has not answered within {limit_s:g} s") from None
        finally:
            await http.close()

    return asyncio.run(ask())
