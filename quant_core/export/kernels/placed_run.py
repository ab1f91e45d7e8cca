"""A file as onnxruntime's CPU kernels would run it: what its times are estimated from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from quant_core.export.kernels.channel_blocks import ChannelBlocks
from quant_core.export.placement.code_flow import CodeFlow
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.gates import gate_of
from quant_core.ingest.layer import Layer

_MOVES_NOTHING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that hand on the same bytes."""

Pass = Literal["border", "blocks"]
"""What is done between two kernels: rounding a tensor or making float numbers of its codes, or laying out its channels
in blocks or back."""


@dataclass(frozen=True, eq=False)
class PlacedRun:
    """One run of a file with one sample.

    Attributes:
        model: The normalised model.
        layers: Its layers.
        placement: How they run, and what is rounded.
        elements: Tensor name -> elements of one sample.
    """

    model: ir.Model
    layers: Sequence[Layer]
    placement: Placement
    elements: Mapping[str, float]

    @cached_property
    def owners(self) -> Mapping[str, Layer]:
        """Node name -> layer."""
        return {use.node: layer for layer in self.layers for use in layer.uses}

    @cached_property
    def flow(self) -> CodeFlow:
        """Which operators run on codes."""
        return CodeFlow(self.layers, self.placement)

    @cached_property
    def blocks(self) -> ChannelBlocks:
        """Which float tensors have their channels in blocks."""
        return ChannelBlocks(self.flow, self.owners, self.elements)

    @cached_property
    def passes(self) -> Sequence[tuple[str, Pass]]:
        """What is gone over because two kernels want it otherwise: another type, or another order of channels.

        Name of a tensor and what is done to it; a tensor that is laid out behind its rounding stands there twice.
        """
        graph, flow, points = self.model.graph, self.flow, set(self.placement.points)
        found: list[tuple[str, Pass]] = []

        def gone_over(names: Collection[str], kind: Pass) -> None:
            found.extend((name, kind) for name in sorted(names))

        def laid_out(values: Iterable[ir.Value]) -> None:
            gone_over(value_names(value for value in values if self.blocks.are_laid_out(value)), "blocks")

        gone_over(value_names(filter(flow.is_code, graph.outputs)), "border")
        gone_over(value_names(graph.inputs) & points, "border")
        laid_out(graph.inputs)
        for node in graph:
            if flow.runs_in_float(node):
                gone_over(value_names(node.outputs) & points, "border")
                if gate_of(node) is None:  # which reads the same, dequantized once for both
                    gone_over(value_names(filter(flow.is_code, node.inputs)), "border")
            laid_out(node.outputs)
        return found

    def takes_nothing(self, node: ir.Node) -> bool:
        """Tell whether a node takes no time of its own.

        Args:
            node: The node.

        Returns:
            True where it hands on the same bytes, and where it adds a constant to a product that does so itself because
            its input is rounded as it runs.
        """
        return node.op_type in _MOVES_NOTHING or self._adds_bias(node)

    def _adds_bias(self, node: ir.Node) -> bool:
        if node.op_type != "Add" or node.domain:
            return False
        makers = [
            value.producer() for value in node.inputs if value is not None and value.const_value is None
        ]
        if len(makers) != 1 or makers[0] is None:
            return False
        layer = self.owners.get(str(makers[0].name))
        return layer is not None and self.placement.forms[layer.name] == "dynamic"


def value_names(values: Iterable[ir.Value | None]) -> set[str]:
    """Name values.

    Args:
        values: Values, or None for operands that are left out.

    Returns:
        The names.
    """
    return {str(value.name) for value in values if value is not None}
