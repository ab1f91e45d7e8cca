"""Write a mean over the places of an image as a pool."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.ranks import find_ranks

_IMAGE = 4  # axes
_PLANE = {2, 3}
_POOLED = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


class PoolMeans(ir.passes.InPlacePass):
    """Rewrite `ReduceMean` over the last two of four axes as `GlobalAveragePool`, and Flatten where axes go.

    Torch's newer exporter writes adaptive pooling to one place so, and `x.mean((2, 3))` is written so by all. Integer
    and float kernels of a pool take channels as convolutions lay them out.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, once constants are initializers."""
        found = [node for node in model.graph if node.op_type == "ReduceMean" and not node.domain]
        ranks = find_ranks(model) if any(map(_axes, found)) else {}
        pooled = [node for node in found if _is_plane(node, ranks)]
        for node in pooled:
            _rewrite(node)
        return ir.passes.PassResult(model, modified=bool(pooled))


def _axes(node: ir.Node) -> list[int]:
    held = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if held is None else held.numpy().reshape(-1).tolist()


def _is_plane(node: ir.Node, ranks: dict[str, int]) -> bool:
    source = node.inputs[0]
    if source is None or source.dtype not in _POOLED or ranks.get(str(source.name)) != _IMAGE:
        return False
    axes = [axis % _IMAGE for axis in _axes(node)]
    return len(axes) == len(_PLANE) and set(axes) == _PLANE


def _rewrite(node: ir.Node) -> None:
    old = node.outputs[0]
    new = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    nodes = [new]
    if not node.attributes.get_int("keepdims", 1):
        nodes.append(ir.node("Flatten", [new.outputs[0]]))
        new.outputs[0].name = f"{old.name}_places"
    assert node.graph is not None
    node.graph.insert_before(node, nodes)
    value, name = nodes[-1].outputs[0], old.name
    value.type, value.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    value.name = name
