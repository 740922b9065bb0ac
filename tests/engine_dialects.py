# SPDX-License-Identifier: Apache-2.0
"""The dialects that a slot's client speaks, for tests that hold of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from completions_server import CompletionsServer
from engine_fakes import FakeLlama, FakeServer, Recorder, generation

from sprout.engines.client import EngineClient
from sprout.engines.llama_client import LlamaClient
from sprout.engines.openai_client import OpenAIClient


@dataclass(frozen=True)
class Dialect:
    name: str
    server: Callable[..., Any]
    client: Callable[..., EngineClient]

    def connect(self, server: FakeServer, **more: Any) -> EngineClient:
        given = {"slots": 2, "queue": 2, "context_tokens": 512, "retry_s": 1.0}
        return self.client(server.url, **(given | more))


LLAMA = Dialect("llama_cpp", FakeLlama, LlamaClient)
OPENAI = Dialect("openai", CompletionsServer, OpenAIClient)


def ask(client: EngineClient, *ids: int, **more: Any) -> Recorder:
    recorder = Recorder()
    client.submit(generation(*ids, **more), recorder)
    return recorder
