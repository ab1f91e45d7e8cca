"""Which operators run on codes and which in float, once it is settled what is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from quant_core.export.placement.forms import Placement
from quant_core.export.placement.kernels import ROUNDED_OPS
from quant_core.export.placement.tensor_flow import value_name
from quant_core.ingest.layer import Layer


@dataclass(frozen=True, eq=False)
class CodeFlow:
    """Answers about the nodes of a placed graph.

    Attributes:
        layers: Its layers.
        placement: How they run, and what is rounded.
    """

    layers: Sequence[Layer]
    placement: Placement

    @cached_property
    def static_nodes(self) -> frozenset[str]:
        """Names of the nodes with integer kernels that read and write codes."""
        forms = self.placement.forms
        return frozenset(
            use.node for layer in self.layers if forms[layer.name] == "static" for use in layer.uses
        )

    def is_code(self, value: ir.Value | None) -> bool:
        """Tell whether a tensor exists as codes.

        Args:
            value: The tensor.

        Returns:
            True if it is rounded.
        """
        return value is not None and self.placement.is_rounded(value_name(value))

    def becomes_code(self, value: ir.Value) -> bool:
        """Tell whether a tensor is rounded, or what an absorbed activation function makes of it.

        Args:
            value: The tensor.

        Returns:
            True if so.
        """
        readers = [node for node, _ in value.uses()]
        absorbed = bool(readers) and all(str(node.name) in self.placement.absorbed for node in readers)
        return self.is_code(value) or (
            absorbed and all(self.becomes_code(node.outputs[0]) for node in readers)
        )

    def runs_in_float(self, node: ir.Node) -> bool:
        """Tell whether a node computes or moves float numbers, whatever form a layer that it reads has.

        Args:
            node: The node.

        Returns:
            False where an integer kernel takes and gives codes, and for what a grid makes redundant.
        """
        name = str(node.name)
        if name in self.static_nodes or name in self.placement.absorbed:
            return False
        if any(value.name in self.placement.aliases for value in node.outputs):
            return False
        if name in self.placement.convolved:
            return False
        known = node.op_type in ROUNDED_OPS and not node.domain
        written = known and all(map(self.becomes_code, node.outputs))
        return not (written and all(map(self.is_code, node.inputs)))
