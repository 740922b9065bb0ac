# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds of an engine behind OpenAI's completions API, deployed or started here."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sprout.channel import is_loopback
from sprout.config import Config
from sprout.energy import choose
from sprout.errors import PrerequisiteError
from sprout.serve import deployment, engine
from sprout.serve.finding import Finding, Mark

_IMPORT_S = 60.0
# Without importing it: that takes seconds, and needs a GPU's driver.
_VERSION = (
    "import importlib.util, importlib.metadata as m; "
    "found = importlib.util.find_spec('vllm'); "
    "names = m.packages_distributions().get('vllm', []) if found else []; "
    "print(m.version(names[0]) if names else '')"
)


def tokenizer(cfg: Config) -> Iterator[Finding]:
    yield Finding("tokenizer", Mark.OK, str(engine.tokenizer_dir(cfg)))


def deployed(cfg: Config) -> Iterator[Finding]:
    """Asks for a token, as the slot will."""
    url = engine.address(cfg)
    model = deployment.served(cfg)
    limit = model.context_tokens
    said = "does not say its context" if limit is None else f"context of {limit} tokens"
    by = f" of {model.owned_by}" if model.owned_by else ""
    yield Finding("engine", Mark.OK, f"{url}: {model.name}{by}, {said}, returns token ids")
    ours = cfg.engine.context_tokens
    if limit is not None and ours != limit:
        problem = f"engine.context_tokens = {ours}, the server's own limit is {limit}"
        remedy = f"requests above {min(ours, limit)} tokens are refused; set it to the server's"
        yield Finding("engine context", Mark.NOTE, problem, remedy)
    if not is_loopback(urlsplit(url).hostname or ""):
        problem = f"the engine at {engine.place(cfg)} may be another machine"
        yield Finding("engine meter", Mark.NOTE, problem, "an agent meters the machine it runs on")
    elif "cpu_model" in choose.chosen(cfg)[0]:
        problem = "cpu_model counts this stack's processes, and the engine is none of them"
        yield Finding("engine meter", Mark.NOTE, problem, 'energy.meters = ["nvml"] or ["rapl"]')


def vllm(cfg: Config) -> Iterator[Finding]:
    engine.check_vllm(cfg)
    python = engine.vllm_python(cfg)
    version = _vllm_version(python)
    model = engine.model_folder(cfg)
    yield Finding("engine", Mark.OK, f"vLLM {version} ({python}), {model}")


def _vllm_version(python: Path) -> str:
    try:
        asked = subprocess.run(
            [str(python), "-I", "-c", _VERSION],
            capture_output=True,
            text=True,
            timeout=_IMPORT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PrerequisiteError(
            f"engine.vllm_python: {python} does not run ({type(error).__name__})"
        ) from None
    version = asked.stdout.strip()
    if not version:
        raise PrerequisiteError(
            f"engine.vllm_python: no vLLM in the environment of {python}, "
            "install it there: pip install vllm"
        )
    return version
