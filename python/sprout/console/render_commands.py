# SPDX-License-Identifier: Apache-2.0
"""`sprout render`, as typed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sprout.console.given import Json, config_of

_CONTAINERS = ("tensorrtllm", "llmapi")


def add(app: typer.Typer) -> None:
    app.command()(render)


def render(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    engine: Annotated[
        str,
        typer.Option(
            help="llama_cpp, openai or echo: a model repository. tensorrtllm (the C++ backend) or "
            "llmapi: with all that builds and starts it in NVIDIA's container."
        ),
    ] = "llama_cpp",
    *,
    container: Annotated[
        str | None, typer.Option(metavar="YY.MM", help="NVIDIA's tag; default: the newest known.")
    ] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs of one engine; 1.")] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="Indices or UUIDs; default: 0,1,….")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The Hugging Face checkpoint, to check against it here.")
    ] = None,
    decoupled: Annotated[
        bool | None,
        typer.Option("--decoupled/--coupled", help="With streams, as by default, or without."),
    ] = None,
    unary_model: Annotated[
        str | None, typer.Option(help="For calls without streams: tensorrt_llm_bls or ensemble.")
    ] = None,
    postprocessing_instances: Annotated[int | None, typer.Option(help="More than 1: coupled.")] = (
        None
    ),
    max_seq_len: Annotated[
        int | None, typer.Option(help="Prompt and answer, in tokens; 4096.")
    ] = None,
    max_input_len: Annotated[
        int | None, typer.Option(help="Prompt, in tokens; three quarters of it.")
    ] = None,
    max_num_tokens: Annotated[
        int | None, typer.Option(help="Of all requests in one step; 8192.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float16 or bfloat16.")] = None,
    kv_cache_fraction: Annotated[
        float | None, typer.Option(help="Of the memory that the weights leave; 0.9.")
    ] = None,
    reuse: Annotated[
        bool | None, typer.Option("--kv-reuse/--no-kv-reuse", help="Of prompts' KV blocks; on.")
    ] = None,
    json: Json = False,
) -> None:
    """A complete model repository for a Triton container."""
    from sprout.console import render as console

    given: dict[str, Any] = {
        "container": container,
        "tensor_parallel": tensor_parallel,
        "gpus": None if gpus is None else tuple(gpus.split(",")),
        "checkpoint": checkpoint,
        "decoupled": decoupled,
        "unary_model": unary_model,
        "postprocessing_instances": postprocessing_instances,
        "max_seq_len": max_seq_len,
        "max_input_len": max_input_len,
        "max_num_tokens": max_num_tokens,
        "dtype": dtype,
        "kv_cache_fraction": kv_cache_fraction,
        "reuse": reuse,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if engine in _CONTAINERS:
        console.deployment(config_of(context), engine, out, given, json=json)
        return
    if given:
        option = f"--{min(given).replace('_', '-')}"
        raise typer.BadParameter(
            f"only --engine {' and '.join(_CONTAINERS)} take it", param_hint=option
        )
    console.repository(config_of(context), engine, out, json=json)
