"""Graphs with given inputs, and files to load samples from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

DATA = Path(__file__).parents[3] / "benchmarks" / "data"


@pytest.fixture
def graph() -> Callable[..., ir.Model]:
    """Build a model from input descriptions; its one output has ten classes."""

    def build(*, classes: int | None = 10, **inputs: tuple[ir.DataType, list]) -> ir.Model:
        values = [
            ir.Value(name=name, type=ir.TensorType(kind), shape=None if shape is None else ir.Shape(shape))
            for name, (kind, shape) in inputs.items()
        ]
        node = ir.node("Sum", values, num_outputs=1)
        node.outputs[0].shape = ir.Shape(["n", classes])
        return ir.Model(ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 21}), ir_version=10)

    return build


@pytest.fixture
def image_graph(graph) -> ir.Model:
    return graph(x=(ir.DataType.FLOAT, ["n", 3, 4, 4]))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)


@pytest.fixture
def npz(tmp_path) -> Callable[..., Path]:
    def write(**arrays: np.ndarray) -> Path:
        path = tmp_path / "samples.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def resnet20() -> Path:
    return DATA / "resnet20_cifar10.onnx"


@pytest.fixture
def calibration_file() -> Path:
    return DATA / "cifar10_calibration.npz"
