"""How layers run: the forms, where rounding happens between them, and what the graph around a layer allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from quant_core.ingest.find_layers import reads_whole
from quant_core.ingest.layer import Layer
from quant_core.spec.bits import FLOAT_BITS, WIDE_BITS

Form = Literal["static", "dynamic", "block", "gather", "weight_only", "wide", "float"]
"""How a layer runs.

static: calibrated 8-bit activations around an integer kernel. dynamic: the input is rounded to the range it
happens to have, the output is float. block: the same for each row and block of inputs, weights stay packed. gather:
rows of an integer table, scaled after the look-up. weight_only: integer storage, float arithmetic. wide: the same on an
input that is rounded to 16 bits. float: untouched.
"""


_INPUT_BITS: Mapping[Form, int] = {"static": 8, "dynamic": 8, "block": 8, "wide": WIDE_BITS}


def input_bits(form: Form) -> int:
    """Tell how many bits the input of a layer has.

    Args:
        form: How it runs.

    Returns:
        8 or 16, or 32 for float.
    """
    return _INPUT_BITS.get(form, FLOAT_BITS)


@dataclass(frozen=True)
class Placement:
    """Where rounding happens.

    Attributes:
        forms: Layer name -> how it runs.
        points: Activation tensors with a grid of their own, in execution order.
        aliases: Tensor -> the tensor whose codes it carries unchanged (reshapes, max pooling).
        absorbed: Names of Relu and Clip nodes that the grid's lower end makes redundant.
        guarded: Names of layers that stay float between rounded tensors and need protection: onnxruntime would
            quantize their weights per tensor when it loads the file.
        float_pools: Names of pools that run in float beside integer kernels and need protection: onnxruntime would run
            them on codes.
        wide: Those of the points whose grid has 16 bits; that of others has 8.
        joined: Tensor that holds codes of several grids side by side -> the rounded tensor of each part and its
            channels; convolved batch normalizations alone read it.
        repeated: Name of a Resize of codes that lie channels last and only repeats rows and columns -> how often each
            row and each column.
        convolved: Name of a node that is no layer and runs as an integer convolution -> its channels.
    """

    forms: Mapping[str, Form]
    points: tuple[str, ...]
    aliases: Mapping[str, str]
    absorbed: frozenset[str]
    guarded: frozenset[str]
    float_pools: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()
    joined: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    repeated: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    convolved: Mapping[str, int] = field(default_factory=dict)

    def is_rounded(self, tensor: str) -> bool:
        """Tell whether a tensor exists as codes.

        Args:
            tensor: A tensor name.

        Returns:
            True if it has a grid, its own or another's, or grids of its parts.
        """
        return tensor in self.aliases or tensor in self.joined or tensor in self._with_grids

    @cached_property
    def _with_grids(self) -> frozenset[str]:
        return frozenset(self.points)


def layer_nodes(layer: Layer, model: ir.Model) -> list[ir.Node]:
    """Find the nodes that read a layer's weight.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.

    Returns:
        One node a use.
    """
    weight = model.graph.initializers[layer.weight]
    found = {node.name: node for node, _ in weight.uses()}
    return [found[use.node] for use in layer.uses]


def is_read_whole(layer: Layer, model: ir.Model) -> bool:
    """Tell whether a layer is a constant that is unpacked as it is, for operators that are no layers.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.

    Returns:
        True if so.
    """
    return all(reads_whole(node) for node in layer_nodes(layer, model))


def is_right_operand(layer: Layer, model: ir.Model) -> bool:
    """Tell whether a weight is what inputs are multiplied with, in every use, with constant biases only.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.

    Returns:
        True if so.
    """
    return all(use.operand == 1 for use in layer.uses) and all(
        _has_constant_bias(node) for node in layer_nodes(layer, model)
    )


def is_plain_product(layer: Layer, model: ir.Model) -> bool:
    """Tell whether Gemms are `x @ W + b` and nothing more, which is what integer kernels compute.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.

    Returns:
        True if no use scales or transposes its input.
    """
    return not any(
        node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
        or node.attributes.get_int("transA", 0)
        for node in layer_nodes(layer, model)
    )


def _has_constant_bias(node: ir.Node) -> bool:
    bias = node.inputs[2] if node.op_type != "MatMul" and len(node.inputs) > 2 else None
    return bias is None or bias.const_value is not None
