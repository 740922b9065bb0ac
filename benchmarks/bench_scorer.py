# SPDX-License-Identifier: Apache-2.0
"""What the scorer costs, beside scikit-learn's HashingVectorizer and a linear model on as many
outputs, over the same grams of the same texts (character n-grams of the same lengths).

Real prompts where the data folder is (SPROUT_DATA, or ../shared/data), cut and joined to the size
asked for; else random printable bytes, and it says so. One core each. scikit-learn is needed here
alone: `pip install scikit-learn`.

    python benchmarks/bench_scorer.py [--rounds 15] [--json FILE]
"""

import csv
import gzip
import sys
import time
from typing import Any

import numpy as np
from _data import BUNDLE
from _turns import Case, looped, made_on, main, ratio, summary, table, take_turns

from sprout.predict.first import BITS, ORDERS
from sprout_ext import reference
from sprout_ext.scorer import Scorer

try:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import Ridge
except ImportError:
    sys.exit("bench_scorer.py compares with scikit-learn: pip install scikit-learn")

BYTES, COUNT = 500, 2000
LEVELS, CLASSES = 3, 6
# target: (the better way, the bound)
SCORE_US, RATIO = 6.0, 20.0


def texts() -> tuple[list[bytes], str]:
    """`COUNT` texts of `BYTES` bytes, and what they are."""
    found = BUNDLE / "requests.csv.gz"
    if not found.is_file():
        rng = np.random.default_rng(0)
        return [bytes(row) for row in rng.integers(32, 127, (COUNT, BYTES)).astype(np.uint8)], (
            "random printable bytes"
        )
    csv.field_size_limit(10_000_000)
    with gzip.open(found, "rt", encoding="utf-8", newline="") as file:
        prompts = [row["prompt"] for row in csv.DictReader(file)]
    joined = " ".join(prompts[i] for i in np.random.default_rng(0).permutation(len(prompts)))
    raw = joined.encode()
    return [raw[i * BYTES : (i + 1) * BYTES] for i in range(COUNT)], "published prompts, joined"


def scorer(kind: type[Any] = Scorer) -> Any:
    """Of the shape that `sprout predictor fit` makes; times do not depend on the weights."""
    rng, heads = np.random.default_rng(1), LEVELS + CLASSES
    return kind.of(
        orders=ORDERS,
        bits=BITS,
        table=rng.integers(-127, 128, (1 << BITS, heads)).astype(np.int8),
        scales=rng.uniform(1e-3, 1e-2, heads),
        biases=rng.normal(size=heads),
        second=rng.normal(size=(2 * LEVELS, CLASSES + 1, LEVELS + 2)) / 10,
    )


def scikit_learn(given: list[bytes]) -> tuple[Any, Any]:
    """Vectorizers of the same lengths and slots, and a linear model of as many heads."""
    made = [
        HashingVectorizer(
            analyzer="char",
            ngram_range=(order, order),
            n_features=1 << BITS,
            alternate_sign=False,
            decode_error="replace",
        )
        for order in ORDERS
    ]
    model = Ridge(solver="lsqr", max_iter=2)
    some = given[:64]
    target = np.random.default_rng(2).normal(size=(len(some), LEVELS + CLASSES))
    model.fit(sum(each.transform(some) for each in made), target)
    return made, model


def measure(rounds: int) -> dict[str, Any]:
    given, kind = texts()
    ours, oracle = scorer(), scorer(reference.Scorer)
    if not np.array_equal(ours.heads_many(given[:100]), oracle.heads_many(given[:100])):
        raise SystemExit("the heads are not the reference's")
    made, model = scikit_learn(given)
    out = np.empty(2 * LEVELS)

    def one_by_one() -> float:
        started = time.perf_counter()
        for text in given:
            ours.score(text, out)
        return (time.perf_counter() - started) / COUNT

    def many() -> float:
        started = time.perf_counter()
        ours.score_many(given)
        return (time.perf_counter() - started) / COUNT

    some = given[:200]

    def theirs() -> float:
        started = time.perf_counter()
        model.predict(sum(each.transform(some) for each in made))
        return (time.perf_counter() - started) / len(some)

    def theirs_alone() -> float:
        """As a request path would call it: a text at a time."""
        started = time.perf_counter()
        for text in some[:20]:
            model.predict(sum(each.transform([text]) for each in made))
        return (time.perf_counter() - started) / 20

    short = given[0][:80]
    cases: dict[str, Case] = {
        "score_us": one_by_one,
        "score_many_us": many,
        "score_80_bytes_us": looped(lambda: ours.score(short, out), COUNT),
        "score_4096_bytes_us": looped(lambda: ours.score(given[0] * 9, out), COUNT // 8),
        "scikit_learn_many_us": theirs,
        "scikit_learn_us": theirs_alone,
    }
    times = take_turns(cases, rounds)
    score = summary("score_us", times["score_us"])["median"]
    batch = ratio(times["scikit_learn_many_us"], times["score_many_us"])
    return {
        **made_on(rounds),
        "numpy": np.__version__,
        "texts": f"{COUNT} of {BYTES} bytes: {kind}",
        "results": {name: summary(name, seconds) for name, seconds in times.items()},
        "scikit_learn_over_score": ratio(times["scikit_learn_us"], times["score_us"]),
        "scikit_learn_many_over_score_many": batch,
        "targets": {
            f"score of {BYTES} bytes <= {SCORE_US:.0f} us": score <= SCORE_US,
            f"batch >= {RATIO:.0f}x scikit-learn's": batch["median"] >= RATIO,
        },
    }


def show(found: dict[str, Any]) -> str:
    return table(found["texts"], found)


if __name__ == "__main__":
    sys.exit(main(__doc__, 15, measure, show))
