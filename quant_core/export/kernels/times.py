"""What onnxruntime's CPU kernels take, in products in float: one sum of terms a kind, fitted to measured times.

Fitted to several hundred kernels of 3 to 960 channels, alone or in groups, 1 x 1 to 5 x 5, on 7 x 7 to 112 x 112
places, and to matrix products, one thread of a processor with AVX-512 VNNI, where a product in float took 20 ps.
Nothing is measured when a job runs: the same model has the same times everywhere.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from quant_core.export.placement.code_movers import repetitions
from quant_core.ingest.layer import Layer

KERNEL_SPEED = 4
"""How many products of 8 bits take the time of one in float."""
PASS = 16
"""Reading or writing one element, or laying it out in blocks of channels."""
BORDER = 20
"""Rounding one element or making a float number of its code, and moving it to where the other side wants it."""
START = 150
"""Beginning with a tensor; what calls of kernels take is counted apart (`kernel_calls`)."""
BLOCK = 16
"""Channels in a block of a float kernel; integer kernels write as many at a time."""

_PLANE, _ALONG_ONE_AXIS = 4, 3  # axes
_FLOAT_WRITE, _FLOAT_READ = 12, 4
_UNBLOCKED, _LINE = 5, 1.4
"""How many times longer a float convolution takes in groups that fill no blocks of channels, and along one axis, where
it is a matrix product that computes places sixteen at a time, if there are several."""
_WRITE, _PLACE, _PATCH, _TAP, _FETCH = 4, 390, 1, 105, 6
"""Integer convolutions: an output, a place of the image, a value of a patch, a tap of a patch, a weight."""
_FLOAT_FETCH, _NEAR_FETCH = 12, 6
"""A weight in float, and one that lies in a core's own cache from the run before."""
NEAR_WEIGHTS = 2**17
"""The most weights of a file that lie there."""
DIRECT_INPUTS = 4
"""Input channels are a multiple of so many where an integer convolution has a direct kernel."""
_ODD, _COPIED_TAP = 50, 18
"""What an output takes more, and a tap less, where windows of the input are copied instead."""
_FEWEST_OUTPUTS, _OUTPUT_BLOCK = 16, 8
"""Outputs of a direct kernel: so many at least, and on every x86 processor a multiple of eight."""
_COPIED_PATCH = 1.5
"""What a value of a patch takes more where windows are copied because outputs are fewer."""
_GROUP = 350
"""One tap at one place, for each group."""
_DEPTHWISE, _DEPTHWISE_WRITE, _DEPTHWISE_TAP, _REST = 2, 11, 53, 13
"""Depthwise in integers: a product, an output, a tap at a place, and more for each channel that fills no block."""
_ROW = 1500
"""A row that is rounded as the model runs."""

_FLOAT_PASSES = {
    "Atan": 80,
    "Celu": 180,
    "Cos": 130,
    "DequantizeLinear": PASS,
    "Elu": 150,
    "Erf": 45,
    "Gelu": 45,
    "HardSigmoid": 22,
    "HardSwish": 38,
    "LayerNormalization": 100,
    "LeakyRelu": 22,
    "Log": 140,
    "Mish": 1600,
    "Selu": 150,
    "Sigmoid": 22,
    "Sin": 130,
    "Softmax": 60,
    "Softplus": 1600,
    "Tanh": 22,
}
_CODE_PASSES = {"Add": 14, "Concat": 16, "LeakyRelu": 30, "Mul": 20, "Sigmoid": 32}
_CONVOLVED = frozenset({"AveragePool", "BatchNormalization"})
_WINDOW_WRITE, _WINDOW_TAP = 22, 4
"""What an output of a depthwise convolution of codes takes that is no layer, and a tap of it."""
_REPEATED, _RESIZED = 12, 120
"""An output of a Resize of codes: rows and columns repeated by copies, and any other, byte by byte."""
_SPREAD_ROW = 800
"""A row of channels that factors of channels are spread over, between integer kernels."""
MOVED_CODE = 4
"""Moving one code."""
_POOLED = {True: 6, False: 8}
"""An element that a pool reads: a code, a float number."""


def float_time(layer: Layer, *, near: bool = False) -> float:
    """Estimate what a layer takes in float.

    Args:
        layer: The layer, with what it reads, multiplies and writes.
        near: Whether the file has no more weights than `NEAR_WEIGHTS`.

    Returns:
        Time for one sample.
    """
    products, written = float(layer.macs), float(layer.output_elements)
    if layer.op == "Conv":
        padding = _padded(layer.shape[0]) / max(1, layer.shape[0])
        products, written = products * padding, written * padding
        if layer.group > 1 and not _is_depthwise(layer) and not _fills_blocks(layer):
            products *= _UNBLOCKED
        elif len(layer.shape) == _ALONG_ONE_AXIS:
            places = int(layer.output_elements / max(1, layer.shape[0]))
            products *= _LINE * (_padded(places) / places if places > 1 else 1)
    products = max(products, (_NEAR_FETCH if near else _FLOAT_FETCH) * layer.parameters)
    return START + products + _FLOAT_WRITE * written + _FLOAT_READ * layer.input_elements


def integer_time(layer: Layer) -> float:
    """Estimate what the integer kernel of a layer takes, which reads and writes codes.

    Args:
        layer: The layer, with what it reads, multiplies and writes.

    Returns:
        Time for one sample.
    """
    if layer.op != "Conv":
        return START + _integer_products(layer, layer.macs) + _WRITE * layer.output_elements
    outputs, inputs, *kernel = layer.shape
    taps = math.prod(kernel)
    places = layer.output_elements / max(1, outputs)
    if _is_depthwise(layer):
        rest = outputs % BLOCK
        return (
            START
            + _DEPTHWISE * layer.macs
            + _DEPTHWISE_WRITE * layer.output_elements
            + places * taps * (_DEPTHWISE_TAP + _REST * rest)
        )
    each = outputs // layer.group
    products = layer.macs * (_padded(each) / max(1, each))
    if layer.group == 1:
        return START + _integer_products(layer, products) + places * window_time(outputs, inputs, taps)
    time = START + _integer_products(layer, products) + _WRITE * layer.output_elements + _PLACE * places
    if taps > 1:
        time += places * taps * (_TAP + _PATCH * inputs * layer.group)
    time += _GROUP * places * (1 + taps) * layer.group
    return time + (_ODD * layer.output_elements if inputs * taps % 4 else 0)


def has_direct_kernel(outputs: int, inputs: int) -> bool:
    """Tell whether onnxruntime has a kernel for an integer convolution that copies no windows of its input.

    Args:
        outputs: Output channels.
        inputs: Input channels, in one group.

    Returns:
        True if so.
    """
    return outputs >= _FEWEST_OUTPUTS and outputs % _OUTPUT_BLOCK == 0 == inputs % DIRECT_INPUTS


def window_time(outputs: int, inputs: int, taps: int) -> float:
    """Estimate what an integer convolution in one group takes at a place, beside its products.

    Args:
        outputs: Output channels.
        inputs: Input channels.
        taps: Places of its window.

    Returns:
        Time.
    """
    copied = inputs % DIRECT_INPUTS > 0
    few = not copied and outputs < _FEWEST_OUTPUTS and taps > 1
    time = _PLACE + (_WRITE + _ODD * (copied or few)) * outputs
    patch = (_PATCH + _COPIED_PATCH * few) * inputs
    return time + (taps * (_TAP - _COPIED_TAP * copied + patch) if taps > 1 else 0.0)


def products_time(outputs: int, inputs: int, taps: int) -> float:
    """Estimate what the products of an integer convolution in one group take at a place.

    Args:
        outputs: Output channels.
        inputs: Input channels.
        taps: Places of its window.

    Returns:
        Time.
    """
    return _padded(outputs) * inputs * taps / KERNEL_SPEED


def dynamic_time(layer: Layer) -> float:
    """Estimate what a product takes whose input is rounded as the model runs.

    Args:
        layer: The layer, with what it reads, multiplies and writes.

    Returns:
        Time for one sample.
    """
    width = layer.shape[layer.axis] if layer.op == "Gemm" and isinstance(layer.axis, int) else layer.shape[-1]
    rows = layer.output_elements / max(1, width)
    passes = PASS * (layer.input_elements + layer.output_elements)
    return START + _integer_products(layer, layer.macs) + passes + _ROW * rows


def operator_time(
    node: ir.Node, written: float, read: float, *, in_float: bool, rounded: bool, rows: float = 0.0
) -> float:
    """Estimate what an operator takes that is no layer.

    Args:
        node: The operator.
        written: Elements that it writes.
        read: Elements of the largest tensor that it reads.
        in_float: Whether it computes with float numbers, or else with codes.
        rounded: Whether what it writes exists as codes.
        rows: How often factors of channels are spread, where these lie along the last axis.

    Returns:
        Time for one sample.
    """
    if node.op_type in _CONVOLVED and not in_float:
        return START + (_WINDOW_WRITE + _WINDOW_TAP * _taps(node)) * written
    if node.op_type in {"AveragePool", "GlobalAveragePool"}:
        return START + _POOLED[not in_float] * max(read, _taps(node) * written)
    if node.op_type == "Resize" and not in_float:
        return START + (_REPEATED if repetitions(node) else _RESIZED) * written
    if node.op_type == "MaxPool" and in_float:
        guard = _FLOAT_PASSES["LeakyRelu"] * written if rounded else 0.0
        return START + _POOLED[False] * max(read, written) + guard
    each = _FLOAT_PASSES.get(node.op_type, PASS) if in_float else _CODE_PASSES.get(node.op_type, MOVED_CODE)
    return START + each * written + _SPREAD_ROW * rows


def product_time(elements: float, channels: int, *, last: bool) -> float:
    """Estimate what a product by factors of channels takes beside integer kernels.

    Args:
        elements: Of the tensor.
        channels: Its channels.
        last: Whether channels lie along the last axis as the product is computed.

    Returns:
        Time for as many samples as there are elements of.
    """
    return START + PASS * elements + (_SPREAD_ROW * elements / channels if last else 0.0)


def _taps(node: ir.Node) -> int:
    return math.prod(node.attributes.get_ints("kernel_shape", [1]))


def is_blocked(layer: Layer) -> bool:
    """Tell whether the float kernel of a layer lays out channels in blocks.

    Args:
        layer: The layer.

    Returns:
        True for convolutions of images whose groups fill blocks, and depthwise ones.
    """
    return (
        layer.op == "Conv"
        and len(layer.shape) == _PLANE
        and (layer.group == 1 or _is_depthwise(layer) or _fills_blocks(layer))
    )


def _integer_products(layer: Layer, products: float) -> float:
    return max(products / KERNEL_SPEED, _FETCH * layer.parameters)


def _is_depthwise(layer: Layer) -> bool:
    return layer.is_depthwise and layer.shape[0] == layer.group


def _fills_blocks(layer: Layer) -> bool:
    return layer.shape[0] // layer.group % BLOCK == 0 == layer.shape[1] % BLOCK


def _padded(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
