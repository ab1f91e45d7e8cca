from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import compile_model
from quant_core.ingest import find_layers
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.weight_matrix import input_matrices, output_matrix, weight_matrix

CASES = {
    "strides, dilations, uneven padding": (
        "Conv <strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 2], group = 1> (x, w, b)",
        (3, 4, 7, 6),
        (5, 4, 3, 2),
    ),
    "groups": ("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b)", (3, 4, 5, 5), (6, 2, 3, 3)),
    "depthwise": ("Conv <group = 4, auto_pad = 'SAME_UPPER'> (x, w, b)", (2, 4, 5, 5), (4, 1, 3, 3)),
    "one axis": ("Conv <pads = [2, 2]> (x, w, b)", (2, 3, 9), (4, 3, 5)),
    "transposed": (
        "ConvTranspose <strides = [2, 2], pads = [1, 1, 0, 0]> (x, w)",
        (2, 4, 5, 5),
        (4, 3, 3, 3),
    ),
    "transposed groups": ("ConvTranspose <strides = [2, 2], group = 2> (x, w)", (2, 4, 3, 3), (4, 3, 2, 2)),
    "Gemm": ("Gemm <alpha = 0.5> (x, w, b)", (6, 4), (4, 5)),
    "Gemm of transposes": ("Gemm <transA = 1, transB = 1> (x, w, b)", (4, 4), (5, 4)),
    "MatMul": ("MatMul (x, w)", (2, 3, 4), (4, 5)),
    "MatMul with a narrow weight": ("MatMul (x, w)", (2, 3, 7), (7, 2)),
    "MatMul from the left": ("MatMul (w, x)", (2, 4, 3), (5, 4)),
    "MatMul by a stack": ("MatMul (x, w)", (2, 3, 6, 4), (3, 4, 5)),
    "MatMul by a stack that is repeated": ("MatMul (x, w)", (2, 3, 2, 6, 4), (3, 1, 4, 5)),
    "vectors from a stack": ("MatMul (w, x)", (4,), (3, 5, 4)),
}


def compiled(call: str, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    bias = ""
    weight = ", ".join(str(v) for v in rng.normal(size=int(np.prod(w))).round(3))
    if "b)" in call:
        size = w[1] if call == CASES["Gemm"][0] else w[0]
        bias = f", float[{size}] b = {{{', '.join(str(v) for v in rng.normal(size=size).round(3))}}}"
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    one (float{list(x)} x) => (float[] y)
    <float{list(w)} w = {{{weight}}}{bias}>
    {{ y = {call.replace("'", '"')} }}
    """
    model = ir.from_onnx_text(text)
    return compile_model(model), find_layers(model)


@pytest.mark.parametrize("case", CASES)
def test_matrix_times_columns_is_what_the_node_writes(case: str) -> None:
    call, shape, weight_shape = CASES[case]
    program, layers = compiled(call, shape, weight_shape)
    (layer,) = layers
    (use,) = layer.uses
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    batch = Batch({"x": x}, None, shape[0])
    weight = program.weights["w"]
    linear = (
        program.evaluate({"x": x}, outputs=("y",))["y"]
        - program.evaluate({"x": x}, outputs=("y",), weights={"w": torch.zeros_like(weight)})["y"]
    )
    matrix = weight_matrix(layer, use, weight)
    assert matrix is not None
    columns = torch.cat(list(input_matrices(program, layer, use, batch, x)), dim=-1)
    expected = output_matrix(layer, use, linear)
    assert matrix.shape[2] == columns.shape[1]
    torch.testing.assert_close(matrix @ columns, expected, rtol=1e-4, atol=1e-5)


def test_columns_of_a_convolution_are_those_of_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    from quant_core.sensitivity.curvature import weight_matrix as module

    program, layers = compiled(
        "Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)", (5, 3, 6, 6), (4, 3, 3, 3)
    )
    x = torch.randn(5, 3, 6, 6)
    expected = torch.nn.functional.unfold(x, 3, padding=1, stride=2).movedim(0, 1).flatten(1)
    for limit in (1 << 26, 1):
        monkeypatch.setattr(module, "_PATCH_BYTES", limit)
        parts = list(input_matrices(program, layers[0], layers[0].uses[0], Batch({"x": x}, None, 5), x))
        assert len(parts) == (1 if limit > 1 else 5)
        torch.testing.assert_close(torch.cat(parts, dim=-1)[0], expected)


def test_a_weight_read_in_two_directions_tells_no_matrix() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        both (float[3, 2] x) => (float[3, 2] y)
        <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}>
        { h = Gemm (x, w)  y = Gemm <transB = 1> (h, w) }
        """
    )
    (layer,) = find_layers(model)
    assert weight_matrix(layer, layer.uses[0], torch.ones(2, 2)) is None
