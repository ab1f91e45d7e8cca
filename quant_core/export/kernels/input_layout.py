"""Inputs of integer convolutions laid out anew, so that onnxruntime takes its direct kernel for them.

onnxruntime has a direct kernel for integer convolutions whose input channels are a multiple of four. For others, such
as images, it copies a window of the input for each place of the output, which takes longer than the products. Two
changes of the file make the channels a multiple of four and leave every sum as it is: channels of zeros in input and
weight; or, for a layer that moves over an image in steps of 2 to 4, the `step x step` places that a step covers as
channels of one place (SpaceToDepth), of the image before it is rounded as of the weight. The second makes the window
smaller as well: 7 x 7 in steps of 2 over three channels are 4 x 4 over twelve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir

from quant_core.export.kernels.times import (
    DIRECT_INPUTS,
    MOVED_CODE,
    START,
    has_direct_kernel,
    integer_time,
    products_time,
    window_time,
)
from quant_core.export.placement.forms import layer_nodes
from quant_core.export.placement.tensor_flow import is_dequantized
from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.ingest.layer import Layer

_PLANE = 4  # axes of an image, and of the weight of a convolution over it
_LARGEST_STEP = 4
"""Larger steps gained nothing: 8 x 8 in steps of 8 took 0.98 of the time, 16 x 16 in steps of 16 1.22."""
_BLOCKED_CODE = 40
"""Laying one code of an image into channels, in products in float."""
_LAYING = frozenset({"Pad", "SpaceToDepth"})
_WORTH = 0.9
"""Share of the time that a layout may take; of what gains less, times differ by as much from run to run."""


@dataclass(frozen=True)
class InputLayout:
    """What an integer convolution reads in place of its input, and its weight with it.

    Attributes:
        zeros: Channels of zeros behind its own.
        step: Side of the squares of places that become channels of one place; 1 where places stay as they are.
        around: Rows and columns of zeros around the image before that: above, left, below, right. Fewer than none are
            rows and columns that no window reaches.
        beyond: The same below and right of the weight's window, which fill it up to whole steps.
    """

    zeros: int = 0
    step: int = 1
    around: tuple[int, int, int, int] = (0, 0, 0, 0)
    beyond: tuple[int, int] = (0, 0)

    def lay_out_input(self, writer: GraphNodes, name: str, zero_point: str | None = None) -> str:
        """Append what lays out the input.

        Args:
            writer: Where to write.
            name: The input, `[samples, channels, height, width]`, in float or its codes.
            zero_point: Name of the code of zero, of codes.

        Returns:
            Name of what the convolution reads.
        """
        padded = self._padded(writer, name, self.around, [] if zero_point is None else [zero_point])
        return writer.node("SpaceToDepth", [padded], blocksize=self.step) if self.step > 1 else padded

    def lay_out_weight(self, writer: GraphNodes, codes: str, shape: Sequence[int]) -> str:
        """Append what lays out the weight; onnxruntime folds it when it loads the file.

        Args:
            writer: Where to write.
            codes: Name of its signed codes, `[outputs, inputs, height, width]`.
            shape: Their shape.

        Returns:
            Name of the codes that the convolution reads.
        """
        padded = self._padded(writer, codes, (0, 0, *self.beyond), [])
        if self.step == 1:
            return padded
        # onnxruntime's SpaceToDepth takes no signed codes up to 1.27.
        outputs, inputs, *window = shape
        high, wide = self.window(window)
        apart = np.array([outputs, inputs, high, self.step, wide, self.step], dtype=np.int64)
        together = np.array([outputs, inputs * self.step**2, high, wide], dtype=np.int64)
        cut = writer.node("Reshape", [padded, writer.constant(apart)])
        turned = writer.node("Transpose", [cut], perm=[0, 3, 5, 1, 2, 4])
        return writer.node("Reshape", [turned, writer.constant(together)])

    def change(self, node: onnx.NodeProto) -> None:
        """Make a convolution move over the new layout.

        Args:
            node: The node; of its attributes only the size of the window stays, in steps.
        """
        if self.step > 1:
            (window,) = (
                list(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"
            )
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", self.window(window)))

    def window(self, sides: Sequence[int]) -> list[int]:
        """Count the places of the new layout that a window covers.

        Args:
            sides: Height and width of the window, in places as they were.

        Returns:
            Height and width.
        """
        return [(side + more) // self.step for side, more in zip(sides, self.beyond, strict=True)]

    def _padded(
        self, writer: GraphNodes, name: str, around: tuple[int, int, int, int], zero: Sequence[str]
    ) -> str:
        above, left, below, right = around
        pads = np.array([0, 0, above, left, 0, self.zeros, below, right], dtype=np.int64)
        return writer.node("Pad", [name, writer.constant(pads), *zero]) if pads.any() else name


AS_IT_IS = InputLayout()
"""What most layers read."""


def before_layout(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """Go back over what lays an input out; such nodes bear no names in a file.

    Args:
        name: What a layer reads, in float or codes.
        makers: Tensor name -> the node of the file that writes it.

    Returns:
        What was laid out; the name itself where nothing was.
    """
    while (maker := makers.get(name)) is not None and maker.op_type in _LAYING and not maker.name:
        name = maker.input[0]
    return name


def input_layout(layer: Layer, model: ir.Model) -> InputLayout:
    """Choose how the input of an integer convolution is laid out: as it takes least time by estimate (`kernel_times`).

    Measured over three channels, with rounding and a MaxPool, one thread of an Intel Xeon with AVX-512 VNNI: with a
    channel of zeros 3 x 3 in steps of 2 with 24 outputs took 0.56 of the time, in steps of 1 with 64 outputs 0.39;
    in steps 4 x 4 by 4 with 96 outputs 0.53 (0.63 with a channel of zeros), 7 x 7 by 2 with 64 0.59 (0.84).

    Args:
        layer: A layer that reads and writes codes.
        model: The normalised model.

    Returns:
        The layout; `AS_IT_IS` where no other takes clearly less.
    """
    if layer.op != "Conv" or layer.group > 1 or len(layer.shape) != _PLANE or len(layer.uses) > 1:
        return AS_IT_IS
    (node,) = layer_nodes(layer, model)
    if is_dequantized(node.inputs[0]):
        return AS_IT_IS  # of a part that was quantized already, which stays as it is
    outputs, inputs, *window = layer.shape
    missing = -inputs % DIRECT_INPUTS
    best, least = AS_IT_IS, _WORTH * _time(outputs, inputs, math.prod(window))
    if missing and has_direct_kernel(outputs, inputs + missing):
        time = _time(outputs, inputs + missing, math.prod(window)) + MOVED_CODE * (inputs + missing)
        if time < least:
            best, least = InputLayout(missing), time
    in_steps = _in_steps(layer, node) if layer.first else AS_IT_IS
    covered = in_steps.step**2
    if in_steps.step > 1 and has_direct_kernel(outputs, inputs * covered):
        taps = math.prod(in_steps.window(window))
        if _time(outputs, inputs * covered, taps) + _BLOCKED_CODE * covered * inputs < least:
            best = in_steps
    return best


def laid_out_time(layer: Layer, model: ir.Model) -> float:
    """Estimate what the integer kernel of a layer takes with what lays out its input (`integer_time`).

    Args:
        layer: A layer that reads and writes codes.
        model: The normalised model.

    Returns:
        Time for one sample.
    """
    layout = input_layout(layer, model)
    if layout == AS_IT_IS:
        return integer_time(layer)
    outputs, inputs, *window = layer.shape
    channels = (inputs + layout.zeros) * layout.step**2
    shape = outputs, channels, *layout.window(window)
    macs = round(layer.macs * math.prod(shape) / layer.parameters)
    laying = MOVED_CODE * layer.input_elements / inputs * channels
    if layout.step > 1:
        laying = _BLOCKED_CODE * channels * layer.output_elements / outputs
    return START + laying + integer_time(replace(layer, shape=shape, macs=macs))


def _time(outputs: int, inputs: int, taps: int) -> float:
    return window_time(outputs, inputs, taps) + products_time(outputs, inputs, taps)


def _in_steps(layer: Layer, node: ir.Node) -> InputLayout:
    """The layout whose places are steps; as it is where these are too large, or no image of known size is read."""
    attributes, image = node.attributes, node.inputs[0]
    step, *others = attributes.get_ints("strides", [1, 1])
    if (
        image is None
        or not image.is_graph_input()
        or image.shape is None
        or others != [step]
        or not 1 < step <= _LARGEST_STEP
    ):
        return AS_IT_IS
    sides = [side for side in list(image.shape)[2:] if isinstance(side, int)]
    if len(sides) < _PLANE - 2 or "kernel_shape" not in attributes:
        return AS_IT_IS
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or set(
        attributes.get_ints("dilations", [1])
    ) != {1}:
        return AS_IT_IS
    above, left, *rest = attributes.get_ints("pads", [0] * 4)
    behind, beyond = [], []
    for side, before, after, taps in zip(sides, (above, left), rest, layer.shape[2:], strict=True):
        last = (side + before + after - taps) // step * step  # where the last window starts
        beyond.append(-taps % step)
        behind.append(last + taps + beyond[-1] - side - before)
    return InputLayout(0, step, (above, left, behind[0], behind[1]), (beyond[0], beyond[1]))
