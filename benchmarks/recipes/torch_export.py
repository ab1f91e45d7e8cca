"""Export a torch module to one ONNX file that is the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch


def export(
    model: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    path: Path,
    *,
    inputs: list[str],
    output: str,
    dynamic: tuple[dict[int, Any], ...],
) -> None:
    """Write a module as ONNX.

    Args:
        model: The module, in evaluation mode.
        examples: One tensor per input.
        path: The file to write.
        inputs: Names of the graph inputs.
        output: Name of the graph output.
        dynamic: For each input, axis -> `torch.export.Dim`.
    """
    torch.onnx.export(
        model,
        examples,
        path,
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=dynamic,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    proto = onnx.load(path)
    # The exporter notes stack traces, whose paths differ from machine to machine and count as bytes of the model.
    for item in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        del item.metadata_props[:]
        item.ClearField("doc_string")
    del proto.graph.metadata_props[:]
    onnx.save(proto, path)
