"""The quantizable layer: one weight tensor and every node that uses it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from quant_core.codes import ChannelAxis
from quant_core.spec.bits import FLOAT_BITS
from quant_core.spec.weight_grid import WeightGrid

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with two weights: W, which their input is multiplied with, and R, which the state is."""


@dataclass(frozen=True)
class Use:
    """One node that reads the weight.

    Attributes:
        node: Node name.
        op: Operator type.
        input: Name of the activation tensor it reads; of a recurrent node, for both weights, the sequence.
        output: Name of the tensor it writes; of a recurrent node the first that is read.
        operand: Position of the weight among the node's inputs.
    """

    node: str
    op: str
    input: str
    output: str
    operand: int


@dataclass(frozen=True)
class Layer:
    """One weight tensor, the unit that bits are given to. A weight shared by several nodes is one layer.

    Attributes:
        name: Unique name: that of the first node that uses the weight, or its output where nodes have none; behind that
            of a recurrent node `.W` or `.R`.
        op: Operator type of the first use: Conv, ConvTranspose, Gemm, MatMul, Gather, or one of `RECURRENT`.
        weight: Initializer name.
        shape: Weight shape.
        axis: Channel axis of the scales (output channels; rows of a table; gates of a recurrent node,
            both directions together), several for a stack of matrices, or None for one scale per tensor.
        uses: Every node that reads the weight, in graph order.
        bias: Initializer name of the bias of the first use, if it has a constant one.
        group: Convolution groups; 1 elsewhere.
        macs: Multiply-accumulates per sample over all uses; 0 for Gather and while shapes are unknown.
        input_elements: Elements per sample of all activations it reads; 0 while shapes are unknown.
        output_elements: Elements per sample of all tensors it writes; 0 while shapes are unknown.
        siblings: Other layers that read one of its activations, such as query, key and value.
        first: Whether no layer lies in front of one of its uses.
        last: Whether no layer comes after one of its uses.
        behind_convolution: Whether what it reads hangs on convolutions, past other operators and Gemm, and no MatMul
            lies as near.
        by_rows: Whether what a product comes to has an axis of rows; not known of some stacks of matrices.
        short_rows: Whether it is a table whose rows share one step, for a step each would cost more than it brings.
        activation_bits: 8, 16 or 32 (float) where its activations have bits of their own; else None.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    axis: ChannelAxis
    uses: tuple[Use, ...]
    bias: str | None = None
    group: int = 1
    macs: int = 0
    input_elements: int = 0
    output_elements: int = 0
    siblings: tuple[str, ...] = ()
    first: bool = False
    last: bool = False
    behind_convolution: bool = False
    by_rows: bool = True
    short_rows: bool = False
    activation_bits: int | None = None

    @property
    def parameters(self) -> int:
        """Number of weight elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def matrices(self) -> int:
        """Number of matrices in a stack that a MatMul reads; 1 elsewhere."""
        return math.prod(self.shape[:-2]) if self.op == "MatMul" else 1

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution each output of which reads one channel."""
        return self.op == "Conv" and self.group > 1 and self.shape[1] == 1

    def step_axis(self, grid: WeightGrid) -> ChannelAxis:
        """Say what has a step of its own.

        Args:
            grid: The grid of the weight.

        Returns:
            The axes along which steps, or the blocks' steps, lie; None for one step.
        """
        alone = grid.granularity == "tensor" or (self.short_rows and grid.block is None)
        return None if alone else self.axis

    @property
    def inputs(self) -> tuple[str, ...]:
        """Activation tensors the layer reads, without repeats."""
        return tuple(dict.fromkeys(use.input for use in self.uses))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors the layer writes."""
        return tuple(use.output for use in self.uses)


def with_float_activations(layers: Iterable[Layer], names: Collection[str]) -> tuple[Layer, ...]:
    """Note float activations on some layers.

    Args:
        layers: All layers.
        names: Names of those that run in float.

    Returns:
        All layers.
    """
    return tuple(
        replace(layer, activation_bits=FLOAT_BITS) if layer.name in names else layer for layer in layers
    )
