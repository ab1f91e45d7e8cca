"""`bitwright evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from bitwright.cli.request_options import Data, Model


def evaluate(
    model: Model,
    data: Data,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure the accuracy of MODEL.onnx, float or quantized, on labelled samples in onnxruntime."""
    from bitwright.cli import local

    found = local.evaluate(model, data)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        low, high = found.interval
        typer.echo(
            f"{found.metric}: {found.value:.4f} (95 % interval {low:.4f} to {high:.4f}) on {found.samples} samples "
            f"in {found.seconds:.2f} s"
        )
