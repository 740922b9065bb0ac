# SPDX-License-Identifier: Apache-2.0
"""Small weights of a scorer, for tests: which of them say what does not matter."""

import numpy as np

from sprout_ext import weights


def packed(levels: int = 3, classes: int = 2, seed: int = 0) -> bytes:
    """A file under which different texts have different preferences and joules."""
    rng = np.random.default_rng(seed)
    heads = levels + classes
    return weights.pack(
        (1, 3),
        8,
        rng.integers(-127, 128, (256, heads)).astype(np.int8),
        np.full(heads, 0.02),
        rng.normal(size=heads),
        rng.normal(size=(2 * levels, classes + 1, levels + 2)),
        levels,
        classes,
    )
