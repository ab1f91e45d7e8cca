"""Write a hard sigmoid that a converter took apart as one operator."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.passes.pieces import only_reader, the_number


class FuseHardSigmoid(ir.passes.InPlacePass):
    """Rewrite `x * Clip(x + b, 0, c) / c` as `x * HardSigmoid(x)` with `alpha = 1/c` and `beta = b/c`.

    Hard-swish (Howard et al., arXiv:1905.02244, section 5.2) is what converters write so. Two passes over the tensor
    are left of four. The same without the product by x is rewritten as well.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in place, once constants are initializers."""
        fused = [_fuse(node) for node in list(model.graph) if node.op_type == "Clip" and not node.domain]
        return ir.passes.PassResult(model, modified=any(fused))


def _fuse(clip: ir.Node) -> bool:
    low, high = (the_number(clip.inputs[k]) if len(clip.inputs) > k else None for k in (1, 2))
    if low != 0 or high is None or high <= 0:
        return False
    shift = None if clip.inputs[0] is None else clip.inputs[0].producer()
    if shift is None or shift.op_type != "Add" or shift.domain or only_reader(shift) is not clip:
        return False
    source, offset = _with_number(shift)
    first = only_reader(clip)
    if source is None or offset is None or first is None:
        return False
    product = first if first.op_type == "Mul" and source in first.inputs else None
    last = first if product is None else only_reader(product)
    if last is None or not _divides(last, high, product or clip) or last.outputs[0].is_graph_output():
        return False
    value = clip.outputs[0]
    sigmoid = ir.node(
        "HardSigmoid",
        [source],
        attributes={"alpha": 1 / high, "beta": offset / high},
        name=str(clip.name),
        outputs=[ir.Value(name=f"{value.name}_sigmoid", type=value.type, shape=value.shape)],
    )
    assert clip.graph is not None
    clip.graph.insert_before(clip, sigmoid)
    result = sigmoid.outputs[0]
    if product is not None:
        ir.convenience.replace_all_uses_with(value, result)
        result = product.outputs[0]
    name = last.outputs[0].name
    ir.convenience.replace_all_uses_with(last.outputs[0], result)
    clip.graph.remove([last, clip, shift], safe=True)
    result.name = name
    return True


def _with_number(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    first, second = node.inputs
    number = the_number(second)
    return (first, number) if number is not None else (second, the_number(first))


def _divides(node: ir.Node, by: float, dividend: ir.Node) -> bool:
    """Whether a node divides what another writes by a number."""
    if node.op_type == "Div" and node.inputs[0] is dividend.outputs[0]:
        return the_number(node.inputs[1]) == by
    return False
