"""Blocks end where one tensor crosses, hold every layer once, and can be run from what they say they read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper

from quant_core.quantizers.tuning.blocks import find_blocks
from tests.quant_core.quantizers.tuning.small_nets import build, chain, conv


def residual():
    weights = {}
    nodes = [
        conv("x", "c0", 0, weights),
        conv("c0", "c1", 1, weights),
        helper.make_node("Relu", ["c1"], ["r1"]),
        conv("r1", "c2", 2, weights),
        helper.make_node("Add", ["c2", "c0"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["b1"]),
        conv("b1", "c3", 3, weights),
        helper.make_node("Relu", ["c3"], ["r3"]),
        conv("r3", "c4", 4, weights),
        helper.make_node("Add", ["c4", "b1"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["y"]),
    ]
    return nodes, weights


def ladder(count):
    """Every tensor is read again at the end in opposite order, as in a U-net."""
    weights, nodes, x = {}, [], "x"
    for number in range(count):
        nodes.append(conv(x, f"d{number}", number, weights))
        x = f"d{number}"
    for number in range(count - 1):
        nodes.append(helper.make_node("Add", [x, f"d{count - 2 - number}"], [f"s{number}"]))
        y = "y" if number == count - 2 else f"u{number}"
        nodes.append(conv(f"s{number}", y, count + number, weights))
        x = y
    return nodes, weights


def shared():
    nodes, weights = chain(6)
    del weights["w4"]
    nodes[8].input[1] = "w0"
    return nodes, weights


NETS = {"chain": chain(7), "residual": residual(), "ladder": ladder(7), "shared": shared(), "one": chain(1)}


@pytest.mark.parametrize("name", NETS)
def test_blocks_run_one_after_another_give_the_network(name):
    _, model, layers, program = build(NETS[name][0], (4, 6, 6), NETS[name][1])
    blocks = find_blocks(model, layers, [layer.name for layer in layers])
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32))
    whole = program.evaluate({"x": x})["y"]
    known = {}
    with torch.no_grad():
        for block in blocks:
            # What a block reads must have been made, and nothing before it may run again.
            feeds = {"x": x} | {tensor: known[tensor] for tensor in block.inputs}
            known |= program.evaluate(feeds, block.outputs)
            for layer in block.layers:
                weight = next(found.weight for found in layers if found.name == layer)
                moved = program.evaluate(feeds, block.outputs, weights={weight: 2 * program.weights[weight]})
                assert any(not torch.equal(moved[tensor], known[tensor]) for tensor in block.outputs)
    torch.testing.assert_close(known["y"], whole)
    held = [layer for block in blocks for layer in block.layers]
    assert len(held) == len(set(held))
    assert set(held) == {layer.name for layer in layers} - ({"conv0"} if name == "shared" else set())


def test_residual_blocks_end_behind_their_addition():
    nodes, weights = residual()
    _, model, layers, _ = build(nodes, (4, 6, 6), weights)
    first, second = find_blocks(model, layers, [layer.name for layer in layers])
    assert (first.layers, first.inputs, first.outputs) == (("conv0", "conv1", "conv2"), (), ("b1",))
    assert (second.layers, second.inputs, second.outputs) == (("conv3", "conv4"), ("b1",), ("y",))


def test_chains_are_cut_behind_activations_into_threes():
    nodes, weights = chain(7)
    _, model, layers, _ = build(nodes, (4, 6, 6), weights)
    blocks = find_blocks(model, layers, [layer.name for layer in layers])
    assert [len(block.layers) for block in blocks] == [3, 3, 1]
    assert [block.outputs for block in blocks] == [("r2",), ("r5",), ("y",)]


def test_what_no_tensor_divides_is_cut_where_fewest_cross():
    nodes, weights = ladder(7)
    _, model, layers, _ = build(nodes, (4, 6, 6), weights)
    blocks = find_blocks(model, layers, [layer.name for layer in layers])
    assert len(blocks) > 1
    assert max(len(block.layers) for block in blocks) <= 8


def test_layers_that_are_not_tuned_belong_to_no_block_but_move_what_is_behind_them():
    nodes, weights = chain(6)
    _, model, layers, _ = build(nodes, (4, 6, 6), weights)
    blocks = find_blocks(model, layers, ["conv5"])
    assert [block.layers for block in blocks] == [("conv5",)]
    assert find_blocks(model, layers, []) == ()
