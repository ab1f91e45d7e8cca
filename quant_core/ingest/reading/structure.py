"""Check that a parsed file is a model that onnxruntime could run: versions, nesting, operators, inputs, outputs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import onnx
import onnx.checker
import onnx.defs
import onnx.helper

from quant_core.errors import ModelError, UnsupportedOperatorError
from quant_core.ingest.reading.graph_size import check_graph_size
from quant_core.ingest.reading.names import check_text
from quant_core.ingest.reading.proto_tensors import walk_graphs, walk_tensors
from quant_core.spec.limits import limits

MAX_OPSET = 26
"""Newest opset that onnxruntime 1.31 loads."""
MAX_IR_VERSION = 13
"""Newest version of the file format that onnxruntime 1.31 loads."""
MIN_OPSET = 7
"""Oldest opset that onnxruntime runs with the meaning of the specification."""

_DAMAGED = "The file is damaged or was written wrongly; export the model again."
# Domains whose operators onnxruntime brings along; the ONNX schemas do not know them.
_RUNTIME_DOMAINS = {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.contrib"}
_STANDARD = {"", "ai.onnx"}
_RUNTIME_OPERATORS = {"LayerNormalization", "SimplifiedLayerNormalization"}
"""What onnxruntime adds to the domain of the standard, of any opset; its optimizers write it."""
_EARLY_OPERATORS = {"Affine", "Crop", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"}
_LAST_EARLY_OPSET = 9
"""The last opset in which onnxruntime runs these, which were experimental and never became standard."""


def check_structure(model: onnx.ModelProto, path: Path) -> None:
    """Check everything about a model except its tensors.

    Args:
        model: The parsed file.
        path: Where it lies.

    Raises:
        ModelError: If the graph is missing, too new or old, nested too deep, too large, without inputs or outputs,
            has nodes of the same name, or gives inputs, sequences, optionals or maps.
        UnsupportedOperatorError: If it holds operators that nobody defines; all of them are named.
    """
    where = str(path)
    if not model.HasField("graph") or not model.graph.node or not model.ir_version:
        raise ModelError("the file holds no graph.", remedy="Give a complete ONNX model.", where=where)
    if model.ir_version > MAX_IR_VERSION:
        raise ModelError(
            f"the file uses version {model.ir_version} of the ONNX format; onnxruntime loads at most {MAX_IR_VERSION}.",
            remedy=f"Set ir_version to {MAX_IR_VERSION} and save it again; most models need nothing else.",
            where=where,
        )
    check_text(model, where)
    _check_opset(model, where)
    _check_nesting(model, where)
    check_graph_size(model, where)
    _check_operators(model, where)
    _check_node_names(model, where)
    initializers = {tensor.name for tensor in model.graph.initializer}
    if all(value.name in initializers for value in model.graph.input):
        raise ModelError("the graph has no input.", remedy="Export it with at least one.", where=where)
    if not model.graph.output:
        raise ModelError("the graph has no output.", remedy="Export it with at least one.", where=where)
    given = {value.name for value in model.graph.input}
    for value in model.graph.output:
        if value.name in given:
            raise ModelError(
                f"graph output {value.name!r} is a graph input; nothing computes it.",
                remedy="Leave it out of the outputs.",
                where=where,
            )
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            raise ModelError(
                f"graph output {value.name!r} is a {kind.removesuffix('_type')}; only tensors can be compared.",
                remedy="Export the model with tensors as outputs, such as the parts one by one.",
                where=where,
            )


def check_specification(path: Path, model: onnx.ModelProto, *, by_path: bool) -> None:
    """Run the official ONNX checker on a file.

    The checker wants outputs to have shapes, and knows none of the operators that onnxruntime adds to the standard's
    domain. Neither is in the way of running the model, so a copy is checked in which that is put right.

    Args:
        path: The model's file.
        model: The same, parsed and sorted; values in files are left out of the check.
        by_path: Whether files beside the model must be seen.

    Raises:
        ModelError: If the model breaks the specification; names the node where the checker does.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed = _put_right(copy)
    try:
        if by_path and not changed:
            onnx.checker.check_model(str(path))
        else:
            onnx.checker.check_model(_without_values(copy))
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"the model breaks the ONNX specification: {_summary(str(error))}",
            remedy=_DAMAGED,
            where=str(path),
        ) from error


def _put_right(model: onnx.ModelProto) -> bool:
    """Change what the checker refuses and onnxruntime runs; tell whether there was any."""
    shapeless = [value.type.tensor_type for value in model.graph.output if not _has_shape(value)]
    for kind in shapeless:
        kind.shape.SetInParent()
    version = max(
        (entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=MAX_OPSET
    )
    added = [
        node
        for graph in walk_graphs(model)
        for node in graph.nodes
        if node.domain in _STANDARD
        and node.op_type in _RUNTIME_OPERATORS | _EARLY_OPERATORS
        and not onnx.defs.has(node.op_type, version, "")
    ]
    for node in added:
        node.domain = "com.microsoft"
    for holder in (model, *model.functions) if added else ():
        if all(entry.domain != "com.microsoft" for entry in holder.opset_import):
            holder.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return bool(shapeless or added)


def _runs(operator: str, opset: int) -> bool:
    """Whether onnxruntime alone brings an operator to the domain of the standard."""
    early = operator in _EARLY_OPERATORS and opset <= _LAST_EARLY_OPSET
    return early or operator in _RUNTIME_OPERATORS


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return not value.type.HasField("tensor_type") or value.type.tensor_type.HasField("shape")


def _without_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """Empty the tensors whose values lie in a file; those of large ones were left there."""
    for _, tensor in walk_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.dims[:] = [0]
    return model


def _summary(message: str) -> str:
    """Keep the checker's first line and the node it was looking at."""
    unknown = re.search(r"input '(.*?)' of node:\s*name: (.*?) OpType: (\S+)", message)
    if unknown:  # nodes are sorted by now
        node = f"node {unknown[2]!r}" if unknown[2] else "a node without a name"
        return f"{node} ({unknown[3]}) reads {unknown[1]!r}, which nothing before it gives."
    first = message.strip().splitlines()[0].strip() if message.strip() else "the checker gave no reason"
    bad = re.search(r"Bad node spec for node\. Name: (.*?) OpType: (\S+)", message)
    place = f" (node {bad[1]!r}, {bad[2]})" if bad and bad[2] not in first else ""
    return f"{first}{place}" + ("" if first.endswith(".") else ".")


def _check_opset(model: onnx.ModelProto, where: str) -> None:
    versions = {entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}}
    if not model.opset_import:
        raise ModelError("the file names no operator set; it may be cut short.", remedy=_DAMAGED, where=where)
    if len(versions) > 1:
        raise ModelError(
            f"the model imports the ONNX opset in several versions: {sorted(versions)}.",
            remedy="Export it with one.",
            where=where,
        )
    for version in versions:
        if version > MAX_OPSET:
            raise ModelError(
                f"the model uses opset {version}; onnxruntime loads at most {MAX_OPSET}.",
                remedy=f"Export it with opset_version={MAX_OPSET} or lower.",
                where=where,
            )
        if version < MIN_OPSET:
            raise ModelError(
                f"the model uses opset {version}, which onnxruntime does not run reliably.",
                remedy=f"Export it with opset_version={MIN_OPSET} or higher.",
                where=where,
            )


def _check_nesting(model: onnx.ModelProto, where: str) -> None:
    deepest = limits().nesting
    for graph in walk_graphs(model):
        if graph.depth >= deepest:
            raise ModelError(
                f"subgraphs are nested {deepest} deep or more.",
                remedy="Export the model with less control flow.",
                where=where,
            )
        if graph.sparse:
            raise ModelError(
                "the graph holds sparse tensors.", remedy="Store them as dense tensors.", where=where
            )


def _check_node_names(model: onnx.ModelProto, where: str) -> None:
    for graph in walk_graphs(model):
        # onnxruntime makes initializers of constants before it looks at names.
        names = Counter(node.name for node in graph.nodes if node.name and node.op_type != "Constant")
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ModelError(
                f"{names[twice[0]]} nodes have the same name {twice[0]!r}; onnxruntime loads no such file.",
                remedy="Give each node a name of its own, or none.",
                where=where,
            )


def _check_operators(model: onnx.ModelProto, where: str) -> None:
    versions = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    local = {(function.domain or "ai.onnx", function.name) for function in model.functions}
    unknown: dict[str, None] = {}
    for graph in walk_graphs(model):
        for node in graph.nodes:
            domain = node.domain or "ai.onnx"
            if domain in _RUNTIME_DOMAINS or (domain, node.op_type) in local or domain not in versions:
                continue
            if domain == "ai.onnx" and _runs(node.op_type, versions[domain]):
                continue
            schema_domain = "" if domain == "ai.onnx" else domain
            if not onnx.defs.has(node.op_type, versions[domain], schema_domain):
                unknown[f"{node.op_type} ({domain} {versions[domain]})"] = None
    if unknown:
        raise UnsupportedOperatorError(
            f"the model holds operators that onnxruntime does not know: {', '.join(unknown)}.",
            remedy="Export it without them.",
            where=where,
        )
