"""`bitwright analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.code_options import (
    CODES,
    Asymmetric,
    BlockSize,
    Equalize,
    Granularity,
    Sparse,
    WeightFormat,
)
from bitwright.cli.request_options import Data, Device, Model
from bitwright.cli.score_options import Loss, LossWeight, read_loss_weights

_LONG = "How long to measure"
_AS_LATER = "What a later quantization will ask for"


def analyze(
    model: Model,
    data: Data,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Where the table goes; other tables are put beside it."),
    ] = Path("sensitivity.json"),
    sensitivity: Annotated[
        str | None,
        typer.Option(
            "--sensitivity",
            metavar="NAME",
            help="Method: output, interaction, pqi, gauss_newton, hawq_v2, hutch++, hawq, gnb, fisher, kfac or orm. "
            "Default: output.",
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits", metavar="B,B", help="Weight bits to estimate, such as 2,4,8. Default: all but float."
        ),
    ] = None,
    activations: Annotated[
        bool, typer.Option("--activations", help="Estimate the traces of activations as well.")
    ] = False,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="Write the Hessian's eigenvalue density as well.")
    ] = False,
    keep_quantized: Annotated[
        bool, typer.Option("--keep-quantized", help="Leave out what is quantized already.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")] = 0,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Processes that share the work. Default: one for each GPU."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            help="About how long the estimates may take. Default: no limit.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            metavar="T",
            help="Stop once every layer's share of the traces has this relative standard error. Default: 0.05.",
            rich_help_panel=_LONG,
        ),
    ] = None,
    probes: Annotated[
        int | None,
        typer.Option("--probes", metavar="N", help="Most random probes.", rich_help_panel=_LONG),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="N", help="Most samples.", rich_help_panel=_LONG)
    ] = None,
    loss: Loss = None,
    loss_weight: LossWeight = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="The size that plans will be asked for; channels are scaled for it. Default: 0.25.",
            rich_help_panel=_AS_LATER,
        ),
    ] = None,
    effective_bits: Annotated[
        float | None,
        typer.Option(
            "--effective-bits",
            metavar="B",
            help="Or the mean bits that plans will be asked for.",
            rich_help_panel=_AS_LATER,
        ),
    ] = None,
    held_back: Annotated[
        str | None,
        typer.Option(
            "--held-back",
            metavar="SHARE",
            help="Share of the samples that `quantize` will leave out to check the file. Default: 0.25.",
            rich_help_panel=_AS_LATER,
        ),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            "--rounding",
            metavar="NAME",
            help="How weights find their codes: gptq, foem, adaround, nearest or stochastic. Default: gptq.",
            rich_help_panel=CODES,
        ),
    ] = None,
    equalize: Equalize = None,
    granularity: Granularity = None,
    block_size: BlockSize = None,
    asymmetric: Asymmetric = False,
    weight_format: WeightFormat = None,
    sparse: Sparse = None,
) -> None:
    """Estimate how much each layer of MODEL.onnx suffers at each bit-width; nothing is quantized."""
    from bitwright.cli import failures, local
    from bitwright.cli.sensitivities import print_sensitivities
    from bitwright.cli.stages import StageBars
    from bitwright.cli.tables import standard_output
    from bitwright.terminal import Terminal
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
    with failures.options_of(spec), StageBars(Terminal(stderr=True)) as bars:
        table = local.analyze(model, data, spec, target, bars)
    if as_json:
        typer.echo(table.model_dump_json(indent=2))
        return
    console = standard_output()
    print_sensitivities(table, console)
    console.print(f"Written to {target}.", highlight=False, markup=False)
