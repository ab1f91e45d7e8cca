"""Check that names are text."""

from __future__ import annotations

import onnx

from quant_core.errors import ModelError
from quant_core.ingest.reading.proto_tensors import walk_graphs


def check_text(model: onnx.ModelProto, where: str | None = None) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes.

    Args:
        model: The parsed file.
        where: The model file for messages.

    Raises:
        ModelError: If there is one.
    """
    texts: list[str | bytes] = [entry.domain for entry in model.opset_import]
    texts += [text for function in model.functions for text in (function.domain, function.name)]
    texts += [model.producer_name, model.producer_version, model.domain, model.graph.name]
    for value in [*model.graph.input, *model.graph.output]:
        texts += [value.name, *(size.dim_param for size in value.type.tensor_type.shape.dim)]
    for graph in walk_graphs(model):
        texts += [tensor.name for tensor in graph.initializers]
        for node in graph.nodes:
            texts += [node.op_type, node.domain, node.name, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
    for text in texts:
        if isinstance(text, bytes):
            raise ModelError(
                f"the name {text[:40]!r} is not UTF-8 text.",
                remedy="The file is damaged or was written wrongly; export the model again.",
                where=where,
            )
