# SPDX-License-Identifier: Apache-2.0
"""The slot's settings from a model config: defaults, unfilled placeholders, errors by name."""

from pathlib import Path
from typing import Any

import pytest

from sprout.config import EngineConfig
from sprout.engines.settings import SlotSettings
from sprout.errors import ConfigError


def config(decoupled: bool = True, **parameters: str) -> dict[str, Any]:
    return {
        "model_transaction_policy": {"decoupled": decoupled},
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }


def test_unset_means_the_configurations_defaults() -> None:
    parameters = {"sprout_engine": "echo", "sprout_engine_slots": "${sprout_engine_slots}"}
    settings = SlotSettings.from_model_config(config(**parameters, sprout_shm_dir=""))
    defaults = EngineConfig()
    assert settings.engine_slots == defaults.slots
    assert settings.engine_queue == defaults.queue
    assert settings.engine_context_tokens == defaults.context_tokens
    assert settings.chunk_interval_ms == defaults.chunk_interval_ms
    assert settings.chunks_per_s == defaults.chunks_per_s
    assert settings.repetition_penalty == defaults.repetition_penalty
    assert settings.shm_dir is None
    assert settings.exclude_input_in_output is True


def test_given() -> None:
    settings = SlotSettings.from_model_config(
        config(
            sprout_engine_url="http://127.0.0.1:1",
            sprout_engine_slots="8",
            sprout_chunk_interval_ms="2.5",
            sprout_chunks_per_s="0",
            sprout_shm_dir="/dev/shm/x",
            sprout_node_id=str(2**64 - 1),
            exclude_input_in_output="False",
            enable_kv_cache_reuse="True",
            max_beam_width="1",
        )
    )
    assert settings.engine == "llama_cpp"
    assert (settings.engine_slots, settings.chunk_interval_ms) == (8, 2.5)
    assert settings.chunks_per_s == 0
    assert (settings.shm_dir, settings.node_id) == (Path("/dev/shm/x"), 2**64 - 1)
    assert (settings.exclude_input_in_output, settings.enable_kv_cache_reuse) == (False, True)


def test_coupled() -> None:
    assert not SlotSettings.from_model_config(config(False, sprout_engine="echo")).decoupled


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"sprout_engine": "vllm"}, "sprout_engine"),
        ({}, "sprout_engine_url"),
        ({"sprout_engine": "openai"}, "sprout_engine_url"),
        ({"sprout_engine": "echo", "sprout_engine_slots": "many"}, "sprout_engine_slots"),
        ({"sprout_engine": "echo", "enable_kv_cache_reuse": "perhaps"}, "enable_kv_cache_reuse"),
    ],
)
def test_errors_name_the_parameter(parameters: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SlotSettings.from_model_config(config(**parameters))


def test_a_deployment_s_client() -> None:
    parameters = {
        "sprout_engine": "openai",
        "sprout_engine_url": "http://127.0.0.1:1/v1",
        "sprout_engine_model": "m",
        "sprout_engine_key_file": "",
    }
    settings = SlotSettings.from_model_config(config(**parameters))
    assert (settings.engine_model, settings.engine_key_file) == ("m", None)
    engine = settings.make_engine()
    try:
        assert engine.name == "openai"
    finally:
        engine.close()


def test_a_key_that_can_not_be_read_stops_the_slot(tmp_path: Path) -> None:
    settings = SlotSettings(
        engine="openai", engine_url="http://127.0.0.1:1/v1", engine_key_file=tmp_path / "absent"
    )
    with pytest.raises(ConfigError, match="absent"):
        settings.make_engine()
