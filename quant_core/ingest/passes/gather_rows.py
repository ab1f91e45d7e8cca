"""Write a look-up of rows as Gather, which can look them up packed."""

from __future__ import annotations

import onnx_ir as ir


class GatherRows(ir.passes.InPlacePass):
    """Rewrite `GatherND(table, Unsqueeze(i, -1))` as `Gather(table, i)`, for tables that are constants.

    Torch's newer exporter writes `table[i]` so, for a tensor of indices i: rows of experts, positions, statistics.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, once constants are initializers."""
        found = [
            _rewrite(node) for node in list(model.graph) if node.op_type == "GatherND" and not node.domain
        ]
        return ir.passes.PassResult(model, modified=any(found))


def _rewrite(node: ir.Node) -> bool:
    table, places = node.inputs
    batched: int = node.attributes.get_int("batch_dims", 0)
    if table is None or not table.is_initializer() or batched != 0:
        return False
    rows = _before_last_axis(places)
    if rows is None:
        return False
    old = node.outputs[0]
    gather = ir.node(
        "Gather",
        [table, rows],
        name=node.name,
        outputs=[ir.Value(type=old.type, shape=old.shape)],
    )
    assert node.graph is not None
    node.graph.insert_before(node, gather)
    new, name = gather.outputs[0], old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    new.name = name
    return True


def _before_last_axis(places: ir.Value | None) -> ir.Value | None:
    """What an Unsqueeze put an axis behind."""
    put = None if places is None else places.producer()
    if put is None or put.op_type != "Unsqueeze" or put.domain or put.inputs[0] is None:
        return None
    axes = put.inputs[1].const_value if len(put.inputs) > 1 and put.inputs[1] is not None else None
    if axes is None or axes.size != 1:
        return None
    (axis,) = axes.numpy().reshape(-1).tolist()
    rank = None if put.inputs[0].shape is None else len(put.inputs[0].shape)
    return put.inputs[0] if axis == -1 or axis == rank else None
