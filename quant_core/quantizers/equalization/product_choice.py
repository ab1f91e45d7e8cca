"""Choose the products by scales of channels that are worth their time to the whole file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quant_core.quantizers.equalization.channel_scales import ChannelScales
from quant_core.quantizers.equalization.scale_choice import Promise

_DECIBELS = 15.0
"""How many dB of the file's noise must go for the whole of its time: 0.15 for each per cent of it."""


@dataclass(frozen=True)
class Product:
    """A product that could be inserted.

    Attributes:
        promise: Its factors, and the noise that goes with them.
        time: Share of the file's estimated time that it takes.
    """

    promise: Promise
    time: float


def worth_their_time(products: Sequence[Product], noise: float) -> list[ChannelScales]:
    """Choose the products that together save most noise for the time they take.

    With T the noise of all layers, each relative to what it writes, a set S is taken that has the least of
    `10 log10(T - sum_S gain) / 15 + sum_S time`: sets that take most gain for their time are tried, from none to all.
    What one product is worth so depends on the noise that the others leave.

    Args:
        products: The products; of two for one tensor the better one is taken.
        noise: T, of the file without them.

    Returns:
        Factors of the chosen products, in the order given.
    """
    order = sorted(range(len(products)), key=lambda i: -products[i].promise.gain / products[i].time)
    taken: set[str] = set()
    tried: list[int] = []
    least, best, left, time = 0.0, 0, noise, 0.0
    for position in order:
        found = products[position]
        tensors = found.promise.scales.group.tensors
        if not taken.isdisjoint(tensors):
            continue
        taken.update(tensors)
        tried.append(position)
        left, time = left - found.promise.gain, time + found.time
        cost = 10 * math.log10(max(left, 1e-30) / noise) / _DECIBELS + time
        if cost < least:
            least, best = cost, len(tried)
    return [products[position].promise.scales for position in sorted(tried[:best])]
