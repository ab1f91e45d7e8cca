"""What every layer would lose at every bit-width, shaded, with the choice marked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quant_core.report.numbers import format_loss
from quant_core.spec import FLOAT_BITS, Report, SensitivityTable

SHADES = 5


@dataclass(frozen=True)
class Shade:
    """A cell.

    Attributes:
        text: The loss.
        level: From 0, costs nothing, to `SHADES` - 1; None where the loss is not known.
        chosen: Whether the layer has these bits.
    """

    text: str
    level: int | None
    chosen: bool


@dataclass(frozen=True)
class ChoiceTable:
    """Losses by layer and bit-width.

    Attributes:
        bits: The bit-widths, fewest first.
        rows: Name of a layer and one cell a bit-width, in graph order.
    """

    bits: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Shade, ...]], ...]


def choice_table(report: Report, table: SensitivityTable) -> ChoiceTable | None:
    """Lay out the sensitivity table, shaded by the logarithm of the loss.

    Args:
        report: The report.
        table: The sensitivity table.

    Returns:
        The cells; None if no layer loses anything at any bit-width.
    """
    losses = {row.name: row.sensitivity for row in table.layers}
    bits = tuple(sorted({b for row in losses.values() for b in row if b != FLOAT_BITS}))
    positive = [
        v for row in losses.values() for b, v in row.items() if b != FLOAT_BITS and v > 0 and math.isfinite(v)
    ]
    if not positive:
        return None
    low, high = math.log10(min(positive)), math.log10(max(positive))

    def shade(value: float | None) -> int | None:
        if value is None or not math.isfinite(value):
            return None
        if value <= 0 or high <= low:
            return 0
        return min(SHADES - 1, int(SHADES * (math.log10(value) - low) / (high - low)))

    def cell(name: str, b: int, chosen: int) -> Shade:
        value = losses.get(name, {}).get(b)
        return Shade(format_loss(value), shade(value), b == chosen)

    return ChoiceTable(
        bits,
        tuple(
            (layer.name, tuple(cell(layer.name, b, layer.weight_bits) for b in bits))
            for layer in report.layers
        ),
    )
