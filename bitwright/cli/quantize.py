"""`bitwright quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitwright.cli.budget_options import (
    Confidence,
    EffectiveBits,
    Latency,
    LatencyFile,
    MaxDrop,
    Operations,
    PeakMemory,
    Size,
)
from bitwright.cli.choice_options import ActivationBits, Allocation, Bits, FloatIslands, MixChannels
from bitwright.cli.code_options import (
    ActivationRange,
    Asymmetric,
    BiasCorrection,
    BlockSize,
    Descent,
    Equalize,
    FoemBeta,
    Follow,
    Granularity,
    Rounding,
    Sparse,
    Trellis,
    WeightFormat,
    WeightRange,
)
from bitwright.cli.layer_options import (
    Exclude,
    FloatActivations,
    KeepQuantized,
    LayerActivations,
    Pin,
    Tie,
    read_layer_activations,
    read_pins,
)
from bitwright.cli.request_options import Data, Device, Effort, Folder, Model, Opset, Seed, Target, Workers
from bitwright.cli.score_options import Earlier, Loss, LossWeight, Sensitivity, Spectrum, read_loss_weights

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
    out: Folder,
    effort: Effort = None,
    target: Target = None,
    opset: Opset = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = None,
    size: Size = None,
    effective_bits: EffectiveBits = None,
    max_drop: MaxDrop = None,
    confidence: Confidence = None,
    latency: Latency = None,
    latency_table: LatencyFile = None,
    bops: Operations = None,
    peak_memory: PeakMemory = None,
    bits: Bits = None,
    activation_bits: ActivationBits = None,
    float_islands: FloatIslands = None,
    mix_channels: MixChannels = None,
    allocation: Allocation = None,
    pin: Pin = None,
    exclude: Exclude = None,
    layer_activations: LayerActivations = None,
    float_activations: FloatActivations = None,
    tie: Tie = None,
    keep_quantized: KeepQuantized = False,
    sensitivity: Sensitivity = None,
    loss: Loss = None,
    loss_weight: LossWeight = None,
    spectrum: Spectrum = False,
    earlier: Earlier = None,
    rounding: Rounding = None,
    descent: Descent = None,
    foem_beta: FoemBeta = None,
    follow: Follow = None,
    trellis: Trellis = None,
    bias_correction: BiasCorrection = None,
    equalize: Equalize = None,
    weight_range: WeightRange = None,
    activation_range: ActivationRange = None,
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
        request["latency_table"] = failures.read_option(
            given["latency_table"], "--latency-table", LatencyTable, "bitwright profile"
        )
    with failures.options():
        return QuantizeSpec.model_validate(request)
