"""The values of Constant nodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from quant_core.errors import ModelError
from quant_core.executor.dtypes import Kind, Precision, to_torch


def value(attributes: Mapping[str, ir.Attr], precision: Precision, where: str) -> tuple[torch.Tensor, Kind]:
    """The tensor of a Constant node.

    Args:
        attributes: The node's attributes; exactly one gives the value.
        precision: Which torch type computes each ONNX type.
        where: Node name, for messages.

    Returns:
        The tensor and its ONNX element type.

    Raises:
        ModelError: If the value is sparse, a string, or missing.
    """
    if "value" in attributes:
        tensor = attributes["value"].as_tensor()
        return to_torch(tensor.numpy(), tensor.dtype, precision), tensor.dtype
    if "value_float" in attributes:
        return _plain(attributes["value_float"].as_float(), Kind.FLOAT, precision), Kind.FLOAT
    if "value_floats" in attributes:
        return _plain(list(attributes["value_floats"].as_floats()), Kind.FLOAT, precision), Kind.FLOAT
    if "value_int" in attributes:
        return _plain(attributes["value_int"].as_int(), Kind.INT64, precision), Kind.INT64
    if "value_ints" in attributes:
        return _plain(list(attributes["value_ints"].as_ints()), Kind.INT64, precision), Kind.INT64
    given = ", ".join(attributes) or "none"
    raise ModelError(
        f"A Constant node holds no dense numeric value (attributes: {given}).",
        remedy="Store the constant as a dense numeric tensor.",
        where=where,
    )


def _plain(number: object, kind: Kind, precision: Precision) -> torch.Tensor:
    return torch.from_numpy(np.asarray(number, dtype=kind.numpy())).to(precision.carrier(kind))
