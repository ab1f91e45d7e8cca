"""Names that the bodies of If, Loop and Scan mention."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def names_inside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Collect every name that the subgraphs of nodes read or make.

    Args:
        nodes: The nodes.

    Returns:
        Names of tensors and nodes inside them, at any depth.
    """
    found: set[str] = set()
    for node in nodes:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found |= {name for inner in body.node for name in (*inner.input, *inner.output, inner.name)}
                found |= {value.name for value in (*body.input, *body.initializer)}
                found |= names_inside(body.node)
    return found
