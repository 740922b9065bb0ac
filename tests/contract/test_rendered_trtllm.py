# SPDX-License-Identifier: Apache-2.0
"""What `sprout render` writes for TensorRT-LLM, against the stock tensors and the stock tool.

Every config.pbtxt is parsed with Triton's own schema. The same files in a real server:
tests/system/test_rendered_repository.py.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import stock_tables as stock
from rendered import fill_template, rendered

from sprout.config import load
from sprout.errors import ConfigError
from sprout.serve.render import repository_source
from sprout.serve.trtllm import wiring
from sprout.serve.trtllm.deployment import ENGINES, Deployment
from sprout.serve.trtllm.values import values
from sprout.serve.trtllm.write import rewire

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
BEYOND_TEXT = {tensor.name for tensor in (*wiring.INPUTS, *wiring.OUTPUTS)}
TYPES = {
    "logits_datatype": "FP32",
    "encoder_input_features_data_type": "FP16",
    "prompt_embedding_table_data_type": "FP16",
}
# What TensorRT-LLM's documentation (docs/llama.md) fills in.
STOCK_VALUES = {
    "preprocessing": "tokenizer_dir:/hf,triton_max_batch_size:64,preprocessing_instance_count:1",
    "postprocessing": "tokenizer_dir:/hf,triton_max_batch_size:64,postprocessing_instance_count:1",
    "tensorrt_llm_bls": "triton_max_batch_size:64,decoupled_mode:False,bls_instance_count:1,"
    "accumulate_tokens:False,logits_datatype:TYPE_FP32",
    "ensemble": "triton_max_batch_size:64,logits_datatype:TYPE_FP32",
    "tensorrt_llm": "triton_backend:tensorrtllm,triton_max_batch_size:64,decoupled_mode:False,"
    "max_beam_width:1,engine_dir:/engine,max_tokens_in_paged_kv_cache:2560,"
    "max_attention_window_size:2560,kv_cache_free_gpu_mem_fraction:0.5,"
    "exclude_input_in_output:True,enable_kv_cache_reuse:False,"
    "batching_strategy:inflight_fused_batching,max_queue_delay_microseconds:0,"
    "encoder_input_features_data_type:TYPE_FP16,logits_datatype:TYPE_FP32,"
    "prompt_embedding_table_data_type:TYPE_FP16",
}

Configs = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Configs:
    """The parsed configuration of every model of a rendering."""

    @cache
    def of(engine: str, **fields: object) -> dict[str, Any]:
        repository = rendered(tmp_path_factory.mktemp("rendered"), engine, **fields)
        found = {path.parent.name: path.read_text() for path in repository.glob("*/config.pbtxt")}
        return {model: parsed(text) for model, text in found.items()}

    return of


def parsed(text: str) -> Any:
    return text_format.Parse(text, pb.ModelConfig())


def declared(tensors: Any) -> dict[str, tuple[Any, ...]]:
    rows = {}
    for tensor in tensors:
        assert tensor.name not in rows, f"{tensor.name} twice"
        rows[tensor.name] = (
            pb.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
            tuple(tensor.dims),
            bool(getattr(tensor, "optional", False)),
            tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
            bool(getattr(tensor, "allow_ragged_batch", False)),
        )
    return rows


def table(*texts: str, without: set[str] = frozenset()) -> dict[str, tuple[Any, ...]]:
    rows = {}
    for line in filter(None, map(str.strip, "\n".join(texts).splitlines())):
        name, kind, dims, *marks = line.split()
        rows[name] = (
            TYPES.get(kind, kind),
            tuple(map(int, dims.split(","))),
            "?" in marks,
            () if "[]" in marks else None,
            "ragged" in marks,
        )
    return {name: row for name, row in rows.items() if name not in without}


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_cpp_backend_has_the_stock_tensors(configs: Configs, model: str, decoupled: bool) -> None:
    got = configs("tensorrtllm", decoupled=decoupled)[model]
    added = stock.ADDED_INPUTS.get(model, ""), stock.ADDED_OUTPUTS.get(model, "")
    assert declared(got.input) == table(stock.INPUTS[model], added[0])
    assert declared(got.output) == table(stock.OUTPUTS[model], added[1])


@pytest.mark.parametrize("model", MODELS)
def test_llmapi_has_the_stock_tensors_of_text(configs: Configs, model: str) -> None:
    """In the slot all of them, so that what it can't do is refused by name."""
    got = configs("llmapi")[model]
    inputs, outputs = declared(got.input), declared(got.output)
    without = set() if model == "tensorrt_llm" else BEYOND_TEXT
    if model == "tensorrt_llm":
        assert inputs.pop("flight") == ("UINT64", (1,), True, (), False)
        assert outputs.pop("flight") == ("UINT64", (-1,), False, None, False)
    more_in, more_out = stock.ADDED_INPUTS.get(model, ""), stock.ADDED_OUTPUTS.get(model, "")
    assert inputs == table(stock.INPUTS[model], more_in, without=without)
    assert outputs == table(stock.OUTPUTS[model], more_out, without=without)


def test_no_added_input_is_required() -> None:
    assert all(row[2] for text in stock.ADDED_INPUTS.values() for row in table(text).values())


@pytest.mark.parametrize("engine", ENGINES)
def test_ensemble_maps_are_the_stock_ones(configs: Configs, engine: str) -> None:
    own = {"flight", "FLIGHT", "LAST_TOKEN_TIME_NS"}
    for step in configs(engine)["ensemble"].ensemble_scheduling.step:
        got = {inner: name for inner, name in step.input_map.items() if inner not in own}
        want = dict(stock.MAPS[step.model_name])
        if step.model_name == "tensorrt_llm":
            left_out = BEYOND_TEXT if engine == "llmapi" else set()
            want |= {name: name for name in stock.SAME_NAME.split() if name not in left_out}
        assert got == want


@pytest.mark.parametrize("engine", ENGINES)
def test_every_ensemble_tensor_is_wired_once(configs: Configs, engine: str) -> None:
    got = configs(engine)["ensemble"]
    steps = got.ensemble_scheduling.step
    assert [step.model_name for step in steps] == list(stock.MAPS)
    produced = [tensor for step in steps for tensor in step.output_map.values()]
    consumed = {tensor for step in steps for tensor in step.input_map.values()}
    inputs = {tensor.name for tensor in got.input}
    outputs = {tensor.name for tensor in got.output}
    assert len(produced) == len(set(produced))
    assert inputs <= consumed <= inputs | set(produced)
    assert outputs <= set(produced) <= outputs | consumed


@pytest.mark.parametrize("engine", ENGINES)
def test_ensemble_joins_tensors_of_one_type(configs: Configs, engine: str) -> None:
    models = configs(engine)
    ensemble = models["ensemble"]
    kinds = {t.name: (t.data_type, len(t.dims)) for t in (*ensemble.input, *ensemble.output)}
    optional = {tensor.name for tensor in ensemble.input if tensor.optional}
    for step in ensemble.ensemble_scheduling.step:
        model = models[step.model_name]
        for maps, tensors in ((step.input_map, model.input), (step.output_map, model.output)):
            own = {tensor.name: tensor for tensor in tensors}
            for inner, name in maps.items():
                kind = own[inner].data_type, len(own[inner].dims)
                assert kinds.setdefault(name, kind) == kind, (name, inner)
        required = {tensor.name for tensor in model.input if not tensor.optional}
        assert required <= set(step.input_map)
        free = {tensor.name for tensor in model.input if tensor.optional}
        assert {i for i, name in step.input_map.items() if name in optional} <= free


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_comes_from_preprocessing_past_the_engine(configs: Configs, engine: str) -> None:
    """Triton refuses it of a decoupled chain."""
    got = configs(engine)["ensemble"]
    before, slot, after = got.ensemble_scheduling.step
    made = set(before.output_map.values())
    assert not made & {tensor.name for tensor in got.output}
    assert set(after.input_map.values()) <= set(slot.output_map.values())


def test_backends_and_what_they_are_told(configs: Configs) -> None:
    models = configs("tensorrtllm", max_batch_size=32, kv_cache_fraction=0.8)
    assert {model: got.max_batch_size for model, got in models.items()} == dict.fromkeys(MODELS, 32)
    slot = models["tensorrt_llm"]
    assert (slot.backend, slot.model_transaction_policy.decoupled) == ("tensorrtllm", True)
    told = {key: value.string_value for key, value in slot.parameters.items()}
    expected = {
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": "/models/build/engine",
        "exclude_input_in_output": "True",
        "enable_kv_cache_reuse": "True",
        "kv_cache_free_gpu_mem_fraction": "0.8",
        "max_beam_width": "1",
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
    }
    assert expected.items() <= told.items()
    # What the backend does not know is not filled.
    assert told["sprout_engine"] == "${sprout_engine}"
    before = models["preprocessing"].parameters
    assert before["sprout_send_end_id"].string_value == "True"
    assert before["tokenizer_dir"].string_value == "/models/checkpoint"


def test_llmapi_is_told_its_model(configs: Configs) -> None:
    models = configs("llmapi", tensor_parallel=2, max_seq_len=2048, reuse=False, decoupled=False)
    slot = models["tensorrt_llm"]
    assert (slot.backend, slot.model_transaction_policy.decoupled) == ("python", False)
    told = {key: value.string_value for key, value in slot.parameters.items()}
    expected = {
        "sprout_engine": "llmapi",
        "sprout_llmapi_model": "/models/checkpoint",
        "sprout_llmapi_tensor_parallel": "2",
        "sprout_llmapi_options": "/models/options.json",
        "sprout_engine_context_tokens": "2048",
        "sprout_engine_slots": "64",
        "enable_kv_cache_reuse": "False",
        "sprout_shm_dir": "/run/sprout",
    }
    assert expected.items() <= told.items()


def test_several_postprocessing_instances_where_chunks_can_not_overtake(configs: Configs) -> None:
    got = configs("tensorrtllm", decoupled=False, postprocessing_instances=3)
    assert got["postprocessing"].instance_group[0].count == 3
    assert not got["tensorrt_llm"].model_transaction_policy.decoupled


@pytest.mark.parametrize("decoupled", [True, False])
def test_postprocessing_knows_whether_chunks_are_pieces(configs: Configs, decoupled: bool) -> None:
    told = configs("tensorrtllm", decoupled=decoupled)["postprocessing"].parameters
    assert told["sprout_pieces"].string_value == str(decoupled)
    assert "sprout_pieces" not in configs("llmapi")["postprocessing"].parameters  # flights say it


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_left_is_text_and_the_stock_tool_fills_it(engine: str, tmp_path: Path) -> None:
    repository = rendered(tmp_path, engine)
    left = 0
    for path in repository.glob("*/config.pbtxt"):
        text = path.read_text()
        names = sorted(set(re.findall(r"\$\{(\w+)\}", text)))
        left += len(names)
        if not names:
            continue
        filled = fill_template(text, ",".join(rf"{name}:a\\:b\,c" for name in names))
        assert "${" not in filled
        told = parsed(filled).parameters.values()
        assert sum(value.string_value == "a:b,c" for value in told) >= len(names)
    assert left > 20


@pytest.mark.parametrize("engine", ENGINES)
def test_stock_tool_alone_makes_the_repository(engine: str, tmp_path: Path) -> None:
    """From the files as they are before `sprout render` fills them in."""
    rewire(Deployment(engine), repository_source(), tmp_path / "source")
    for model in MODELS:
        text = (tmp_path / "source" / model / "config.pbtxt").read_text()
        got = parsed(fill_template(text, STOCK_VALUES[model]))
        assert (got.name, got.max_batch_size) == (model, 64)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_value_has_a_placeholder(engine: str, tmp_path: Path) -> None:
    rewire(Deployment(engine), repository_source(), tmp_path / "source")
    text = "".join(path.read_text() for path in (tmp_path / "source").glob("*/config.pbtxt"))
    cfg = load(environ={}, flags={"agent.node": "node-1"})
    for key in values(cfg, Deployment(engine)):
        assert f"${{{key}}}" in text, key


def test_only_the_slot_of_the_cpp_backend_has_no_code(tmp_path: Path) -> None:
    repository = rendered(tmp_path, "tensorrtllm")
    code = {path.parts[-3] for path in repository.glob("*/1/model.py")}
    assert code == set(MODELS) - {"ensemble", "tensorrt_llm"}
    assert (repository / "tensorrt_llm" / "1").is_dir()
    assert (rendered(tmp_path, "llmapi") / "tensorrt_llm" / "1" / "model.py").is_file()


def test_source_that_is_wired_otherwise_is_refused() -> None:
    """The changes are made in text; what they no longer find must not pass in silence."""
    with pytest.raises(ConfigError, match="0 places wire the flight, not 2"):
        wiring.tensorrtllm("tensorrt_llm", 'name: "tensorrt_llm"')
    text = (repository_source() / "ensemble" / "config.pbtxt").read_text()
    with pytest.raises(ConfigError, match="no single step"):
        wiring.tensorrtllm("ensemble", text.replace('model_name: "tensorrt_llm"', "model_name: ''"))
