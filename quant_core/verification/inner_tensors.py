"""Tensors inside an exported file, as onnxruntime computes them on the kernels it chose.

Only codes are made visible where a tensor is rounded: a float tensor in front of a QuantizeLinear, made visible, would
keep onnxruntime from fusing the two. Other tensors are shown through Identity: onnxruntime moves the rounding behind a
Transpose or Reshape in front of it, and a graph output there would be rounded with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quant_core.codes import ActivationGrid
from quant_core.codes.number_formats import code_values
from quant_core.errors import InternalError
from quant_core.export import Placement
from quant_core.export.kernels.input_layout import before_layout
from quant_core.verification.session import Arrays, open_session, run

_SIGNED_OFFSET = 128  # int8 codes lie this much below those of the grid
_SHOWN = ":shown"


def read_inner_tensors(
    path: Path,
    model: ir.Model,
    names: Collection[str],
    placement: Placement,
    grids: Mapping[str, ActivationGrid],
    feeds: Arrays,
    *,
    literal: bool = False,
) -> dict[str, NDArray[Any]]:
    """Run one batch through an exported file and give tensors of the model it was made from.

    Args:
        path: The exported file.
        model: The normalised float model.
        names: Tensors of that model.
        placement: How the file was placed.
        grids: Tensor name -> 8-bit grid.
        feeds: Graph input name -> array.
        literal: Whether to run the file as it is written, without onnxruntime's rewrites.

    Returns:
        Name -> values; those of rounded tensors lie on their grids.

    Raises:
        InternalError: If the file has no such tensor.
    """
    proto = onnx.load(path, load_external_data=False)
    finder = _Finder(proto.graph, model, placement)
    given = {name for name in names if name in feeds and not placement.is_rounded(name)}
    constant = {name: model.graph.initializers[name] for name in names if name in model.graph.initializers}
    shown = {name: finder.find(name) for name in names if name not in given and name not in constant}
    given_out = {output.name: output.name for output in proto.graph.output}
    for (
        name,
        inner,
    ) in shown.items():  # several names may stand for one tensor, as where an Identity was left out
        if inner not in given_out:
            given_out[inner] = inner
            if not placement.is_rounded(name):
                given_out[inner] = f"{inner}{_SHOWN}"
                proto.graph.node.append(onnx.helper.make_node("Identity", [inner], [given_out[inner]]))
            proto.graph.output.append(
                onnx.ValueInfoProto(name=given_out[inner])
            )  # onnxruntime infers its type
    # Beside the file, where its external data is found.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".inner-", suffix=".onnx") as file:
        file.write(proto.SerializeToString())
        file.flush()
        session = open_session(Path(file.name), literal=literal)
    wanted = [value.name for value in session.get_inputs()]
    found = dict(
        zip([o.name for o in session.get_outputs()], run(session, {n: feeds[n] for n in wanted}), strict=True)
    )
    result = {name: np.asarray(feeds[name]) for name in given}
    result |= {
        name: np.array(value.const_value.numpy()) for name, value in constant.items() if value.const_value
    }
    for name, inner in shown.items():
        array = found[given_out[inner]]
        if placement.is_rounded(name):
            grid = grids[placement.aliases.get(name, name)]
            if grid.element:
                result[name] = code_values(grid.element)[array.view(np.uint8)] * np.float32(grid.scale)
                continue
            offset = _SIGNED_OFFSET if array.dtype == np.int8 else 0
            array = (array.astype(np.float32) + (offset - grid.zero_point)) * np.float32(grid.scale)
        result[name] = array
    return result


class _Finder:
    """Finds what a tensor of the model is called in the file."""

    def __init__(self, graph: onnx.GraphProto, model: ir.Model, placement: Placement) -> None:
        self.graph = graph
        self.placement = placement
        self.makers = {str(value.name): node for node in model.graph for value in node.outputs}
        self.nodes = {node.name: node for node in graph.node if node.name}
        self.written = {output: node for node in graph.node for output in node.output}
        self.quantizers = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
        self.given = {value.name for value in (*graph.input, *graph.initializer)}

    def find(self, name: str) -> str:
        if name in self.placement.aliases:
            maker = self.makers[name]
            position = [str(value.name) for value in maker.outputs].index(name)
            return str(self.nodes[str(maker.name)].output[position])
        if self.placement.is_rounded(name):
            writer = self.written.get(name)
            if writer is not None and writer.op_type == "DequantizeLinear":
                return str(writer.input[0])
            raw = self._raw(name)
            if raw not in self.quantizers:
                self._round_as_it_is(raw)
            if raw in self.quantizers:
                return str(self.quantizers[raw].output[0])
        elif name in self.written or name in self.given:
            return name
        elif self._is_left_out(name):
            return self.find(self._source(name))
        raise InternalError(f"the exported file has no tensor that stands for {name}")

    def _round_as_it_is(self, raw: str) -> None:
        """Add the rounding of a tensor that the file rounds once it is laid out, by the same step."""
        for laid_out, rounding in list(self.quantizers.items()):
            if before_layout(laid_out, self.written) == raw:
                node = onnx.helper.make_node("QuantizeLinear", [raw, *rounding.input[1:]], [f"{raw}{_SHOWN}"])
                self.quantizers[raw] = node
                self.graph.node.append(node)
                return

    def _raw(self, name: str) -> str:
        """What the producer of a rounded tensor writes: the input of an absorbed node or of an Identity left out."""
        maker = self.makers.get(name)
        if maker is None or not (maker.name in self.placement.absorbed or self._is_left_out(name)):
            return name
        return self._raw(self._source(name))

    def _is_left_out(self, name: str) -> bool:
        return name in self.makers and self.makers[name].op_type == "Identity" and name not in self.written

    def _source(self, name: str) -> str:
        source = self.makers[name].inputs[0]
        assert source is not None
        return str(source.name)
