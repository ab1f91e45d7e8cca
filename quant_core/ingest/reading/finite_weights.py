"""Find NaN and infinity among stored weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quant_core.errors import ModelError

# Operators whose constant operands are trained weights. Elsewhere infinity can be meant, as in a mask.
_PARAMETRIC = {
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "Gather",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LSTM",
    "LayerNormalization",
    "MatMul",
    "PRelu",
    "RMSNormalization",
    "RNN",
}
_MOVES_DATA = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_CHUNK = 1 << 24


def check_finite_weights(model: ir.Model, where: str) -> None:
    """Refuse NaN in any stored float tensor, and infinity in one that an operator uses as a weight.

    Args:
        model: The model as read.
        where: The model file for messages.

    Raises:
        ModelError: If there is one; names the tensor.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            _check(value, value.const_value, where)
        for node in graph:
            if node.op_type == "Constant" and "value" in node.attributes:
                _check(node.outputs[0], node.attributes["value"].as_tensor(), where)


def _check(value: ir.Value, tensor: ir.TensorProtocol | None, where: str) -> None:
    if tensor is None or not tensor.dtype.is_floating_point():
        return
    nan, infinite = _count(tensor.numpy())
    if nan or (infinite and _is_weight(value)):
        found = "NaN" if nan else "infinity"
        raise ModelError(
            f"tensor {value.name!r} holds {found} in {nan or infinite} of {tensor.size} values.",
            remedy="The training has diverged or the file is damaged; give a model with finite weights.",
            where=where,
        )


def _count(array: np.ndarray) -> tuple[int, int]:
    flat = array.reshape(-1)
    nan = infinite = 0
    # In pieces, so that a large tensor costs little memory beside its own.
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        if not np.isfinite(piece).all():
            nan += int(np.isnan(piece).sum())
            infinite += int(np.isinf(piece).sum())
    return nan, infinite


def _is_weight(value: ir.Value) -> bool:
    for node in value.consumers():
        if node.op_type in _PARAMETRIC:
            return True
        if node.op_type in _MOVES_DATA and _is_weight(node.outputs[0]):
            return True
    return False
