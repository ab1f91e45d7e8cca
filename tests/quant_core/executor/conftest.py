"""The operator yardstick: the cases that ship in the onnx package, with their inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

TYPES = onnx.TensorProto
NARROW = {
    getattr(TYPES, name)
    for name in (
        [
            "FLOAT8E4M3FN",
            "FLOAT8E4M3FNUZ",
            "FLOAT8E5M2",
            "FLOAT8E5M2FNUZ",
            "FLOAT8E8M0",
            "FLOAT4E2M1",
            "INT4",
            "UINT4",
            "INT2",
            "UINT2",
        ]
    )
}
RANDOM = {"RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted", "real")
ROOT = Path(onnx.backend.test.__file__).parent


@dataclass(frozen=True)
class Case:
    """One model with its stored samples.

    Attributes:
        kind: Which of onnx's collections it comes from.
        name: Its name there.
        model: The model.
        samples: Pairs of inputs and expected outputs.
        outside: Why it is out of scope, or None.
        border: Why it is counted apart from the main figure, or None.
        rtol: Relative tolerance the case states.
        atol: Absolute tolerance the case states.
    """

    kind: str
    name: str
    model: onnx.ModelProto
    samples: list[tuple[list[np.ndarray], list[np.ndarray]]]
    outside: str | None
    border: str | None
    rtol: float
    atol: float


def _array(path: Path) -> np.ndarray:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def _arrays(values) -> list[np.ndarray]:
    return [
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        for value in values
    ]


def _outside(model: onnx.ModelProto) -> str | None:
    """Tensors in and out, numbers only, no classical machine learning or training, at least one float32 input."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    values = [*inputs, *model.graph.output]
    domains = {node.domain for node in model.graph.node}
    if not all(value.type.HasField("tensor_type") for value in values):
        return "sequence, optional or map"
    types = [value.type.tensor_type.elem_type for value in values]
    if any(kind in {TYPES.STRING, TYPES.COMPLEX64, TYPES.COMPLEX128} for kind in types):
        return "strings or complex numbers"
    if any("ai.onnx.ml" in domain or "training" in domain for domain in domains):
        return "ai.onnx.ml or training domain"
    if TYPES.FLOAT not in types[: len(inputs)]:
        return "no float input"
    return None


def _border(model: onnx.ModelProto, kind: str) -> str | None:
    types = {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]}
    operators = {node.op_type for node in model.graph.node}
    if types & NARROW:
        return "8-bit floats or sub-byte integers at the border"
    if any("preview" in node.domain for node in model.graph.node):
        return "preview operators"
    dropout = any(node.op_type == "Dropout" and len(node.input) == 3 for node in model.graph.node)
    if kind == "node" and (operators & RANDOM or dropout):
        return "random outputs"
    return None


def _samples(case, model: onnx.ModelProto) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    if case.kind == "real":
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = []
        for value in model.graph.input:
            if value.name not in stored:
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                size = int(np.prod(shape))
                inputs.append(np.arange(size, dtype=np.float32).reshape(shape) / size)
        name = Path(case.url).stem
        return [(inputs, [_array(ROOT / "data" / "light" / f"{name}_output_0.pb")])]
    if case.data_sets is not None:
        return [(_arrays(inputs), _arrays(outputs)) for inputs, outputs in case.data_sets]
    found = []
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        count = len(list(folder.glob("input_*.pb")))
        expected = len(list(folder.glob("output_*.pb")))
        found.append(
            (
                [_array(folder / f"input_{index}.pb") for index in range(count)],
                [_array(folder / f"output_{index}.pb") for index in range(expected)],
            )
        )
    return found


def _cases() -> Iterator[Case]:
    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            model = case.model
            if model is None:
                light = ROOT / "data" / "light" / Path(case.url or "").name
                model = onnx.load(light if kind == "real" else Path(case.model_dir) / "model.onnx")
            outside = _outside(model)
            yield Case(
                kind=kind,
                name=case.name,
                model=model,
                samples=[] if outside else _samples(case, model),
                outside=outside,
                border=None if outside else _border(model, kind),
                rtol=case.rtol,
                atol=case.atol,
            )


@pytest.fixture(scope="session")
def backend_cases() -> list[Case]:
    """Every case the onnx package ships."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(_cases())
