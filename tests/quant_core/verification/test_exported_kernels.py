"""What the exporter writes is run as it was meant to be: integers on integer kernels, float in float."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from quant_core.executor import compile_model
from quant_core.export import export_model, place
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.ingest import find_layers, normalise, read_model
from quant_core.quantizers import activation_grid, quantize_weight
from quant_core.spec import FLOAT_BITS, WEIGHT_BITS
from quant_core.verification import FLOAT_OPERATORS, INT8_OPERATORS, kernels

DEMO = Path(__file__).parents[3] / "benchmarks" / "data"


@pytest.fixture(scope="module")
def demo():
    path = DEMO / "resnet20_cifar10.onnx"
    with np.load(DEMO / "cifar10_calibration.npz") as arrays:
        images = arrays["input"][:16]
    model = normalise(read_model(path).model)
    return path, model, find_layers(model), images


def export(demo, bits, activation_bits, out, target):
    _, model, layers, images = demo
    placement = place(model, layers, bits, activation_bits, target)
    program = compile_model(model, device="cpu")
    values = program.evaluate({program.inputs[0]: torch.from_numpy(images)}, outputs=list(placement.points))
    grids = {name: activation_grid(float(v.min()), float(v.max())) for name, v in values.items()}
    stored = {value.name: value.const_value.numpy() for value in model.graph.initializers.values()}
    weights = {
        layer.name: quantize_weight(stored[layer.weight], bits[layer.name], layer.axis)
        for layer in layers
        if bits[layer.name] != FLOAT_BITS
    }
    onnx.save(export_model(model, layers, weights, placement, grids, target), out)
    return placement.forms


@pytest.mark.parametrize(
    ("target", "activation_bits", "seed"),
    [(ORT_CPU, 8, 0), (ORT_CPU, 8, 1), (ORT_CPU, FLOAT_BITS, 2), (portable(18), 8, 3), (portable(21), 8, 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_layer_of_the_demo_model_runs_as_it_was_placed(demo, tmp_path, target, activation_bits, seed):
    _, _, layers, _ = demo
    source = random.Random(seed)
    bits = {layer.name: source.choice(WEIGHT_BITS) for layer in layers}
    forms = export(demo, bits, activation_bits, tmp_path / "q.onnx", target)
    found = kernels(tmp_path / "q.onnx", layers)
    for name, kernel in found.items():
        expected = INT8_OPERATORS if forms[name] in {"static", "dynamic"} else FLOAT_OPERATORS
        assert kernel in expected, f"{name} is {forms[name]} and runs as {kernel}"
    assert len({forms[name] for name in found}) >= (2 if activation_bits == 8 else 1)
