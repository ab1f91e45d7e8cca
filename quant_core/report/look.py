"""What all charts share: colours by name, labels that cannot carry markup.

Colours are names of the page's CSS variables, `var(--ink)`; the page puts in the values of the light or the dark
theme. Names of layers and files are untrusted: they reach plotly, which reads a little HTML, only through `plain`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from quant_core.report.layer_names import short_names
from quant_core.spec import LayerReport, format_bits

MOST_NAMED_LAYERS = 32
DENSE = 80
"""From so many layers on, bars and cells touch each other."""

Figure = dict[str, Any]
"""A plotly figure as JSON values, `{"data": [...], "layout": {...}}`."""


def bit_colour(bits: int) -> str:
    """Name the page's colour of a bit-width.

    Args:
        bits: One of `WEIGHT_BITS`.

    Returns:
        A CSS variable.
    """
    return f"var(--bits-{format_bits(bits)})"


def plain(text: str) -> str:
    """Make text safe for plotly, which reads a few HTML tags and entities in labels.

    Args:
        text: Any text.

    Returns:
        The text with markup escaped and long text cut in the middle.
    """
    text = text if len(text) <= 90 else f"{text[:44]}…{text[-45:]}"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label_layers(figure: go.Figure, layers: Sequence[LayerReport], **place: int) -> None:
    """Write layer names under an axis of layer numbers, or only what it counts where there are too many.

    Args:
        figure: The figure whose x axis counts layers from 1.
        layers: The layers.
        **place: Row and column of the axis in a figure with several.
    """
    figure.update_xaxes(range=[0.4, len(layers) + 0.6], showgrid=False)
    if len(layers) <= MOST_NAMED_LAYERS:
        labels = short_names([layer.name for layer in layers], [layer.op for layer in layers])
        ticks = list(range(1, len(layers) + 1))
        figure.update_xaxes(tickvals=ticks, ticktext=[plain(label) for label in labels], **place)
    else:
        figure.update_xaxes(title={"text": "layer, in graph order"}, **place)


def finish(figure: go.Figure) -> Figure:
    """Apply the page's look.

    Args:
        figure: A plotly figure.

    Returns:
        The figure as JSON values.
    """
    figure.update_layout(
        template=None,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 12, "color": "var(--muted)"},
        hoverlabel={
            "bgcolor": "var(--raised)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)", "size": 12},
            "align": "left",
        },
        margin={"l": 8, "r": 12, "t": 30, "b": 8},
        dragmode=False,
    )
    figure.update_xaxes(
        automargin=True, zeroline=False, linecolor="var(--line)", gridcolor="var(--grid)", fixedrange=True
    )
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor="var(--grid)", fixedrange=True)
    drawn = json.loads(figure.to_json())
    return {"data": drawn["data"], "layout": drawn["layout"]}
