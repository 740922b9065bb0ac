# SPDX-License-Identifier: Apache-2.0
"""Sprout's compiled core: sampler, policy board, flight ledger, energy clock, prompt ring,
scorer of prompts and its weights, totals at prices.

The eight modules of the same names are the public face; `sprout_ext.reference` has the same in
plain Python over the same bytes, as the tests' oracle.
"""

from sprout_ext.board import (
    MAX_MIXES,
    NAME_LENGTH,
    BoardMix,
    BoardPoint,
    BoardPolicy,
    BoardPrompt,
    BoardReader,
    BoardState,
    BoardWriter,
    Choice,
    Flag,
)
from sprout_ext.clock import ClockReader, ClockState, ClockWriter
from sprout_ext.ledger import (
    COUNTERS,
    FLIGHT,
    Counter,
    Flight,
    Flights,
    Phase,
    Role,
    Segment,
    SegmentReader,
    segments,
)
from sprout_ext.price_table import MOST_PRICES, MOST_ROWS_ON_CUDA, PriceTable
from sprout_ext.ring import Ring, RingCounts, RingPrompt, RingReader, rings
from sprout_ext.sampler import (
    Sampler,
    Stream,
    cuda_available,
    cuda_built,
    draw_batch,
    fold_key,
    thresholds,
)
from sprout_ext.scorer import Scorer, gram_slots

__all__ = [
    "COUNTERS",
    "FLIGHT",
    "MAX_MIXES",
    "MOST_PRICES",
    "MOST_ROWS_ON_CUDA",
    "NAME_LENGTH",
    "BoardMix",
    "BoardPoint",
    "BoardPolicy",
    "BoardPrompt",
    "BoardReader",
    "BoardState",
    "BoardWriter",
    "Choice",
    "ClockReader",
    "ClockState",
    "ClockWriter",
    "Counter",
    "Flag",
    "Flight",
    "Flights",
    "Phase",
    "PriceTable",
    "Ring",
    "RingCounts",
    "RingPrompt",
    "RingReader",
    "Role",
    "Sampler",
    "Scorer",
    "Segment",
    "SegmentReader",
    "Stream",
    "cuda_available",
    "cuda_built",
    "draw_batch",
    "fold_key",
    "gram_slots",
    "rings",
    "segments",
    "thresholds",
]
