"""Weights laid out once: the same numbers as torch's own convolution, however often and wherever they change."""

import onnx_ir as ir
import pytest
import torch

from quant_core.errors import ModelError
from quant_core.executor import compile_model
from quant_core.executor.layout import fast_layout
from quant_core.executor.ops.packed_convolution import PackedWeights, suits

CASES = [((64, 8, 7, 7), 1, (1, 2), (3, 2), (1, 1)), ((512, 2, 4, 4), 4, (1, 1), (2, 3), (1, 2))]


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(("shape", "group", "strides", "pads", "dilations"), CASES)
def test_gives_what_torch_gives(shape, group, strides, pads, dilations):
    weight, bias, kept = drawn(*shape), drawn(shape[0]), PackedWeights()
    for samples, size in ((2, 9), (1, 12), (3, 9)):
        x = fast_layout(drawn(samples, 8, size, size))
        with torch.no_grad():
            assert suits(x, weight)
            found = kept.convolve(x, weight, bias, strides, pads, dilations, group)
        expected = torch.conv2d(x.double(), weight.double(), bias.double(), strides, pads, dilations, group)
        assert torch.allclose(found.double(), expected, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_follows_a_weight_that_is_written_to_and_forgets_one_that_is_gone():
    x, weight, kept = fast_layout(drawn(2, 8, 9, 9)), drawn(64, 8, 7, 7), PackedWeights()
    where = None, (1, 1), (3, 3), (1, 1), 1
    with torch.no_grad():
        once = kept.convolve(x, weight, *where)
        weight.mul_(2)
        assert torch.allclose(kept.convolve(x, weight, *where), 2 * once)
        other = weight + 1
        kept.convolve(x, other, *where)
        assert len(kept._kept) == 2
        del other
    assert len(kept._kept) == 1


def test_leaves_gradients_small_weights_and_other_types_to_torch():
    x, weight = fast_layout(drawn(2, 8, 9, 9)), drawn(64, 8, 7, 7)
    assert not suits(x, weight)  # gradients may be asked for
    with torch.no_grad():
        assert suits(x, weight)
        assert not suits(x, weight[:1])
        assert not suits(x.contiguous(), weight)
        assert not suits(x.double(), weight.double())
    x.requires_grad_()
    program = compile_model(a_convolution(weight))
    (given,) = torch.autograd.grad(program.evaluate({"x": x})["y"].square().sum(), x)
    (expected,) = torch.autograd.grad(torch.conv2d(x, weight, padding=3).square().sum(), x)
    assert torch.allclose(given, expected, rtol=1e-4, atol=1e-3)


def test_still_counts_against_the_budget():
    program = compile_model(a_convolution(drawn(64, 8, 7, 7), 30_000))
    with torch.no_grad(), pytest.raises(ModelError, match="Conv is refused"):
        program.evaluate({"x": fast_layout(drawn(2, 8, 9, 9))})


def a_convolution(weight, pad=3):
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, 8, None, None]))
    w = ir.Value(name="w", const_value=ir.tensor(weight.numpy()))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Conv", [x, w], [ir.AttrInt64s("pads", [pad] * 4)], outputs=[y], name="conv")
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)
