"""Options about single layers."""

from __future__ import annotations

from typing import Annotated

import typer

from bitwright.cli.pairs import read_pairs

LAYERS = "Single layers (names as `bitwright inspect` prints them; * and ? stand for any letters)"

Pin = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="GLOB=BITS",
        help="Fix the bits of these layers, such as 'fc*=8'; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Keep these layers in float; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
LayerActivations = Annotated[
    list[str] | None,
    typer.Option(
        "--layer-activations",
        metavar="GLOB=BITS",
        help="Give the activations of these layers 8 or 16 bits, or float; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
FloatActivations = Annotated[
    list[str] | None,
    typer.Option(
        "--float-activations",
        metavar="GLOB",
        help="Run these layers in float on packed weights; may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
Tie = Annotated[
    list[str] | None,
    typer.Option(
        "--tie",
        metavar="GLOB,GLOB",
        help="Give these layers the same bits, or all groups of one kind: shared_input, residual, depthwise; "
        "may be repeated.",
        rich_help_panel=LAYERS,
    ),
]
KeepQuantized = Annotated[
    bool,
    typer.Option(
        "--keep-quantized",
        help="Of a model that is quantized in part, keep these parts and quantize the rest.",
        rich_help_panel=LAYERS,
    ),
]


def read_pins(pins: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form GLOB=BITS.

    Args:
        pins: As written.

    Returns:
        Glob -> bits.
    """
    return read_pairs(pins, "--pin", "GLOB=BITS, such as fc=8")


def read_layer_activations(activations: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form GLOB=BITS that are about activations.

    Args:
        activations: As written.

    Returns:
        Glob -> bits.
    """
    return read_pairs(activations, "--layer-activations", "GLOB=BITS, such as head=16")
