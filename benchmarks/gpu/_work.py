# SPDX-License-Identifier: Apache-2.0
"""What is asked of the engine: prompts and answers of recorded lengths, and when they arrive."""

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

JOULES_PER_TOKEN = 5.9  # of the published runs: Llama-2-13b-chat, one A100, batch size 1
CHARACTERS_PER_TOKEN = 4.0  # the bundle has the prompts' texts and no token counts
DIRECTIVE_TOKENS = (0, 17, 18)  # that a level adds to the prompt: L0, L1, L2


@dataclass(frozen=True)
class Request:
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, eq=False)
class Lengths:
    """Of n prompts at L levels, in tokens."""

    prompt: Ints  # (n, L)
    output: Ints  # (n, L)

    def request(self, index: int, level: int) -> Request:
        return Request(int(self.prompt[index, level]), int(self.output[index, level]))

    def drawn(self, count: int, rng: np.random.Generator) -> Ints:
        """(count,) prompts at random, the same for every level that starts from the same seed."""
        return rng.integers(0, len(self.prompt), count)


def lengths(
    characters: Ints, joules: Floats, *, longest: int, directive: tuple[int, ...] = DIRECTIVE_TOKENS
) -> Lengths:
    """characters: (n,) of the prompts; joules: (n, L) recorded, of one request at each level.

    An answer has its recorded energy over 5.9 J per token, 1 to `longest` tokens.
    """
    prompt = np.ceil(characters / CHARACTERS_PER_TOKEN)[:, None] + np.array(directive)
    output = np.clip(np.rint(joules / JOULES_PER_TOKEN), 1, longest)
    return Lengths(np.maximum(prompt, 1).astype(np.int64), output.astype(np.int64))


def read(bundle: Path, longest: int) -> Lengths:
    """Of the bundle's requests.csv.gz (docs/replay.md says what a bundle is).

    The csv module's alone, not the replay's reader, so that a machine with a GPU needs little.
    """
    rows = _rows(bundle)
    levels = range(len(DIRECTIVE_TOKENS))
    return lengths(
        np.array([len(row["prompt"]) for row in rows]),
        np.array([[float(row[f"wh_l{i}"]) * 3600 for i in levels] for row in rows]),
        longest=longest,
    )


def texts(bundle: Path) -> list[str]:
    """The prompts, in the order of `read`."""
    return [row["prompt"] for row in _rows(bundle)]


def _rows(bundle: Path) -> list[dict[str, str]]:
    text = gzip.decompress((bundle / "requests.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def poisson(per_s: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Ascending times within [0, seconds) of a Poisson process of that rate."""
    if not (per_s > 0 and seconds > 0):
        raise ValueError(f"no arrivals at {per_s} per second within {seconds} s")
    gaps: list[Floats] = []
    reached = 0.0
    while reached < seconds:
        gaps.append(rng.exponential(1 / per_s, max(16, int(per_s * seconds))))
        reached += float(gaps[-1].sum())
    times = np.cumsum(np.concatenate(gaps))
    return times[times < seconds]
