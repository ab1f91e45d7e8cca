"""Options that say how sensitivities are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.cli.pairs import read_pairs

SCORES = "How sensitivities are measured"

Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="What counts as worse: auto, cross_entropy, kl or squared_error. Default: auto.",
        rich_help_panel=SCORES,
    ),
]
LossWeight = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-weight",
        metavar="OUTPUT=WEIGHT",
        help="How much an output counts among several; 0 leaves it out; may be repeated.",
        rich_help_panel=SCORES,
    ),
]
Spectrum = Annotated[
    bool,
    typer.Option(
        "--spectrum", help="Estimate the Hessian's eigenvalue density as well.", rich_help_panel=SCORES
    ),
]
Sensitivity = Annotated[
    str | None,
    typer.Option(
        "--sensitivity",
        metavar="NAME",
        help="How the loss of a layer at few bits is estimated: output, interaction, pqi, gauss_newton, "
        "hawq_v2, hutch++, hawq, gnb, fisher or kfac. Default: output.",
        rich_help_panel=SCORES,
    ),
]
Earlier = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="DIR",
        help="Take the sensitivities of an earlier job on this model and these samples, and measure nothing again.",
        show_default=False,
        rich_help_panel=SCORES,
    ),
]


def read_loss_weights(weights: list[str] | tuple[()]) -> dict[str, str]:
    """Read options of the form OUTPUT=WEIGHT.

    Args:
        weights: As written.

    Returns:
        Output -> weight.
    """
    return read_pairs(weights, "--loss-weight", "OUTPUT=WEIGHT, such as boxes=0.5")
