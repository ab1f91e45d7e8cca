"""A network of three matrices in ONNX and in numpy, rounded to the nearest codes."""

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import FileCosts
from quant_core.allocation.plan_problem import EFFECTIVE_BITS, PlanProblem
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.sensitivity import Objective, Term, split_batches
from quant_core.trials import PlanMeter

BITS = (2, 3, 4, 8)
SHAPES = {"a": (6, 8), "b": (8, 8), "c": (8, 3)}


def run(weights, x):
    hidden = np.maximum(x @ weights["a"], 0)
    return (hidden + np.maximum(hidden @ weights["b"], 0)) @ weights["c"]


def graph(weights):
    values = {name: ir.Value(name=name, const_value=ir.tensor(w, name=name)) for name, w in weights.items()}
    x = ir.Value(name="x", shape=ir.Shape(["n", 6]), type=ir.TensorType(ir.DataType.FLOAT))
    first = ir.node("MatMul", [x, values["a"]], name="first")
    hidden = ir.node("Relu", first.outputs, name="relu1")
    second = ir.node("MatMul", [hidden.outputs[0], values["b"]], name="second")
    bent = ir.node("Relu", second.outputs, name="relu2")
    both = ir.node("Add", [hidden.outputs[0], bent.outputs[0]], name="add")
    last = ir.node("MatMul", [both.outputs[0], values["c"]], name="third")
    last.outputs[0].name = "y"
    last.outputs[0].shape = ir.Shape(["n", 3])
    last.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    nodes = [first, hidden, second, bent, both, last]
    made = ir.Graph(
        [x], last.outputs, nodes=nodes, initializers=list(values.values()), opset_imports={"": 21}
    )
    return ir.Model(made, ir_version=10)


@pytest.fixture(scope="package")
def tiny():
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    x = rng.normal(size=(48, 6)).astype(np.float32)
    model = normalise(graph(weights))
    layers = find_layers(model)
    program = compile_model(model, device="cpu")
    rounded = {
        layer.name: {b: quantize_weight(weights[layer.weight], b, layer.axis) for b in BITS}
        for layer in layers
    }
    objective = Objective((Term("y", "y", "squared_error"),))
    batches = split_batches({"x": torch.from_numpy(x)}, None, sample_bytes=100, seed=0, clusters=3)
    meter = PlanMeter(program, layers, objective, batches, rounded)
    coarser = {name: {b: row[max(2, b - 1) if b < 8 else 4] for b in BITS} for name, row in rounded.items()}
    in_folds = PlanMeter(program, layers, objective, batches[:1], rounded, further=[(batches[1:], coarser)])
    names = [layer.name for layer in layers]

    def loss(bits):
        """Mean of half the squared error, in numpy."""
        stand_ins = {
            layer.weight: weights[layer.weight]
            if bits[layer.name] == 32
            else rounded[layer.name][bits[layer.name]].dequantize()
            for layer in layers
        }
        return float(0.5 * np.square(run(stand_ins, x) - run(weights, x)).sum(axis=1).mean())

    free = dict.fromkeys(names, 32)
    sizes = {layer.name: layer.parameters for layer in layers}
    problem = PlanProblem(
        candidates={name: Candidates(BITS, None) for name in names},
        scores={name: {b: loss(free | {name: b}) for b in BITS} for name in names},
        files=FileCosts(0, {name: {b: sizes[name] * b // 8 for b in BITS} for name in names}),
        costs={
            EFFECTIVE_BITS: {name: {b: sizes[name] * b / sum(sizes.values()) for b in BITS} for name in names}
        },
    )
    return SimpleNamespace(
        program=program,
        layers=layers,
        objective=objective,
        rounded=rounded,
        meter=meter,
        in_folds=in_folds,
        loss=loss,
        names=names,
        problem=problem,
        bits=BITS,
    )
