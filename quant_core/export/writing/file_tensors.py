"""Tensors between nodes as the file has them: what a producer writes, its codes, and what floats read."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx

from quant_core.codes import ActivationGrid
from quant_core.export.kernels.input_layout import AS_IT_IS, InputLayout
from quant_core.export.patterns.code_images import CodedImage
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.placement.forms import Placement
from quant_core.export.placement.guards import MOVED_PAST
from quant_core.export.targets.target import Target
from quant_core.ingest.subgraphs import names_inside

_BYTE = 8  # bits
_RECTIFIERS = frozenset({"Relu", "Clip"})
_SIGNED_OFFSET = 128  # a grid's codes count from 0; as int8 they are this much lower


class FileTensors:
    """Names of tensors in the file, written as they are asked for.

    Args:
        graph: The float graph.
        placement: Which tensors are rounded.
        grids: Tensor name -> grid, for every point of the placement.
        target: The runtime.
        writer: Where nodes and constants go.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        placement: Placement,
        grids: Mapping[str, ActivationGrid],
        target: Target,
        writer: GraphWriter,
    ) -> None:
        self.placement = placement
        self.grids = grids
        self.target = target
        self.writer = writer
        # Subgraphs read tensors by their names, as callers read outputs.
        made = {name for node in graph.node for name in node.output if name}
        self.captured = names_inside(graph.node) & made
        self.outputs = {output.name for output in graph.output} | self.captured
        # onnxruntime moves rounding from behind these readers in front of them, and would round the output too. Behind
        # them it moves dequantization, and fails where a subgraph alone reads what they write.
        moved = [node for node in graph.node if node.op_type in MOVED_PAST]
        self.copied = {name for node in moved for name in (*node.input[:1], *node.output)}
        self.copied &= self.outputs & _within_reach(graph, placement) if target.runs_here else set()
        self.codes: dict[str, str] = {}  # rounded tensor -> its codes
        self.floats: dict[str, str] = {}  # rounded tensor -> its float form, read by operators
        self.laid_out: dict[tuple[str, InputLayout], str] = {}  # rounded tensor -> floats in that layout
        self.raw: dict[str, str] = {}  # tensor -> the name its producer writes

    def raw_name(self, name: str) -> str:
        """Name what the producer of a tensor writes; the tensor's own where nobody else needs that.

        An output keeps its name for the rounded value, or for the copy that is handed out.

        Args:
            name: The tensor.

        Returns:
            Its name in the file.
        """
        apart = name in self.outputs and (self.placement.is_rounded(name) or name in self.copied)
        return self.writer.fresh() if apart else name

    def finish(self, name: str, raw: str) -> None:
        """Round a tensor that has been written, or hand out a copy, as the placement asks.

        Args:
            name: The tensor.
            raw: What its producer writes.
        """
        self.raw[name] = raw
        if self.placement.is_rounded(name):
            self.round(name, raw)
        elif name in self.copied:
            # An Identity that a subgraph reads is taken out before rounding is moved.
            self.writer.node("Sum" if name in self.captured else "Identity", [raw], [name])

    def round(self, name: str, raw: str) -> None:
        """Write the codes of a tensor.

        Args:
            name: The tensor.
            raw: Its float value in the file.
        """
        scale, zero_point = self.grid_constants(name)
        self.codes[name] = self.writer.node("QuantizeLinear", [raw, scale, zero_point])
        if name in self.outputs:
            self._dequantize(name, name)

    def _dequantize(self, name: str, output: str) -> str:
        scale, zero_point = self.grid_constants(name)
        self.floats[name] = self.writer.node(
            "DequantizeLinear", [self.codes[name], scale, zero_point], [output]
        )
        return output

    def grid_constants(self, name: str) -> tuple[str, str]:
        """Write a tensor's grid, once.

        Args:
            name: A rounded tensor.

        Returns:
            Names of its scale and its zero point.
        """
        grid = self.grids[self.placement.aliases.get(name, name)]
        scale = self.writer.constant(np.array(grid.scale, dtype=np.float32))
        if grid.element:
            return scale, self.writer.float8_zero()
        if self.target.symmetric:
            zero_point = np.array(grid.zero_point - _SIGNED_OFFSET, dtype=np.int8)
            return scale, self.writer.constant(zero_point)
        dtype = np.uint16 if grid.bits > _BYTE else np.uint8
        return scale, self.writer.constant(np.array(grid.zero_point, dtype=dtype))

    def read(self, name: str) -> str:
        """Name the float value that an operator reads.

        Args:
            name: The tensor.

        Returns:
            Its name in the file.
        """
        if name in self.floats:
            return self.floats[name]
        if self.placement.is_rounded(name):
            return self._dequantize(name, self.writer.fresh())
        return self.raw.get(name, name)

    def read_channels(self, name: str, channels: int) -> CodedImage:
        """Name the float value of codes, and tell what each channel of it stands for.

        Args:
            name: A rounded tensor, or one that holds codes of several grids side by side.
            channels: Its channels.

        Returns:
            What a convolution can read.
        """
        parts = self.placement.joined.get(name)
        if parts is None:
            grid = self.grids[self.placement.aliases.get(name, name)]
            return CodedImage(self.read(name), grid.scale, np.ones(channels), np.zeros(channels))
        counts = [count for _, count in parts]
        grids = [self.grids[each] for each, _ in parts]
        steps = np.repeat([float(grid.scale) for grid in grids], counts)
        zeros = np.repeat([grid.zero_point for grid in grids], counts)
        step = np.float32(steps.max())
        if name not in self.floats:
            inputs = [
                self.codes[name],
                self.writer.constant(np.array(step)),
                self.writer.constant(np.array(0, np.uint8)),
            ]
            self.floats[name] = self.writer.node("DequantizeLinear", inputs)
        return CodedImage(self.floats[name], float(step), steps / step, -steps * zeros)

    def read_laid_out(self, name: str, layout: InputLayout) -> str:
        """Name the float value of a rounded tensor in the layout that an integer convolution reads.

        Args:
            name: The tensor.
            layout: The layout.

        Returns:
            Its name in the file.
        """
        if layout == AS_IT_IS:
            return self.read(name)
        if (name, layout) not in self.laid_out:
            scale, zero_point = self.grid_constants(name)
            if layout.step > 1:  # codes cannot be, in onnxruntime up to 1.27
                laid_out = layout.lay_out_input(self.writer, name)
                codes = self.writer.node("QuantizeLinear", [laid_out, scale, zero_point])
            else:
                codes = layout.lay_out_input(self.writer, self.codes[name], zero_point)
            self.laid_out[name, layout] = self.writer.node("DequantizeLinear", [codes, scale, zero_point])
        return self.laid_out[name, layout]


def _within_reach(graph: onnx.GraphProto, placement: Placement) -> Set[str]:
    """Tensors that onnxruntime could move rounding or dequantization to, through operators that move values."""
    neighbours: dict[str, list[str]] = {}
    found = {value.name for value in graph.input if placement.is_rounded(value.name)}
    for node in graph.node:
        found.update(name for name in node.output if placement.is_rounded(name))
        if node.op_type == "QuantizeLinear":
            found.add(node.input[0])
        elif node.op_type == "DequantizeLinear":
            found.add(node.output[0])
        elif node.op_type in MOVED_PAST or node.op_type in _RECTIFIERS:
            for name in node.output:
                neighbours.setdefault(name, []).append(node.input[0])
                neighbours.setdefault(node.input[0], []).append(name)
    ends = list(found)
    while ends:
        new = set(neighbours.get(ends.pop(), ())) - found
        found |= new
        ends += new
    return found
