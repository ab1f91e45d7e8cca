"""From an ONNX model to a program."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import torch

from quant_core.errors import ModelError, UnsupportedOperatorError, name_some
from quant_core.executor import ops as _ops  # noqa: F401 - importing fills the registry
from quant_core.executor.budget import Limits
from quant_core.executor.dtypes import Precision
from quant_core.executor.lowering import lower_graph
from quant_core.executor.program import Program
from quant_core.executor.scope import Frame, Missing, Scope, Setting
from quant_core.ingest.reading.graph_size import check_graph_size
from quant_core.ingest.reading.names import check_text
from quant_core.ingest.reading.proto_tensors import walk_graphs, walk_tensors
from quant_core.spec.limits import MAX_DEPTH


def compile_model(
    model: ir.Model,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    seed: int = 0,
    limits: Limits | None = None,
) -> Program:
    """Compiles a model into a differentiable torch program.

    On a GPU this process computes in float32 proper from then on: torch's convolutions would round to TF32's ten bits.

    Args:
        model: The model, normalised or as deserialized from a file.
        device: Where the program runs.
        dtype: Type of every float tensor, or None: float64 for double tensors and float32 for all others,
            float16 and bfloat16 included.
        seed: Seeds random operators that carry no seed of their own.
        limits: What one evaluation may allocate and compute; by default more than real models ask for.

    Returns:
        The program.

    Raises:
        UnsupportedOperatorError: If the graph holds operators without an implementation; names all of them.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    scope, inputs, outputs = _lower(model, torch.device(device), dtype, seed)
    missing = scope.setting.missing
    if missing:
        raise UnsupportedOperatorError(
            "Operators without an implementation: " + "; ".join(_describe(missing)) + ".",
            remedy=_LAID_OUT
            if any(entry.domain in _LAYOUT_DOMAINS for entry in missing)
            else "Replace these nodes, or export the model again with standard ONNX operators.",
        )
    names = tuple(value.name or "" for value in model.graph.outputs)
    return Program(scope, inputs, outputs, names, limits or Limits())


_LAYOUT_DOMAINS = {"com.microsoft.nchwc", "com.ms.internal.nhwc"}
_LAID_OUT = (
    "onnxruntime's optimizer laid this file out for the processor it ran on: give the model from before, or save it "
    "with ORT_ENABLE_EXTENDED instead of ORT_ENABLE_ALL."
)


def unsupported_operators(model: ir.Model | onnx.ModelProto) -> tuple[str, ...]:
    """Operators of a model that the executor does not know, with domain, opset and the nodes that use them.

    Args:
        model: The model, normalised or as deserialized from a file.

    Returns:
        One line per operator, in order of appearance; empty if the model can be compiled.
    """
    read = deserialize(model) if isinstance(model, onnx.ModelProto) else model
    scope, _, _ = _lower(read, torch.device("cpu"), None, 0)
    return tuple(_describe(scope.setting.missing))


def deserialize(model: onnx.ModelProto) -> ir.Model:
    """The graph of a protobuf.

    Args:
        model: The protobuf.

    Returns:
        The graph.

    Raises:
        ModelError: If it is too large, nested too deeply, holds names that are no text, refers to other files, or
            contradicts itself, for instance by one name for two tensors.
    """
    check_graph_size(model)
    check_text(model)
    if any(graph.depth >= MAX_DEPTH for graph in walk_graphs(model)):
        raise ModelError(
            f"Subgraphs are nested {MAX_DEPTH} deep or more.", remedy="Export it with less control flow."
        )
    for name, tensor in walk_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            # A protobuf does not know its folder, so that a reference could lead anywhere.
            raise ModelError(
                f"Tensor '{name}' refers to a file.",
                remedy="Read the model with onnx.load or quant_core.ingest.read_model, which know where the file lies.",
            )
    try:
        return ir.serde.deserialize_model(model)
    except Exception as error:
        raise ModelError(
            f"The graph contradicts itself: {error.__cause__ or error}",
            remedy="Check the model with onnx.checker, or export it again.",
        ) from error


def _lower(
    model: ir.Model, device: torch.device, dtype: torch.dtype | None, seed: int
) -> tuple[Scope, list[int], list[int]]:
    # Version counters, which tell a stored operand from a modified one, do not exist in inference mode.
    with torch.inference_mode(mode=False):
        scope = Scope(Setting(Precision(dtype), device, model.functions, seed=seed))
        frame = Frame(scope, model.graph.opset_imports, {})
        try:
            inputs, outputs = lower_graph(frame, model.graph)
        except RecursionError as error:
            raise ModelError(
                "Functions and subgraphs are nested too deeply.", remedy="Inline the model's functions."
            ) from error
    return scope, inputs, outputs


def _describe(missing: list[Missing]) -> list[str]:
    users: dict[tuple[str, str, int], list[str]] = {}
    for entry in missing:
        users.setdefault((entry.domain, entry.op, entry.version), []).append(entry.node)
    lines = []
    for (domain, op, version), nodes in users.items():
        lines.append(f"{domain or 'ai.onnx'}::{op} (opset {version}) at {name_some(nodes, 3)}")
    return lines
