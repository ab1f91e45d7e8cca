"""A width holds what it was made of."""

from __future__ import annotations

import itertools

import pytest

from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.width import (
    OUTLIERS,
    activation_of,
    format_width,
    functions_of,
    rank,
    sparse_of,
    stored_of,
    weight_of,
    width_of,
)

_PARTS = list(
    itertools.product((2, 3, 4, 8, FLOAT_BITS), (None, 4, 8, 16, FLOAT_BITS), (0.0, 0.0001, 0.005, 0.15))
)


def test_parts_come_back() -> None:
    for weight, activation, sparse in _PARTS:
        width = width_of(weight, activation, sparse)
        assert (weight_of(width), activation_of(width), sparse_of(width)) == (weight, activation, sparse)
        assert stored_of(width) == width_of(weight, None, sparse)
        assert functions_of(width) == ({weight, OUTLIERS} if sparse else {weight})
    assert len({width_of(*parts) for parts in _PARTS}) == len(_PARTS)


def test_numbers_are_those_that_files_hold() -> None:
    assert (width_of(4, None), width_of(4, 16), width_of(4, None, 0.015)) == (4, 1604, 1500004)


def test_order_is_by_weights_then_outliers_then_activations() -> None:
    found = sorted((width_of(*parts) for parts in _PARTS), key=rank)
    expected = sorted(_PARTS, key=lambda parts: (parts[0], parts[2], parts[1] or 0))
    assert found == [width_of(*parts) for parts in expected]


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (4, "4 bits"),
        (FLOAT_BITS, "float"),
        (width_of(FLOAT_BITS, 16), "float on 16-bit activations"),
        (width_of(4, None, 0.015), "4 bits and 1.5 % outliers"),
        (1604, "4 bits on 16-bit activations"),
        (width_of(3, FLOAT_BITS, 0.005), "3 bits and 0.5 % outliers on float activations"),
    ],
)
def test_people_read_words(width: int, words: str) -> None:
    assert format_width(width) == words
