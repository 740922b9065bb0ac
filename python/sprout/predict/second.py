# SPDX-License-Identifier: Apache-2.0
"""The second stage: for each class a small linear model, mixed by how much the text is of it.

    linear_o = sum_c class_c  second_oc . (1, log length, heads of the levels)

with one more class that every text is of. Preferences are its softmax (multinomial logistic
regression, Newton's method); joules its exponential (gamma regression with a log link, so that what
is fitted is the *mean* energy and not the typical one). Both have a ridge penalty, a slight one on
each class's own constant.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

RIDGE = 30.0
RIDGE_OF_CONSTANTS = 0.1
USUAL_BYTES, MOST_BYTES, LEAST_CLASS = 256.0, 4096, 1e-3  # as csrc/scorer.cpp, csrc/grams.h
STEPS, ENOUGH = 50, 1e-8


def log_length(sizes: Indices) -> Array:
    """Of texts of so many bytes."""
    logs: Array = np.log((np.minimum(sizes, MOST_BYTES) + 2) / USUAL_BYTES)
    return logs


def features(heads: Array, length: Array, levels: int) -> Array:
    """(n, (C + 1) (L + 2)) of heads (n, L + C) and log lengths (n,)."""
    kinds = np.maximum(heads[:, levels:], 0.0) + LEAST_CLASS
    kinds = kinds / kinds.sum(axis=1, keepdims=True)
    one = np.ones((len(heads), 1))
    base = np.hstack([one, length[:, None], heads[:, :levels]])
    product: Array = np.einsum("nc,ni->nci", np.hstack([one, kinds]), base)
    return product.reshape(len(heads), -1)


def penalties(classes: int, levels: int) -> Array:
    """((C + 1) (L + 2),)"""
    each = np.full((classes + 1, levels + 2), RIDGE)
    each[:, 0] = RIDGE_OF_CONSTANTS
    return each.ravel()


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = raised / raised.sum(axis=1, keepdims=True)
    return found


def fit_preferences(x: Array, preferred: Indices, levels: int, penalty: Array) -> Array:
    """(L, features). The penalized likelihood is strictly concave: one optimum, found by Newton
    with its step halved until it gains."""
    n, k = x.shape
    won = np.eye(levels)[preferred]
    weights = np.zeros((levels, k))

    def loss(w: Array) -> float:
        logits = x @ w.T
        top = logits.max(axis=1)
        chosen = (logits * won).sum(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float((log_sum - chosen).sum() + 0.5 * (penalty * w * w).sum())

    here = loss(weights)
    for _ in range(STEPS):
        p = softmax(x @ weights.T)
        gradient = (p - won).T @ x + penalty * weights
        hessian = np.empty((levels, k, levels, k))
        for a in range(levels):
            for b in range(levels):
                curve = p[:, a] * ((a == b) - p[:, b])
                hessian[a, :, b] = (x * curve[:, None]).T @ x
            hessian[a, :, a] += np.diag(penalty)
        flat = hessian.reshape(levels * k, levels * k)
        step = np.linalg.solve(flat, gradient.ravel()).reshape(levels, k)
        gain = float((step * gradient).sum())
        length = 1.0
        while (there := loss(weights - length * step)) > here and length > 1e-6:
            length /= 2
        weights, here = weights - length * step, min(here, there)
        if gain < ENOUGH * n:
            break
    return weights


def fit_joules(x: Array, joules: Array, penalty: Array) -> Array:
    """(features,) of one level's joules (n,), by iterated ridge regression on the working response
    eta + (y - mu) / mu, whose weights are 1 under a log link."""
    gram = x.T @ x + np.diag(penalty)
    weights = np.linalg.solve(gram, x.T @ np.log(np.maximum(joules, 1e-6 * joules.mean())))
    for _ in range(STEPS):
        eta = x @ weights
        # Bounded: one request of a hundred times its prediction must not throw the step out.
        surplus = np.minimum(joules * np.exp(-eta), 100.0) - 1
        step = np.linalg.solve(gram, x.T @ surplus - penalty * weights)
        weights = weights + step
        if float(np.abs(x @ step).max()) < ENOUGH:
            break
    return weights


def fit(x: Array, preferred: Indices, joules: Array, classes: int) -> Array:
    """second (2 L, C + 1, L + 2) from features, who won and joules (n, L)."""
    levels = joules.shape[1]
    penalty = penalties(classes, levels)
    rows = [fit_joules(x, joules[:, level], penalty) for level in range(levels)]
    found = np.vstack([fit_preferences(x, preferred, levels, penalty), *rows])
    return found.reshape(2 * levels, classes + 1, levels + 2)


def predict(x: Array, second: Array) -> tuple[Array, Array]:
    """Preferences and joules, each (n, L)."""
    levels = len(second) // 2
    linear = x @ second.reshape(2 * levels, -1).T
    return softmax(linear[:, :levels]), np.exp(np.clip(linear[:, levels:], -60.0, 60.0))
