"""In which types a program holds weights and computes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import compile_model, load, run
from quant_core.executor.dtypes import Kind, Precision, to_torch
from tests.quant_core.executor.graphs import compiled, model


def test_narrow_initializers() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[2] x) => (float[2] y) {
        f = Cast<to = 1>(half)
        i = Cast<to = 1>(nibble)
        e = Cast<to = 1>(eight)
        y = Sum(x, f, i, e)
    }"""
    found = run(
        model(
            text,
            half=np.array([1.5, -2.0], ml_dtypes.bfloat16),
            nibble=np.array([-8, 7], ml_dtypes.int4),
            eight=np.array([0.5, 448.0], ml_dtypes.float8_e4m3fn),
        ),
        {"x": np.zeros(2, np.float32)},
    )
    np.testing.assert_array_equal(found["y"], np.array([-6.0, 453.0], np.float32))


@pytest.mark.parametrize(
    ("name", "narrow", "kind"),
    [("float16", torch.float16, np.float16), ("bfloat16", torch.bfloat16, ml_dtypes.bfloat16)],
)
def test_half_models_compute_in_single_precision(name, narrow, kind) -> None:
    # 4096 + 1/4 - 4096 is 1/4 in float32 and 0 in either narrow type.
    proto = model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        g ({name}[n] x) => ({name}[n] y) {{ a = Add(x, w)  y = Sub(a, w) }}""",
        w=np.array([4096.0], kind),
    )
    x = torch.tensor([0.25])
    for program in (load(proto), compiled(proto)):
        assert program.weights["w"].dtype == torch.float32
        assert program(x)[0].dtype == torch.float32
        assert program(x)[0].item() == 0.25
    for program in (load(proto, dtype=narrow), compiled(proto, dtype=narrow)):
        assert program.weights["w"].dtype == narrow
        assert program(x.to(narrow))[0].dtype == narrow
        assert program(x.to(narrow))[0].item() == 0
    for dtype, expected in ((None, 0.25), (narrow, 0)):
        found = run(proto, {"x": np.array([0.25], kind)}, dtype=dtype)["y"]
        assert found.dtype == kind
        assert float(found[0]) == expected


def test_double_precision_on_request() -> None:
    proto = model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[n, 3] x) => (float[n, 4] y) { a = MatMul(x, w)  y = Relu(a) }""",
        w=np.ones((3, 4), np.float32),
    )
    program = compiled(proto, dtype=torch.float64)
    assert program(torch.randn(2, 3))[0].dtype == torch.float64


def test_a_gpu_computes_in_float32_and_not_in_tf32() -> None:
    relu = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> net (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }'
    )
    kinds = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "tf32"
        compile_model(relu)
        assert [kind.fp32_precision for kind in kinds] == ["tf32"] * 3
        compile_model(relu, device="cuda")
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 3
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


@pytest.mark.parametrize("offset", [0, 4, 16, 60])
def test_values_begin_where_products_give_the_same_digits_in_every_process(offset):
    size = 4 * 300
    held = np.zeros(size + 128, dtype=np.uint8)
    begin = -held.ctypes.data % 64 + offset
    array = held[begin : begin + size].view(np.float32)
    array[:] = np.arange(300)
    tensor = to_torch(array, Kind.FLOAT, Precision())
    assert tensor.data_ptr() % 64 == 0
    assert tensor.tolist() == array.tolist()
