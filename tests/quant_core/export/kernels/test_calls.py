"""What calls of kernels come to: one a kernel that onnxruntime is left with."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.export import place
from quant_core.export.kernels.calls import CALL, DYNAMIC, PASSED, RUN, calls_time
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.ingest import find_layers, normalise
from quant_core.spec import FLOAT_BITS
from tests.networks import network

SHAPES = {"image": (4, 4, 1, 1), "rows": (4, 4), "bias": (4,)}


def calls(body, shape, *, in_float):
    proto = network(
        f"g (float[n,{shape}] x) => (float[n,{shape}] y) {{ {body} }}",
        {name: np.random.default_rng(0).standard_normal(sizes) for name, sizes in SHAPES.items()},
    )
    model = normalise(ir.from_proto(proto))
    layers = tuple(
        replace(layer, activation_bits=FLOAT_BITS if in_float else None) for layer in find_layers(model)
    )
    placement = place(model, layers, {layer.name: 8 for layer in layers}, 8)
    return calls_time(PlacedRun(model, layers, placement, {})) - RUN


ROUNDED, LAID_OUT = PASSED["border"], PASSED["blocks"]


@pytest.mark.parametrize(("in_float", "around"), [(False, 2 * ROUNDED), (True, LAID_OUT)])
def test_a_convolution_computes_the_relu_behind_it_and_what_lies_around_is_called(in_float, around):
    assert calls("c = Conv(x, image) y = Relu(c)", "4,8,8", in_float=in_float) == CALL + around


def test_an_operator_in_float_between_integer_convolutions_is_three_calls_or_more():
    body = "c = Conv(x, image) {between} y = Conv({last}, image)"
    plain = calls(body.format(between="", last="c"), "4,8,8", in_float=False)
    between = calls(body.format(between="d = Elu(c)", last="d"), "4,8,8", in_float=False)
    assert between - plain == CALL + 2 * ROUNDED


@pytest.mark.parametrize(("in_float", "expected"), [(False, DYNAMIC + CALL), (True, CALL)])
def test_a_gemm_computes_the_relu_behind_it_in_float_alone(in_float, expected):
    assert calls("c = Gemm(x, rows, bias) y = Relu(c)", "4", in_float=in_float) == expected


@pytest.mark.parametrize(("in_float", "expected"), [(False, DYNAMIC), (True, 2 * CALL)])
def test_a_product_rounded_as_it_runs_adds_its_bias(in_float, expected):
    assert calls("c = MatMul(x, rows) y = Add(c, bias)", "6,4", in_float=in_float) == expected


def test_what_moves_nothing_is_not_called():
    assert calls("c = Conv(x, image) y = Identity(c)", "4,8,8", in_float=True) == CALL + LAID_OUT
