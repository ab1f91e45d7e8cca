"""A digest that tells the weights of one training from those of another."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def weights_digest(model: ir.Model) -> str:
    """Digest every stored float tensor of a model: its name, type, shape and values.

    What else a file holds plays no part, such as descriptions, integers that shape tensors, and where tensors lie.

    Args:
        model: The model as read.

    Returns:
        The SHA-256, in hexadecimal.
    """
    found: dict[str, ir.TensorProtocol] = {}
    for number, graph in enumerate(model.graphs()):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                found[f"{number} {name}"] = value.const_value
        for node in graph:
            if node.op_type == "Constant" and "value" in node.attributes:
                found[f"{number} {node.outputs[0].name}"] = node.attributes["value"].as_tensor()
    digest = hashlib.sha256()
    for name, tensor in sorted(found.items()):
        if tensor.dtype.is_floating_point():
            digest.update(f"{name}\0{tensor.dtype.name} {[*tensor.shape]}\0".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
