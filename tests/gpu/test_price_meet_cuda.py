# SPDX-License-Identifier: Apache-2.0
"""Searches for prices on the GPU come to the CPU's answers. `scripts/gpu_check` runs this."""

import numpy as np
import pytest

from sprout_ext.sampler import cuda_available, cuda_built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_built(), reason="the core is built without CUDA"),
    pytest.mark.skipif(not cuda_available(), reason="no NVIDIA GPU"),
]
pytest.importorskip("highspy")


@pytest.mark.parametrize("coarse", [False, True], ids=["fine", "tied"])
@pytest.mark.parametrize("together", [4, 32, 64])
def test_one_row(coarse: bool, together: int) -> None:
    from sprout.optimize.price import meet
    from sprout.optimize.prompt import Row

    rng = np.random.default_rng(1)
    n = 200_003
    costs, q = rng.gamma(2.0, 1e-4, (n, 4)), rng.dirichlet(np.ones(4), n)
    if coarse:
        costs, q = np.round(costs, 4), np.round(q, 1)
    weights = rng.uniform(0.1, 1.0, n)
    row = Row("mean preference", q / q[:, 0].mean(), 1.2)
    cpu = meet(costs, weights, row, together=together)
    cuda = meet(costs, weights, row, device="cuda", together=together)
    assert cuda.cost_g == pytest.approx(cpu.cost_g, rel=1e-7)
    assert cuda.reached[0] >= 1.2 - 1e-9
    assert cuda.gap_g <= 1e-8 * cpu.cost_g


def test_several_rows() -> None:
    from sprout.optimize.prompt import Row, solve

    rng = np.random.default_rng(2)
    n = 50_000
    costs, q = rng.gamma(2.0, 1e-4, (n, 3)), rng.dirichlet(np.ones(3), n)
    label, cap = rng.integers(0, 2, n), np.zeros((n, 3))
    cap[:, 2] = -1.0
    rows = [Row("mean", q / q[:, 0].mean(), 1.1), Row("cap", cap, -0.3)]
    rows += [Row(f"class {c}", (label == c)[:, None] * (q - 0.9 * q[:, :1]), 0.0) for c in (0, 1)]
    cpu, cuda = solve(costs, np.ones(n), rows), solve(costs, np.ones(n), rows, device="cuda")
    assert cuda.cost_g == pytest.approx(cpu.cost_g, rel=1e-6)
    assert (cuda.reached >= np.array([row.least for row in rows]) - 1e-6).all()
