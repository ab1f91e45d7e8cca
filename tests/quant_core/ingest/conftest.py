"""Small graphs built by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quant_core.ingest.normalised import run_model

DATA = Path(__file__).parents[3] / "benchmarks" / "data"
Build = Callable[..., onnx.ModelProto]


def build_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    initializers: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 21,
    *,
    initializers_are_inputs: bool = False,
    output_types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """Build a model; `inputs` gives example arrays, whose first axis becomes dynamic, or value infos."""
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in (initializers or {}).items()]
    infos = []
    for name, example in inputs.items():
        kind = numpy_helper.from_array(example).data_type
        shape = ["batch", *example.shape[1:]] if opset >= 18 else example.shape
        infos.append(helper.make_tensor_value_info(name, kind, shape))
    if initializers_are_inputs:
        infos += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored]
    results = [
        helper.make_tensor_value_info(name, (output_types or {}).get(name, TensorProto.FLOAT), None)
        for name in outputs
    ]
    domains = sorted({"", *(node.domain for node in nodes)})
    imports = [helper.make_opsetid(domain, 1 if domain else opset) for domain in domains]
    model = helper.make_model(helper.make_graph(nodes, "g", infos, results, stored), opset_imports=imports)
    model.ir_version = 3 if initializers_are_inputs else 10
    # The checker wants graph outputs to have shapes, and nothing else to be filled in.
    inferred = onnx.shape_inference.infer_shapes(model)
    for info, found in zip(model.graph.output, inferred.graph.output, strict=True):
        info.type.CopyFrom(found.type)
    return model


@pytest.fixture
def build() -> Build:
    return build_model


@pytest.fixture
def run() -> Callable[..., list[np.ndarray]]:
    return run_model


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture
def floats() -> Callable[..., np.ndarray]:
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)


@pytest.fixture
def convolution(build: Build, floats: Callable[..., np.ndarray]) -> onnx.ModelProto:
    """One convolution of 3 to 4 channels."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")
    return build([node], {"x": floats(2, 3, 8, 8)}, {"w": floats(4, 3, 3, 3), "b": floats(4)})


@pytest.fixture
def resnet20() -> Path:
    return DATA / "resnet20_cifar10.onnx"


@pytest.fixture
def images() -> np.ndarray:
    with np.load(DATA / "cifar10_calibration.npz") as archive:
        return archive["input"]
