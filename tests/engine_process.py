# SPDX-License-Identifier: Apache-2.0
"""The real engine process, for tests and benchmarks: started, awaited, stopped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from waiting import PATIENCE_S, wait_for

from sprout.serve.weights import default_weights

START_S = 2 * PATIENCE_S


class EngineProcess:
    """llama.cpp's server with the default weights. port 0: a free one, kept over restarts."""

    def __init__(self, folder: Path, *, slots: int = 4, context_tokens: int = 1024) -> None:
        self._folder = folder
        self._slots, self._context_tokens = slots, context_tokens
        self._ready = folder / "ready.json"
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        options = {
            "model": default_weights(),
            "port": self.port,
            "slots": self._slots,
            "context-tokens": self._context_tokens,
            "ready-file": self._ready,
        }
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        with (self._folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sprout.engines.llama_cpp", *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._is_ready, START_S, "the engine's readiness")
        told = json.loads(self._ready.read_text())
        assert told["pid"] == self.process.pid
        self.port = int(told["url"].rpartition(":")[2])

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self._folder / "engine.log").read_text()
        return self._ready.exists()

    def busy_slots(self) -> int:
        return sum(slot["is_processing"] for slot in self.get("/slots"))

    def wait_idle(self) -> None:
        wait_for(lambda: self.busy_slots() == 0, what="an idle engine")

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=PATIENCE_S, trust_env=False).json()

    def post(self, path: str, body: Any) -> Any:
        return httpx.post(self.url + path, json=body, timeout=PATIENCE_S, trust_env=False).json()

    def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        return list(self.post("/tokenize", body)["tokens"])

    def detokenize(self, ids: list[int]) -> str:
        return str(self.post("/detokenize", {"tokens": ids})["content"])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
