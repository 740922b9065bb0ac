# SPDX-License-Identifier: Apache-2.0
"""What fills the placeholders of a deployment's model repository."""

from pathlib import Path
from types import MappingProxyType

from sprout.config import Config
from sprout.serve.render import placeholder_values
from sprout.serve.trtllm.deployment import Deployment

# Folders inside the container; the compose file mounts them.
REPOSITORY = Path("/models/repository")
CHECKPOINT = Path("/models/checkpoint")
BUILD = Path("/models/build")
SHM = Path("/run/sprout")
STATE = Path("/var/lib/sprout")
OPTIONS = Path("/models/options.json")
# What only engines of Sprout's own read.
_OWN_ENGINES = (
    *("sprout_engine", "sprout_chunk_interval_ms", "sprout_chunks_per_s"),
    *("sprout_repetition_penalty", "sprout_echo_tokens_per_s"),
)
# A flight that the C++ backend has is never heard of again and keeps its place in the ledger for
# UNHEARD_LEASE_S: so many places serve 273 requests a second.
UNHEARD_LEASE_S = 60.0
_UNHEARD_FLIGHTS = 16384
_COMMON = MappingProxyType(
    {
        "sprout_shm_dir": SHM,
        # As stock preprocessing does: neither engine is asked for its model's own.
        "sprout_send_end_id": True,
        "exclude_input_in_output": True,  # else the directive is shown to the client
        "max_beam_width": 1,
    }
)


def values(cfg: Config, deployment: Deployment) -> dict[str, str]:
    """By placeholder. What is left out is unset: TensorRT-LLM's, or Sprout's, default."""
    filled = placeholder_values(
        cfg,
        engine_url="",
        tokenizer_dir=CHECKPOINT,
        probe_token_file=None,
        evaluate_token_file=cfg.evaluate.schedule.token_file,
    )
    filled = {k: v for k, v in filled.items() if not k.startswith(_OWN_ENGINES)}
    own: dict[str, object] = dict(_COMMON) | {
        "triton_max_batch_size": deployment.max_batch_size,
        "decoupled_mode": deployment.decoupled,
        "postprocessing_instance_count": deployment.postprocessing_instances,
        "enable_kv_cache_reuse": deployment.reuse,
        "kv_cache_free_gpu_mem_fraction": deployment.kv_cache_fraction,
    }
    if deployment.engine == "tensorrtllm":
        own |= {
            "triton_backend": "tensorrtllm",
            "engine_dir": BUILD / "engine",
            "batching_strategy": "inflight_fused_batching",
            "sprout_flights": max(cfg.request.flights, _UNHEARD_FLIGHTS),
        }
    else:
        own |= {
            "triton_backend": "python",
            "sprout_engine": "llmapi",
            "sprout_engine_slots": deployment.max_batch_size,
            "sprout_engine_queue": cfg.engine.queue,
            "sprout_engine_context_tokens": deployment.max_seq_len,
            "sprout_chunk_interval_ms": cfg.engine.chunk_interval_ms,
            "sprout_chunks_per_s": cfg.engine.chunks_per_s,
            "sprout_llmapi_model": CHECKPOINT,
            "sprout_llmapi_tensor_parallel": deployment.tensor_parallel,
            "sprout_llmapi_options": OPTIONS,
        }
    return filled | {key: str(value) for key, value in own.items()}
