# SPDX-License-Identifier: Apache-2.0
"""The core once more in plain Python: the tests' oracle, and the layout of the files in words.

The same names and signatures as `sprout_ext`, over the same bytes, without locks, retries or speed:
a file may be read here while nobody writes it.
"""

from sprout_ext.reference.board import BoardReader, BoardWriter
from sprout_ext.reference.clock import ClockReader, ClockWriter
from sprout_ext.reference.ledger import Flights, Segment, SegmentReader
from sprout_ext.reference.price_table import PriceTable
from sprout_ext.reference.ring import Ring, RingReader
from sprout_ext.reference.sampler import Sampler, draw_batch, fold_key, philox, thresholds
from sprout_ext.reference.scorer import Scorer, gram_slots

__all__ = [
    "BoardReader",
    "BoardWriter",
    "ClockReader",
    "ClockWriter",
    "Flights",
    "PriceTable",
    "Ring",
    "RingReader",
    "Sampler",
    "Scorer",
    "Segment",
    "SegmentReader",
    "draw_batch",
    "fold_key",
    "gram_slots",
    "philox",
    "thresholds",
]
