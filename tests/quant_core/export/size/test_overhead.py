"""What a ResNet-20 file holds beside its packed codes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quant_core.export import export_model, place
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import ActivationGrid, quantize_weight

MODEL = Path(__file__).parents[4] / "benchmarks" / "data" / "resnet20_cifar10.onnx"
MOST = 30_000
ALL = (2, 3, 4, 5, 6, 8)


@pytest.fixture(scope="module")
def net():
    model = normalise(ir.from_proto(onnx.load(MODEL)))
    return model, find_layers(model)


@pytest.mark.parametrize("widths", [*((bits,) for bits in ALL), ALL], ids=str)
def test_graph_scales_and_names_cost_at_most_30_kb(net, widths, tmp_path):
    model, layers = net
    bits = {layer.name: widths[i % len(widths)] for i, layer in enumerate(layers)}
    weights = {
        layer.name: quantize_weight(
            model.graph.initializers[layer.weight].const_value.numpy(), bits[layer.name], layer.axis
        )
        for layer in layers
    }
    placement = place(model, layers, bits, 8)
    grids = {
        name: ActivationGrid(float(np.float32(0.01 + i / 1024)), i % 7)
        for i, name in enumerate(placement.points)
    }
    onnx.save(export_model(model, layers, weights, placement, grids), tmp_path / "m.onnx")
    codes = sum(layer.parameters * bits[layer.name] / 8 for layer in layers)
    assert (tmp_path / "m.onnx").stat().st_size - codes <= MOST
