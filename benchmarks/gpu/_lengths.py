# SPDX-License-Identifier: Apache-2.0
"""Sprout's ensemble with answers of set lengths: `lengths_ensemble`, beside the untouched one.

Both stand in the same Triton and share the engine's slot and the postprocessing; the first step
alone differs, and by the length alone (`lengths/model.py`).
"""

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sprout.config import Config
from sprout.serve.render import placeholder_values, render, repository_source

ENSEMBLE = "lengths_ensemble"
PREPROCESSING = "lengths_preprocessing"
MODEL = Path(__file__).parent / "lengths" / "model.py"


def lengths_repository(out: Path, cfg: Config, tokenizer_dir: Path) -> Path:
    """For `triton.model_repositories` of the stack that has this configuration."""
    values = placeholder_values(
        cfg, engine_url="", tokenizer_dir=tokenizer_dir, probe_token_file=None
    )
    rendered = out.with_name(f"{out.name}.rendered")
    render(repository_source(), rendered, values)
    for name, source in ((PREPROCESSING, "preprocessing"), (ENSEMBLE, "ensemble")):
        config = text_format.Parse(
            (rendered / source / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        config.name = name
        for step in config.ensemble_scheduling.step:
            if step.model_name == "preprocessing":
                step.model_name = PREPROCESSING
        (out / name / "1").mkdir(parents=True)
        (out / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    version = out / PREPROCESSING / "1"
    shutil.copy(rendered / "preprocessing" / "1" / "model.py", version / "preprocessing.py")
    shutil.copy(MODEL, version / "model.py")
    shutil.rmtree(rendered)
    return out
