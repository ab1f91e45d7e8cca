"""Bytes that decoding a trellis takes beside the codes."""

from __future__ import annotations

from google.protobuf.message import Message

from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.export.targets.target import Target
from quant_core.spec.width import TRELLIS

_FIELD = 3
"""Bytes of a field's tag and of the length of most."""
_NAMES = 8
"""Bytes by which names get longer where there are more of them."""
_DOMAIN = 32
"""Bytes that say which version of its own functions a file calls."""


def decoding_bytes(target: Target, shape: tuple[int, ...], axis: int) -> int:
    """Give the bytes that decoding takes in a layer.

    Args:
        target: The runtime.
        shape: Shape of its weight.
        axis: Axis along which paths run.

    Returns:
        Bytes of names and nodes, and of constants where these are the layer's own.
    """
    writer = GraphNodes(())
    target.storage.write_trellis(writer, "dense", shape, axis)
    return sum(map(_field, (*writer.nodes, *writer.initializers))) + _NAMES


def decoder_bytes(target: Target) -> int:
    """Give the bytes of the function that decodes, once a file.

    Args:
        target: The runtime.

    Returns:
        Bytes; 0 where layers hold all that it takes.
    """
    functions = target.storage.functions({TRELLIS})
    return sum(map(_field, functions)) + (_DOMAIN if functions else 0)


def _field(message: Message) -> int:
    size: int = message.ByteSize()
    return size + _FIELD
