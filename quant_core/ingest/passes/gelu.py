"""Write a GELU that an exporter took apart as one operator."""

from __future__ import annotations

import math

import onnx_ir as ir

from quant_core.ingest.passes.pieces import only_reader, the_number

_TOLERANCE = 1e-5


class FuseGelu(ir.passes.InPlacePass):
    """Rewrite `x * (erf(x / sqrt(2)) + 1) / 2` as `Gelu(x)`, however its factors are put together.

    The Gaussian error linear unit (Hendrycks and Gimpel, arXiv:1606.08415) in five operators is what torch writes below
    opset 20. onnxruntime fuses them by itself, but not where `x` is dequantized, for each reader alone, nor where the
    half has taken up scales of channels.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in place, once constants are initializers."""
        fused = [_fuse(node) for node in list(model.graph) if node.op_type == "Erf" and not node.domain]
        return ir.passes.PassResult(model, modified=any(fused))


def _fuse(erf: ir.Node) -> bool:
    inner = None if erf.inputs[0] is None else erf.inputs[0].producer()
    shift = only_reader(erf)
    if inner is None or inner.graph is not erf.graph or only_reader(inner) is not erf:
        return False
    source = _scaled_by(inner, math.sqrt(0.5))
    if source is None or shift is None or _offset_by_one(shift) is not erf.outputs[0]:
        return False
    # The product of x, the shifted error function and one half, of which two operands meet first.
    removed, value, half, times = [erf, inner, shift], shift.outputs[0], False, False
    while not (half and times):
        reader = only_reader(removed[-1])
        if reader is None or reader.op_type not in {"Mul", "Div"}:
            return False
        other = _other(reader, value)
        if not half and _scaled_by(reader, 0.5) is value:
            half = True
        elif not times and reader.op_type == "Mul" and other is source:
            times = True
        elif not half and not times and reader.op_type == "Mul" and _is_half_of(other, source):
            half = times = True
        else:
            return False
        removed.append(reader)
        value = reader.outputs[0]
    if value.is_graph_output():
        return False
    last = removed[-1]
    gelu = ir.node(
        "Gelu",
        [source],
        name=str(last.name),
        outputs=[ir.Value(name=f"{value.name}_gelu", type=value.type, shape=value.shape)],
    )
    assert last.graph is not None
    last.graph.insert_before(last, gelu)
    ir.convenience.replace_all_uses_with(value, gelu.outputs[0])
    name = value.name
    last.graph.remove([*reversed(removed[2:]), erf, inner], safe=True)
    gelu.outputs[0].name = name
    return True


def _is(value: ir.Value | None, wanted: float) -> bool:
    number = the_number(value)
    return number is not None and math.isclose(number, wanted, rel_tol=_TOLERANCE)


def _scaled_by(node: ir.Node, factor: float) -> ir.Value | None:
    """What a node multiplies by a factor."""
    if node.domain:
        return None
    if node.op_type == "Div":
        return node.inputs[0] if _is(node.inputs[1], 1 / factor) else None
    return _beside(node, "Mul", factor)


def _offset_by_one(node: ir.Node) -> ir.Value | None:
    return _beside(node, "Add", 1.0)


def _beside(node: ir.Node, op: str, number: float) -> ir.Value | None:
    if node.op_type != op or node.domain:
        return None
    first, second = node.inputs
    return first if _is(second, number) else second if _is(first, number) else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    first, second = node.inputs
    return second if first is value else first


def _is_half_of(value: ir.Value | None, source: ir.Value) -> bool:
    node = None if value is None else value.producer()
    return node is not None and _scaled_by(node, 0.5) is source
