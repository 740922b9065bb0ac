# SPDX-License-Identifier: Apache-2.0
"""The model repository against TensorRT-LLM's own (inflight_batcher_llm, 1.x), text subset.

The tables below are the stock contract, written down by hand: name, dtype, dims, optional, reshape.
A stock client, or a stock tool, relies on each line of them.
"""

import re
from string import Template

import pytest
import stock_tables as stock

from sprout.errors import ConfigError
from sprout.serve.render import render, repository_source

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

SOURCE = repository_source()
MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")

# What TensorRT-LLM's documentation fills in (docs/llama.md), with a decoupled engine.
STOCK_VALUES = {
    "preprocessing": "tokenizer_dir:/hf,triton_max_batch_size:64,preprocessing_instance_count:1",
    "postprocessing": "tokenizer_dir:/hf,triton_max_batch_size:64,postprocessing_instance_count:1",
    "tensorrt_llm_bls": "triton_max_batch_size:64,decoupled_mode:True,bls_instance_count:1,"
    "accumulate_tokens:False,logits_datatype:TYPE_FP32",
    "ensemble": "triton_max_batch_size:64,logits_datatype:TYPE_FP32",
    "tensorrt_llm": "triton_backend:tensorrtllm,triton_max_batch_size:64,decoupled_mode:True,"
    "max_beam_width:1,engine_dir:/engine,max_tokens_in_paged_kv_cache:2560,"
    "max_attention_window_size:2560,kv_cache_free_gpu_mem_fraction:0.5,"
    "exclude_input_in_output:True,enable_kv_cache_reuse:False,"
    "batching_strategy:inflight_fused_batching,max_queue_delay_microseconds:0,"
    "encoder_input_features_data_type:TYPE_FP16,logits_datatype:TYPE_FP32,"
    "prompt_embedding_table_data_type:TYPE_FP16",
}

# "?" = optional, "[]" = reshaped to a scalar
COUNTED = f"""
    batch_index INT32 1
    sequence_index INT32 1
    {stock.TIMES}
    num_input_tokens INT32 1
    num_output_tokens INT32 1
"""
ANSWER = f"""
    text_output STRING -1
    {COUNTED}
"""
RECEIPT = """
    directive_level INT32 1
    policy_version UINT64 1
    energy_joules FP32 1
    carbon_grams FP32 1
    carbon_intensity FP32 1
"""
STOCK_INPUTS = {
    "ensemble": f"""{stock.TEXT_INPUTS}
        num_return_sequences INT32 1 ?
        return_log_probs BOOL 1 ?
        return_perf_metrics BOOL 1 ?
        return_num_input_tokens BOOL 1 ?
        return_num_output_tokens BOOL 1 ?
    """,
    "tensorrt_llm_bls": f"""{stock.TEXT_INPUTS}
        num_return_sequences INT32 1 ? []
        return_log_probs BOOL 1 ? []
        return_perf_metrics BOOL 1 ? []
        return_num_input_tokens BOOL 1 ? []
        return_num_output_tokens BOOL 1 ? []
    """,
    "preprocessing": stock.INPUTS["preprocessing"],
    "tensorrt_llm": """
        input_ids INT32 -1 ?
        input_lengths INT32 1 []
        request_output_len INT32 1 []
        num_return_sequences INT32 1 ? []
        end_id INT32 1 ? []
        pad_id INT32 1 ? []
        stop_words_list INT32 2,-1 ?
        bad_words_list INT32 2,-1 ?
        embedding_bias FP32 -1 ?
        beam_width INT32 1 ? []
        temperature FP32 1 ? []
        runtime_top_k INT32 1 ? []
        runtime_top_p FP32 1 ? []
        len_penalty FP32 1 ? []
        repetition_penalty FP32 1 ? []
        min_tokens INT32 1 ? []
        presence_penalty FP32 1 ? []
        frequency_penalty FP32 1 ? []
        seed UINT64 1 ? []
        return_log_probs BOOL 1 ? []
        return_perf_metrics BOOL 1 ? []
        return_num_input_tokens BOOL 1 ? []
        return_num_output_tokens BOOL 1 ? []
        exclude_input_in_output BOOL 1 ? []
        stop BOOL 1 ? []
        streaming BOOL 1 ? []
    """,
    "postprocessing": stock.INPUTS["postprocessing"],
}
STOCK_OUTPUTS = {
    "ensemble": ANSWER,
    "tensorrt_llm_bls": ANSWER,
    "preprocessing": stock.OUTPUTS["preprocessing"],
    "tensorrt_llm": f"""
        output_ids INT32 -1,-1
        sequence_length INT32 -1
        {COUNTED}
    """,
    "postprocessing": stock.OUTPUTS["postprocessing"],
}
# What Sprout adds; a stock client never meets a required one.
ADDED_INPUTS = {
    "tensorrt_llm": "flight UINT64 1 ? []",
    "postprocessing": "FLIGHT UINT64 -1 ?\nLAST_TOKEN_TIME_NS INT64 1 ?",
}
ADDED_OUTPUTS = {
    "ensemble": RECEIPT,
    "tensorrt_llm_bls": RECEIPT,
    "preprocessing": "FLIGHT UINT64 1",
    "tensorrt_llm": "flight UINT64 -1",
    "postprocessing": RECEIPT.upper(),
}
# Parameter key -> placeholder, as in the stock files.
STOCK_PARAMETERS = {
    "preprocessing": {k: k for k in ("tokenizer_dir", "add_special_tokens")},
    "postprocessing": {k: k for k in ("tokenizer_dir", "skip_special_tokens")},
    "tensorrt_llm_bls": {k: k for k in ("accumulate_tokens", "tensorrt_llm_model_name")},
    "tensorrt_llm": {
        "gpt_model_type": "batching_strategy",
        "gpt_model_path": "engine_dir",
        "max_beam_width": "max_beam_width",
        "max_tokens_in_paged_kv_cache": "max_tokens_in_paged_kv_cache",
        "kv_cache_free_gpu_mem_fraction": "kv_cache_free_gpu_mem_fraction",
        "enable_kv_cache_reuse": "enable_kv_cache_reuse",
        "exclude_input_in_output": "exclude_input_in_output",
        "cancellation_check_period_ms": "cancellation_check_period_ms",
    },
}


def fill_template(text: str, substitutions: str) -> str:
    """What the stock tool does, written again after its description."""
    values = {"max_queue_size": "0", "max_queue_delay_microseconds": "0"}
    for pair in re.split(r"(?<!\\),", substitutions):
        key, value = re.split(r"(?<!\\):", pair)
        assert key in text, f"key '{key}' does not exist in the file"
        values[key] = value
    return Template(text).safe_substitute(values)


def config(model: str, values: str | None = None):
    text = (SOURCE / model / "config.pbtxt").read_text()
    filled = fill_template(text, STOCK_VALUES[model] if values is None else values)
    return text_format.Parse(filled, model_config_pb2.ModelConfig())


def declared(tensors) -> dict[str, tuple]:
    return {
        tensor.name: (
            model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
            tuple(tensor.dims),
            bool(getattr(tensor, "optional", False)),
            tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        )
        for tensor in tensors
    }


def table(text: str) -> dict[str, tuple]:
    rows = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, dtype, dims, *marks = line.split()
        shape = tuple(map(int, dims.split(",")))
        rows[name] = (dtype, shape, "?" in marks, () if "[]" in marks else None)
    return rows


@pytest.mark.parametrize("model", MODELS)
def test_tensors_are_the_stock_ones_and_what_is_added(model):
    got = config(model)
    inputs, outputs = declared(got.input), declared(got.output)
    assert len(inputs) == len(got.input)
    assert len(outputs) == len(got.output)
    stock_in = table(STOCK_INPUTS[model]) | table(ADDED_INPUTS.get(model, ""))
    stock_out = table(STOCK_OUTPUTS[model]) | table(ADDED_OUTPUTS[model])
    if model == "tensorrt_llm":  # it declares what the C++ backend knows beyond text as well
        inputs = {name: inputs.get(name) for name in stock_in}
        outputs = {name: outputs.get(name) for name in stock_out}
    assert inputs == stock_in
    assert outputs == stock_out


def test_added_inputs_are_optional():
    for text in ADDED_INPUTS.values():
        assert all(optional for _, _, optional, _ in table(text).values())


@pytest.mark.parametrize("model", STOCK_PARAMETERS)
def test_stock_parameters_keep_their_placeholders(model):
    text = (SOURCE / model / "config.pbtxt").read_text()
    raw = re.findall(r'key: "(\w+)"\s*value:\s*{\s*string_value: "\$\{(\w+)\}"', text)
    assert STOCK_PARAMETERS[model].items() <= dict(raw).items()


def test_backends_batching_and_instances():
    configs = {model: config(model) for model in MODELS}
    assert {name: got.name for name, got in configs.items()} == {name: name for name in MODELS}
    assert {name: got.max_batch_size for name, got in configs.items()} == dict.fromkeys(MODELS, 64)
    assert configs["ensemble"].platform == "ensemble"
    assert {configs[name].backend for name in MODELS if name != "ensemble"} == {
        "python",
        "tensorrtllm",
    }
    decoupled = {name: got.model_transaction_policy.decoupled for name, got in configs.items()}
    # The unary model is coupled, even where a script fills decoupled_mode:True everywhere.
    assert decoupled == dict.fromkeys(MODELS, False) | {"tensorrt_llm": True}
    assert {name for name, got in configs.items() if got.HasField("dynamic_batching")} == {
        "preprocessing",
        "tensorrt_llm",
        "postprocessing",
    }
    assert configs["preprocessing"].dynamic_batching.preferred_batch_size == [64]
    kinds = {group.kind for name, got in configs.items() for group in got.instance_group}
    assert kinds == {model_config_pb2.ModelInstanceGroup.KIND_CPU}


def test_every_ensemble_tensor_is_wired():
    """Triton refuses an ensemble with an input or an inner tensor that nobody uses."""
    got = config("ensemble")
    steps = got.ensemble_scheduling.step
    assert [step.model_name for step in steps] == [
        "preprocessing",
        "tensorrt_llm",
        "postprocessing",
    ]
    produced = [tensor for step in steps for tensor in step.output_map.values()]
    consumed = {tensor for step in steps for tensor in step.input_map.values()}
    inputs = {tensor.name for tensor in got.input}
    outputs = {tensor.name for tensor in got.output}
    assert len(produced) == len(set(produced))
    assert inputs <= consumed
    assert consumed <= inputs | set(produced)
    assert outputs <= set(produced)
    assert set(produced) <= outputs | consumed


def test_ensemble_maps_tensors_of_one_type():
    configs = {model: config(model) for model in MODELS}
    outer = declared(configs["ensemble"].input) | declared(configs["ensemble"].output)
    kinds = {name: spec[:2] for name, spec in outer.items()}
    for step in configs["ensemble"].ensemble_scheduling.step:
        model = configs[step.model_name]
        for maps, tensors in ((step.input_map, model.input), (step.output_map, model.output)):
            own = declared(tensors)
            for inner, name in maps.items():
                dtype, dims = own[inner][:2]
                kinds.setdefault(name, (dtype, dims))
                assert kinds[name][0] == dtype, (name, inner)
                assert len(kinds[name][1]) == len(dims), (name, inner)
        required = {name for name, spec in declared(model.input).items() if not spec[2]}
        assert required <= set(step.input_map)
    # An optional input of the ensemble must be optional where it goes.
    optional = {tensor.name for tensor in configs["ensemble"].input if tensor.optional}
    for step in configs["ensemble"].ensemble_scheduling.step:
        own = declared(configs[step.model_name].input)
        assert all(own[inner][2] for inner, name in step.input_map.items() if name in optional)


def test_nothing_comes_from_preprocessing_past_a_decoupled_engine():
    """Triton: "receives inputs originated from different decoupled models"."""
    got = config("ensemble")
    before, engine, after = got.ensemble_scheduling.step
    made = set(before.output_map.values())
    assert not made & {tensor.name for tensor in got.output}
    assert not made & set(after.input_map.values())
    assert set(after.input_map.values()) <= set(engine.output_map.values())


@pytest.mark.parametrize("model", MODELS)
def test_unfilled_placeholders_are_tolerated_where_they_are_text(model):
    got = config(model)  # with stock values alone, so that Sprout's own stay unfilled
    unfilled = [v.string_value for v in got.parameters.values() if "${" in v.string_value]
    assert unfilled or model == "ensemble"
    assert all(re.fullmatch(r"\$\{\w+\}", value) for value in unfilled)


def test_stock_values_alone_make_a_repository(tmp_path):
    """One mapping for all files, as `sprout render` takes it."""
    values = {}
    for pairs in STOCK_VALUES.values():
        values |= dict(pair.split(":") for pair in pairs.split(","))
    render(SOURCE, tmp_path / "out", values)
    for model in MODELS:
        text = (tmp_path / "out" / model / "config.pbtxt").read_text()
        got = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert got.max_batch_size == 64
        assert (tmp_path / "out" / model / "1").is_dir()


def test_decoupled_chains_have_one_postprocessing_instance(tmp_path):
    values = {"decoupled_mode": "True", "postprocessing_instance_count": "2"}
    with pytest.raises(ConfigError, match="out of order"):
        render(SOURCE, tmp_path / "out", values)
