# SPDX-License-Identifier: Apache-2.0
"""The real engine process, for tests and benchmarks: started, awaited, stopped."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from sprout.serve.weights import default_weights

START_S = 60.0


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
        deadline = time.monotonic() + START_S
        while not self._ready.exists():
            assert self.process.poll() is None, (self._folder / "engine.log").read_text()
            assert time.monotonic() < deadline, "the engine did not become ready"
            time.sleep(0.02)
        told = json.loads(self._ready.read_text())
        assert told["pid"] == self.process.pid
        self.port = int(told["url"].rpartition(":")[2])

    def busy_slots(self) -> int:
        return sum(slot["is_processing"] for slot in self.get("/slots"))

    def wait_idle(self, timeout_s: float = 5.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.busy_slots():
            assert time.monotonic() < deadline, "a slot of the engine stayed busy"
            time.sleep(0.02)

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=10, trust_env=False).json()

    def post(self, path: str, body: Any) -> Any:
        return httpx.post(self.url + path, json=body, timeout=60, trust_env=False).json()

    def tokenize(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        return list(self.post("/tokenize", body)["tokens"])

    def detokenize(self, ids: list[int]) -> str:
        return str(self.post("/detokenize", {"tokens": ids})["content"])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
