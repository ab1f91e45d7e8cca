"""The quantizable layer: one weight tensor and every node that uses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """One node that reads the weight.

    Attributes:
        node: Node name.
        op: Operator type.
        input: Name of the activation tensor it reads.
        output: Name of the tensor it writes.
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
        name: Unique name: that of the first node that uses the weight, or its output where nodes have none.
        op: Operator type of the first use: Conv, ConvTranspose, Gemm, MatMul or Gather.
        weight: Initializer name.
        shape: Weight shape.
        axis: Channel axis of the scales (output channels; rows of a table), or None for one scale per tensor.
        uses: Every node that reads the weight, in graph order.
        bias: Initializer name of the bias of the first use, if it has a constant one.
        group: Convolution groups; 1 elsewhere.
        macs: Multiply-accumulates per sample over all uses; 0 for Gather and while shapes are unknown.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    axis: int | None
    uses: tuple[Use, ...]
    bias: str | None = None
    group: int = 1
    macs: int = 0

    @property
    def parameters(self) -> int:
        """Number of weight elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def inputs(self) -> tuple[str, ...]:
        """Activation tensors the layer reads, without repeats."""
        return tuple(dict.fromkeys(use.input for use in self.uses))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors the layer writes."""
        return tuple(use.output for use in self.uses)
