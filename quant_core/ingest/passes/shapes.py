"""Replace questions about shapes by their answers where the graph's inputs settle them."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.passes.constants import replace_by_constant
from quant_core.ingest.shape_inference import infer_shapes

Sizes = list[int | None]


class FoldShapes(ir.passes.InPlacePass):
    """Fold Shape and Size, and Gather and Slice of a Shape, as far as sizes do not depend on dynamic axes.

    Shapes are inferred anew from the graph inputs: what an exporter noted inside the graph may hold for its example
    only.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place; only the main graph.

        Args:
            model: A model whose constants are initializers.

        Returns:
            The same model, with inferred shapes noted.
        """
        for node in model.graph:
            for output in node.outputs:
                if not output.is_graph_output():
                    output.shape = None
        infer_shapes(model)
        modified = False
        for node in list(model.graph):
            if node.domain or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
                continue
            answer = _answer(node)
            if answer is not None:
                replace_by_constant(node, ir.tensor(answer))
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _answer(node: ir.Node) -> np.ndarray | None:
    source = node.inputs[0] if node.inputs else None
    if node.op_type == "Shape":
        return _vector(_shape(node))
    if node.op_type == "Size":
        if source is None or source.shape is None or not source.shape.is_static():
            return None
        return np.array(math.prod(source.shape.numpy()), np.int64)
    asked = source.producer() if source is not None else None
    if asked is None or asked.op_type != "Shape" or asked.domain:
        return None
    sizes = _shape(asked)
    if sizes is None:
        return None
    if node.op_type == "Gather":
        return _gather(sizes, _constant(node, 1))
    if node.op_type == "Slice":
        return _slice(sizes, node)
    return None


def _shape(node: ir.Node) -> Sizes | None:
    """Give the sizes a Shape node returns, None for those that are dynamic."""
    source = node.inputs[0]
    if source is None or source.shape is None or source.is_graph_output():
        # The declared shape of a graph output is a promise of the exporter, not a finding.
        return None
    sizes: Sizes = [size if isinstance(size, int) else None for size in source.shape.dims]
    return sizes[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(sizes))]


def _vector(sizes: Sizes | None) -> np.ndarray | None:
    if sizes is None or None in sizes:
        return None
    return np.array(sizes, np.int64)


def _constant(node: ir.Node, position: int) -> np.ndarray | None:
    tensor = constant_tensor(node.inputs[position]) if position < len(node.inputs) else None
    return None if tensor is None else tensor.numpy()


def _gather(sizes: Sizes, indices: np.ndarray | None) -> np.ndarray | None:
    if indices is None or not all(-len(sizes) <= index < len(sizes) for index in indices.reshape(-1)):
        return None
    chosen = _vector([sizes[index] for index in indices.reshape(-1)])
    return None if chosen is None else chosen.reshape(indices.shape)


def _slice(sizes: Sizes, node: ir.Node) -> np.ndarray | None:
    starts, ends = _constant(node, 1), _constant(node, 2)
    steps = _constant(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else np.array([1])
    if starts is None or ends is None or steps is None or starts.size != 1:
        return None
    return _vector(sizes[int(starts.item()) : int(ends.item()) : int(steps.item())])
