"""The norm that onnxruntime adds to the standard's domain, and outputs that declare no shape, are in nobody's way."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quant_core.ingest import find_layers, normalise, read_model
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec


def norm_and_product(floats, opset, axis=-1):
    nodes = [
        helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["h"], "norm", axis=axis, epsilon=1e-3),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    stored = {"g": floats(64), "w": floats(64, 64)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("opset", [15, 18, 23])
def test_the_norm_is_spelt_out(opset, axis, run, floats, tmp_path):
    model = norm_and_product(floats, opset, axis)
    onnx.save(model, tmp_path / "m.onnx")
    after = normalise(read_model(tmp_path / "m.onnx").model)
    assert [layer.name for layer in find_layers(after)] == ["product"]
    feeds = {"x": floats(3, 64)}
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("kind", ["constant", "behind ones", "for all channels"])
def test_the_axes_are_those_of_the_source(kind, opset, run, floats, tmp_path):
    axis, shape = (
        (1, (64,)) if kind == "for all channels" else (2, (1, 1, 64) if kind == "behind ones" else (64,))
    )
    scale = onnx.numpy_helper.from_array(floats(*shape), "g")
    nodes = [
        helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["h"], "norm", axis=axis),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    if kind == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["g"], value=scale))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 64])],
        [onnx.numpy_helper.from_array(floats(64, 64), "w"), *([] if kind == "constant" else [scale])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    feeds = {"x": floats(3, 5, 64)}
    after = normalise(read_model(tmp_path / "m.onnx").model)
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attribute", [False, True])
def test_values_in_files_of_their_own_may_lie_in_bodies(attribute, run, floats, tmp_path):
    def branch(name):
        weight = onnx.numpy_helper.from_array(floats(64, 64), f"{name}_w")
        nodes = [helper.make_node("MatMul", ["h", f"{name}_w"], [f"{name}_y"])]
        if attribute:
            nodes.insert(0, helper.make_node("Constant", [], [f"{name}_w"], value=weight))
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 64])
        return helper.make_graph(nodes, name, [], [out], [] if attribute else [weight])

    norm = helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["h"], "norm")
    either = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch("a"), else_branch=branch("b"))
    graph = helper.make_graph(
        [norm, either],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [onnx.numpy_helper.from_array(floats(64), "g")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": floats(3, 64), "c": np.array(True)}
    wanted = run(model, feeds)[0]
    onnx.save(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=1000,
        convert_attribute=True,
    )
    after = normalise(read_model(tmp_path / "m.onnx").model)
    np.testing.assert_allclose(run(after, feeds)[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_a_job_on_such_a_file(external, run, floats, tmp_path):
    model = norm_and_product(floats, 17)
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 1000} if external else {}
    x = floats(16, 64)
    wanted = run(model, {"x": x})[0]
    onnx.save(model, tmp_path / "m.onnx", **options)
    np.savez(tmp_path / "x.npz", x=x)
    spec = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast"})
    quantize(tmp_path / "m.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    found = run(tmp_path / "out" / "model.onnx", {"x": x})[0]
    assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()
