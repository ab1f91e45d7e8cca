"""`bitwright inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.cli.request_options import Model, is_a_file


def inspect(
    model: Model,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Samples; one is run to measure sizes that the model leaves open.",
            show_default=False,
            callback=is_a_file,
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what of MODEL.onnx can be quantized, what cannot and why, and how small it can get."""
    from bitwright.cli import local
    from bitwright.cli.preflight_tables import print_preflight
    from bitwright.cli.tables import standard_output

    preflight = local.inspect(model, data)
    if as_json:
        typer.echo(preflight.model_dump_json(indent=2))
    else:
        print_preflight(preflight, standard_output())
