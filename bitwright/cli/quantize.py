"""`bitwright quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitwright.cli.request_options import (
    BUDGETS,
    CHOICES,
    CODES,
    LAYERS,
    SCORES,
    Asymmetric,
    BlockSize,
    Data,
    Device,
    EffectiveBits,
    Equalize,
    Exclude,
    Granularity,
    Latency,
    LayerActivations,
    Loss,
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
    "trellis",
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
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="LEVEL",
            help="How much time to spend: fast, balanced or best. Default: balanced.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="Runtime the file is made for: ort-cpu, ort-cuda, tensorrt or portable. Default: ort-cpu.",
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", help="Opset of a portable file, 18 to 25. Default: 21."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", help="Seed of everything random; the same seed gives the same file."
        ),
    ] = 0,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Processes that share the measurements. Default: one for each GPU."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Size of the file: a ratio of the float file (0.18, 18%) or bytes (2.5MB). 0.25 if no budget is "
            "given.",
            rich_help_panel=BUDGETS,
        ),
    ] = None,
    effective_bits: EffectiveBits = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            metavar="BAND",
            help="The smallest file that stays this close to the float model: 0.5% (accuracy), sqnr>=20dB, "
            "cosine>=0.99 or loss<=0.05.",
            rich_help_panel=BUDGETS,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            "--confidence",
            metavar="C",
            help="How sure it must be that --max-drop is kept on other samples. Default: 95%.",
            rich_help_panel=BUDGETS,
        ),
    ] = None,
    latency: Latency = None,
    latency_table: Annotated[
        Path | None,
        typer.Option(
            "--latency-table",
            metavar="FILE",
            help="That table, from `bitwright profile`.",
            show_default=False,
            rich_help_panel=BUDGETS,
        ),
    ] = None,
    bops: Operations = None,
    peak_memory: PeakMemory = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="B,B",
            help="Bits that weights may get, among 2, 3, 4, 5, 6, 8 and float. Default: all but float.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    activation_bits: Annotated[
        str | None,
        typer.Option(
            "--activation-bits",
            metavar="B",
            help="Bits of activations: 8, 16, or float (only weights get smaller); several, such as 8,16,float, to "
            "choose layer by layer. Default: 8.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    float_islands: Annotated[
        str | None,
        typer.Option(
            "--float-islands",
            metavar="SHARE",
            help="How much longer the file may run so that layers that bear no 8-bit activations stay in float; 0 "
            "for not at all. Default: 0.15, more where 8 bits would ruin the answer or miss --max-drop.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    mix_channels: Annotated[
        bool | None,
        typer.Option(
            "--mix-channels/--no-mix-channels",
            help="Let the output channels of one layer have two different bit-widths. Default: yes.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            "--allocation",
            metavar="NAME",
            help="How bits are chosen: optimal, or for comparison hawq_v2 or ompq. Default: optimal.",
            rich_help_panel=CHOICES,
        ),
    ] = None,
    pin: Pin = None,
    exclude: Exclude = None,
    layer_activations: LayerActivations = None,
    float_activations: Annotated[
        list[str] | None,
        typer.Option(
            "--float-activations",
            metavar="GLOB",
            help="Run these layers in float on packed weights; may be repeated.",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            "--tie",
            metavar="GLOB,GLOB",
            help="Give these layers the same bits, or all groups of one kind: shared_input, residual, depthwise; "
            "may be repeated.",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    keep_quantized: Annotated[
        bool,
        typer.Option(
            "--keep-quantized",
            help="Of a model that is quantized in part, keep these parts and quantize the rest.",
            rich_help_panel=LAYERS,
        ),
    ] = False,
    sensitivity: Annotated[
        str | None,
        typer.Option(
            "--sensitivity",
            metavar="NAME",
            help="How the loss of a layer at few bits is estimated: output, interaction, pqi, gauss_newton, "
            "hawq_v2, hutch++, hawq, gnb, fisher or kfac. Default: output.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    loss: Loss = None,
    loss_weight: LossWeight = None,
    spectrum: Spectrum = False,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Take the sensitivities of an earlier job on this model and these samples, and measure nothing again.",
            show_default=False,
            rich_help_panel=SCORES,
        ),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            "--rounding",
            metavar="NAME",
            help="How weights find their codes: gptq, foem, adaround, brecq, qdrop, reconstruction, nearest or "
            "stochastic. Default: gptq.",
            rich_help_panel=CODES,
        ),
    ] = None,
    descent: Annotated[
        bool | None,
        typer.Option(
            "--descent/--no-descent",
            help="Improve the codes of GPTQ and FOEM one by one. Default: yes.",
            rich_help_panel=CODES,
        ),
    ] = None,
    foem_beta: Annotated[
        str | None,
        typer.Option(
            "--foem-beta",
            metavar="BETA",
            help="Weight of the first-order term of foem, 0 to 1. Default: 0.05.",
            rich_help_panel=CODES,
        ),
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow",
            help="Round the chosen layers again, one after another, for the inputs that the rounded layers before "
            "them give. Default: yes.",
            rich_help_panel=CODES,
        ),
    ] = None,
    trellis: Annotated[
        bool | None,
        typer.Option(
            "--trellis/--no-trellis",
            help="Give layers of 2 to 5 bits trellis codes, which lose less in the same bits, where that pays. "
            "Default: no.",
            rich_help_panel=CODES,
        ),
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option(
            "--bias-correction/--no-bias-correction",
            help="Let biases take up what rounding adds to mean outputs. Default: yes.",
            rich_help_panel=CODES,
        ),
    ] = None,
    equalize: Equalize = None,
    weight_range: Annotated[
        str | None,
        typer.Option(
            "--weight-range",
            metavar="NAME",
            help="How the steps of weights are chosen: hessian, mse, minmax or percentile. Default: hessian.",
            rich_help_panel=CODES,
        ),
    ] = None,
    activation_range: Annotated[
        str | None,
        typer.Option(
            "--activation-range",
            metavar="NAME",
            help="How the range of an 8-bit activation is chosen: mse, minmax, percentile, entropy or output. "
            "Default: output; for large networks and few samples mse, and output in front of a maximum.",
            rich_help_panel=CODES,
        ),
    ] = None,
    granularity: Granularity = None,
    block_size: BlockSize = None,
    asymmetric: Asymmetric = False,
    weight_format: WeightFormat = None,
    sparse: Sparse = None,
) -> None:
    """Make MODEL.onnx smaller within a budget, and write the new file with a report to DIR."""
    spec = read_spec(locals())
    from bitwright.cli import failures, local
    from bitwright.cli.stages import StageBars
    from bitwright.cli.tables import print_summary, standard_output
    from bitwright.terminal import Terminal

    with failures.options_of(spec), StageBars(Terminal(stderr=True)) as bars:
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
    from quant_core.spec.latency import LatencyTable

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
        request["latency_table"] = failures.read_written(
            given["latency_table"], "--latency-table", LatencyTable, "bitwright profile"
        )
    with failures.options():
        return QuantizeSpec.model_validate(request)
