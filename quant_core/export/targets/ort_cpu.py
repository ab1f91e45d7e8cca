"""The `ort-cpu` target: the form of each layer that onnxruntime's CPU kernels run fastest.

Unsigned 8-bit activations with signed weights per channel are the fast pair on a CPU. Weights are stored packed and
cast to int8, which onnxruntime folds when it loads the file, so that every width runs on the same integer kernels.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from quant_core.export.patterns.nbits import has_nbits_kernel
from quant_core.export.placement.forms import (
    Form,
    is_plain_product,
    is_read_whole,
    is_right_operand,
)
from quant_core.export.storage.functions import BIT_PLANE_OPSET
from quant_core.export.storage.unpacking import LocalFunctions
from quant_core.export.targets.target import Target
from quant_core.ingest.layer import RECURRENT, Layer
from quant_core.spec import FLOAT_BITS, WeightGrid
from quant_core.spec.bits import WIDE_BITS
from quant_core.spec.width import NARROW

_TWO_BIT_TYPES = frozenset({2, 3, 5, 6, NARROW})
_PACKED_OPSET = 21
_KERNEL_BITS = 8
_FEWEST_CHANNELS = 16
_FEWEST_IN_GROUPS, _FEWEST_ON_SMALL_PLANES, _SMALL_PLANE = 12, 8, 150
_MATRIX = 2  # axes
_PLANE = 4  # axes of the weight of a convolution in two dimensions
_STEM_OUTPUTS = {1: 32, 2: 32, 3: 16}
"""Input channels of a stem -> outputs up to which float is faster."""
_CHANNELS = WeightGrid()
# Looking up rows of codes and scaling them is three or four nodes in place of one. Unpacked at load, a table of 128 x
# 32 is read in 0.81 of the time, one of 512 x 384 in 0.66 (1.31, one busy thread), and takes 4 MB at most.
_SMALL_TABLE = 1 << 20


def ort_form(
    layer: Layer, model: ir.Model, bits: int, activation_bits: int, grid: WeightGrid = _CHANNELS
) -> Form:
    """Choose the fastest form of a layer that computes with its weights as they are.

    Integer kernels take one scale a channel; blocks, floating codes and 8-bit codes with a zero point are unpacked to
    float at load.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.
        bits: Bits of its weight.
        activation_bits: 8, 16 (rounded for a float kernel), or 32 for float activations; what the layer says for
            itself goes before it.
        grid: What its weight is rounded to.

    Returns:
        The form.
    """
    if bits == FLOAT_BITS:
        return "float"
    if any(use.op in RECURRENT for use in layer.uses):
        return "weight_only"
    if layer.op == "Gather":
        looks_up = all(use.op == "Gather" for use in layer.uses) and not is_read_whole(layer, model)
        in_rows = len(layer.shape) == _MATRIX and layer.axis == 0
        return "gather" if looks_up and (grid.block is None or in_rows) else "weight_only"
    rounded_to = layer.activation_bits or activation_bits
    if rounded_to == WIDE_BITS and is_right_operand(layer, model):
        return "wide"
    if not grid.suits_int8_kernels(bits):
        return "weight_only"
    if rounded_to != _KERNEL_BITS or layer.axis is None:
        return "weight_only"
    if not is_right_operand(layer, model):
        return "weight_only"
    ops = {use.op for use in layer.uses}
    if ops == {"Conv"}:
        return "static"
    if ops == {"Gemm"} and is_plain_product(layer, model):
        return "static" if layer.behind_convolution else "dynamic"
    if ops == {"MatMul"} and layer.by_rows:
        return "dynamic"
    return "weight_only"


def _form(
    layer: Layer, model: ir.Model, bits: int, activation_bits: int, grid: WeightGrid = _CHANNELS
) -> Form:
    rounds = (layer.activation_bits or activation_bits) == _KERNEL_BITS
    if rounds and has_nbits_kernel(layer, model, bits, grid):
        return "block"
    form = ort_form(layer, model, bits, activation_bits, grid)
    if form == "gather" and layer.parameters <= _SMALL_TABLE:
        return "weight_only"
    asked = layer.activation_bits == _KERNEL_BITS
    if form != "static" or asked:
        return form
    return "static" if _fills_integer_kernels(layer) and not _is_small_stem(layer) else "weight_only"


def _fills_integer_kernels(layer: Layer) -> bool:
    # Products of few channels do not fill onnxruntime's integer kernels, and what lays them out is slow in three
    # dimensions: depthwise with two outputs a channel took 8 to 12 times as long as float, 3 x 3 x 3 with one input
    # channel 8 times. Plain depthwise convolutions have kernels of their own. Time of nets of eight layers with 3 x 3
    # in groups, these in integers against float, borders with it, batch 1 and 8: 4 channels a group on 8 x 8 to
    # 16 x 16 1.6 to 2.1; 8 channels on 16 x 16 to 32 x 32 1.07 to 1.25, on 12 x 12 0.93 and 1.01, on 8 x 8 0.84 and
    # 0.89; 12 channels on 24 x 24 0.76 and 0.86 (1.31, one thread).
    if {use.op for use in layer.uses} != {"Conv"}:
        return True
    outputs, inputs = layer.shape[0] // layer.group, layer.shape[1]
    if outputs == inputs == 1 and layer.group > 1:
        return True
    fewest = min(outputs, inputs)
    if len(layer.shape) > _PLANE:
        return fewest >= _FEWEST_CHANNELS
    places = layer.output_elements / (layer.shape[0] * len(layer.uses))
    on_small_plane = 0 < places <= _SMALL_PLANE and fewest >= _FEWEST_ON_SMALL_PLANES
    return layer.group == 1 or fewest >= _FEWEST_IN_GROUPS or on_small_plane


def _is_small_stem(layer: Layer) -> bool:
    # Laying out patches of an image's few channels takes an integer kernel about as long as the float kernel takes
    # for everything, so long as outputs are few, and in float the image is not rounded. Files of a stem, a layer of 1
    # x 1 and a mean on 28 x 28 to 224 x 224, the image laid out (`input_layout`), in integers against float: 3
    # channels with 16 outputs 1.14 to 1.41, with 24 0.83 to 1.18, with 32 0.82 to 1.05, with 64 0.70; one channel
    # with 32 outputs 0.88 to 1.39, with 48 0.75 to 1.33, with 64 0.64 to 1.05; two channels with 16 outputs 0.99 to
    # 1.39, with 24 1.03 to 1.15, with 32 1.04 to 1.12. With a MaxPool behind the stem, which is then in float too,
    # one channel with 16 outputs 1.56 to 1.68, 3 with 16 1.77, with 24 0.94 (1.31, one busy thread).
    if not layer.first or {use.op for use in layer.uses} != {"Conv"} or len(layer.shape) != _PLANE:
        return False
    outputs, inputs, *kernel = layer.shape
    return layer.group == 1 and math.prod(kernel) > 1 and outputs <= _STEM_OUTPUTS.get(inputs, 0)


def _opset(widths: Collection[int]) -> int:
    return BIT_PLANE_OPSET if _TWO_BIT_TYPES.intersection(widths) else _PACKED_OPSET


ORT_CPU = Target(
    name="ort-cpu",
    form=_form,
    opset=_opset,
    storage=LocalFunctions(),
    integer_bias=True,
    norms_apart=True,
    convolves_averages=True,
    fuses_swish=True,
    halves=True,
    mixes_channels=True,
    decodes_trellis=True,
    lays_out_inputs=True,
    runs_here=True,
)
"""onnxruntime on a CPU."""
