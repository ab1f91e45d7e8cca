"""`bitwright debug`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitwright.cli.request_options import Data, Model

if TYPE_CHECKING:
    from rich.console import Console

    from quant_core.spec.debugging import Debugging, LayerFinding


def debug(
    model: Model,
    quantized: Annotated[
        Path,
        typer.Argument(
            metavar="QUANTIZED",
            help="The quantized file, or the folder of the job that made it.",
            exists=True,
            show_default=False,
        ),
    ],
    data: Data,
    *,
    worst: Annotated[
        int,
        typer.Option(
            "--worst", metavar="N", min=1, help="Layers to try other weights for; one or two runs each."
        ),
    ] = 10,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, help="The most samples run.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the layers where a quantized file loses most, and what more bits for each would give back."""
    from bitwright.cli import local
    from bitwright.cli.tables import standard_output
    from bitwright.terminal import Terminal

    with Terminal(stderr=True).status("") as status:
        found = local.debug(model, quantized, data, worst, samples, lambda _, message: status.update(message))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_findings(found, worst, standard_output())


def print_findings(found: Debugging, rows: int, console: Console) -> None:
    """Print the worst layers.

    Args:
        found: What was found.
        rows: How many layers.
        console: Where to print.
    """
    from rich.markup import escape
    from rich.table import Table

    from quant_core.spec import format_bits

    console.print(
        f"{found.quantized} against {found.model} on {found.samples} samples: {found.output_sqnr_db:.1f} dB at "
        f"{found.output}",
        highlight=False,
        markup=False,
    )
    table = Table(caption="Gains are those of the output's SQNR with this layer's weight alone pinned.")
    table.add_column("layer", overflow="fold")
    for heading in ("bits", "SQNR so far", "own SQNR", "pinned to 8 bits", "to float", "share of the error"):
        table.add_column(heading, justify="right")
    for layer in found.layers[:rows]:
        table.add_row(
            escape(layer.name),
            " and ".join(format_bits(b) for b in (layer.weight_bits, layer.narrow_bits) if b is not None),
            "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB",
            f"{layer.own_sqnr_db:.1f} dB",
            *_gains(layer),
        )
    console.print(table)
    if found.not_found:
        listed = ", ".join(found.not_found[:5]) + (", ..." if len(found.not_found) > 5 else "")
        console.print(
            f"Not found in the file, or run by a kernel that takes no other weight: {listed}",
            highlight=False,
            markup=False,
        )


def _gains(layer: LayerFinding) -> tuple[str, str, str]:
    if layer.float_gain_db is None or layer.share is None:
        return "", "", ""
    byte = "" if layer.byte_gain_db is None else f"{layer.byte_gain_db:+.2f} dB"
    return byte, f"{layer.float_gain_db:+.2f} dB", f"{layer.share:.0%}"
