"""Scores so small that their signs are chance: within it, fewer bits must not look better than more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from quant_core.spec import LayerSensitivity

_LARGEST, _SMALLEST = 1e-3, 1e-9
"""Shares of the largest score: what chance comes to at most, and at least."""


def chance_of(rows: Sequence[LayerSensitivity]) -> float:
    """Tell how far measured scores lie off by the last digits of the loss alone.

    Rounding weights cannot make a network better than itself, so the most negative score shows it.

    Args:
        rows: The scores of all layers.

    Returns:
        The loss increase up to which a score tells nothing; between 1e-9 and 1e-3 of the largest.
    """
    scores = [score for row in rows for score in row.sensitivity.values() if math.isfinite(score)]
    largest = max(scores, default=0.0)
    return max(min(-min(scores, default=0.0), _LARGEST * largest), _SMALLEST * largest)


def beyond_chance(row: LayerSensitivity, chance: float) -> Mapping[int, float]:
    """Give scores within chance by what rounding changes the weight.

    A score s(b) of at most c counts as `c p(b) / p(fewest)`, p the squared error of the weight at b bits. So a layer
    that no sample tells anything of gets the bits that are left over, and a weight that few bits hold keeps few.

    Args:
        row: The scores of one layer.
        chance: c.

    Returns:
        Bits -> score; as measured above chance, and where the weight's error is not known.
    """
    errors = row.perturbation
    fewest = max((errors.get(bits, 0.0) for bits in row.sensitivity), default=0.0)
    return {
        bits: chance * errors[bits] / fewest if score <= chance and bits in errors and fewest > 0 else score
        for bits, score in row.sensitivity.items()
    }
