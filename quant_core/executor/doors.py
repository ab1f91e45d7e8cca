"""The executor for other people: a twin of onnxruntime's session, and a plain torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from quant_core.errors import SamplesError
from quant_core.executor.compiler import compile_model, deserialize
from quant_core.executor.dtypes import Kind, to_numpy, to_torch
from quant_core.executor.program import Program
from quant_core.ingest.reading.source import read_model


def load(model: onnx.ModelProto | ir.Model | Path | str, *, dtype: torch.dtype | None = None) -> Program:
    """Loads a model as a torch module.

    The module takes one tensor per graph input, in order, and returns a tuple of outputs, computed in float32 or
    float64 as the model says: float16 and bfloat16 models too compute in float32.

    Args:
        model: An ONNX model, or the path of its file.
        dtype: Type to compute every float tensor in instead, such as float16 for a model in half precision.

    Returns:
        The module; differentiable twice wherever mathematics allows.

    Raises:
        ModelError: If the file cannot be read, or the graph cannot be run.
    """
    if isinstance(model, (str, Path)):
        model = read_model(Path(model), quantized_parts="keep").model
    return compile_model(deserialize(model) if isinstance(model, onnx.ModelProto) else model, dtype=dtype)


def run(
    model: onnx.ModelProto | ir.Model | Path | str,
    feeds: dict[str, np.ndarray],
    *,
    dtype: torch.dtype | None = None,
) -> dict[str, np.ndarray]:
    """Runs a model once; the twin of `onnxruntime.InferenceSession.run`.

    Args:
        model: An ONNX model, or the path of its file.
        feeds: Input name -> array of the declared type.
        dtype: Type to compute every float tensor in, as for `load`.

    Returns:
        Output name -> array of the declared type.

    Raises:
        ModelError: If the file cannot be read, or the graph cannot be run.
        SamplesError: If an input has no feed, or is given floats where it holds integers.
    """
    program = load(model, dtype=dtype)
    tensors = {}
    for name, kind in zip(program.inputs, program.input_kinds, strict=True):
        if name in feeds:
            tensors[name] = _inward(feeds[name], kind, program, name)
    with torch.no_grad():
        values = program.evaluate(tensors)
    return {
        name: _outward(values[name], kind)
        for name, kind in zip(program.outputs, program.output_kinds, strict=True)
    }


def _inward(value: Any, kind: Kind | None, program: Program, name: str) -> Any:
    if isinstance(value, list):
        return [_inward(item, kind, program, name) for item in value]
    array = np.asarray(value)
    if array.dtype.kind == "f" and kind is not None and (kind.is_integer() or kind is Kind.BOOL):
        raise SamplesError(
            f"the array has type {array.dtype}, and the input holds {kind.name.lower()}.",
            remedy=f"Convert it: array.astype({kind.numpy().name!r}).",
            where=name,
        )
    return to_torch(array, kind or Kind.from_numpy(array.dtype), program.precision)


def _outward(value: Any, kind: Kind | None) -> Any:
    """Sequences are lists and an absent optional is None, as onnxruntime has them."""
    if isinstance(value, list):
        return [_outward(item, kind) for item in value]
    return value if value is None else to_numpy(value, kind)
