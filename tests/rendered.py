# SPDX-License-Identifier: Apache-2.0
"""Rendered deployments for tests: the stock tool on them, and another engine in their slot."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from sprout.config import load
from sprout.serve.render import repository_source
from sprout.serve.trtllm.deployment import Deployment, Engine
from sprout.serve.trtllm.write import write


def rendered(folder: Path, engine: Engine, **fields: object) -> Path:
    """The model repository of a deployment in `folder`, named node-1."""
    cfg = load(environ={}, flags={"agent.node": "node-1"})
    write(cfg, Deployment(engine, **fields), folder / engine)  # type: ignore[arg-type]
    return folder / engine / "model_repository"


def fill_template(text: str, substitutions: str) -> str:
    """What the stock tool does, written again: it takes backslashes away twice, so that a comma in
    a value is \\, and a colon is two backslashes before it."""
    values = {"max_queue_size": "0", "max_queue_delay_microseconds": "0"}
    for pair in _split(substitutions, ","):
        key, value = _split(pair, ":")
        assert key in text, f"key '{key}' does not exist in the file"
        values[key] = value
    return Template(text).safe_substitute(values)


def _split(text: str, delimiter: str) -> list[str]:
    """At each delimiter without a backslash; the backslash goes, what follows it stays."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.split(rf"(?<!\\){delimiter}", text)]


def put_in_the_slot(repository: Path, substitutions: str, model: str | None = None) -> None:
    """Another engine in the slot, and nothing else: model.py (default: Sprout's own), the backend
    and unset parameters, filled by the stock tool."""
    slot = repository / "tensorrt_llm"
    if model is None:
        shutil.copy(repository_source() / "tensorrt_llm" / "1" / "model.py", slot / "1")
    else:
        (slot / "1" / "model.py").write_text(model)
    config = slot / "config.pbtxt"
    text = config.read_text().replace('backend: "tensorrtllm"', 'backend: "python"')
    config.write_text(fill_template(text, substitutions))


def move(repository: Path, folders: Mapping[str, Path]) -> None:
    """The container's folders to where a test has them."""
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        for there, here in folders.items():
            text = text.replace(f'"{there}"', f'"{here}"')
        config.write_text(text)
