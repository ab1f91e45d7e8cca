"""`bitwright inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from bitwright.cli.quantize import Model


def inspect(
    model: Model,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what can be quantized in MODEL.onnx, what cannot, and how small it can get."""
    from bitwright.cli import local
    from bitwright.cli.tables import print_preflight, standard_output

    preflight = local.inspect(model)
    if as_json:
        typer.echo(preflight.model_dump_json(indent=2))
    else:
        print_preflight(preflight, standard_output())
