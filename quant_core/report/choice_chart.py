"""What every layer would lose at every bit-width, with the choice marked."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from quant_core.report.look import DENSE, Figure, finish, label_layers, plain
from quant_core.report.numbers import format_loss
from quant_core.spec import FLOAT_BITS, Report, SensitivityTable, format_bits


def choice_chart(report: Report, table: SensitivityTable) -> Figure | None:
    """Draw the sensitivity table as a heat map, layers across and bits upward.

    Args:
        report: The report.
        table: The sensitivity table.

    Returns:
        A plotly figure as JSON values; None if no layer loses anything at any bit-width.
    """
    layers = report.layers
    rows = {row.name: row.sensitivity for row in table.layers}
    bits = sorted({b for losses in rows.values() for b in losses if b != FLOAT_BITS})
    losses = [[_finite(rows.get(layer.name, {}).get(b)) for layer in layers] for b in bits]
    positive = [value for line in losses for value in line if value is not None and value > 0]
    if not positive:
        return None
    lowest = min(positive)
    # An estimate at or below zero has no logarithm; it is shown as the smallest loss there is.
    shades = [[None if v is None else math.log10(max(v, lowest)) for v in line] for line in losses]
    about = [
        [_describe(layer.name, b, layer.weight_bits, v) for layer, v in zip(layers, line, strict=True)]
        for b, line in zip(bits, losses, strict=True)
    ]
    numbers = list(range(1, len(layers) + 1))
    figure = go.Figure(
        go.Heatmap(
            x=numbers,
            y=[str(b) for b in bits],
            z=shades,
            customdata=about,
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=[[k / 4, f"var(--heat-{k})"] for k in range(5)],
            xgap=2 if len(layers) <= DENSE else 0,
            ygap=2,
            colorbar=_colour_bar(math.log10(lowest), math.log10(max(positive))),
        )
    )
    chosen = [
        (k, layer.weight_bits) for k, layer in zip(numbers, layers, strict=True) if layer.weight_bits in bits
    ]
    figure.add_trace(
        go.Scatter(
            x=[k for k, _ in chosen],
            y=[str(b) for _, b in chosen],
            mode="markers",
            marker={
                "size": 9 if len(layers) <= DENSE else 4,
                "color": "var(--paper)",
                "line": {"width": 1.5 if len(layers) <= DENSE else 0.5, "color": "var(--ink)"},
            },
            hoverinfo="skip",
        )
    )
    label_layers(figure, layers)
    figure.update_yaxes(type="category", title={"text": "bits"}, showgrid=False)
    figure.update_layout(height=360)
    return finish(figure)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _colour_bar(low: float, high: float) -> dict[str, object]:
    powers = list(range(math.ceil(low), math.floor(high) + 1))
    shown = powers[:: max(1, math.ceil(len(powers) / 5))]
    return {
        "thickness": 10,
        "outlinewidth": 0,
        "len": 1.0,
        "tickvals": shown,
        "ticktext": [f"10<sup>{power}</sup>" for power in shown],
        "title": {"text": "loss", "side": "top"},
    }


def _describe(name: str, bits: int, chosen: int, loss: float | None) -> str:
    choice = "the choice" if bits == chosen else f"chosen: {format_bits(chosen)}"
    return f"<b>{plain(name)}</b><br>{bits} bits: loss increase {format_loss(loss)}<br>{choice}"
