"""What surrounds the weights survives in every target: interface, names, metadata, doc strings."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quant_core.export.placement.gates import is_swish_gate
from quant_core.export.targets.gpu import ORT_CUDA, TENSORRT
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import portable
from quant_core.ingest import normalise
from quant_core.spec import FLOAT_BITS, WeightGrid, WeightOptions
from tests.quant_core.export.networks import NETS, Net

TARGETS = [ORT_CPU, ORT_CUDA, TENSORRT, portable(18), portable(21), portable(25)]


def described():
    """A network with everything that a user may have written about it."""
    net = Net("transformer")
    proto = ir.to_proto(net.model)
    proto.producer_name, proto.domain, proto.model_version, proto.doc_string = (
        "trainer",
        "org.x",
        7,
        "a model",
    )
    proto.metadata_props.add(key="classes", value="a,b,c")
    proto.graph.name, proto.graph.doc_string = "encoder", "a graph"
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = f"what {value.name} means"
        value.metadata_props.add(key="unit", value="metre")
    return proto


def interface(values):
    return [
        (
            value.name,
            value.doc_string,
            [(entry.key, entry.value) for entry in value.metadata_props],
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


@pytest.mark.parametrize("bits", [4, 8, FLOAT_BITS])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.name}-{target.opset({8})}")
def test_everything_around_the_weights_survives(target, bits, tmp_path):
    proto, net = described(), Net("transformer")
    net.model = normalise(ir.from_proto(proto))
    plan = {
        layer.name: bits if target.form(layer, net.model, bits, 8, WeightGrid()) else FLOAT_BITS
        for layer in net.layers
    }
    _, file, _ = net.export(plan, 8, tmp_path / "model.onnx", target)
    assert interface(file.graph.input) == interface(proto.graph.input)
    assert interface(file.graph.output) == interface(proto.graph.output)
    assert [(p.key, p.value) for p in file.metadata_props] == [("classes", "a,b,c")]
    assert (file.doc_string, file.domain, file.model_version) == ("a model", "org.x", 7)
    assert (file.graph.name, file.graph.doc_string) == ("encoder", "a graph")
    kept = {node.name for node in file.graph.node}
    assert {node.name for node in net.model.graph} <= kept
    stored = {tensor.name for tensor in file.graph.initializer}
    for layer in net.layers:
        assert any(name == layer.weight or name.startswith(f"{layer.weight}.") for name in stored)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.name}-{target.opset({8})}")
def test_tensors_keep_their_names(name, target, tmp_path):
    net = Net(name)
    plan = {
        layer.name: 8 if target.form(layer, net.model, 8, 8, WeightGrid()) else FLOAT_BITS
        for layer in net.layers
    }
    placement, file, _ = net.export(plan, 8, tmp_path / "model.onnx", target)
    written = {output for node in file.graph.node for output in node.output}
    for node in net.model.graph:
        fused = target.fuses_swish and is_swish_gate(node)
        gone = fused or node.name in placement.absorbed or node.outputs[0].name in placement.aliases
        assert gone or node.outputs[0].name in written
    onnx.checker.check_model(file, full_check=True)


@pytest.mark.parametrize(
    "target", [ORT_CPU, portable(18), portable(21)], ids=lambda target: str(target.opset({3}))
)
@pytest.mark.parametrize(
    "options", [WeightOptions(), WeightOptions(granularity="block", symmetric=False)], ids=str
)
def test_names_that_planes_would_have_stay_those_of_the_user(target, options, tmp_path):
    text, shapes, kernels, constants = NETS["perceptron"]
    shapes = {"w1": shapes["w1"], "w1.lo": shapes["b1"], "w2": shapes["w2"], "w1.hi": shapes["b2"]}
    text = text.replace("b1)", '"w1.lo")').replace("b2)", '"w1.hi")')
    net = Net((text, shapes, kernels, constants))
    plan = dict.fromkeys((layer.name for layer in net.layers), 3)
    _, _, simulated = net.export(plan, FLOAT_BITS, tmp_path / "model.onnx", target, options)
    np.testing.assert_allclose(net.run(tmp_path / "model.onnx"), simulated, rtol=1e-4, atol=1e-5)
