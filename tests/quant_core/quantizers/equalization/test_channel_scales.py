"""Scaled channels: onnxruntime says whether a graph still computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from quant_core.codes import SPREAD
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers.equalization.channel_groups import channel_groups, output_groups
from quant_core.quantizers.equalization.channel_scales import ChannelScales, with_inputs, with_scales

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
NETS = {
    "pair": (
        f"g (float[n,3,6,6] x) => (float[n,4,6,6] y) {{ a = {CONV}(x, w, b) r = Relu(a) y = {CONV}(r, v) }}",
        {"w": (5, 3, 3, 3), "b": (5,), "v": (4, 5, 3, 3)},
        [("a", "r")],
    ),
    "depthwise": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "r = LeakyRelu<alpha=0.1>(a) d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>(r, v) s = Relu(d) "
            "y = Conv<kernel_shape=[1,1]>(s, u) }"
        ),
        {"w": (4, 3, 1, 1), "v": (8, 1, 3, 3), "u": (2, 8, 1, 1)},
        [("a", "r"), ("d", "s")],
    ),
    "grouped": (
        (
            "g (float[n,3,6,6] x) => (float[n,6,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) y = Conv<kernel_shape=[1,1], group=2>(m, v) }"
        ),
        {"w": (4, 3, 1, 1), "v": (6, 2, 1, 1)},
        [("a", "m")],
    ),
    "resized": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,12,12] y, float[n,2,12,12] z) { "
            "k = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() o = Constant<value_ints=[12, 12]>() "
            'a = Conv<kernel_shape=[1,1]>(x, w) m = Resize<mode="linear">(a, , k) y = Conv<kernel_shape=[1,1]>(m, v) '
            'c = Conv<kernel_shape=[1,1]>(x, t) p = Resize<mode="cubic", axes=[2,3]>(c, , , o) '
            "z = Conv<kernel_shape=[1,1]>(p, u) }"
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1), "t": (4, 3, 1, 1), "u": (2, 4, 1, 1)},
        [("a", "m"), ("c", "p")],
    ),
    "residual": (
        (
            f"g (float[n,3,4,4] x) => (float[n,2] y) {{ a = {CONV}(x, w) c = {CONV}(a, v) s = Add(a, c) r = Relu(s) "
            "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, u, b) }"
        ),
        {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3), "u": (2, 4), "b": (2,)},
        [("a", "c", "s", "r", "p", "f")],
    ),
    "transposed": (
        (
            "g (float[n,3,4,4] x) => (float[n,2,5,5] y) { a = ConvTranspose<kernel_shape=[2,2]>(x, w, b) "
            "y = Conv<kernel_shape=[1,1]>(a, v) }"
        ),
        {"w": (3, 4, 2, 2), "b": (4,), "v": (2, 4, 1, 1)},
        [("a",)],
    ),
    "products": (
        (
            "g (float[n,7,3] x) => (float[n,7,2] y) { a = MatMul(x, w) s = Add(b, a) r = Relu(s) h = Mul(r, half) "
            "y = MatMul(h, v) }"
        ),
        {"w": (3, 5), "b": (5,), "v": (5, 2), "half": ()},
        [("x",), ("a", "s", "r", "h")],
    ),
    "layer norm": (
        (
            "g (float[n,7,4] x) => (float[n,7,2] y, float[n,7,3] z) { a = LayerNormalization(x, g, b) y = MatMul(a, w) "
            "z = MatMul(a, v) }"
        ),
        {"g": (4,), "b": (4,), "w": (4, 2), "v": (4, 3)},
        [("a",)],
    ),
    "batch norm": (
        (
            "g (float[n,4,6,6] x) => (float[n,2,6,6] y, float[n,3,6,6] z) { a = BatchNormalization(x, g, b, m, var) "
            f"r = Relu(a) y = {CONV}(r, v) z = Conv<kernel_shape=[1,1]>(r, w) }}"
        ),
        {"g": (4,), "b": (4,), "m": (4,), "var": (4,), "v": (2, 4, 3, 3), "w": (3, 4, 1, 1)},
        [("a", "r")],
    ),
    "instance norm": (
        f"g (float[n,4,6,6] x) => (float[n,2,6,6] y) {{ a = InstanceNormalization(x, g, b) y = {CONV}(a, v) }}",
        {"g": (4,), "b": (4,), "v": (2, 4, 3, 3)},
        [("a",)],
    ),
    "pooled across channels": (
        (
            "g (float[n,7,3] x) => (float[n,7,2] y, float[n,7,2] z) { a = MatMul(x, w) "
            "m = MaxPool<kernel_shape=[3], pads=[1,1]>(a) y = MatMul(m, v) "
            "p = AveragePool<kernel_shape=[3], pads=[1,1]>(a) z = MatMul(p, u) }"
        ),
        {"w": (3, 5), "v": (5, 2), "u": (5, 2)},
        [("x",), ("m",), ("p",)],
    ),
    "inserted": (
        "g (float[n,7,4] x) => (float[n,7,4] y) { a = Gelu(x) c = MatMul(a, w) y = Add(a, c) }",
        {"w": (4, 4)},
        [("a",)],
    ),
}
LEFT_ALONE = {
    "stretched across channels": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y) { k = Constant<value_floats=[1.0, 1.2, 1.0, 1.0]>() "
            'a = Conv<kernel_shape=[1,1]>(x, w) m = Resize<mode="linear">(a, , k) y = Conv<kernel_shape=[1,1]>(m, v) }'
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1)},
    ),
    "given a border": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,8,8] y) { o = Constant<value_ints=[8, 8]>() "
            "r = Constant<value_floats=[0.0, 0.0, 1.5, 1.5]>() a = Conv<kernel_shape=[1,1]>(x, w) "
            'm = Resize<coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=1.0, axes=[2,3]>'
            "(a, r, , o) y = Conv<kernel_shape=[1,1]>(m, v) }"
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1)},
    ),
    "bounded": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "r = Clip(a, low, high) y = Conv<kernel_shape=[1,1]>(r, v) }"
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1), "low": (), "high": ()},
    ),
    "seen outside": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y, float[n,4,6,6] a) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "y = Conv<kernel_shape=[1,1]>(a, v) }"
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1)},
    ),
    "shared weight": (
        (
            "g (float[n,4,6,6] x) => (float[n,4,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "y = Conv<kernel_shape=[1,1]>(a, w) }"
        ),
        {"w": (4, 4, 1, 1)},
    ),
    "read otherwise": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) e = Sigmoid(a) "
            "m = Mul(a, e) y = Conv<kernel_shape=[1,1]>(m, v) }"
        ),
        {"w": (4, 3, 1, 1), "v": (2, 4, 1, 1)},
    ),
    "broadcast": (
        (
            "g (float[n,3,6,6] x) => (float[n,2,6,6] y) { a = Conv<kernel_shape=[1,1]>(x, w) "
            "c = Conv<kernel_shape=[1,1]>(x, u) s = Add(a, c) y = Conv<kernel_shape=[1,1]>(s, v) }"
        ),
        {"w": (4, 3, 1, 1), "u": (1, 3, 1, 1), "v": (2, 4, 1, 1)},
    ),
}


def build(text, shapes):
    proto = onnx.parser.parse_model(HEADER + text)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) if shape else np.array({"low": 0.0, "high": 1.0}.get(name, 0.5))
        values = values**2 if name == "var" else values
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    model = normalise(ir.from_proto(proto))
    layers = find_layers(model)
    sizes = [5, *(int(size) for size in list(model.graph.inputs[0].shape)[1:])]
    x = np.random.default_rng(1).standard_normal(sizes).astype(np.float32)
    feeds = {"x": torch.from_numpy(x)}
    program = compile_model(model)
    values = feeds | program.evaluate(feeds, outputs=program.order)
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    dynamic = {layer.name for layer in layers if layer.op == "MatMul"}
    return model, layers, channel_groups(model, layers, dynamic, shapes), x


@pytest.mark.parametrize("apart", [1e-9, 1e9])
def test_factors_that_lie_far_apart_stay_numbers(apart):
    *_, (group,), _ = build(*NETS["pair"][:2])
    for values in (np.array([apart, 1, 1, 1, 1.0]), np.array([1.1, 0.7, 1, 1, 1])):
        stored = ChannelScales.stored(group, values)
        np.testing.assert_allclose(stored.values, values, rtol=1e-3)


def outputs(model, x):
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("name", NETS)
def test_the_scaled_graph_computes_the_same(name):
    text, shapes, tensors = NETS[name]
    model, layers, groups, x = build(text, shapes)
    assert [group.tensors for group in groups] == tensors
    rng = np.random.default_rng(2)
    scales = [ChannelScales(group, np.exp(rng.normal(size=group.channels))) for group in groups]
    before = {key: value.const_value.numpy().copy() for key, value in model.graph.initializers.items()}
    model.meta["what the file was"] = "float16"
    scaled = with_scales(model, layers, scales)
    assert scaled.meta == model.meta
    for expected, given in zip(outputs(model, x), outputs(scaled, x), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for group in groups:
        for reader in group.readers:
            weight = next(layer.weight for layer in layers if layer.name == reader)
            assert not np.allclose(scaled.graph.initializers[weight].const_value.numpy(), before[weight])
    for key, value in model.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), before[key])
    found = {layer.name: layer.inputs for layer in find_layers(scaled)}
    assert {layer.name: layer.inputs for layer in with_inputs(layers, scales)} == found


@pytest.mark.parametrize("name", NETS)
def test_folded_tensors_are_divided(name):
    text, shapes, _ = NETS[name]
    model, layers, groups, x = build(text, shapes)
    scales = [ChannelScales(group, np.full(group.channels, 2.0)) for group in groups]
    scaled = compile_model(with_scales(model, layers, scales))
    feeds = {"x": torch.from_numpy(x)}
    names = [name for group in groups if not group.inserted for name in group.tensors]
    before, after = (program.evaluate(feeds, outputs=names) for program in (compile_model(model), scaled))
    for tensor in names:
        torch.testing.assert_close(after[tensor], before[tensor] / 2)


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_does_not_commute_is_left_alone(name):
    assert build(*LEFT_ALONE[name])[2] == ()


BORDERS = (
    "g (float[n,3,6,6] x) => (float[n,2,6,6] y, float[n,4,6,6] z) { a = Conv<kernel_shape=[1,1]>(x, w, b) "
    "h = Sigmoid(a) m = Mul(h, half) s = Add(m, half) c = Conv<kernel_shape=[3,3], group=4>(s, v) t = Tanh(c) "
    "y = Conv<kernel_shape=[1,1], pads=[1,1,1,1]>(t, u) e = Conv<kernel_shape=[1,1]>(x, w2) z = Mul(e, k) }"
)


def borders():
    shapes = {"w": (4, 3, 1, 1), "b": (4,), "half": (), "v": (4, 1, 3, 3), "u": (2, 4, 1, 1)}
    model, layers, _, x = build(BORDERS, shapes | {"w2": (4, 3, 1, 1), "k": (1, 4, 1, 1)})
    feeds = {"x": torch.from_numpy(x)}
    program = compile_model(model)
    values = feeds | program.evaluate(feeds, outputs=program.order)
    found = {name: tuple(value.shape) for name, value in values.items()}
    every = {layer.name for layer in layers}
    before = channel_groups(model, layers, every, found)
    behind = output_groups(model, layers, every - {layers[-1].name}, found)
    return model, layers, before, behind, x


def test_a_product_that_is_there_takes_the_factors_in_and_elsewhere_one_is_inserted():
    model, _, before, behind, _ = borders()
    told = {group.tensors: [fold.name for fold in group.folds] for group in before}
    assert told == {("x",): [], ("m", "s"): ["half", "half"], ("t",): []}
    assert [(group.tensors, len(group.folds)) for group in behind] == [(("a",), 2), (("c",), 1), (("y",), 1)]
    assert all(group.inserted for group in behind)
    assert model.graph.initializers["half"].const_value.numpy().shape == ()


def test_scales_at_the_borders_change_nothing_in_float():
    model, layers, before, behind, x = borders()
    rng = np.random.default_rng(2)
    groups = [*before, *(group for group in behind if group.tensors != ("y",))]
    scales = [ChannelScales(group, np.exp(rng.normal(size=group.channels))) for group in groups]
    model.meta["what the file was"] = "float16"
    scaled = with_scales(model, layers, scales)
    spread = scaled.meta.pop(SPREAD)
    assert scaled.meta == model.meta
    for name, (whole, shares) in spread.items():  # what files may store it as
        np.testing.assert_allclose(
            whole * shares, scaled.graph.initializers[name].const_value.numpy(), rtol=1e-6
        )
    assert [name.split("@")[0] for name in spread] == ["half", "half"]
    for expected, given in zip(outputs(model, x), outputs(scaled, x), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    found = {layer.name: (layer.inputs, layer.outputs) for layer in find_layers(scaled)}
    assert {layer.name: (layer.inputs, layer.outputs) for layer in with_inputs(layers, scales)} == found
    feeds = {"x": torch.from_numpy(x)}
    by = next(scale.values for scale in scales if scale.group.tensors == ("c",))
    plain = compile_model(model).evaluate(feeds, outputs=["c"])["c"]
    written = compile_model(scaled).evaluate(feeds, outputs=["c", "c@scaled"])
    torch.testing.assert_close(written["c"], plain)
    expected = plain / torch.from_numpy(by.astype(np.float32)).reshape(1, -1, 1, 1)
    torch.testing.assert_close(written["c@scaled"], expected)


def joined(axis=1, outputs="", between="r = Relu(t)"):
    """A convolution that reads its skip beside what nothing else reads."""
    return build(
        f"""g (float[n,3,6,6] x) => (float[n,2,6,6] y, float[n,3,6,6] z{outputs}) {{
            a = Conv<kernel_shape=[1,1]>(x, w, b) s = Relu(a) z = Conv<kernel_shape=[1,1]>(s, v)
            t = ConvTranspose<kernel_shape=[3,3], pads=[1,1,1,1]>(s, k, c) {between}
            j = Concat<axis={axis}>(s, r) y = Conv<kernel_shape=[1,1]>(j, u)
        }}""",
        {"w": (4, 3, 1, 1), "b": (4,), "v": (3, 4, 1, 1), "k": (4, 4, 3, 3), "c": (4,), "u": (2, 8, 1, 1)},
    )


@pytest.mark.parametrize("axis", [1, -3])
def test_of_joined_tensors_those_are_divided_that_nothing_else_reads(axis):
    model, layers, groups, x = joined(axis)
    (group,) = (group for group in groups if group.parts)
    assert (group.parts, group.channels, set(group.tensors)) == (((4, 8),), 8, {"t", "r"})
    assert not group.inserted
    values = np.exp(np.random.default_rng(2).normal(size=8))
    values[:4] = 1
    scaled = with_scales(model, layers, [ChannelScales(group, values)])
    for expected, given in zip(outputs(model, x), outputs(scaled, x), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    feeds = {"x": torch.from_numpy(x)}
    before, after = (compile_model(each).evaluate(feeds, outputs=["j"])["j"] for each in (model, scaled))
    torch.testing.assert_close(after, before / torch.from_numpy(values).float().reshape(8, 1, 1))


@pytest.mark.parametrize(
    "given",
    [
        {"outputs": ", float[n,4,6,6] r"},
        {"between": "h = Sigmoid(t) r = Mul(t, h)"},
        {"between": "q = Relu(t) r = Add(q, s)"},
    ],
    ids=["seen outside", "does not commute", "of two tensors"],
)
def test_parts_that_cannot_be_divided_are_left_alone(given):
    assert not [group for group in joined(**given)[2] if group.parts]
