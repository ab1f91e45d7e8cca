"""Small quantized graphs of the forms the exporter writes, built with the onnx helper alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Graph:
    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, *, name: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def quantized(self, tensor: str, scale: float, zero_point: int) -> str:
        grid = [
            self.constant(f"scale_{scale}", scale),
            self.constant(f"zero_{zero_point}", zero_point, np.uint8),
        ]
        codes = self.node("QuantizeLinear", [tensor, *grid], f"{tensor}_codes")
        return self.node("DequantizeLinear", [codes, *grid], f"{tensor}_grid")

    def weight(self, name: str, shape: tuple[int, ...], axis: int, *, zero_point: bool = False) -> str:
        """Four-bit codes behind a Cast, as the exporter stores them."""
        codes = self.random.integers(-8, 8, shape)
        nibbles = (codes.ravel() & 15).astype(np.uint8)
        packed = (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
        self.initializers[name] = helper.make_tensor(name, TensorProto.INT4, shape, packed, raw=True)
        inputs = [
            self.node("Cast", [name], f"{name}_int8", to=TensorProto.INT8),
            self.constant(f"{name}_scale", np.full(shape[axis], 0.02)),
        ]
        if zero_point:
            inputs.append(self.constant(f"{name}_zero", np.zeros(shape[axis]), np.int8))
        return self.node("DequantizeLinear", inputs, f"{name}_float", axis=axis)

    def save(
        self, path: Path, inputs: dict[str, list[int | str]], outputs: dict[str, list[int | str]]
    ) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, FLOAT, s) for n, s in outputs.items()],
            list(self.initializers.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


@pytest.fixture
def new_graph() -> type[Graph]:
    return Graph
