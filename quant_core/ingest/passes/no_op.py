"""Turn operators that do nothing at inference into Identity, for `ResolveIdentity` to remove."""

from __future__ import annotations

import onnx_ir as ir


class NoOpsToIdentity(ir.passes.InPlacePass):
    """Rewrite Dropout outside training, and Cast to the type a tensor has already."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in subgraphs too, once constants are initializers."""
        found = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if _is_no_op(node)]
        for node in found:
            source, result, graph = node.inputs[0], node.outputs[0], node.graph
            assert source is not None  # checked by _is_no_op
            assert graph is not None  # it was found in one
            identity = ir.node("Identity", [source], name=node.name, num_outputs=1)
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [identity], [result], identity.outputs
            )
        return ir.passes.PassResult(model, modified=bool(found))


def _is_no_op(node: ir.Node) -> bool:
    if node.domain not in {"", "ai.onnx"} or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Dropout":
        # A third input that may be true asks for training; a mask that is read must be computed.
        training = node.inputs[2] if len(node.inputs) > 2 else None
        may_train = training is not None and (
            training.const_value is None or bool(training.const_value.numpy().any())
        )
        mask = node.outputs[1] if len(node.outputs) > 1 else None
        return not may_train and (mask is None or not (mask.uses() or mask.is_graph_output()))
    if node.op_type == "Cast":
        target = node.attributes.get_int("to", 0)
        return node.inputs[0].dtype is not None and node.inputs[0].dtype.value == target
    return False
