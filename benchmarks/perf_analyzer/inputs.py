#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prompts as perf_analyzer's --input-data, for the tensors of TensorRT-LLM's stock repository.

Needs nothing but Python, so it runs in NVIDIA's SDK container. A file that ends in .jsonl holds
JSON lines with `prompt` (as `sprout evaluate --prompts` takes them) and, for that prompt alone,
maybe `max_tokens`, `temperature`, `seed`; other fields are left out. Any other file is text, one
prompt a line. Empty lines are skipped.

    inputs.py prompts.txt --max-tokens 256 > inputs.json
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of `ensemble` and `tensorrt_llm_bls`, as main reads them; each has one element.
TENSORS = ("max_tokens", "temperature", "seed")


class InputError(Exception):
    """Where and why a file of prompts can't be sent."""


def prompts(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, fields with `prompt`) of each prompt.

    Raises:
        InputError: names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield where, {"prompt": line.strip()}
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str):
            raise InputError(f"{where}: no object with a text `prompt`")
        yield where, fields


def row(where: str, fields: dict[str, Any], *, streaming: bool, counts: bool) -> dict[str, Any]:
    """One request: every tensor is a list of its elements.

    Raises:
        InputError: no server would take it.
    """
    text, max_tokens = fields["prompt"], fields["max_tokens"]
    temperature, seed = fields.get("temperature"), fields.get("seed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: prompt: {error}") from None
    if not _integer(max_tokens) or not 1 <= max_tokens < 2**31:
        raise InputError(f"{where}: max_tokens {max_tokens!r}: must be an INT32 from 1")
    made: dict[str, Any] = {"text_input": [text], "max_tokens": [max_tokens], "stream": [streaming]}
    if temperature is not None:
        number = isinstance(temperature, float) or _integer(temperature)
        if not number or not 0 <= temperature < math.inf:
            raise InputError(f"{where}: temperature {temperature!r}: must be a number from 0")
        made["temperature"] = [temperature]
    if seed is not None:
        if not _integer(seed) or not 0 <= seed < 2**64:
            raise InputError(f"{where}: seed {seed!r}: must be a UINT64")
        made["seed"] = [seed]
    if counts:
        made["return_num_output_tokens"] = [True]
    if not streaming:
        # A stock repository repeats the prompt otherwise, and counts it as output.
        made["exclude_input_in_output"] = [True]
    return made


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def document(
    path: Path,
    *,
    max_tokens: int,
    temperature: float | None = None,
    seed: int | None = None,
    streaming: bool = True,
    counts: bool = True,
    most: int | None = None,
) -> dict[str, Any]:
    """The whole of --input-data; `seed` is the first prompt's, each further one has the next.

    Raises:
        InputError: the file, or one of its prompts, can't be sent.
    """
    rows = []
    for number, (where, fields) in enumerate(prompts(path)):
        if number == most:
            break
        defaults = {"max_tokens": max_tokens, "temperature": temperature}
        if seed is not None:
            defaults["seed"] = seed + number
        own = {name: fields[name] for name in TENSORS if name in fields}
        asked = {"prompt": fields["prompt"]} | defaults | own
        rows.append(row(where, asked, streaming=streaming, counts=counts))
    if not rows:
        raise InputError(f"{path}: no prompt")
    return {"data": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int, help="of the first prompt; the next has the next")
    parser.add_argument("--most", type=int, help="prompts at most")
    parser.add_argument("--unary", action="store_true", help="for tensorrt_llm_bls")
    parser.add_argument(
        "--no-counts", action="store_true", help="don't ask for num_output_tokens (older than 1.x)"
    )
    args = parser.parse_args()
    try:
        made = document(
            args.prompts,
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            seed=args.seed,
            streaming=not args.unary,
            counts=not args.no_counts,
            most=args.most,
        )
    except InputError as error:
        sys.exit(f"inputs.py: {error}")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
