# SPDX-License-Identifier: Apache-2.0
"""The least that an ensemble can do, to hold Sprout's against: tokenize and detokenize.

It takes and gives the tensors of TensorRT-LLM's ensemble, as whatever one would use instead has to,
and stands in the same Triton in front of the same engine slot.
"""

import shutil
import string
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sprout.serve.render import repository_source

HERE = Path(__file__).parent
# Sprout's own tensors, and wires between the models.
SPROUT = {
    *("FLIGHT", "_FLIGHT", "_ENGINE_FLIGHT", "flight", "LAST_TOKEN_TIME_NS"),
    *("DIRECTIVE_LEVEL", "POLICY_VERSION", "ENERGY_JOULES", "CARBON_GRAMS", "CARBON_INTENSITY"),
    *("directive_level", "policy_version", "energy_joules", "carbon_grams", "carbon_intensity"),
}
# All that tokenizing and detokenizing needs.
BARE = {
    *("text_input", "max_tokens", "stream", "text_output", "QUERY", "REQUEST_OUTPUT_LEN"),
    *("INPUT_ID", "REQUEST_INPUT_LEN", "TOKENS_BATCH", "SEQUENCE_LENGTH", "OUTPUT"),
}
BARE_WIRES = {
    *("_INPUT_ID", "_REQUEST_INPUT_LEN", "_REQUEST_OUTPUT_LEN"),
    *("_TOKENS_BATCH", "_SEQUENCE_LENGTH"),
}
PLACEHOLDERS = {
    "triton_max_batch_size": "64",
    "max_queue_size": "0",
    "max_queue_delay_microseconds": "0",
    "logits_datatype": "TYPE_FP32",
    "preprocessing_instance_count": "1",
    "postprocessing_instance_count": "1",
}
SENTENCE = "The quick brown fox jumps over the lazy dog while the river runs to the sea. "


def prompt(tokens: int, tokenizer_dir: Path) -> str:
    """English text of exactly this many tokens, by the model's own tokenizer."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    ids = tokenizer.encode(SENTENCE * tokens, add_special_tokens=False).ids[:tokens]
    return str(tokenizer.decode(ids))


def baseline_repository(out: Path, tokenizer_dir: Path, *, bare: bool = False) -> Path:
    """The baseline's models: their code from `baseline/`, their tensors from Sprout's own configs,
    less what is Sprout's; with `bare` also less what the baseline does not use."""
    for model in ("baseline", "baseline_preprocessing", "baseline_postprocessing"):
        source = repository_source() / (
            model.removeprefix("baseline_").replace("baseline", "ensemble")
        )
        filled = string.Template((source / "config.pbtxt").read_text()).safe_substitute(
            PLACEHOLDERS
        )
        config = text_format.Parse(filled, model_config_pb2.ModelConfig())
        config.name = model
        config.parameters.clear()
        config.parameters["tokenizer_dir"].string_value = str(tokenizer_dir)
        keep_tensors(config.input, bare)
        keep_tensors(config.output, bare)
        keep_wires(config.ensemble_scheduling.step, bare)
        (out / model / "1").mkdir(parents=True)
        (out / model / "config.pbtxt").write_text(text_format.MessageToString(config))
        code = HERE / "baseline" / f"{model}.py"
        if code.exists():
            shutil.copy(code, out / model / "1" / "model.py")
    return out


def keep_tensors(tensors: Any, bare: bool) -> None:
    kept = [t for t in tensors if t.name not in SPROUT and (not bare or t.name in BARE)]
    del tensors[:]
    tensors.extend(kept)


def keep_wires(steps: Any, bare: bool) -> None:
    for step in steps:
        if step.model_name != "tensorrt_llm":
            step.model_name = f"baseline_{step.model_name}"
        for wires in (step.input_map, step.output_map):
            for name, value in [*wires.items()]:
                own = {name, value} & SPROUT
                if own or (bare and value not in BARE and value not in BARE_WIRES):
                    del wires[name]
