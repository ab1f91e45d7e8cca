"""Portable files: standard operators only, the same numbers in two runtimes and in the simulation."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from quant_core.errors import SpecError
from quant_core.export import predict_sizes
from quant_core.export.targets.portable import portable
from quant_core.export.writing.opset import lower_opset
from quant_core.spec import FLOAT_BITS
from tests.quant_core.export.networks import NETS, Net

WIDTHS = [2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize("activation_bits", [8, FLOAT_BITS])
@pytest.mark.parametrize("opset", [18, 21, 25])
@pytest.mark.parametrize("name", NETS)
def test_every_runtime_computes_what_was_simulated(name, opset, activation_bits, tmp_path):
    net, path, target = Net(name), tmp_path / "model.onnx", portable(opset)
    bits = {layer.name: WIDTHS[(i + opset) % 6] for i, layer in enumerate(net.layers)}
    _, file, simulated = net.export(bits, activation_bits, path, target)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", opset)]
    assert not file.functions
    assert {node.domain for node in file.graph.node} == {""}
    tolerance = (0.03 if activation_bits == 8 else 1e-5) * np.abs(simulated).max()
    assert np.abs(net.run(path) - simulated).max() <= tolerance
    file.opset_import[0].version = max(opset, 19)  # the evaluator has no DequantizeLinear of before
    assert np.abs(ReferenceEvaluator(file).run(["y"], net.feeds)[0] - simulated).max() <= tolerance
    sizes = predict_sizes(
        net.model, net.layers, {layer: (width,) for layer, width in bits.items()}, activation_bits, target
    )
    assert abs(file.ByteSize() - sizes.total(bits)) <= max(0.02 * file.ByteSize(), 96)


def model_of(body, opset):
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[n,4] x) => (float[n,4] y) {{ {body} }}'
    return onnx.parser.parse_model(text)


def test_operators_that_came_later_are_refused_by_name():
    lower_opset(model_of("y = Relu(x)", 21), 18)
    with pytest.raises(SpecError, match="opset 18: Gelu"):
        lower_opset(model_of("y = Gelu(x)", 21), 18)
    with pytest.raises(SpecError, match="GroupNormalization"):
        lower_opset(
            model_of(
                "s = Constant<value_floats=[1.,1.,1.,1.]>() y = GroupNormalization<num_groups=2>(x,s,s)", 21
            ),
            18,
        )
    assert lower_opset(model_of("y = Gelu(x)", 21), 20).opset_import[0].version == 20


def test_attributes_that_came_later_are_refused_unless_they_say_nothing():
    pool = "a = Unsqueeze(x, one) y = AveragePool<kernel_shape=[1]{}>(a)"
    for given, fits in [("", True), (", dilations=[2]", False)]:
        model = model_of(pool.format(given), 21)
        if fits:
            assert lower_opset(model, 18).opset_import[0].version == 18
        else:
            with pytest.raises(SpecError, match="AveragePool"):
                lower_opset(model, 18)
