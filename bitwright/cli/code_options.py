"""Options that say how weights and activations are rounded."""

from __future__ import annotations

from typing import Annotated

import typer

CODES = "How weights and activations are rounded (the defaults are meant to be left alone)"

Equalize = Annotated[
    str | None,
    typer.Option(
        "--equalize",
        metavar="WHERE",
        help="Where channels are scaled before rounding: auto, all or none. Default: auto.",
        rich_help_panel=CODES,
    ),
]
Granularity = Annotated[
    str | None,
    typer.Option(
        "--granularity",
        metavar="WHAT",
        help="What has a scale of its own: tensor, channel or block. Default: channel.",
        rich_help_panel=CODES,
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-size",
        metavar="N",
        help="Consecutive inputs in a block, 16 to 256. Default: 32.",
        rich_help_panel=CODES,
    ),
]
Sparse = Annotated[
    str | None,
    typer.Option(
        "--sparse",
        metavar="SHARE",
        help="Let layers store their outliers apart: a share of their weights (0.02), or auto. Default: 0.",
        rich_help_panel=CODES,
    ),
]
Asymmetric = Annotated[
    bool,
    typer.Option(
        "--asymmetric", help="Give every scale of integer weights a zero point.", rich_help_panel=CODES
    ),
]
WeightFormat = Annotated[
    str | None,
    typer.Option(
        "--weight-format",
        metavar="NAME",
        help="int, fp8_e4m3, fp8_e5m2, nvfp4 or mxfp4. Default: int.",
        rich_help_panel=CODES,
    ),
]
Rounding = Annotated[
    str | None,
    typer.Option(
        "--rounding",
        metavar="NAME",
        help="How weights find their codes: gptq, foem, adaround, brecq, qdrop, reconstruction, nearest or "
        "stochastic. Default: gptq.",
        rich_help_panel=CODES,
    ),
]
Descent = Annotated[
    bool | None,
    typer.Option(
        "--descent/--no-descent",
        help="Improve the codes of GPTQ and FOEM one by one. Default: yes.",
        rich_help_panel=CODES,
    ),
]
FoemBeta = Annotated[
    str | None,
    typer.Option(
        "--foem-beta",
        metavar="BETA",
        help="Weight of the first-order term of foem, 0 to 1. Default: 0.05.",
        rich_help_panel=CODES,
    ),
]
Follow = Annotated[
    bool | None,
    typer.Option(
        "--follow/--no-follow",
        help="Round the chosen layers again, one after another, for the inputs that the rounded layers before "
        "them give. Default: yes.",
        rich_help_panel=CODES,
    ),
]
Trellis = Annotated[
    bool | None,
    typer.Option(
        "--trellis/--no-trellis",
        help="Give layers of 2 to 5 bits trellis codes, which lose less in the same bits, where that pays. "
        "Default: no.",
        rich_help_panel=CODES,
    ),
]
BiasCorrection = Annotated[
    bool | None,
    typer.Option(
        "--bias-correction/--no-bias-correction",
        help="Let biases take up what rounding adds to mean outputs. Default: yes.",
        rich_help_panel=CODES,
    ),
]
WeightRange = Annotated[
    str | None,
    typer.Option(
        "--weight-range",
        metavar="NAME",
        help="How the steps of weights are chosen: hessian, mse, minmax or percentile. Default: hessian.",
        rich_help_panel=CODES,
    ),
]
ActivationRange = Annotated[
    str | None,
    typer.Option(
        "--activation-range",
        metavar="NAME",
        help="How the range of an 8-bit activation is chosen: mse, minmax, percentile, entropy or output. "
        "Default: output; for large networks and few samples mse, and output in front of a maximum.",
        rich_help_panel=CODES,
    ),
]
