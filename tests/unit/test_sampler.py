# SPDX-License-Identifier: Apache-2.0
"""The sampler: known answers, the NumPy reference bit for bit, and the frequencies asked for."""

import importlib
import pkgutil
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sprout_ext
from sprout_ext import _core, reference
from sprout_ext.sampler import (
    Sampler,
    Stream,
    cuda_available,
    cuda_built,
    draw_batch,
    fold_key,
    thresholds,
)

U64 = st.integers(0, 2**64 - 1)


@st.composite
def shares(draw: st.DrawFn) -> list[float]:
    """One to eight shares; zeros are common, at either end too."""
    weights = draw(st.lists(st.sampled_from([0.0, 0.0, 1e-12, 0.1, 1.0, 3.0]), max_size=7))
    weights.insert(draw(st.integers(0, len(weights))), 1.0)
    return [weight / sum(weights) for weight in weights]


# Random123's kat_vectors: counter, key, output.
KNOWN = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, expected):
    word = key[0] | key[1] << 32
    assert _core.philox(counter, word) == expected
    ours = reference.philox(np.array([counter], dtype=np.uint32), word)
    assert tuple(ours[0]) == expected


@given(U64, U64, U64, st.integers(0, 2**32 - 1))
def test_key_is_the_references(seed, node, epoch, stub):
    assert fold_key(seed, node, epoch, stub) == reference.fold_key(seed, node, epoch, stub)


def test_key_differs_with_each_part():
    base = [1, 2, 3, 4]
    keys = {fold_key(*base)}
    for i in range(4):
        changed = list(base)
        changed[i] += 1
        keys.add(fold_key(*changed))
    keys.add(fold_key(2, 1, 3, 4))  # order matters
    assert len(keys) == 6


@given(shares())
def test_thresholds_are_the_references(values):
    upper = thresholds(values)
    assert upper.dtype == np.uint64
    assert upper.tolist() == reference.thresholds(values).tolist()
    assert upper[-1] == 2**32
    assert (np.diff(upper.astype(np.int64)) >= 0).all()


def test_thresholds_by_hand():
    assert thresholds([0.25, 0.25, 0.5]).tolist() == [2**30, 2**31, 2**32]
    assert thresholds(np.array([1.0])).tolist() == [2**32]
    # 0.1 * 2^32 = 429496729.6
    assert thresholds([0.1, 0.9]).tolist() == [429496730, 2**32]


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [0.125] * 9,
        [1.1, -0.1],
        [float("nan"), 1.0],
        [float("inf")],
        [0.5, 0.4],
        [0.5, 0.500002],
    ],
)
@pytest.mark.parametrize("function", [thresholds, reference.thresholds])
def test_bad_shares_are_refused(function, bad):
    with pytest.raises(ValueError, match="shares"):
        function(bad)


def test_bad_shares_are_refused_everywhere():
    with pytest.raises(ValueError, match="sum to 1"):
        Sampler([0.5], 1)
    with pytest.raises(ValueError, match="one-dimensional"):
        thresholds(np.ones((1, 1)))
    with pytest.raises(ValueError, match="64 bits"):
        draw_batch([1.0], 1, 2**64 - 1, 2)
    with pytest.raises(ValueError, match="device"):
        draw_batch([1.0], 1, 0, 1, device="tpu")  # type: ignore[arg-type]


@settings(max_examples=200)
@given(shares(), U64, st.integers(0, 2**64 - 1000), st.integers(0, 700), st.sampled_from(Stream))
def test_batch_is_the_references(values, key, first, count, stream):
    levels = draw_batch(values, key, first, count, stream)
    assert levels.dtype == np.uint8
    assert levels.shape == (count,)
    expected = reference.draw_batch(values, key, first, count, stream)
    np.testing.assert_array_equal(levels, expected)


@given(shares(), U64, st.integers(0, 2**64 - 100), st.sampled_from(Stream))
def test_one_draw_is_the_batchs(values, key, first, stream):
    sampler = Sampler(values, key)
    drawn = [sampler.draw(sequence, stream) for sequence in range(first, first + 70)]
    assert drawn == draw_batch(values, key, first, 70, stream).tolist()
    assert drawn[:3] == [reference.Sampler(values, key).draw(first + i, stream) for i in range(3)]


def test_bad_draws_are_refused():
    sampler = Sampler(np.array([0.5, 0.5]), 2**64 - 1)
    assert sampler.draw(np.uint64(2**64 - 1)) in (0, 1)  # type: ignore[arg-type]
    for bad in ((), (1, 2, 3), (1.5,), ("1",)):
        with pytest.raises(TypeError):
            sampler.draw(*bad)
    for bad in ((-1,), (2**64,), (1, 2**32), (1, -1)):
        with pytest.raises(OverflowError):
            sampler.draw(*bad)
    for bad_key in (-1, 2**64):
        with pytest.raises(OverflowError):
            Sampler([1.0], bad_key)
    with pytest.raises((TypeError, ValueError)):
        Sampler("no shares", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Sampler([1.0])  # type: ignore[call-arg]


def test_long_batch_is_the_references():
    values, key, first = [0.2, 0.5, 0.3], 0x0123456789ABCDEF, 2**34 - 77
    expected = reference.draw_batch(values, key, first, 100_003)
    np.testing.assert_array_equal(draw_batch(values, key, first, 100_003), expected)


def test_levels_without_a_share_are_never_drawn():
    levels = draw_batch([0.0, 0.5, 0.0, 0.5, 0.0], 7, 0, 100_000)
    assert set(levels.tolist()) == {1, 3}


def test_frequencies_are_the_shares():
    """Chi-square with 2 degrees of freedom; 18.4 is passed by chance once in ten thousand."""
    values, n = np.array([0.6, 0.3, 0.1]), 1_000_000
    for key in (1, 2, 3):
        seen = np.bincount(draw_batch(values, key, 0, n), minlength=3)
        assert ((seen - values * n) ** 2 / (values * n)).sum() < 18.4


def test_streams_are_independent():
    """The share of equal halves of two streams: 0.5, standard deviation 0.0011."""
    drawn = [draw_batch([0.5, 0.5], 11, 0, 200_000, s) for s in Stream]
    for a, b in combinations(drawn, 2):
        assert abs((a == b).mean() - 0.5) < 0.006


def test_cuda_says_what_is_missing():
    if cuda_available():
        assert cuda_built()
        return
    with pytest.raises(RuntimeError, match="CUDA"):
        draw_batch([1.0], 1, 0, 1, device="cuda")


def test_public_list():
    assert sprout_ext.__all__ == sorted(
        sprout_ext.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    for package in (sprout_ext, reference):
        for name in package.__all__:
            assert getattr(package, name) is not None
    for info in pkgutil.iter_modules(reference.__path__):
        module = importlib.import_module(f"sprout_ext.reference.{info.name}")
        inner = info.name in ("head", "prices", "words")
        face = None if inner else importlib.import_module("sprout_ext." + info.name)
        ours = {name for name in reference.__all__ if getattr(module, name, None)}
        # The oracle mirrors the public names of the module of the same name.
        assert face is None or ours & set(face.__all__)
