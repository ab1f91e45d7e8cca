"""Store what stays float in 16 bits: where the user's file had it so, and where that holds it exactly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from quant_core.ingest.passes.float_types import STORED_IN_HALF

Spread = tuple[np.float32, npt.NDArray[np.float32]]
"""One number, and the factor of each channel."""

_FEWEST = 32  # elements; below, the Cast costs more than it saves
_TYPES: dict[str, tuple[int, npt.DTypeLike]] = {
    "float16": (onnx.TensorProto.FLOAT16, np.float16),
    "bfloat16": (onnx.TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}


def half_types(model: ir.Model, *, halves: bool) -> tuple[str, ...]:
    """Name the 16-bit types that a file may use.

    Args:
        model: The normalised model, which tells what types its own file had.
        halves: Whether float16 is among them whatever it had.

    Returns:
        `float16`, `bfloat16`, both or none.
    """
    had = tuple(name for name in model.meta.get(STORED_IN_HALF, ()) if name in _TYPES)
    return (*had, "float16") if halves and "float16" not in had else had


def half_type(values: npt.NDArray[np.generic], types: Collection[str]) -> str | None:
    """Name the 16-bit type that holds a tensor exactly.

    Args:
        values: The tensor.
        types: Those to choose from.

    Returns:
        The first that loses nothing; None where there is none, or too little to save.
    """
    if values.dtype != np.float32 or values.size < _FEWEST:
        return None
    for name in types:
        with np.errstate(over="ignore"):
            narrow = values.astype(_TYPES[name][1]).astype(np.float32)
        if np.array_equal(narrow, values, equal_nan=True):
            return name
    return None


def in_half(values: npt.NDArray[np.generic], name: str, kind: str) -> onnx.TensorProto:
    """Store a tensor in 16 bits.

    Args:
        values: float32 values that the type holds.
        name: Name of the stored tensor.
        kind: `float16` or `bfloat16`.

    Returns:
        The tensor.
    """
    code, dtype = _TYPES[kind]
    return onnx.TensorProto(
        name=name, data_type=code, dims=values.shape, raw_data=values.astype(dtype).tobytes()
    )


def store_in_half(proto: onnx.ModelProto, types: Collection[str]) -> None:
    """Store float32 initializers in 16 bits, each behind a Cast that onnxruntime folds when it loads the file.

    Args:
        proto: The quantized model, changed in place.
        types: 16-bit types that it may use.
    """
    if not types:
        return
    graph = proto.graph
    taken: Collection[str] = {name for node in graph.node for name in (*node.input, *node.output)}
    returned = {output.name for output in graph.output}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name in returned or not tensor.raw_data:
            continue  # what is large and stays as it is has no data here
        values = numpy_helper.to_array(tensor)
        kind = half_type(values, types)
        stored = f"{tensor.name}{SUFFIX}"
        if kind is None or stored in taken:
            continue
        casts.append(cast(stored, tensor.name))
        tensor.CopyFrom(in_half(values, stored, kind))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


SUFFIX = ".half"
"""What a stored tensor has behind its name."""


def store_spread(proto: onnx.ModelProto, spread: Mapping[str, Spread]) -> None:
    """Store constants that are one number times a factor for each channel as the number and the factors in float16.

    Args:
        proto: The quantized model, changed in place; constants that are no such product to the last bit stay.
        spread: Name -> number and factors.
    """
    graph = proto.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in graph.initializer}
    returned = {output.name for output in graph.output}
    fresh = (name for at in count() if (name := f"s{at}") not in taken)
    stored: dict[tuple[tuple[int, ...], bytes], str] = {}
    added: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(values: npt.NDArray[np.float32]) -> str:
        key = values.shape, values.tobytes()
        if key not in stored:
            name = next(fresh)
            if values.size == 1:
                added.append(numpy_helper.from_array(values, name))
            else:
                added.append(in_half(values, name, "float16"))
                name = next(fresh)
                nodes.append(cast(added[-1].name, name))
            stored[key] = name
        return stored[key]

    kept = []
    for tensor in graph.initializer:
        if tensor.name not in spread or tensor.name in returned:
            kept.append(tensor)
            continue
        whole, shares = spread[tensor.name]
        same = np.array_equal(whole * shares, numpy_helper.to_array(tensor))
        if not same or half_type(shares, ("float16",)) is None:
            kept.append(tensor)
            continue
        nodes.append(helper.make_node("Mul", [constant(shares), constant(np.asarray(whole))], [tensor.name]))
    if nodes:
        del graph.initializer[:]
        graph.initializer.extend([*kept, *added])
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *rest])


def cast(stored: str, name: str) -> onnx.NodeProto:
    """Write the node that makes a stored tensor float32.

    Args:
        stored: Name of the stored tensor.
        name: Name of the result.

    Returns:
        The node.
    """
    return helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT)
