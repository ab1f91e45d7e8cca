"""Which kernel runs each layer, read from the graph that onnxruntime makes of a file with its default options.

What onnxruntime 1.31 does to the name N of an operator node, found on graphs of every form the exporter writes:

- kept as it is by the int8 fusions (QLinearMatMul, QGemm, DynamicQuantizeMatMul, MatMulIntegerToFloat), where a
  MatMulInteger gives its name, and by FusedConv, MatMulNBits, Gather and everything that is not fused;
- `N_token_3` once a QLinearConv is moved to channels-last;
- `fused N` for FusedGemm, `N/MatMulAddFusion` for the Gemm made of MatMul and Add, `N/MatmulTransposeFusion/`,
  `N/MatMulScaleFusion/`, `N/GemmTransposeFusion/` and `N/GemmSumFusion/` for what takes in its neighbours;
- lost for a float Conv in blocked layout, which is named after the tensor that the last node fused into it
  writes: `T_nchwc`.

A float operator may still read weights that were quantized, through a DequantizeLinear that stays in the graph: the
slow form of a layer whose fusion failed. It is told apart as `DequantizeLinear+Conv`.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
import onnxruntime as ort

from quant_core.ingest.layer import RECURRENT, Layer, Use
from quant_core.verification.session import open_session

INT8_OPERATORS = frozenset(
    {
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulInteger",
        "ConvInteger",
        "MatMulNBits",
    }
)
"""Operators that multiply integers."""

FLOAT_OPERATORS = frozenset(
    {
        "Conv",
        "FusedConv",
        "NhwcFusedConv",
        "ConvTranspose",
        "Gemm",
        "FusedGemm",
        "MatMul",
        "FusedMatMul",
        "FusedMatMulActivation",
        "TransposeMatMul",
        "Gather",
        *RECURRENT,
    }
)
"""Operators that compute in float with the weights as they are."""

NOT_FOUND = "not found"
"""Stands for the kernel of a layer whose node could not be told in the optimized graph."""

FOLDED = "folded at load"
"""Stands for the kernel of a constant that is unpacked as it is: none runs it."""

_DEQUANTIZE = "DequantizeLinear"
_SAVED = "optimized.onnx"


def save_optimized_graph(path: Path, folder: Path) -> onnx.ModelProto:
    """Let onnxruntime write the graph it would run, and read its structure back.

    Weights go to a file beside it, so the size of the model does not matter, and are not read.

    Args:
        path: The model file.
        folder: An existing folder for the files onnxruntime writes.

    Returns:
        The optimized graph; large initializers are named but hold no data.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    open_session(path, options=saving(ort.SessionOptions(), folder))
    return read_saved(folder)


def saving(options: ort.SessionOptions, folder: Path) -> ort.SessionOptions:
    """Let a session write the graph it runs when it is opened.

    Args:
        options: Its options; changed.
        folder: An existing folder for the files onnxruntime writes.

    Returns:
        The same options.
    """
    options.optimized_model_filepath = str(folder / _SAVED)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "optimized.weights"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
    )
    return options


def read_saved(folder: Path) -> onnx.ModelProto:
    """Read what a session that was opened with `saving` has written.

    Args:
        folder: The folder it was given.

    Returns:
        The optimized graph; large initializers are named but hold no data.
    """
    return onnx.load(folder / _SAVED, load_external_data=False)


def optimized_graph(path: Path) -> onnx.ModelProto:
    """Give the graph onnxruntime runs for a file, without the data of large weights.

    Args:
        path: The model file.

    Returns:
        The optimized graph.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        return save_optimized_graph(path, Path(folder))


def kernels(path: Path, layers: Iterable[Layer], optimized: onnx.ModelProto | None = None) -> dict[str, str]:
    """Name the operator that runs each layer in onnxruntime's optimized graph.

    Args:
        path: The model file, float or quantized; its operator nodes carry the names that the layers know.
        layers: The layers to look for.
        optimized: The graph onnxruntime runs for the file, where that is known; else it is asked.

    Returns:
        Layer name -> operator; several joined by ", " where the uses of a shared weight run differently;
        `DequantizeLinear+<operator>` where a float operator dequantizes the weight in every run; `NOT_FOUND` where
        no trace of the node is left.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    graph = (optimized or optimized_graph(path)).graph
    producers = {output: node for node in graph.node for output in node.output}
    return {
        layer.name: ", ".join(dict.fromkeys(_kernel(use, node, producers) for use, node in found))
        for layer, found in _find_nodes(path, graph, layers)
    }


def layer_nodes(path: Path, layers: Iterable[Layer]) -> dict[str, tuple[str, ...]]:
    """Name the nodes that run each layer in onnxruntime's optimized graph, as its profile calls them.

    Args:
        path: The model file, float or quantized; its operator nodes carry the names that the layers know.
        layers: The layers to look for.

    Returns:
        Layer name -> node names; none where no trace of the layer is left.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    return {
        layer.name: tuple(dict.fromkeys(node.name for _, node in found if node is not None))
        for layer, found in _find_nodes(path, optimized_graph(path).graph, layers)
    }


def _find_nodes(
    path: Path, optimized: onnx.GraphProto, layers: Iterable[Layer]
) -> Iterator[tuple[Layer, list[tuple[Use, onnx.NodeProto | None]]]]:
    source = onnx.load(path, load_external_data=False).graph
    by_name = _nodes_by_original_name(optimized)
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in source.node:
        for name in node.input:
            consumers[name].append(node)
    outputs = {node.name: node.output[0] for node in source.node if node.name and node.output}
    for layer in layers:
        found = []
        for use in layer.uses:
            node = by_name.get(use.node) if use.node else None
            if node is None:
                node = _named_after_output(outputs.get(use.node, use.output), by_name, consumers)
            found.append((use, node))
        yield layer, found


def _kernel(use: Use, node: onnx.NodeProto | None, producers: Mapping[str, onnx.NodeProto]) -> str:
    if node is None:
        return NOT_FOUND
    if node.op_type in FLOAT_OPERATORS and use.operand < len(node.input):
        weight = producers.get(node.input[use.operand])
        if weight is not None and weight.op_type == _DEQUANTIZE:
            return f"{_DEQUANTIZE}+{node.op_type}"
    return node.op_type


def _nodes_by_original_name(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    # Undoes what onnxruntime does to names; an exact name wins over a derived one.
    known = INT8_OPERATORS | FLOAT_OPERATORS
    found: dict[str, onnx.NodeProto] = {}
    derived: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type not in known:
            continue
        found.setdefault(node.name, node)
        moved = re.sub(r"_token_\d+$", "", node.name)
        name = re.sub(r"(/[A-Za-z]+Fusion/?)+$", "", moved.removeprefix("fused "))
        # A file that onnxruntime wrote has nodes that were called "fused N" before it was read again.
        for each in (moved, name):
            derived.setdefault(each, node)
        if name.endswith("_nchwc"):
            derived.setdefault(f"output:{name.removesuffix('_nchwc')}", node)
    return derived | found


def _named_after_output(
    tensor: str, by_name: Mapping[str, onnx.NodeProto], consumers: Mapping[str, list[onnx.NodeProto]]
) -> onnx.NodeProto | None:
    # Follows the nodes that may be fused into a blocked Conv until a Conv is named after the end of the chain.
    for _ in range(4):  # Conv, batch norm, addition, activation: nothing longer is fused
        node = by_name.get(f"output:{tensor}")
        if node is not None:
            return node
        following = consumers.get(tensor, [])
        if len(following) != 1 or not following[0].output:
            return None
        tensor = following[0].output[0]
    return None
