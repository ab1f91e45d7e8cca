"""Write rectifiers with a slope for each channel by operators that have fast kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor
from quant_core.ingest.passes.constants import store_floats
from quant_core.ingest.ranks import find_ranks

_CHANNEL_AXIS = 1


class SpellOutPRelu(ir.passes.InPlacePass):
    """Rewrite `PRelu(x, a)` as `x + sign(1 - a_c) Relu(-|1 - a_c| x)`, with one slope as LeakyRelu.

    The factors are a batch normalization, which a convolution of codes computes, and its Relu vanishes in a grid. The
    sign takes another one, where any slope lies above 1. He et al., arXiv:1502.01852, introduced PReLU.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place.

        Args:
            model: A normalised model.

        Returns:
            The same model; PRelu stays where slopes are computed, or are no channels'.
        """
        found = [node for node in model.graph if node.op_type == "PRelu" and not node.domain]
        ranks = find_ranks(model) if found else {}
        changed = [_rewrite(node, ranks) for node in found]
        return ir.passes.PassResult(model, modified=any(changed))


def _rewrite(node: ir.Node, ranks: dict[str, int]) -> bool:
    source, held = node.inputs[0], constant_tensor(node.inputs[1])
    if source is None or held is None:
        return False
    slopes = held.numpy()
    if slopes.size == 1:
        nodes = [ir.node("LeakyRelu", [source], attributes={"alpha": float(slopes.reshape(-1)[0])})]
    else:
        rank = ranks.get(str(source.name), 0)
        aligned = (1,) * (rank - slopes.ndim) + slopes.shape
        if len(aligned) != rank or rank <= _CHANNEL_AXIS or aligned[_CHANNEL_AXIS] != slopes.size:
            return False
        nodes = _pieces(node, source, slopes.reshape(-1))
    assert node.graph is not None
    nodes[-1].name = node.name
    node.graph.insert_before(node, nodes)
    old, new = node.outputs[0], nodes[-1].outputs[0]
    name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    new.name = name
    return True


def _pieces(node: ir.Node, source: ir.Value, slopes: np.ndarray) -> list[ir.Node]:
    less = 1 - slopes.astype(np.float64)
    nodes = [_scaled(node, "less", source, -np.abs(less))]
    nodes.append(ir.node("Relu", [nodes[-1].outputs[0]], name=f"{node.name}_below"))
    if (less < 0).any():
        nodes.append(_scaled(node, "sign", nodes[-1].outputs[0], np.sign(less)))
    return [*nodes, ir.node("Add", [source, nodes[-1].outputs[0]])]


def _scaled(node: ir.Node, name: str, value: ir.Value, factors: np.ndarray) -> ir.Node:
    """A batch normalization that does nothing but to multiply channels."""
    prefix = f"{node.outputs[0].name}_{name}"
    zeros, ones = np.zeros(len(factors)), np.ones(len(factors))
    held = {"scale": factors, "shift": zeros, "mean": zeros, "variance": ones}
    assert node.graph is not None
    constants = [store_floats(node.graph, f"{prefix}_{key}", array) for key, array in held.items()]
    return ir.node(
        "BatchNormalization", [value, *constants], attributes={"epsilon": 0.0}, name=f"{node.name}_{name}"
    )
