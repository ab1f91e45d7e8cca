"""Options that say what may be chosen."""

from __future__ import annotations

from typing import Annotated

import typer

CHOICES = "What may be chosen"

Bits = Annotated[
    str | None,
    typer.Option(
        "--bits",
        metavar="B,B",
        help="Bits that weights may get, among 2, 3, 4, 5, 6, 8 and float. Default: all but float.",
        rich_help_panel=CHOICES,
    ),
]
ActivationBits = Annotated[
    str | None,
    typer.Option(
        "--activation-bits",
        metavar="B",
        help="Bits of activations: 8, 16, or float (only weights get smaller); several, such as 8,16,float, to "
        "choose layer by layer. Default: 8.",
        rich_help_panel=CHOICES,
    ),
]
FloatIslands = Annotated[
    str | None,
    typer.Option(
        "--float-islands",
        metavar="SHARE",
        help="How much longer the file may run so that layers that bear no 8-bit activations stay in float; 0 "
        "for not at all. Default: 0.15, more where 8 bits would ruin the answer or miss --max-drop.",
        rich_help_panel=CHOICES,
    ),
]
MixChannels = Annotated[
    bool | None,
    typer.Option(
        "--mix-channels/--no-mix-channels",
        help="Let the output channels of one layer have two different bit-widths. Default: yes.",
        rich_help_panel=CHOICES,
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(
        "--allocation",
        metavar="NAME",
        help="How bits are chosen: optimal, or for comparison hawq_v2 or ompq. Default: optimal.",
        rich_help_panel=CHOICES,
    ),
]
