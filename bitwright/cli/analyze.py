"""`bitwright analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.request_options import (
    Asymmetric,
    BlockSize,
    Data,
    Granularity,
    LossWeight,
    Model,
    Sparse,
    WeightFormat,
    read_loss_weights,
)


def analyze(
    model: Model,
    data: Data,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Where the table goes; companions are put beside it."),
    ] = Path("sensitivity.json"),
    sensitivity: Annotated[
        str | None,
        typer.Option(
            "--sensitivity",
            help="output, interaction, pqi, gauss_newton, hawq_v2, hutch++, hawq, gnb, fisher, kfac or orm.",
        ),
    ] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", metavar="B,B", help="Weight bits to estimate, such as 2,4,8.")
    ] = None,
    rounding: Annotated[
        str | None, typer.Option("--rounding", help="gptq, foem, adaround, nearest or stochastic.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Size that plans will have: channels are scaled for it, as quantize does; 0.25."
        ),
    ] = None,
    effective_bits: Annotated[
        float | None,
        typer.Option("--effective-bits", help="Mean bits that plans will have, in place of --size."),
    ] = None,
    equalize: Annotated[
        str | None,
        typer.Option("--equalize", help="Where channels are scaled before rounding: auto, all or none."),
    ] = None,
    held_back: Annotated[
        float | None, typer.Option("--held-back", help="Share of the samples left out, as by quantize; 0.25.")
    ] = None,
    sparse: Sparse = None,
    granularity: Granularity = None,
    block_size: BlockSize = None,
    asymmetric: Asymmetric = False,
    weight_format: WeightFormat = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="auto, cross_entropy, kl or squared_error.")
    ] = None,
    loss_weight: LossWeight = None,
    activations: Annotated[
        bool, typer.Option("--activations", help="Estimate activation traces as well.")
    ] = False,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="Write the Hessian's eigenvalue density as well.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Wanted relative standard error of each share.")
    ] = None,
    probes: Annotated[int | None, typer.Option("--probes", help="Most random probes.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Most samples.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="About how long the estimates may take.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that share the work, one for each GPU.")
    ] = None,
    keep_quantized: Annotated[
        bool, typer.Option("--keep-quantized", help="Leave out what is quantized already.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Estimate what each layer of MODEL.onnx loses in few bits; nothing is quantized."""
    from rich.console import Console

    from bitwright.cli import failures, local
    from bitwright.cli.sensitivities import print_sensitivities
    from bitwright.cli.stages import StageBars
    from bitwright.cli.tables import standard_output
    from quant_core.spec import AnalyzeSpec

    request: dict[str, Any] = {
        "activations": activations,
        "spectrum": spectrum,
        "loss_weights": read_loss_weights(loss_weight or ()),
        "quantized_parts": "keep" if keep_quantized else "refuse",
        "seed": seed,
        "device": device,
    }
    options = {
        "bits": bits,
        "sensitivity": sensitivity,
        "rounding": rounding,
        "size": size,
        "effective_bits": effective_bits,
        "equalize": equalize,
        "held_back": held_back,
        "sparse": sparse,
        "granularity": granularity,
        "block_size": block_size,
        "symmetric": False if asymmetric else None,
        "weight_format": weight_format,
        "loss": loss,
        "tolerance": tolerance,
        "probes": probes,
        "samples": samples,
        "seconds": seconds,
        "workers": workers,
    }
    request |= {name: value for name, value in options.items() if value is not None}
    with failures.options():
        spec = AnalyzeSpec.model_validate(request)
    target = out if out.suffix == ".json" else out / "sensitivity.json"
    with StageBars(Console(stderr=True)) as bars:
        table = local.analyze(model, data, spec, target, bars)
    if as_json:
        typer.echo(table.model_dump_json(indent=2))
        return
    console = standard_output()
    print_sensitivities(table, console)
    console.print(f"Written to {target}.", highlight=False, markup=False)
