"""Weights that exporters store several times are one layer, and no others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from quant_core.artifacts import MODEL
from quant_core.ingest import find_layers, read_model
from quant_core.ingest.normalise import normalise
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.quant_core.ingest.normalised import N, check_same, normal, ops, run_model


def weights(model):
    """Names of the weights of layers and, for each, how many nodes read it."""
    return {layer.weight: len(layer.uses) for layer in find_layers(model)}


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_copies_are_one_weight(op, build, run, floats):
    weight, feeds = floats(16, 16), {"x": floats(3, 16)}
    nodes = [
        N(op, ["x", "a"], ["h"]),
        N("Relu", ["h"], ["r"]),
        N(op, ["r", "b"], ["s"]),
        N(op, ["s", "c"], ["y"]),
    ]
    before = build(nodes, feeds, {"a": weight, "b": weight.copy(), "c": floats(16, 16)})
    after = normal(before)
    assert weights(after) == {"a": 2, "c": 1}
    assert set(after.graph.initializers) == {"a", "c"}
    check_same(run, before, after, feeds)


def test_copies_that_are_read_otherwise_are_kept_apart(build, run, floats):
    kernel, feeds = floats(8, 8, 3, 3), {"x": floats(2, 8, 9, 9)}
    nodes = [
        N("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        N("Conv", ["h", "b"], ["s"], strides=[2, 2]),
        N("ConvTranspose", ["s", "c"], ["t"]),
        N("Conv", ["t", "d"], ["y"], pads=[1, 1, 1, 1]),
    ]
    before = build(nodes, feeds, {name: kernel.copy() for name in "abcd"})
    after = normal(before)
    assert weights(after) == {"a": 2, "b": 1, "c": 1}
    check_same(run, before, after, feeds)


def test_weights_that_differ_in_one_value_are_two(build, floats):
    first = floats(40, 40)
    second = first.copy()
    second[3, 5] += 1e-3
    nodes = [N("MatMul", ["x", "a"], ["h"]), N("MatMul", ["h", "b"], ["s"]), N("MatMul", ["s", "c"], ["y"])]
    given = {"a": first, "b": second, "c": np.ascontiguousarray(first.T)}
    assert len(find_layers(normal(build(nodes, {"x": floats(2, 40)}, given)))) == 3


def test_a_copy_that_is_given_out_stays(build, run, floats):
    weight, feeds = floats(16, 16), {"x": floats(3, 16)}
    nodes = [N("MatMul", ["x", "a"], ["h"]), N("MatMul", ["h", "b"], ["y"])]
    before = build(nodes, feeds, {"a": weight, "b": weight.copy()}, outputs=("y", "b"))
    check_same(run, before, normal(before), feeds)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize(("rows", "tied"), [(130, True), (30, False)])
def test_a_turned_copy_of_a_large_table_is_the_table(rows, tied, shape, build, run, floats):
    table, feeds = floats(rows, 128), {"x": np.arange(np.prod(shape)).reshape(shape)}
    nodes = [N("Gather", ["table", "x"], ["h"]), N("MatMul", ["h", "head"], ["y"])]
    before = build(nodes, feeds, {"table": table, "head": np.ascontiguousarray(table.T)})
    after = normal(before)
    assert weights(after) == ({"table": 2} if tied else {"table": 1, "head": 1})
    assert ("Gemm" in ops(after)) == tied
    check_same(run, before, after, feeds)


class _Rounds(nn.Module):
    """One block, run three times between a table and the output layer that is tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 64)
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 64)
        self.head = nn.Linear(64, 300, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.table(tokens)
        for _ in range(3):
            hidden = self.norm(hidden + self.down(torch.relu(self.up(hidden))))
        return self.head(hidden)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torch_exports_is_stored_once(tmp_path):
    torch.manual_seed(0)
    tokens = torch.randint(300, (24, 5))
    net = _Rounds().eval()
    path, values = tmp_path / "m.onnx", sum(value.numel() for value in net.parameters())
    axes = {"x": {0: "n"}}
    torch.onnx.export(
        net, (tokens,), path, input_names=["x"], opset_version=18, dynamic_axes=axes, dynamo=False
    )
    stored = sum(np.prod(each.dims) for each in onnx.load(path).graph.initializer)
    assert stored > 1.4 * values
    assert len(find_layers(normalise(read_model(path).model))) == 3
    data = tmp_path / "x.npz"
    np.savez(data, x=tokens.numpy())
    quantize(path, data, QuantizeSpec(size=0.9, bits=[8]), tmp_path / "out")
    assert (tmp_path / "out" / MODEL).stat().st_size < 1.5 * values
    expected = run_model(onnx.load(path), {"x": tokens.numpy()})[0]
    found = run_model(onnx.load(tmp_path / "out" / MODEL), {"x": tokens.numpy()})[0]
    assert np.square(found - expected).mean() < 1e-3 * np.square(expected).mean()
