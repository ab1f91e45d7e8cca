"""Sizes of portable files, whose layers share the constants that unpack them, foretold for every plan at once."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quant_core.codes import ActivationGrid
from quant_core.export import export_model, place, predict_sizes
from quant_core.export.targets.portable import portable
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight

MODEL = Path(__file__).parents[4] / "benchmarks" / "data" / "resnet20_cifar10.onnx"
WIDTHS = (2, 3, 4, 5, 6, 8)


@pytest.mark.parametrize("opset", [18, 21, 25])
def test_what_plans_add_to_each_other_is_foretold(opset):
    model = normalise(ir.from_proto(onnx.load(MODEL)))
    layers, target = find_layers(model), portable(opset)
    sizes = predict_sizes(model, layers, dict.fromkeys((layer.name for layer in layers), WIDTHS), 8, target)
    for widths in ((4,), (8,), WIDTHS):
        bits = {layer.name: widths[at % len(widths)] for at, layer in enumerate(layers)}
        placement = place(model, layers, bits, 8, target)
        grids = {
            name: ActivationGrid(float(np.float32(1 + i / 999)), 0) for i, name in enumerate(placement.points)
        }
        weights = {
            layer.name: quantize_weight(
                model.graph.initializers[layer.weight].const_value.numpy(), bits[layer.name], layer.axis
            )
            for layer in layers
        }
        written = export_model(model, layers, weights, placement, grids, target).ByteSize()
        # Constants that several widths share are counted for each.
        assert abs(written - sizes.total(bits)) <= 250, widths
