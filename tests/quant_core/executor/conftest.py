"""The operator yardstick: the cases that ship in the onnx package, with their inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from quant_core.executor import compile_model
from quant_core.executor.dtypes import is_float, to_torch

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

    def feeds(self, sample: int = 0) -> dict[str, np.ndarray]:
        """Inputs by name."""
        inputs = self.samples[sample][0]
        stored = {tensor.name for tensor in self.model.graph.initializer}
        names = [value.name for value in self.model.graph.input]
        if len(inputs) < len(names):
            names = [name for name in names if name not in stored]
        return dict(zip(names, inputs, strict=True))


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
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # It reads the source of every case for onnx's documentation.
        patch.setattr("onnx.backend.test.case.base.process_snippet", lambda *_: ("", ""))
        return list(_cases())


class Derivatives:
    """A scalar function of all float inputs of a model at once, its derivatives by autograd and by differences.

    The scalar is a fixed random combination of all float outputs, computed in float64. An input that autograd does
    not reach counts as one with a zero gradient, and differences have to agree.
    """

    def __init__(
        self, model: onnx.ModelProto, feeds: dict[str, np.ndarray], begin: Callable[[], None] = lambda: None
    ) -> None:
        self.begin = begin
        self.program = compile_model(ir.serde.deserialize_model(model), dtype=torch.float64)
        kinds = {value.name: ir.DataType(value.type.tensor_type.elem_type) for value in model.graph.input}
        self.feeds = {
            name: to_torch(np.asarray(array), kinds[name], self.program.precision)
            for name, array in feeds.items()
        }
        self.leaves = [name for name in self.feeds if is_float(kinds[name])]

    def value(self, feeds: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """The scalar; None if no output is a float tensor."""
        self.begin()
        generator = torch.Generator().manual_seed(1)
        total = None
        for output in self.program.evaluate(feeds).values():
            if output.is_floating_point():
                weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
                part = (torch.where(output.isfinite(), output, 0) * weights).sum()
                total = part if total is None else total + part
        return total

    def gradients(self, feeds: dict[str, torch.Tensor], create_graph: bool = False):
        """Gradients by name, without those autograd does not reach; and the leaves they belong to."""
        leaves = {name: feeds[name].clone().requires_grad_() for name in self.leaves}
        value = self.value({**feeds, **leaves})
        if value is None or not value.requires_grad:
            return {}, leaves
        found = torch.autograd.grad(
            value, list(leaves.values()), create_graph=create_graph, allow_unused=True
        )
        return {name: grad for name, grad in zip(leaves, found, strict=True) if grad is not None}, leaves

    def check(self, jitter: float, partly: bool = False) -> str:
        """Asserts both derivatives at a point.

        Args:
            jitter: How far beside the stored point.
            partly: Whether to move only those elements at which the function is defined.

        Returns:
            `derivatives`, or `flat` where all gradients are zero and differences agree.
        """
        generator = torch.Generator().manual_seed(0)
        if not self.leaves or self.value(self.feeds) is None:
            return "flat"
        point = dict(self.feeds)
        for name in self.leaves:
            noise = torch.rand(point[name].shape, generator=generator, dtype=torch.float64)
            point[name] = point[name] + jitter * noise
        live, leaves = self.gradients(point, create_graph=True)
        ways = [
            {n: torch.randn(point[n].shape, generator=generator, dtype=torch.float64) for n in self.leaves}
            for _ in "ab"
        ]
        if partly:
            known = {n: live[n].isfinite() if n in live else torch.ones_like(point[n]) for n in self.leaves}
            assert any(mask.any() for mask in known.values()), "nothing is defined"
            ways = [{n: torch.where(known[n] > 0, way[n], 0) for n in way} for way in ways]
            live = {n: torch.where(known[n], gradient, 0) for n, gradient in live.items()}
        along = sum(float((live[name].detach() * ways[0][name]).sum()) for name in live)
        errors = []
        for step in (1e-6, 1e-5, 1e-4):
            low, high = (self.moved(point, ways[0], sign * step) for sign in (-1, 1))
            with torch.no_grad():
                slope = float(self.value(high) - self.value(low)) / (2 * step)
            errors.append(abs(slope - along) / max(1e-3, abs(slope), abs(along)))
        assert min(errors) < 1e-4, f"gradient: {along} but differences give {slope}"
        curved = [(grad * ways[0][name]).sum() for name, grad in live.items() if grad.requires_grad]
        products = {}
        if curved:
            found = torch.autograd.grad(sum(curved), [leaves[name] for name in live], allow_unused=True)
            products = {
                name: product for name, product in zip(live, found, strict=True) if product is not None
            }
        if partly:
            products = {n: torch.where(known[n], product, 0) for n, product in products.items()}
        assert all(bool(product.isfinite().all()) for product in products.values()), "product is not finite"
        across = sum(float((product * ways[1][name]).sum()) for name, product in products.items())
        errors = []
        for step in (1e-5, 1e-4):
            ends = [self.gradients(self.moved(point, ways[0], sign * step))[0] for sign in (-1, 1)]
            low, high = (
                sum(float((ways[1][n] * g)[ways[1][n] != 0].sum()) for n, g in end.items()) for end in ends
            )
            slope = (high - low) / (2 * step)
            errors.append(abs(slope - across) / max(1e-2, abs(slope), abs(across)))
        assert min(errors) < 1e-3, f"product: {across} but differences give {slope}"
        return "derivatives" if any(bool(g.any()) for g in live.values()) else "flat"

    @staticmethod
    def moved(point: dict[str, torch.Tensor], way: dict[str, torch.Tensor], step: float):
        """A point a step along a direction."""
        return {**point, **{name: point[name] + step * part for name, part in way.items()}}


@dataclass(frozen=True)
class Verdict:
    """How far the derivatives of a model are right.

    Attributes:
        where: `stored` at the stored point, `aside` a little beside it, `partly` where the function is defined,
            `flat` where there is nothing to derive, `wrong`.
        error: What is wrong.
    """

    where: str
    error: str | None = None


@pytest.fixture(scope="session")
def judge():
    """Judges the derivatives of a model: at the stored point, else beside it, since many cases lie on a kink."""

    def verdict(
        model: onnx.ModelProto, feeds: dict[str, np.ndarray], begin: Callable[[], None] = lambda: None
    ) -> Verdict:
        errors = []
        try:
            derivatives = Derivatives(model, feeds, begin)
            for where, jitter, partly in (
                ("stored", 0.0, False),
                ("aside", 0.01, False),
                ("aside", 0.001, False),
                ("partly", 0.001, True),
            ):
                try:
                    found = derivatives.check(jitter, partly)
                    return Verdict("flat" if found == "flat" else where)
                except AssertionError as error:
                    errors.append(str(error).splitlines()[0])
        except Exception as error:
            errors.append(repr(error))
        return Verdict("wrong", errors[0])

    return verdict
