"""Model-local ONNX functions that put bit planes together; onnxruntime inlines and folds them at load."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quant_core.codes.trellis import LONGEST

DOMAIN = "bitwright"
BIT_PLANE_OPSET = 25
"""First opset with 2-bit types."""

_UINT8_BITS = np.array([1, 2, 4, 8, 16, 32, 64, 128], dtype=np.uint8)


def unpack_function(bits: int) -> onnx.FunctionProto:
    """Write the function that turns two planes into int8 codes: `codes = low + 2^l * high - 2^(b-1)`.

    Args:
        bits: 3, 5 or 6.

    Returns:
        `Unpack3`, `Unpack5` (inputs low and flat single bits; attributes shape, size) or `Unpack6` (inputs low, high).
    """
    low_bits = 2 if bits == 3 else 4
    nodes = [
        _constant("step", np.array(1 << low_bits, dtype=np.int8)),
        _constant("offset", np.array(1 << (bits - 1), dtype=np.int8)),
    ]
    if bits == 6:
        nodes.append(helper.make_node("Cast", ["high"], ["upper"], to=onnx.TensorProto.INT8))
    else:
        nodes += [
            _constant("mask", _UINT8_BITS),
            _constant("flat", np.array([-1], dtype=np.int64)),
            _constant("start", np.array([0], dtype=np.int64)),
            _attribute("shape", "dims"),
            _attribute("size", "end"),
            helper.make_node("Unsqueeze", ["high", "flat"], ["column"]),
            helper.make_node("BitwiseAnd", ["column", "mask"], ["masked"]),
            helper.make_node("Cast", ["masked"], ["set"], to=onnx.TensorProto.BOOL),
            helper.make_node("Cast", ["set"], ["single"], to=onnx.TensorProto.INT8),
            helper.make_node("Reshape", ["single", "flat"], ["padded"]),
            helper.make_node("Slice", ["padded", "start", "end"], ["cut"]),
            helper.make_node("Reshape", ["cut", "dims"], ["upper"]),
        ]
    nodes += [
        helper.make_node("Mul", ["upper", "step"], ["scaled"]),
        helper.make_node("Cast", ["low"], ["lower"], to=onnx.TensorProto.INT8),
        helper.make_node("Add", ["scaled", "lower"], ["unsigned"]),
        helper.make_node("Sub", ["unsigned", "offset"], ["codes"]),
    ]
    return helper.make_function(
        DOMAIN,
        f"Unpack{bits}",
        ["low", "high"],
        ["codes"],
        nodes,
        [helper.make_opsetid("", BIT_PLANE_OPSET)],
        attributes=[] if bits == 6 else ["shape", "size"],
    )


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, ""))


def _attribute(attribute: str, output: str) -> onnx.NodeProto:
    node = helper.make_node("Constant", [], [output])
    reference = node.attribute.add()
    reference.name, reference.ref_attr_name = "value_ints", attribute
    reference.type = onnx.AttributeProto.INTS
    return node


def outliers_function() -> onnx.FunctionProto:
    """Write the function that adds outliers to dense codes: `codes[sum of gaps so far] += excess`.

    Returns:
        `Outliers`, inputs int8 codes, uint8 gaps and 4-bit excess.
    """
    nodes = [
        _constant("flat", np.array([-1], dtype=np.int64)),
        _constant("first", np.array(0, dtype=np.int64)),
        helper.make_node("Cast", ["gaps"], ["steps"], to=onnx.TensorProto.INT32),
        helper.make_node("CumSum", ["steps", "first"], ["at"]),
        helper.make_node("Cast", ["excess"], ["more"], to=onnx.TensorProto.INT8),
        helper.make_node("Reshape", ["dense", "flat"], ["line"]),
        helper.make_node("ScatterElements", ["line", "at", "more"], ["sum"], axis=0, reduction="add"),
        helper.make_node("Shape", ["dense"], ["dims"]),
        helper.make_node("Reshape", ["sum", "dims"], ["codes"]),
    ]
    return helper.make_function(
        DOMAIN,
        "Outliers",
        ["dense", "gaps", "excess"],
        ["codes"],
        nodes,
        [helper.make_opsetid("", BIT_PLANE_OPSET)],
    )


def trellis_function() -> onnx.FunctionProto:
    """Write the function that decodes a trellis: `2 (c xor u2 xor u3) + u2`, u the last bits two and three before.

    Returns:
        `Trellis`, input int8 codes; attribute axes, a list of the axis along which paths run, the first if left out.
        How far apart the codes of one path lie follows from their number along it.
    """
    steps = ["bits", "once", "twice", "thrice"]
    nodes = [
        _constant("one", np.array(1, dtype=np.int8)),
        _constant("longest", np.array(LONGEST, dtype=np.int64)),
        _constant("rest", np.array(LONGEST - 1, dtype=np.int64)),
        _attribute("axes", "along"),
        helper.make_node("Shape", ["dense"], ["shape"]),
        helper.make_node("Gather", ["shape", "along"], ["outputs"]),
        helper.make_node("Add", ["outputs", "rest"], ["up"]),
        helper.make_node("Div", ["up", "longest"], ["ahead"]),
        helper.make_node("Neg", ["ahead"], ["behind"]),
        helper.make_node("Concat", ["ahead", "behind"], ["pads"], axis=0),
        helper.make_node("BitwiseAnd", ["dense", "one"], ["bits"]),
        *(helper.make_node("Pad", [early, "pads", "", "along"], [late]) for early, late in pairwise(steps)),
        helper.make_node("BitwiseXor", ["twice", "thrice"], ["flipped"]),
        helper.make_node("BitwiseXor", ["dense", "flipped"], ["half"]),
        helper.make_node("Add", ["half", "half"], ["even"]),
        helper.make_node("Add", ["even", "twice"], ["codes"]),
    ]
    return helper.make_function(
        DOMAIN,
        "Trellis",
        ["dense"],
        ["codes"],
        nodes,
        [helper.make_opsetid("", BIT_PLANE_OPSET)],
        attribute_protos=[helper.make_attribute("axes", [0])],
    )


def channels_function() -> onnx.FunctionProto:
    """Write the function that puts channels of two widths in order: each takes the next one of its width.

    Returns:
        `Channels`, inputs the int8 codes of the wide channels, those of the narrow ones, and a 1 for every wide and a 0
        for every narrow channel in 2 bits; attribute axis, along which channels lie.
    """
    nodes = [
        _constant("first", np.array(0, dtype=np.int64)),
        _constant("one", np.array(1, dtype=np.int32)),
        helper.make_node("Cast", ["wide"], ["byte"], to=onnx.TensorProto.INT8),
        helper.make_node("Cast", ["byte"], ["is_wide"], to=onnx.TensorProto.INT32),
        helper.make_node("Sub", ["one", "is_wide"], ["is_narrow"]),
        helper.make_node("CumSum", ["is_wide", "first"], ["of_wide"]),
        helper.make_node("CumSum", ["is_narrow", "first"], ["of_narrow"]),
        helper.make_node("ReduceSum", ["is_wide"], ["count"]),
        helper.make_node("Add", ["of_narrow", "count"], ["behind"]),
        helper.make_node("Cast", ["is_wide"], ["chosen"], to=onnx.TensorProto.BOOL),
        helper.make_node("Where", ["chosen", "of_wide", "behind"], ["number"]),
        helper.make_node("Sub", ["number", "one"], ["at"]),
        _along(helper.make_node("Concat", ["many", "few"], ["all"])),
        _along(helper.make_node("Gather", ["all", "at"], ["codes"])),
    ]
    return helper.make_function(
        DOMAIN,
        "Channels",
        ["many", "few", "wide"],
        ["codes"],
        nodes,
        [helper.make_opsetid("", BIT_PLANE_OPSET)],
        attributes=["axis"],
    )


def _along(node: onnx.NodeProto) -> onnx.NodeProto:
    reference = node.attribute.add()
    reference.name = reference.ref_attr_name = "axis"
    reference.type = onnx.AttributeProto.INT
    return node
