"""A table that is also the head's weight is one layer."""

from __future__ import annotations

import numpy as np
import pytest

from quant_core.ingest import find_layers
from tests.quant_core.ingest.normalised import N, check_same, normal, ops


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_tied_table_is_one_layer_and_not_copied(shape, build, run):
    feeds = {"x": np.arange(np.prod(shape)).reshape(shape)}
    nodes = [
        N("Gather", ["table", "x"], ["h"], "embed"),
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("MatMul", ["h", "turned"], ["y"], "head"),
    ]
    table = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    before = build(nodes, feeds, {"table": table})
    after = normal(before)
    assert 3200 <= sum(value.const_value.size for value in after.graph.initializers.values()) < 3210
    (layer,) = find_layers(after)
    assert [(use.node, use.op) for use in layer.uses] == [("embed", "Gather"), ("head", "Gemm")]
    assert layer.axis == 0
    check_same(run, before, after, feeds)


def test_tied_table_behind_an_operator_whose_shapes_nobody_infers(build, run):
    feeds = {"x": np.arange(6).reshape(2, 3)}
    nodes = [
        N("Gather", ["table", "x"], ["h"], "embed"),
        N("QuickGelu", ["h"], ["q"], "gate", domain="com.microsoft"),
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("MatMul", ["q", "turned"], ["y"], "head"),
    ]
    table = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    before = build(nodes, feeds, {"table": table})
    after = normal(before)
    (layer,) = find_layers(after)
    assert [use.op for use in layer.uses] == ["Gather", "Gemm"]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_a_tied_table(transposed, build, run, floats):
    feeds = {"x": floats(4, 40)}
    nodes = [
        N("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        N("Gemm", ["x", "turned"], ["h"], "head", transB=transposed),
        N("Gemm", ["h", "table"], ["y"], "tail"),
    ]
    before = build(nodes, feeds, {"table": floats(40, 40)})
    after = normal(before)
    assert ops(after) == ["Gemm", "Gemm"]
    assert len(find_layers(after)) == 1
    check_same(run, before, after, feeds)
