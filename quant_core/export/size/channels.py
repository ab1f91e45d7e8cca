"""Bytes that channels of two widths take beside their codes."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import Message

from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.storage.packing import plane_bytes
from quant_core.export.targets.target import Target
from quant_core.spec.weight_grid import INT8_BITS
from quant_core.spec.width import NARROW

_FIELD = 3
"""Bytes of a field's tag and of the length of most."""
_INPUTS = 64


def bytes_apart(target: Target, name: str, channels: int, narrow: int) -> int:
    """Give the bytes that two widths take in a layer beside the codes of either and one width's names and nodes.

    Args:
        target: The runtime.
        name: Name of the weight.
        channels: Number of its channels.
        narrow: Bits of the narrow ones; the others have 8.

    Returns:
        Bytes of names, nodes, and of what says which channel is narrow.
    """
    codes = np.zeros((channels, _INPUTS), dtype=np.int8)
    weight = QuantizedWeight(codes, np.ones(channels, np.float32), 0, INT8_BITS)
    few = NarrowChannels(narrow, np.arange(channels) < max(1, channels // 2))
    plain, mixed = (GraphWriter((), target.storage) for _ in range(2))
    plain.stored_codes(name, codes, INT8_BITS)
    mixed.stored_channels(name, weight, few)
    count = int(few.channels.sum()) * _INPUTS
    stored = sum(plane_bytes(codes.size - count, INT8_BITS)) + sum(plane_bytes(count, narrow))
    return _bytes(mixed) - _bytes(plain) + codes.size - stored


def function_bytes(target: Target) -> int:
    """Give the bytes of the function that puts channels in order, once a file.

    Args:
        target: The runtime.

    Returns:
        Bytes.
    """
    return sum(map(_field, target.storage.functions({NARROW})))


def _bytes(writer: GraphWriter) -> int:
    return sum(map(_field, (*writer.nodes, *writer.initializers)))


def _field(message: Message) -> int:
    size: int = message.ByteSize()
    return size + _FIELD
