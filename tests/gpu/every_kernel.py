# SPDX-License-Identifier: Apache-2.0
"""Every kernel once, on little: what `scripts/gpu_check` runs under compute-sanitizer."""

import numpy as np

from sprout_ext.price_table import PriceTable
from sprout_ext.sampler import draw_batch
from sprout_ext.scorer import MOST_BYTES, Scorer


def draws() -> None:
    for first, count in ((0, 1), (3, 1001)):
        cuda = draw_batch([0.2, 0.5, 0.3], 5, first, count, device="cuda")
        assert (cuda == draw_batch([0.2, 0.5, 0.3], 5, first, count)).all()


def prices() -> None:
    rng = np.random.default_rng(0)
    for levels, rows, n in ((4, 1, 1000), (3, 2, 33), (8, 4, 257), (1, 8, 31), (5, 1, 1)):
        costs, gains = rng.random((n, levels)), list(rng.random((rows, n, levels)))
        weights = rng.random(n)
        cuda = PriceTable(costs, gains, weights, device="cuda")
        cpu = PriceTable(costs, gains, weights)
        for count in (1, 3, 17, 64):
            given = rng.random((count, rows))
            np.testing.assert_allclose(cuda.totals(given), cpu.totals(given), rtol=1e-11)
            assert (cuda.choose(given) == cpu.choose(given)).all()


def scores() -> None:
    rng = np.random.default_rng(1)
    sizes = (0, 1, 31, 32, 500, MOST_BYTES, MOST_BYTES + 9)
    texts = [rng.integers(0, 256, size).astype(np.uint8).tobytes() for size in sizes]
    for levels, classes in ((3, 6), (8, 20), (8, 40)):
        heads = levels + classes
        scorer = Scorer.of(
            orders=[2, 5],
            bits=8,
            table=rng.integers(-127, 128, (256, heads)).astype(np.int8),
            scales=np.full(heads, 0.01),
            biases=np.zeros(heads),
            second=rng.normal(size=(2 * levels, classes + 1, levels + 2)),
        )
        assert (scorer.heads_many(texts, cuda=True) == scorer.heads_many(texts)).all()
        np.testing.assert_allclose(
            scorer.score_many(texts, cuda=True), scorer.score_many(texts), rtol=1e-11
        )


if __name__ == "__main__":
    draws()
    prices()
    scores()
    print("every kernel: as the CPU")
