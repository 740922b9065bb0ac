# SPDX-License-Identifier: Apache-2.0
"""Questions to a server of OpenAI's completions API, deployed or started here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sprout.config import Config
from sprout.engines.openai_body import ServedModel
from sprout.engines.openai_http import OpenAIHttp
from sprout.errors import EngineUnavailable, SproutError
from sprout.serve import engine

_PATIENCE_S = 10.0  # for each answer; a full server answers later than an idle one
_T = TypeVar("_T")


def absent(cfg: Config) -> str | None:
    """None while it has a token for us, else what is wrong: it may well list its models while what
    computes behind it hangs. Bounded in time."""
    try:
        served(cfg)
    except SproutError as error:
        return str(error)
    return None


def served(cfg: Config) -> ServedModel:
    """The model that requests will get, after one token of it. SproutError says what is wrong."""
    return _asked(cfg, lambda http: http.info(), answers=2)


def _asked(cfg: Config, question: Callable[[OpenAIHttp], Awaitable[_T]], *, answers: int = 1) -> _T:
    limit_s = answers * _PATIENCE_S  # of the whole, however slowly its bytes come

    async def ask() -> _T:
        http = OpenAIHttp(
            engine.address(cfg),
            model=cfg.engine.served_model,
            key_file=engine.key_file(cfg),
            ca_file=engine.ca_file(cfg),
            connections=1,
            retry_s=0,
            stall_s=_PATIENCE_S,
        )
        try:
            async with asyncio.timeout(limit_s):
                return await question(http)
        except TimeoutError:
            raise EngineUnavailable(f"{http.url} has not answered within {limit_s:g} s") from None
        finally:
            await http.close()

    return asyncio.run(ask())
