# SPDX-License-Identifier: Apache-2.0
"""The exact commands: what builds an engine, and what starts Triton on it."""

import shlex
from collections.abc import Sequence

from sprout.serve.render import BLS_THREAD_POOL
from sprout.serve.trtllm.deployment import Deployment
from sprout.serve.trtllm.values import BUILD, CHECKPOINT, REPOSITORY

CONVERTER = "$TENSORRT_LLM/examples/models/core/llama/convert_checkpoint.py"


def convert(deployment: Deployment) -> str:
    """Checkpoint → TensorRT-LLM's own format, a part for each rank."""
    return _shell(
        [
            *("python3", CONVERTER, "--model_dir", CHECKPOINT, "--output_dir", BUILD / "converted"),
            *("--dtype", deployment.precision, "--tp_size", deployment.tensor_parallel),
        ]
    )


def build(deployment: Deployment) -> str:
    """TensorRT-LLM's format → engine. Paged context attention is what lets one prompt start from
    another's KV blocks, so the directive's are computed once."""
    precision = deployment.precision
    flags = {
        "checkpoint_dir": BUILD / "converted",
        "output_dir": BUILD / "engine",
        "gemm_plugin": precision,
        "gpt_attention_plugin": precision,
        "context_fmha": "enable",
        "remove_input_padding": "enable",
        "kv_cache_type": "paged",
        "use_paged_context_fmha": "enable",
        "max_batch_size": deployment.max_batch_size,
        "max_input_len": deployment.input_len,
        "max_seq_len": deployment.max_seq_len,
        "max_num_tokens": deployment.num_tokens,
    }
    pairs = [part for key, value in flags.items() for part in (f"--{key}", value)]
    return _shell(["trtllm-build", *pairs])


def launch(deployment: Deployment) -> str:
    """One server; with the C++ backend one process a rank, as launch_triton_server.py does it.

    The LLM API starts the workers of the other ranks by itself.
    """
    if deployment.engine == "llmapi":
        return _shell(_server(0))
    command: list[object] = ["mpirun", "--allow-run-as-root"]
    for rank in range(deployment.tensor_parallel):
        command += [*([":"] if rank else []), "-n", "1", *_server(rank)]
    return _shell(command)


def _server(rank: int) -> list[object]:
    # Every rank needs the engine; the first one serves.
    only = ["--model-control-mode=explicit", "--load-model=tensorrt_llm"] if rank else []
    return [
        "tritonserver",
        f"--model-repository={REPOSITORY}",
        *only,
        *("--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"),
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name=prefix{rank}_",
        f"--backend-config=python,thread-pool-size={BLS_THREAD_POOL}",
    ]


def _shell(parts: Sequence[object]) -> str:
    """One command, an option a line."""
    words = [str(part) for part in parts]
    quoted = [f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in words]
    text = quoted[0]
    for word, plain in zip(quoted[1:], words[1:], strict=True):
        text += f" \\\n  {word}" if plain.startswith("-") or plain == ":" else f" {word}"
    return text
