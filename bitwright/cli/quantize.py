"""`bitwright quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitwright.cli.request_options import (
    Asymmetric,
    BlockSize,
    Data,
    EffectiveBits,
    Exclude,
    Granularity,
    Latency,
    LayerActivations,
    LossWeight,
    Model,
    Operations,
    PeakMemory,
    Pin,
    Sparse,
    Spectrum,
    WeightFormat,
    read_layer_activations,
    read_loss_weights,
    read_pins,
)

if TYPE_CHECKING:
    from quant_core.spec import QuantizeSpec

# Options that go into the request under the name of their parameter.
_AS_GIVEN = (
    "size",
    "effective_bits",
    "bops",
    "peak_memory",
    "latency",
    "max_drop",
    "confidence",
    "allocation",
    "bits",
    "activation_bits",
    "activation_range",
    "float_islands",
    "follow",
    "mix_channels",
    "target",
    "opset",
    "sensitivity",
    "effort",
    "rounding",
    "foem_beta",
    "descent",
    "weight_range",
    "equalize",
    "bias_correction",
    "sparse",
    "granularity",
    "block_size",
    "weight_format",
    "loss",
    "workers",
)


def quantize(
    model: Model,
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", show_default=False)
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            help="Budget: ratio of the float file (0.18) or bytes (2.5MB); 0.25 if no budget is given.",
        ),
    ] = None,
    effective_bits: EffectiveBits = None,
    bops: Operations = None,
    peak_memory: PeakMemory = None,
    latency: Latency = None,
    latency_table: Annotated[
        Path | None,
        typer.Option(
            "--latency-table",
            metavar="FILE",
            help="Times of the layers, from bitwright profile.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            metavar="BAND",
            help="Smallest file that keeps this: 0.5% of top-1, or sqnr>=20dB, cosine>=0.99, loss<=0.05.",
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option("--confidence", help="How sure it must be that --max-drop is kept; 95% if left out."),
    ] = None,
    allocation: Annotated[str | None, typer.Option("--allocation", help="optimal, hawq_v2 or ompq.")] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", metavar="B,B", help="Candidate weight bits, such as 2,4,8,float.")
    ] = None,
    activation_bits: Annotated[
        str | None,
        typer.Option(
            "--activation-bits",
            help="8, 16 or float (weights packed only), or several to choose from layer by layer: 8,16,float.",
        ),
    ] = None,
    activation_range: Annotated[
        str | None,
        typer.Option(
            "--activation-range",
            help="How activations are clipped: mse, minmax, percentile, entropy or output; mse if left out, and output "
            "in front of a maximum over many places.",
        ),
    ] = None,
    float_islands: Annotated[
        str | None,
        typer.Option(
            "--float-islands",
            help="Share of the time that layers whose activations bear no 8 bits may take more; 0 for none, 0.15 if "
            "left out and more where 8 bits ruin the answer.",
        ),
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow", help="Round layers again for what the rounded layers before them give."
        ),
    ] = None,
    mix_channels: Annotated[
        bool | None,
        typer.Option(
            "--mix-channels/--no-mix-channels", help="Let the channels of one layer take two widths."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="The runtime: ort-cpu, ort-cuda, tensorrt or portable."),
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="Opset of a portable file, 18 to 25.")] = None,
    sensitivity: Annotated[
        str | None,
        typer.Option(
            "--sensitivity", help="How losses are estimated: output, interaction, gauss_newton, ..."
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option("--effort", help="fast, balanced or best; options given beside it go before it."),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            "--rounding",
            help="gptq, foem, adaround, brecq, qdrop, reconstruction, nearest or stochastic.",
        ),
    ] = None,
    foem_beta: Annotated[
        str | None, typer.Option("--foem-beta", help="Weight of the first-order term of foem, 0 to 1.")
    ] = None,
    descent: Annotated[
        bool | None,
        typer.Option("--descent/--no-descent", help="Improve codes one by one behind GPTQ and FOEM."),
    ] = None,
    sparse: Sparse = None,
    granularity: Granularity = None,
    block_size: BlockSize = None,
    asymmetric: Asymmetric = False,
    weight_format: WeightFormat = None,
    weight_range: Annotated[
        str | None,
        typer.Option("--weight-range", help="Ranges of weights: hessian, mse, minmax or percentile."),
    ] = None,
    equalize: Annotated[
        str | None,
        typer.Option("--equalize", help="Where channels are scaled before rounding: auto, all or none."),
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option("--bias-correction/--no-bias-correction", help="Let biases make up for mean errors."),
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="auto, cross_entropy, kl or squared_error.")
    ] = None,
    loss_weight: LossWeight = None,
    spectrum: Spectrum = False,
    pin: Pin = None,
    exclude: Exclude = None,
    float_activations: Annotated[
        list[str] | None,
        typer.Option(
            "--float-activations",
            metavar="GLOB",
            help="Run these layers in float, with packed weights; may be repeated.",
        ),
    ] = None,
    layer_activations: LayerActivations = None,
    keep_quantized: Annotated[
        bool, typer.Option("--keep-quantized", help="Keep what is quantized already; quantize the rest.")
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Take the sensitivities of an earlier job on this model; no probe is run.",
            show_default=False,
        ),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            "--tie",
            metavar="GLOB,GLOB",
            help="Give these layers the same bits, or every group of a kind: shared_input, residual, depthwise; "
            "may be repeated.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that share the estimates, one for each GPU.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Quantize MODEL.onnx within budgets and write the result with its report to DIR."""
    spec = read_spec(locals())
    from rich.console import Console

    from bitwright.cli import local
    from bitwright.cli.stages import StageBars
    from bitwright.cli.tables import print_summary, standard_output

    with StageBars(Console(stderr=True)) as bars:
        report = local.quantize(model, data, spec, out, bars, earlier)
    console = standard_output()
    print_summary(report, console)
    console.print(
        f"Written to {out}: report.html says why each layer got its bits.", highlight=False, markup=False
    )


def read_spec(given: Mapping[str, Any]) -> QuantizeSpec:
    """Read the options of `quantize` into a request.

    Args:
        given: What each option has, by the name of its parameter.

    Returns:
        The request.
    """
    from bitwright.cli import failures
    from quant_core.spec import QuantizeSpec

    request: dict[str, Any] = {
        "seed": given["seed"],
        "device": given["device"],
        "spectrum": given["spectrum"],
        "pin": read_pins(given["pin"] or ()),
        "loss_weights": read_loss_weights(given["loss_weight"] or ()),
        "exclude": given["exclude"] or (),
        "float_activations": given["float_activations"] or (),
        "layer_activations": read_layer_activations(given["layer_activations"] or ()),
        "ties": [[part.strip() for part in text.split(",")] for text in given["tie"] or ()],
        "quantized_parts": "keep" if given["keep_quantized"] else "refuse",
    }
    request |= {name: given[name] for name in _AS_GIVEN if given[name] is not None}
    if given["asymmetric"]:
        request["symmetric"] = False
    if given["latency_table"] is not None:
        request["latency_table"] = failures.read_json(given["latency_table"], "--latency-table")
    with failures.options():
        return QuantizeSpec.model_validate(request)
