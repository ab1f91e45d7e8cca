"""Write Mish by operators that have fast kernels."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.passes.constants import store_floats
from quant_core.ingest.passes.pieces import only_reader


class SpellOutMish(ir.passes.InPlacePass):
    """Rewrite `Mish(x) = x tanh(log(1 + e^x))` as `n (1 - 2 / (1 + s(n)^2))` with `n = -x` and s the sigmoid.

    For `tanh(log(1 + e^x)) = (1 - u^2) / (1 + u^2)` where `u = 1 / (1 + e^x) = s(-x)`, which no x overflows. What
    converters write as Softplus, Tanh and Mul (Misra, arXiv:1908.08681, equation 1) is rewritten too.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place.

        Args:
            model: A normalised model.

        Returns:
            The same model.
        """
        numbers: dict[int, ir.Value] = {}
        found = [node for node in list(model.graph) if not node.domain and _rewrite(node, numbers)]
        return ir.passes.PassResult(model, modified=bool(found))


def _rewrite(node: ir.Node, numbers: dict[int, ir.Value]) -> bool:
    gate = [node] if node.op_type == "Mish" else _gated(node)
    source = gate[-1].inputs[0] if gate else None
    graph = node.graph
    if source is None or graph is None or source.dtype not in {ir.DataType.FLOAT, None}:
        return False
    old = node.outputs[0]
    if not numbers:
        numbers |= {n: store_floats(graph, f"{old.name}_{n}", n) for n in (1, 2)}
    nodes: list[ir.Node] = []

    def apply(operator: str, *inputs: ir.Value) -> ir.Value:
        nodes.append(ir.node(operator, list(inputs), name=f"{node.name}_{len(nodes)}"))
        return nodes[-1].outputs[0]

    turned = apply("Neg", source)
    share = apply("Sigmoid", turned)
    over = apply("Add", apply("Mul", share, share), numbers[1])
    new = apply("Mul", turned, apply("Sub", numbers[1], apply("Div", numbers[2], over)))
    nodes[-1].name = node.name
    graph.insert_before(node, nodes)
    name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(dict.fromkeys([node, *gate]), safe=True)
    new.name = name
    return True


def _gated(node: ir.Node) -> list[ir.Node]:
    """Tanh and Softplus where a node is the product of x and the one of the other of x, and nothing else reads them."""
    if node.op_type != "Mul":
        return []
    for value, gated in (tuple(node.inputs), tuple(reversed(node.inputs))):
        tanh = None if value is None else value.producer()
        if tanh is None or tanh.op_type != "Tanh" or tanh.inputs[0] is None or only_reader(tanh) is not node:
            continue
        softplus = tanh.inputs[0].producer()
        if softplus is None or softplus.op_type != "Softplus" or only_reader(softplus) is not tanh:
            continue
        if softplus.inputs[0] is gated:
            return [tanh, softplus]
    return []
