"""Every operator, width, granularity and target that is claimed: exported, run, each layer equal to the simulation."""

import numpy as np
import pytest

from quant_core.export import predict_sizes
from quant_core.export.targets.gpu import ORT_CUDA, tensorrt
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import PORTABLE_OPSETS, portable
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.verification import check_layers
from tests.quant_core.export.networks import HEADER, Net, uncorrected

NETS = {
    "convolutions": (
        HEADER
        + """g (float[n,8,9,9] x) => (float[n,6,5,5] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,0,1,2]>(x, w1, b1)
            b = Conv<kernel_shape=[3,3], pads=[2,2,2,2], dilations=[2,2], group=4>(a, w2)
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group=8>(b, w3, b3)
            d = Conv<kernel_shape=[1,1]>(c, w4)
            e = Conv<kernel_shape=[1,1]>(d, w4, b3)
            f = Add(d, e)
            y = Conv<kernel_shape=[1,1], auto_pad="VALID">(f, w5)
        }""",
        {
            "w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 2, 3, 3), "w3": (8, 1, 3, 3), "b3": (8,),
            "w4": (8, 8, 1, 1), "w5": (6, 8, 1, 1),
        },
        set(),
        {},
    ),
    "images": (
        HEADER
        + """g (float[n,3,13,12] x) => (float[n,16,4,3] y) {
            a = Conv<kernel_shape=[5,3], strides=[2,2], pads=[1,2,2,0]>(x, w1, b1)
            b = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,1]>(x, w2)
            c = Conv<kernel_shape=[1,1], auto_pad="VALID">(a, w3, b3)
            d = Conv<kernel_shape=[1,1]>(b, w4)
            s = Add(c, d)
            y = Conv<kernel_shape=[3,3], strides=[2,2], pads=[2,1,1,0]>(s, w5)
        }""",
        {
            "w1": (32, 3, 5, 3), "b1": (32,), "w2": (32, 3, 3, 3), "w3": (6, 32, 1, 1), "b3": (6,),
            "w4": (6, 32, 1, 1), "w5": (16, 6, 3, 3),
        },
        set(),
        {},
    ),
    "lines": (
        HEADER
        + """g (float[n,4,12] x) => (float[n,3,24] y) {
            a = Conv<kernel_shape=[5], pads=[4,4], dilations=[2], group=2>(x, w1, b1)
            r = LeakyRelu(a)
            y = ConvTranspose<kernel_shape=[4], strides=[2], pads=[1,1]>(r, w2)
        }""",
        {"w1": (6, 2, 5), "b1": (6,), "w2": (6, 3, 4)},
        set(),
        {},
    ),
    "volumes": (
        HEADER
        + """g (float[n,3,4,5,6] x) => (float[n,4,8,10,12] y) {
            a = Conv<kernel_shape=[3,3,3], pads=[1,1,1,1,1,1]>(x, w1)
            r = Relu(a)
            y = ConvTranspose<kernel_shape=[2,2,2], strides=[2,2,2]>(r, w2, b2)
        }""",
        {"w1": (5, 3, 3, 3, 3), "w2": (5, 4, 2, 2, 2), "b2": (4,)},
        set(),
        {},
    ),
    "upwards": (
        HEADER
        + """g (float[n,4,5,5] x) => (float[n,6,12,12] y) {
            a = ConvTranspose<kernel_shape=[3,3], group=2, strides=[2,2], output_padding=[1,1]>(x, w1, b1)
            r = Relu(a)
            y = ConvTranspose<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(r, w2)
        }""",
        {"w1": (4, 3, 3, 3), "b1": (6,), "w2": (6, 6, 2, 2)},
        set(),
        {},
    ),
    "products": (
        HEADER
        + """g (float[n,4,32] x) => (float[n,4,32] y) {
            a = MatMul(x, w1)
            b = Add(a, b1)
            t = Transpose<perm=[1,0]>(w2)
            c = MatMul(b, t)
            l = MatMul(left, c)
            s = MatMul(l, stack)
            d = MatMul(s, w1)
            y = Tanh(d)
        }""",
        {"w1": (32, 32), "b1": (32,), "w2": (32, 32), "left": (4, 4), "stack": (1, 32, 32)},
        set(),
        {},
    ),
    "stacks": (
        HEADER
        + """g (float[n,3,4,32] x) => (float[n,3,4,16] y, float[3,16] z) {
            a = MatMul(x, w1)
            r = Relu(a)
            b = MatMul(r, w2)
            c = MatMul(b, w1)
            o = Unsqueeze(c, first)
            d = MatMul(o, w3)
            s = MatMul(left, d)
            e = Add(s, s)
            m = ReduceMax<keepdims=0>(e, first)
            y = Identity(m)
            v = ReduceMax<keepdims=0>(x, rows)
            z = MatMul(v, w4)
        }""",
        {"w1": (3, 32, 32), "w2": (1, 32, 32), "w3": (2, 1, 3, 32, 16), "left": (3, 4, 4), "w4": (3, 32, 16)},
        set(),
        {"first": [0], "rows": [0, 1, 2]},
    ),
    "gemms": (
        HEADER
        + """g (float[n,64] x) => (float[n,10] y) {
            a = Gemm<transB=1>(x, w1, b1)
            r = Relu(a)
            b = Gemm<alpha=0.5, beta=2.0>(r, w2, b2)
            c = Gemm<transB=1>(b, w1)
            y = Gemm(c, w3, b3)
        }""",
        {"w1": (64, 64), "b1": (64,), "w2": (64, 64), "b2": (64,), "w3": (64, 10), "b3": (1, 10)},
        set(),
        {},
    ),
    "tables": (
        HEADER
        + """g (int64[n,t] ids) => (float[n,t,20] y, float[20,n,t] z, float[2,n,t,6] c) {
            z = Gather<axis=1>(columns, ids)
            a = Gather<axis=-2>(cube, ids)
            b = Gather<axis=1>(cube, ids)
            c = Add(a, b)
            e = Gather<axis=0>(table, ids)
            p = Gather(places, ids)
            s = Add(e, p)
            k = Transpose<perm=[1,0]>(table)
            y = MatMul(s, k)
        }""",
        {"table": (20, 32), "places": (20, 32), "columns": (20, 32), "cube": (2, 20, 6)},
        set(),
        {},
    ),
}  # fmt: skip
GRANULARITIES = [
    WeightOptions(granularity=granularity, block_size=16, symmetric=symmetric)
    for granularity in ("tensor", "channel", "block")
    for symmetric in (True, False)
]
FLOATING = [
    (8, WeightOptions(weight_format="fp8_e4m3")),
    (8, WeightOptions(weight_format="fp8_e5m2", granularity="tensor")),
    (4, WeightOptions(weight_format="nvfp4")),
    (4, WeightOptions(weight_format="mxfp4")),
]
BLOCKS = [
    (bits, WeightOptions(granularity="block", block_size=size, symmetric=symmetric))
    for bits, size, symmetric in (
        (4, 32, True), (2, 64, True), (8, 128, True), (4, 256, False), (3, 48, True), (2, 32, False), (5, 100, False),
    )
]  # fmt: skip
EVERYTHING = [(bits, options) for bits in (2, 3, 4, 5, 6, 8) for options in GRANULARITIES] + FLOATING
CLAIMS = (
    [
        (ORT_CPU, 8, bits, options)
        for bits, options in EVERYTHING
        if options.granularity == "channel" or bits in {2, 4, 8}  # test_grids.py has the others
    ]
    + [(ORT_CPU, wide, *grid) for wide, first in ((16, 2), (FLOAT_BITS, 5)) for grid in EVERYTHING[first::9]]
    + [
        (portable(opset), 8, *grid)
        for opset, first in ((18, 0), (21, 4), (25, 7))
        for grid in EVERYTHING[first::8]
        if opset > 18 or grid not in FLOATING
    ]
    + [
        (target, 8, bits, WeightOptions(granularity=granularity, block_size=size))
        for target, size in ((tensorrt(), 64), (ORT_CUDA, 16))
        for bits, granularity in ((4, "tensor"), (4, "channel"), (4, "block"), (8, "channel"))
    ]
    + [
        (tensorrt(name), 8, bits, WeightOptions(weight_format=name))
        for bits, name in ((8, "fp8_e4m3"), (4, "nvfp4"))
    ]
)


def label(value):
    if isinstance(value, WeightOptions):
        kind = value.weight_format if value.weight_format != "int" else f"symmetric={value.symmetric}"
        return f"{value.granularity}-{kind}"
    return getattr(value, "name", str(value))


@pytest.fixture(scope="module", params=NETS)
def net(request):
    return Net(NETS[request.param])


def check_claim(net, target, activations, bits, options, path):
    """Export a network, run it, compare each layer with the simulation and the bytes with the prediction."""
    forms = {
        layer.name: target.form(layer, net.model, bits, activations, options.grid(bits))
        for layer in net.layers
    }
    plan = {name: FLOAT_BITS if form is None else bits for name, form in forms.items()}
    placement, file, simulated = net.export(plan, activations, path, target, options)
    check_layers(path, net.simulation, placement, net.feeds, literal=not target.runs_here)
    integer = {"static", "dynamic", "block"}.intersection(placement.forms.values())
    tolerance = 0.08 if integer else 5e-4 if placement.wide else 1e-5
    if target.runs_here:
        assert np.abs(net.run(path) - simulated).max() <= tolerance * np.abs(simulated).max()
    sizes = predict_sizes(
        net.model,
        net.layers,
        {name: (width,) for name, width in plan.items()},
        activations,
        target,
        uncorrected(options),
    )
    assert abs(file.ByteSize() - sizes.total(plan)) <= max(0.03 * file.ByteSize(), 160)


@pytest.mark.parametrize(("target", "activations", "bits", "options"), CLAIMS, ids=label)
def test_each_layer_equals_the_simulation(net, target, activations, bits, options, tmp_path):
    check_claim(net, target, activations, bits, options, tmp_path / "model.onnx")


TARGETS = [
    *((ORT_CPU, activations) for activations in (8, 16, FLOAT_BITS)),
    *((portable(opset), activations) for opset in PORTABLE_OPSETS for activations in (8, FLOAT_BITS)),
]
PRODUCT = [
    (target, activations, *grid)
    for target, activations in TARGETS
    for grid in [*EVERYTHING, *BLOCKS]
    if (target, activations, *grid) not in CLAIMS
] + [
    (target, 8, bits, WeightOptions(granularity=granularity, block_size=size))
    for target, sizes in ((tensorrt(), (64, 128)), (ORT_CUDA, (16, 32, 64, 128)))
    for bits, granularity, size in [(8, "tensor", 32), *((4, "block", size) for size in sizes)]
]
"""Every target, opset, width of activations, grid and size of blocks that is claimed and not above."""


@pytest.fixture(scope="module")
def networks():
    return {name: Net(NETS[name]) for name in NETS}


@pytest.mark.parametrize(
    ("place", "claim"),
    list(enumerate(PRODUCT))[::16],
    ids=lambda value: "-".join(map(label, value)) if isinstance(value, tuple) else "",
)
def test_the_whole_product_in_turn(networks, place, claim, tmp_path):
    check_claim(networks[list(NETS)[place // 16 % len(NETS)]], *claim, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("target", "activations"), [*TARGETS, (tensorrt(), 8), (ORT_CUDA, 8)], ids=label)
def test_the_whole_product(networks, target, activations, tmp_path):
    claims = [claim for claim in PRODUCT if claim[:2] == (target, activations)]
    assert claims
    for claim in claims:
        for name in NETS:
            check_claim(networks[name], *claim, tmp_path / "model.onnx")
