"""Averages of windows in float, written as convolutions.

From opset 19 on, which files with 2- and 4-bit types need, onnxruntime's AveragePool has a kernel that goes place by
place: 24 channels of 28 x 28, 3 x 3, take 589 us and not 68 as before, a convolution with constant weights 49. Images
whose channels fill blocks are not concerned (1.31, one thread).
"""

from __future__ import annotations

import math
from itertools import count
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from quant_core.export.kernels.times import BLOCK
from quant_core.export.writing.opset import opset_of
from quant_core.ingest.shape_inference import infer_shapes

_SLOW_SINCE = 19
_LARGEST = 1 << 20
"""Elements of a weight that is made at load."""
_IMAGE = 4  # axes

Shape = tuple[int | None, ...]

_SHAPES: WeakKeyDictionary[ir.Model, dict[str, Shape]] = WeakKeyDictionary()
"""Of models that nothing changes any more: their sizes are predicted, and files are written of them several times."""


def convolve_averages(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Write averages of windows that onnxruntime takes slowly as convolutions, each channel in a group of its own.

    Windows that reach over an edge where only what lies inside counts are left as they are, and so is what has an
    unknown number of channels.

    Args:
        proto: The quantized model, changed in place.
        model: The normalised model it was made from.
    """
    if opset_of(proto) < _SLOW_SINCE:
        return
    sources = {
        str(node.name): str(node.inputs[0].name)
        for node in model.graph
        if node.op_type == "AveragePool" and not node.domain and node.inputs[0] is not None
    }
    if not sources:
        return
    if model not in _SHAPES:
        _SHAPES[model] = _inferred(model)
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        shape = _SHAPES[model].get(sources.get(node.name, ""), ())
        window = _window(node, shape) if node.op_type == "AveragePool" else None
        if window is not None:
            sizes = [int(shape[1] or 0), 1, *window]
            nodes += _convolution(proto, node, sizes, taken)
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _inferred(model: ir.Model) -> dict[str, Shape]:
    shaped = model.clone()
    for node in shaped.graph:
        for output in node.outputs:
            output.shape = None  # what an exporter noted may hold for its example only
    infer_shapes(shaped)
    values = [*shaped.graph.inputs, *(output for node in shaped.graph for output in node.outputs)]
    return {
        str(value.name): tuple(size if isinstance(size, int) else None for size in value.shape)
        for value in values
        if value.shape is not None
    }


def _window(node: onnx.NodeProto, shape: Shape) -> list[int] | None:
    """The window of an average that a convolution takes as fast or faster."""
    held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    window: list[int] = list(held["kernel_shape"])
    steps, pads = held.get("strides", [1] * len(window)), held.get("pads", [0] * 2 * len(window))
    reach = [d * (k - 1) + 1 for d, k in zip(held.get("dilations", [1] * len(window)), window, strict=True)]
    channels = shape[1] if len(shape) == len(window) + 2 else None
    if channels is None or channels * math.prod(window) > _LARGEST:
        return None
    if len(shape) == _IMAGE and channels % BLOCK == 0:
        return None
    if held.get("auto_pad", b"NOTSET") != b"NOTSET" or (any(pads) and not held.get("count_include_pad", 0)):
        return None
    padded = [
        None if size is None else size + before + behind
        for size, before, behind in zip(shape[2:], pads[: len(window)], pads[len(window) :], strict=True)
    ]
    whole = all(
        size is not None and (size - covered) % step == 0
        for size, covered, step in zip(padded, reach, steps, strict=True)
    )
    return window if whole or not held.get("ceil_mode", 0) else None


def _convolution(
    proto: onnx.ModelProto, node: onnx.NodeProto, sizes: list[int], taken: set[str]
) -> list[onnx.NodeProto]:
    shape, weight = _free("a", taken), _free("a", taken)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), shape))
    share = numpy_helper.from_array(np.array([1 / math.prod(sizes[2:])], np.float32))
    made = helper.make_node("ConstantOfShape", [shape], [weight], value=share)
    kept = [each for each in node.attribute if each.name in {"dilations", "pads", "strides"}]
    inputs = [node.input[0], weight]
    convolution = helper.make_node("Conv", inputs, list(node.output), name=node.name, group=sizes[0])
    convolution.attribute.extend(kept)
    return [made, convolution]


def _free(prefix: str, taken: set[str]) -> str:
    name = next(name for at in count() if (name := f"{prefix}{at}") not in taken)
    taken.add(name)
    return name
