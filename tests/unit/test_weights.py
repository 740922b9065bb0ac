# SPDX-License-Identifier: Apache-2.0
"""The file of a scorer's weights: what was written is what is computed with, or it is refused."""

import hashlib
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout_ext import _core, weights
from sprout_ext.scorer import Scorer

TEXTS = [b"", b"What is 2 + 2?", b"\0\xff" * 300, "größer".encode()]
HEAD = 64


def arrays(
    levels: int = 3,
    classes: int = 4,
    bits: int = 6,
    orders: tuple[int, ...] = (2, 5),
    seed: int = 0,
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    heads = levels + classes
    return {
        "orders": orders,
        "bits": bits,
        "table": rng.integers(-127, 128, (1 << bits, heads)).astype(np.int8),
        "scales": rng.uniform(1e-3, 1e-2, heads),
        "biases": rng.normal(size=heads),
        "second": rng.normal(size=(2 * levels, classes + 1, levels + 2)),
    }


def packed(**changes: Any) -> bytes:
    given_arrays = arrays()
    levels = len(given_arrays["second"]) // 2
    classes = given_arrays["second"].shape[1] - 1
    return weights.pack(**{**given_arrays, "levels": levels, "classes": classes, **changes})


@given(
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(4, 12),
    st.sets(st.integers(1, 8), min_size=1).map(sorted),
)
@settings(deadline=None, max_examples=40)
def test_what_was_written_is_what_is_computed_with(
    levels: int, classes: int, bits: int, orders: list[int]
) -> None:
    given_arrays = arrays(levels, classes, bits, tuple(orders))
    data = weights.pack(**given_arrays, levels=levels, classes=classes)
    found = weights.scorer(data)
    assert (found.levels, found.classes) == (levels, classes)
    expected = Scorer.of(**given_arrays).score_many(TEXTS)
    assert np.array_equal(found.score_many(TEXTS), expected)
    assert data == weights.pack(**given_arrays, levels=levels, classes=classes)
    doubles = 2 * (levels + classes) + 2 * levels * (classes + 1) * (levels + 2)
    assert len(data) == HEAD + 8 * doubles + (levels + classes << bits)


def test_the_bytes_are_little_endian_whatever_the_arrays_are() -> None:
    """A file is addressed by its bytes: they depend on the numbers alone."""
    plain = arrays()
    turned = {
        name: np.asfortranarray(plain[name]).astype(plain[name].dtype.newbyteorder(">"))
        for name in ("scales", "biases", "second")
    }
    assert packed(**turned) == packed()
    assert packed(table=np.asfortranarray(plain["table"])) == packed()
    data = packed()
    assert data[:8] == b"SPRWTS01"
    assert struct.unpack_from("<5I", data, 8) == (1, 3, 4, 6, 2)
    assert struct.unpack_from("<9I", data, 28) == (2, 5, 0, 0, 0, 0, 0, 0, 0)
    assert np.array_equal(np.frombuffer(data, "<f8", 7, HEAD), plain["scales"])
    assert data.endswith(plain["table"].tobytes())


def put(data: bytes, at: int, form: str, value: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


BROKEN = [
    ("short", lambda d: b""),
    ("short", lambda d: d[:63]),
    ("no weights", lambda d: b"X" + d[1:]),
    ("layout", lambda d: put(d, 8, "<I", 2)),
    ("levels", lambda d: put(d, 12, "<I", 0)),
    ("levels", lambda d: put(d, 12, "<I", 9)),
    ("levels", lambda d: put(d, 12, "<I", 0xFFFFFFFF)),
    ("classes", lambda d: put(d, 16, "<I", 0)),
    ("classes", lambda d: put(d, 16, "<I", 46)),
    ("classes", lambda d: put(d, 16, "<I", 0xFFFFFFFF)),
    ("bits", lambda d: put(d, 20, "<I", 3)),
    ("bits", lambda d: put(d, 20, "<I", 21)),
    ("bits", lambda d: put(d, 20, "<I", 0xFFFFFFFF)),
    ("header", lambda d: put(d, 24, "<I", 9)),
    ("orders", lambda d: put(d, 24, "<I", 0)[:28] + bytes(36) + d[64:]),
    ("header", lambda d: put(d, 24, "<I", 1)),  # the second order is not zero
    ("orders", lambda d: put(d, 28, "<I", 0)),
    ("orders", lambda d: put(d, 28, "<I", 5)),
    ("orders", lambda d: put(d, 32, "<I", 9)),
    ("header", lambda d: put(d, 60, "<I", 1)),
    ("size", lambda d: put(d, 20, "<I", 7)),
    ("size", lambda d: put(d, 12, "<I", 2)),
    ("size", lambda d: d[:-1]),
    ("size", lambda d: d + b"\0"),
    ("scales", lambda d: put(d, HEAD, "<d", math.nan)),
    ("biases", lambda d: put(d, HEAD + 7 * 8, "<d", math.inf)),
    ("second", lambda d: put(d, HEAD + 14 * 8, "<d", -math.inf)),
    ("table", lambda d: d[:-1] + b"\x80"),
    ("3 MiB", lambda d: d + bytes(weights.MOST_WEIGHTS)),
]


@pytest.mark.parametrize(("what", "broken"), BROKEN)
def test_a_broken_file_is_refused_with_the_reason(what: str, broken: Any) -> None:
    data = broken(packed())
    with pytest.raises(ValueError, match=what):
        weights.scorer(data)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_no_bytes_do_harm(draw: st.DataObject) -> None:
    """A scorer or a ValueError, whatever is written over a good file and wherever it ends."""
    data = bytearray(packed())
    at = draw.draw(st.integers(0, len(data) - 1))
    with_what = draw.draw(st.binary(min_size=1, max_size=16))
    data[at : at + len(with_what)] = with_what
    end = draw.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    try:
        found = weights.scorer(bytes(data[:end]))
    except ValueError:
        return
    assert not np.isnan(found.score_many(TEXTS)[:, found.levels :]).all()


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("heads", {"levels": 2}),
        ("heads", {"classes": 5}),
        ("table", {"table": arrays()["table"].astype(np.int16)}),
        ("table", {"table": arrays()["table"].ravel()}),
        ("table", {"table": np.full((64, 7), -128, np.int8)}),
        ("size", {"bits": 7}),
        ("bits", {"bits": 3}),
        ("32 bits", {"bits": -1}),
        ("orders", {"orders": ()}),
        ("orders", {"orders": (1, 2, 3, 4, 5, 6, 7, 8, 9)}),
        ("orders", {"orders": (5, 2)}),
        ("scales", {"scales": [math.nan] * 7}),
        ("size", {"scales": [1.0] * 6}),
        ("size", {"second": np.zeros((6, 5, 4))}),
        ("larger", {"table": np.zeros((1 << 19, 7), np.int8), "bits": 19}),
    ],
)
def test_what_no_scorer_takes_is_not_written(what: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=what):
        packed(**changes)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, 5000).map(lambda n: bytes(range(251)) * 20 + b"x" * n),
    )
)
def test_sha256_is_the_library_s(data: bytes) -> None:
    assert _core.sha256(data) == hashlib.sha256(data).digest()
    assert weights.name(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1_000_003])
def test_sha256_at_the_ends_of_blocks(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert _core.sha256(data[:size]) == hashlib.sha256(data[:size]).digest()
