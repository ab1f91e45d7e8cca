"""Einsum with a weight becomes a product that gives the same, and a layer."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from quant_core.ingest import find_layers, normalise
from tests.quant_core.ingest.normalised import kept, run_model

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "h": 7}


def einsum(build, equation, order=("x", "w"), **more):
    """Model, what the weight's axes are, and a feed."""
    letters = dict(zip(order, equation.replace(" ", "").split("->")[0].split(","), strict=True))
    shapes = {
        name: ([2, 3] if "..." in text else []) + [SIZES[axis] for axis in text.replace(".", "")]
        for name, text in letters.items()
    }
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    node = helper.make_node("Einsum", list(order), ["y"], "sum", equation=equation)
    return build([node], {"x": arrays["x"]}, {"w": arrays["w"]}, **more), arrays


@pytest.mark.parametrize(
    ("equation", "order", "ops", "shape"),
    [
        ("abc,cd->abd", "xw", ["MatMul"], (4, 5)),
        ("abc,dc->abd", "xw", ["MatMul"], (4, 5)),
        ("abc,cde->abde", "xw", ["MatMul", "Reshape"], (4, 30)),  # heads of Keras
        ("abcd,cde->abe", "xw", ["Reshape", "MatMul"], (20, 6)),  # and back
        ("abc,hcd->ahbd", "xw", ["MatMul", "Reshape", "Transpose"], (4, 35)),
        ("abhc,hcd->abhd", "xw", ["Transpose", "MatMul", "Transpose"], (7, 4, 5)),
        ("hbc,hcd->hbd", "xw", ["MatMul"], (7, 4, 5)),
        ("abc,hb->ahc", "xw", ["Transpose", "MatMul", "Transpose"], (3, 7)),
        ("cd,abc->abd", "wx", ["MatMul"], (4, 5)),
        ("...c, cd -> ...d", "xw", ["MatMul"], (4, 5)),
        ("ab,bc->ca", "xw", ["MatMul", "Transpose"], (3, 4)),
    ],
)
def test_a_product_is_written_as_one(equation, order, ops, shape, build):
    model, arrays = einsum(build, equation, order)
    rewritten = kept(model, {"x": arrays["x"]})
    assert [node.op_type for node in rewritten.graph] == ops
    (layer,) = find_layers(rewritten)
    assert (layer.name, layer.weight, layer.shape) == ("sum", "w", shape)
    (found,) = run_model(rewritten, {"x": arrays["x"]})
    np.testing.assert_allclose(
        found, np.einsum(equation, *(arrays[name] for name in order)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "equation",
    ["abb,bc->ac", "abc,bd->ad", "abc,bc->abc", "hb,hbc->hc", "abc,cd", "...cd,cde->...e", "...bc,cd->...db"],
)
def test_what_is_no_single_product_of_rows_is_left_alone(equation, build):
    model, _ = einsum(build, equation)
    rewritten = normalise(ir.from_proto(model))
    assert [node.op_type for node in rewritten.graph] == ["Einsum"]
    assert find_layers(rewritten) == ()


def test_a_weight_with_other_readers_is_left_alone(build, floats):
    nodes = [
        helper.make_node("Einsum", ["x", "w"], ["a"], "sum", equation="ab,cb->ac"),
        helper.make_node("Add", ["a", "w"], ["y"], "add"),
    ]
    rewritten = normalise(ir.from_proto(build(nodes, {"x": floats(4, 4)}, {"w": floats(4, 4)})))
    assert [node.op_type for node in rewritten.graph] == ["Einsum", "Add"]
