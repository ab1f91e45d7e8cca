"""What is asked of a graph with many layers takes as much for each layer as with few."""

import sys

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.export import place
from quant_core.ingest import find_layers, normalise
from quant_core.ingest.added_bias import added_bias
from tests.networks import drawn, network

STEPS = {
    "Gemm": "h{k} = Gemm(a{k}, w{k}, b{k})",
    "Conv": "h{k} = Conv(a{k}, w{k}, b{k})",
}
SHAPES = {"Gemm": (4, 4), "Conv": (4, 4, 1, 1)}


def chain(op, count):
    body = " ".join(f"[n{k}] {STEPS[op].format(k=k)} a{k + 1} = Relu(h{k})" for k in range(count))
    image = "float[n,4]" if op == "Gemm" else "float[n,4,4,4]"
    text = f"g ({image} a0) => ({image} a{count}) {{ {body} }}"
    shapes = {f"{name}{k}": shape for k in range(count) for name, shape in (("w", SHAPES[op]), ("b", (4,)))}
    return normalise(ir.from_proto(network(text, drawn(np.random.default_rng(0), shapes))))


def calls(work):
    """Calls of Python functions, which are the same on every machine."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("op", [*STEPS])
def test_placing_grows_with_the_layers_and_not_with_their_square(op):
    def asked(count):
        model = chain(op, count)

        def work():
            layers = find_layers(model)
            place(model, layers, dict.fromkeys((layer.name for layer in layers), 4), 8)
            for layer in layers:
                assert added_bias(model, layer) is not None

        return calls(work)

    few, many = asked(25), asked(100)
    assert many < 4.5 * few
