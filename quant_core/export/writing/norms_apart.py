"""Layer normalization kept apart from the addition in front of it.

onnxruntime fuses the two into SkipLayerNormalization wherever it can infer the shapes, as in models with fixed axes.
Its CPU kernel for that takes several times as long as both of them (1.31).
"""

from __future__ import annotations

from collections import Counter
from weakref import WeakKeyDictionary

import onnx
import onnx_ir as ir

from quant_core.export.placement.tensor_flow import captured_names, value_name
from quant_core.ingest.ranks import find_ranks

_MATRIX = 2  # axes

_RANKS: WeakKeyDictionary[ir.Model, dict[str, int]] = WeakKeyDictionary()
"""Of models that nothing changes any more: their sizes are predicted, and files are written of them several times."""


def keep_norms_apart(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Give the scales of layer normalizations behind additions a leading axis of 1.

    The standard broadcasts such a scale, and onnxruntime fuses those of one axis alone. Normalizations of vectors,
    which it would give an axis more, and of what has no known rank are left as they are; so are scales that anything
    else reads.

    Args:
        proto: The quantized model, changed in place.
        model: The normalised model it was made from.
    """
    behind = {
        str(node.name): value_name(node.inputs[0])
        for node in model.graph
        if node.op_type == "LayerNormalization" and not node.domain and _is_sum(node.inputs[0])
    }
    if not behind:
        return
    if model not in _RANKS:
        _RANKS[model] = find_ranks(model)
    ranks = _RANKS[model]
    apart = {name for name, source in behind.items() if ranks.get(source, 0) >= _MATRIX}
    readers = Counter(name for node in proto.graph.node for name in node.input)
    readers.update(output.name for output in proto.graph.output)
    scales = Counter(node.input[1] for node in proto.graph.node if node.name in apart)
    inside = captured_names(model.graph)
    for tensor in proto.graph.initializer:
        count = scales[tensor.name]
        if count and count == readers[tensor.name] and len(tensor.dims) == 1 and tensor.name not in inside:
            tensor.dims.insert(0, 1)


def _is_sum(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "Add" and not node.domain
