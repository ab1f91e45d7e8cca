"""Bits over depth, with the expected loss increase and the Hessian trace beneath."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from quant_core.report.look import DENSE, Figure, bit_colour, finish, label_layers, plain
from quant_core.report.numbers import format_count, format_loss
from quant_core.report.scale import fit_scale
from quant_core.spec import FLOAT_BITS, LayerReport, Report, format_bits

FLOAT_HEIGHT = 10
"""Bar height of a float layer: 32 would dwarf every other bar."""


def layer_chart(report: Report) -> Figure:
    """Draw one column a layer: bits as a bar, loss and trace as points with their standard errors.

    Args:
        report: The report.

    Returns:
        A plotly figure as JSON values.
    """
    layers = report.layers
    traced = any(layer.trace is not None for layer in layers)
    titles = ["Bits of the weight", "Expected loss increase at these bits", "Hessian trace"][
        : 3 if traced else 2
    ]
    figure = make_subplots(
        rows=len(titles),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.09,
        row_heights=[0.42, 0.29, 0.29] if traced else [0.58, 0.42],
        subplot_titles=titles,
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": "var(--ink)"})
    about = [_describe(layer) for layer in layers]
    figure.add_trace(_bars(layers, about), row=1, col=1)
    figure.update_yaxes(
        tickvals=[2, 4, 6, 8, FLOAT_HEIGHT],
        ticktext=["2", "4", "6", "8", "float"],
        range=[0, FLOAT_HEIGHT + 0.6],
        row=1,
        col=1,
    )
    losses = [layer.sensitivity if layer.weight_bits != FLOAT_BITS else None for layer in layers]
    _add_points(figure, 2, losses, [layer.sensitivity_stderr for layer in layers], about, "var(--loss)")
    if traced:
        traces = [layer.trace for layer in layers]
        _add_points(figure, 3, traces, [layer.trace_stderr for layer in layers], about, "var(--trace)")
    label_layers(figure, layers, row=len(titles), col=1)
    figure.update_layout(height=640 if traced else 460, bargap=0.2 if len(layers) <= DENSE else 0.0)
    return finish(figure)


def _bars(layers: Sequence[LayerReport], about: Sequence[str]) -> go.Bar:
    return go.Bar(
        x=list(range(1, len(layers) + 1)),
        y=[FLOAT_HEIGHT if layer.weight_bits == FLOAT_BITS else layer.weight_bits for layer in layers],
        marker={"color": [bit_colour(layer.weight_bits) for layer in layers], "line": {"width": 0}},
        customdata=about,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _add_points(
    figure: go.Figure,
    row: int,
    values: Sequence[float | None],
    errors: Sequence[float | None],
    about: Sequence[str],
    colour: str,
) -> None:
    values = [value if value is not None and math.isfinite(value) else None for value in values]
    pairs = [(value, error or 0.0) for value, error in zip(values, errors, strict=True) if value is not None]
    scale = fit_scale([value for value, _ in pairs] + [value + error for value, error in pairs])
    places = [None if value is None else scale.place(value) for value in values]
    ups, downs = [], []
    for value, error in zip(values, errors, strict=True):
        centre, spread = value or 0.0, error or 0.0
        ups.append(scale.place(centre + spread) - scale.place(centre))
        downs.append(scale.place(centre) - max(scale.place(centre - spread), scale.ends[0]))
    figure.add_trace(
        go.Scatter(
            x=list(range(1, len(values) + 1)),
            y=places,
            mode="markers",
            marker={"size": 8 if len(values) <= DENSE else 4, "color": colour},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": ups,
                "arrayminus": downs,
                "thickness": 1.4,
                "width": 3 if len(values) <= DENSE else 0,
                "color": colour,
            },
            customdata=about,
            hovertemplate="%{customdata}<extra></extra>",
            cliponaxis=False,
        ),
        row=row,
        col=1,
    )
    figure.update_yaxes(row=row, col=1, **scale.axis())


def _describe(layer: LayerReport) -> str:
    bits = "float" if layer.weight_bits == FLOAT_BITS else f"{format_bits(layer.weight_bits)} bits"
    lines = [
        f"<b>{plain(layer.name)}</b>",
        f"{plain(layer.op)}, {format_count(layer.parameters)} weights",
        f"<b>{bits}</b>: {plain(layer.reason)}",
        f"loss increase {format_loss(layer.sensitivity, layer.sensitivity_stderr)}",
    ]
    if layer.trace is not None:
        lines.append(f"trace {format_loss(layer.trace, layer.trace_stderr)}")
    return "<br>".join(lines)
