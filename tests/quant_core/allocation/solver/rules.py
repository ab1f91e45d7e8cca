"""Ties, pins and masks of random problems that leave each layer a choice."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st


def draw_rules(
    draw: st.DrawFn, rng: np.random.Generator, layers: int, choices: int, share: float
) -> tuple[list[list[int]], dict[int, int], Any]:
    """Draw ties, pins and the choices that are allowed, `share` of all and those that pins ask for."""
    ties = [[0, layers - 1]] if layers > 1 and draw(st.booleans()) else []
    pins = {layers // 2: draw(st.integers(0, choices - 1))} if draw(st.booleans()) else {}
    allowed = rng.random((layers, choices)) < share
    allowed[:, draw(st.integers(0, choices - 1))] = True
    for layer, choice in pins.items():
        allowed[layer, choice] = True
        for group in ties:
            if layer in group:
                allowed[group, choice] = True
    return ties, pins, allowed
