"""Options that say what a result may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BUDGETS = "Budgets (any of them together)"

EffectiveBits = Annotated[
    str | None,
    typer.Option(
        "--effective-bits",
        metavar="B",
        help="Mean bits over all weights, such as 4; weights in float count 32.",
        rich_help_panel=BUDGETS,
    ),
]
Operations = Annotated[
    str | None,
    typer.Option(
        "--bops",
        metavar="N",
        help="Bit operations for one sample (3.5G), or a share of the float model's (5%).",
        rich_help_panel=BUDGETS,
    ),
]
PeakMemory = Annotated[
    str | None,
    typer.Option(
        "--peak-memory",
        metavar="N",
        help="Most bytes of activations held at once, for one sample (300kB), or a share of the float model's (30%).",
        rich_help_panel=BUDGETS,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="T",
        help="Time of all layers (2.5ms), added up from a table of `bitwright profile`.",
        rich_help_panel=BUDGETS,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="SIZE",
        help="Size of the file: a ratio of the float file (0.18, 18%) or bytes (2.5MB). 0.25 if no budget is "
        "given.",
        rich_help_panel=BUDGETS,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="BAND",
        help="The smallest file that stays this close to the float model: 0.5% (accuracy), sqnr>=20dB, "
        "cosine>=0.99 or loss<=0.05.",
        rich_help_panel=BUDGETS,
    ),
]
Confidence = Annotated[
    str | None,
    typer.Option(
        "--confidence",
        metavar="C",
        help="How sure it must be that --max-drop is kept on other samples. Default: 95%.",
        rich_help_panel=BUDGETS,
    ),
]
LatencyFile = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        metavar="FILE",
        help="That table, from `bitwright profile`.",
        show_default=False,
        rich_help_panel=BUDGETS,
    ),
]
