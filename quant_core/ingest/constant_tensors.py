"""What of a graph is constant, and what it holds."""

from __future__ import annotations

import onnx_ir as ir


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Give the tensor that a constant holds.

    Args:
        value: What a node reads.

    Returns:
        The tensor; None for what is absent or computed, and for what a caller may give instead.
    """
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def own_constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Give the tensor that a constant of a single reader holds, which can be changed without harm to others.

    Args:
        value: What a node reads.

    Returns:
        The tensor; None for what `constant_tensor` gives none of, and for what others read or the graph gives out.
    """
    tensor = constant_tensor(value)
    if value is None or tensor is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return tensor


def constant_integers(value: ir.Value | None) -> list[int] | None:
    """Give the elements of a constant of integers, such as a shape.

    Args:
        value: What a node reads.

    Returns:
        Its elements; None for what is no constant.
    """
    tensor = constant_tensor(value)
    return None if tensor is None else [int(element) for element in tensor.numpy().reshape(-1)]


def stored_tensor(model: ir.Model, name: str) -> ir.TensorProtocol:
    """Give the tensor of an initializer of the main graph, such as the weight of a layer.

    Args:
        model: The model.
        name: Name of the initializer.

    Returns:
        Its tensor.
    """
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None  # initializers have values once a model is normalised
    return tensor
