# SPDX-License-Identifier: Apache-2.0
"""Levels by prompt, and the file of weights that they rest on (csrc/prices.h, csrc/weights.h)."""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from sprout_ext.board import MAX_POINTS, BoardPoint, BoardPrices, BoardPrompt, weights_name
from sprout_ext.reference.sampler import thresholds
from sprout_ext.reference.scorer import Array, Scorer

MOST_WEIGHTS = 3 << 20


def check_prices(prices: BoardPrices, levels: int) -> None:
    """ValueError as in the core."""
    if not 1 <= len(prices.points) <= MAX_POINTS:
        raise ValueError("prompt: 1 to 4 points")
    for numbers in (prices.g_per_joule, *(point.g for point in prices.points)):
        if len(numbers) != levels:
            raise ValueError("prompt: must have as many levels")
        if not all(map(math.isfinite, numbers)):
            raise ValueError("prompt: must be finite")
    if not all(0 <= point.g_per_preference < math.inf for point in prices.points):
        raise ValueError("prompt: g_per_preference: finite and >= 0")
    thresholds([point.fraction for point in prices.points])


def scorer_of(directory: Path, prompt: BoardPrompt, levels: int) -> Scorer | None:
    """Of the weights that the prices were set for; None: missing, broken, or of other levels."""
    try:
        data = (directory / weights_name(prompt.weights)).read_bytes()
        if len(data) > MOST_WEIGHTS or hashlib.sha256(data).hexdigest() != prompt.weights:
            return None
        found = parse(data)
    except (OSError, ValueError, struct.error):
        return None
    return found if found.levels == levels else None


def parse(data: bytes) -> Scorer:
    """The scorer of a file that the core would take. ValueError: not of its sizes."""
    layout, levels, classes, bits, orders = struct.unpack_from("<5I", data, 8)
    if data[:8] != b"SPRWTS01" or layout != 1:
        raise ValueError("no weights")
    heads = levels + classes
    shapes = ((heads,), (heads,), (2 * levels, classes + 1, levels + 2))
    parts, at = [], 64
    for shape in shapes:
        parts.append(np.frombuffer(data, "<f8", math.prod(shape), at).reshape(shape))
        at += 8 * math.prod(shape)
    table = np.frombuffer(data, np.int8, -1, at).reshape(1 << bits, heads)
    scales, biases, second = parts
    return Scorer(
        orders=struct.unpack_from(f"<{orders}I", data, 28),
        bits=bits,
        table=table,
        scales=scales,
        biases=biases,
        second=second,
    )


def costs(prices: BoardPrices, point: BoardPoint, scores: Array) -> Array:
    """(levels,) grams of each level, less what its preference is worth; scores (2 levels,)."""
    preference, joules = np.split(scores, 2)
    spent: Array = np.array(point.g) + np.array(prices.g_per_joule) * joules
    return spent - point.g_per_preference * preference


def cheapest(prices: BoardPrices, point: BoardPoint, scores: Array) -> int:
    """Of equal ones the lower level; what is no number is never the least."""
    best, found = 0, costs(prices, point, scores)
    for level in range(1, len(found)):
        if found[level] < found[best]:
            best = level
    return best


def level_by_prompt(prices: BoardPrices, scorer: Scorer, text: bytes, draw: int) -> int:
    """The level of a prompt; draw: of the point, in [0, 2^32)."""
    scores = scorer.score_many([text])[0]
    upper = thresholds([point.fraction for point in prices.points])
    return cheapest(prices, prices.points[int((upper <= draw).sum())], scores)


def shares_by_prompt(prices: BoardPrices, scorer: Scorer, text: bytes) -> tuple[float, ...]:
    """(levels,) how likely each level is for a prompt."""
    scores = scorer.score_many([text])[0]
    found = [0.0] * len(prices.g_per_joule)
    for point in prices.points:
        found[cheapest(prices, point, scores)] += point.fraction
    return tuple(found)
