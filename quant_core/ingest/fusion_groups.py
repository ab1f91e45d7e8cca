"""Layers that a runtime may fuse or run on one scale: found from the graph, so that they can be given the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.spec import FusionGroup

_PASSING = frozenset({"Relu", "Clip", "LeakyRelu", "HardSwish", "Identity", "BatchNormalization"})


def find_fusion_groups(graph: ir.Graph, layers: Sequence[Layer]) -> tuple[FusionGroup, ...]:
    """Find groups of layers that belong together.

    `shared_input`: products that read the same activation, such as query, key and value projections. `residual`: layers
    whose outputs are added, directly or behind an activation. `depthwise`: a depthwise convolution and the pointwise
    one behind it. `shared_weight`: one weight that several nodes read, such as a tied embedding; it is one layer, so
    that it has one number of bits anyway.

    Args:
        graph: The main graph.
        layers: Its layers.

    Returns:
        The groups, by kind, in graph order.
    """
    owner = {use.output: layer.name for layer in layers for use in layer.uses}
    by_name = {layer.name: layer for layer in layers}
    shared = [
        (layer.name, *(name for name in layer.siblings if _alike(layer, by_name[name])))
        for layer in layers
        if layer.op in {"MatMul", "Gemm"}
    ]
    residual = [
        tuple(
            dict.fromkeys(name for value in node.inputs if (name := _layer_behind(value, owner)) is not None)
        )
        for node in graph
        if node.op_type == "Add" and not node.domain
    ]
    depthwise = []
    for node in graph:
        name = next((owner[str(v.name)] for v in node.outputs if v.name in owner), None)
        if name is None or node.op_type != "Conv" or not node.inputs:
            continue
        before = _layer_behind(node.inputs[0], owner)
        if before is not None and by_name[before].is_depthwise and _is_pointwise(by_name[name]):
            depthwise.append((before, name))
    used_twice = [(layer.name,) for layer in layers if len(layer.uses) > 1]
    order = {layer.name: i for i, layer in enumerate(layers)}
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    for kind, groups, fewest in (
        ("shared_input", shared, 2),
        ("residual", residual, 2),
        ("depthwise", depthwise, 2),
        ("shared_weight", used_twice, 1),
    ):
        for group in groups:
            members = tuple(sorted(set(group), key=order.__getitem__))
            if len(members) >= fewest:
                found[kind, members] = None
    return tuple(FusionGroup.model_validate({"kind": kind, "layers": members}) for kind, members in found)


def _alike(one: Layer, other: Layer) -> bool:
    return other.op == one.op and other.uses[0].operand == one.uses[0].operand


def _layer_behind(value: ir.Value | None, owner: dict[str, str]) -> str | None:
    while value is not None:
        if value.name in owner:
            return owner[str(value.name)]
        node = value.producer()
        # A bias that is added on its own belongs to the product.
        if node is None or node.domain or not node.inputs:
            return None
        if node.op_type in _PASSING:
            value = node.inputs[0]
        elif node.op_type == "Add":
            free = [v for v in node.inputs if v is not None and v.const_value is None]
            if len(free) != 1:
                return None
            value = free[0]
        else:
            return None
    return None


def _is_pointwise(layer: Layer) -> bool:
    return layer.op == "Conv" and layer.group == 1 and all(size == 1 for size in layer.shape[2:])
