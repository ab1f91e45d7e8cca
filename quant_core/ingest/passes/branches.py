"""Keep only the branch of an If whose condition is constant."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor


class InlineConstantIf(ir.passes.InPlacePass):
    """Move the nodes of the branch that is always taken into the main graph.

    Exporters write such nodes where a shape decides, as in `squeeze`; once the shape is known one branch is dead.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Inline Ifs of the main graph in place, once constants are initializers; inner ones follow next round."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "If" and not node.domain:
                modified |= _inline(node, model.graph)
        return ir.passes.PassResult(model, modified=modified)


def _inline(node: ir.Node, graph: ir.Graph) -> bool:
    condition = constant_tensor(node.inputs[0])
    if condition is None:
        return False
    taken = "then_branch" if bool(condition.numpy().all()) else "else_branch"
    branch = node.attributes[taken].as_graph()
    produced = list(branch.outputs)
    makers = [value.producer() for value in produced]
    if any(maker is None or maker.graph is not branch for maker in makers):
        # A branch that hands through a tensor of its parent, or a constant, stays as it is.
        return False
    if len(set(produced)) < len(produced):
        return False
    prefix = node.name or node.outputs[0].name
    for name in list(branch.initializers):
        initializer = branch.initializers.pop(name)
        initializer.name = f"{prefix}/{name}"
        graph.register_initializer(initializer)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    for moved in nodes:
        for value in moved.outputs:
            # Branches may repeat names of each other and of later tensors.
            value.name = f"{prefix}/{value.name}"
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, produced, strict=True):
        new.name, new.type, new.shape = old.name, old.type or new.type, old.shape or new.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True
