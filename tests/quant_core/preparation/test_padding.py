"""Padding is left out where masks hide it from every output, and nowhere else."""

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.calibration.padding import Filled, Padding
from quant_core.executor import compile_model
from quant_core.ingest import normalise
from quant_core.preparation.padding import find_padding
from quant_core.sensitivity import split_batches
from tests.networks import network

LENGTH, LONGEST = 9, 6
SUMMED = "a = MatMul(x, w) b = Unsqueeze(mask, last) c = Mul(a, b) y = ReduceSum<keepdims=0>(c, middle)"
NETS = {
    "masked": ("n,l,4", "n,l", "n,3", SUMMED),
    "as long as it is": ("n,l,4", "n,l", "n,l,3", "a = Unsqueeze(mask, last) b = Mul(x, a) y = MatMul(b, w)"),
    "not masked": ("n,l,4", "n,l", "n,3", "a = MatMul(x, w) y = ReduceMean<keepdims=0>(a, middle)"),
    "of fixed length": (f"n,{LENGTH},4", f"n,{LENGTH}", "n,3", SUMMED),
}


def masked(name):
    x, mask, y, nodes = NETS[name]
    text = f"g (float[{x}] x, float[{mask}] mask) => (float[{y}] y) {{{nodes}}}"
    weight = np.random.default_rng(0).standard_normal((4, 3))
    constants = {"w": weight, "last": np.array([-1]), "middle": np.array([1])}
    used = {name: value for name, value in constants.items() if name in re.findall(r"\w+", nodes)}
    return normalise(ir.from_proto(network(text, used)))


def samples(filling=0.0):
    chance = np.random.default_rng(1)
    lengths = np.array([3, 1, LONGEST, 4, 5])
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.float32)
    x = chance.standard_normal((len(lengths), LENGTH, 4)).astype(np.float32)
    return Samples({"x": np.where(mask[..., None] > 0, x, np.float32(filling)), "mask": mask})


def found(name, given):
    model = masked(name)
    return find_padding(model, compile_model(model), given)


@pytest.mark.parametrize("filling", [0.0, 7.0])
def test_what_a_mask_hides_is_cut_off_to_the_longest_sample(filling):
    padding = found("masked", samples(filling))
    assert padding == Padding((Filled("x", 1, filling), Filled("mask", 1, 0.0)))
    given = samples(filling)
    short = replace(given, padding=padding).shortened()
    assert {name: array.shape for name, array in short.inputs.items()} == {
        "x": (5, LONGEST, 4),
        "mask": (5, LONGEST),
    }
    np.testing.assert_array_equal(short.inputs["x"], given.inputs["x"][:, :LONGEST])
    np.testing.assert_array_equal(padding.lengths(given.inputs), [3, 1, LONGEST, 4, 5])
    np.testing.assert_array_equal(padding.lengths(short.inputs), [3, 1, LONGEST, 4, 5])
    assert [batch.inputs["mask"].shape for batch in short.batches(2)] == [(2, 3), (2, LONGEST), (1, 5)]
    assert short.take(np.array([0, 1])).inputs["mask"].shape == (2, LONGEST)


def test_a_sample_of_nothing_but_filling_counts_one_place():
    padding = Padding((Filled("x", 1, 0.0), Filled("mask", 1, 0.0)))
    inputs = {"x": np.zeros((2, LENGTH, 4), np.float32), "mask": np.zeros((2, LENGTH), np.float32)}
    np.testing.assert_array_equal(padding.lengths(inputs), [1, 1])
    inputs["x"][1, 3, 2] = 1
    np.testing.assert_array_equal(padding.lengths(inputs), [1, 4])
    assert padding.shorten({name: array[:1] for name, array in inputs.items()})["x"].shape == (1, 1, 4)


def test_each_batch_is_as_long_as_its_longest_sample():
    given, padding = samples(7.0), found("masked", samples(7.0))
    feeds = {name: torch.from_numpy(array) for name, array in given.inputs.items()}
    batches = split_batches(feeds, None, sample_bytes=1, seed=0, largest=2, clusters=1, padding=padding)
    for batch in batches:
        length = int(batch.feeds["mask"].sum(1).max())
        assert batch.feeds["mask"].shape == (batch.size, length)
        assert batch.feeds["x"].shape == (batch.size, length, 4)
    assert sum(float(batch.feeds["mask"].sum()) for batch in batches) == given.inputs["mask"].sum()
    assert len({batch.feeds["x"].shape[1] for batch in batches}) > 1


@pytest.mark.parametrize("name", ["as long as it is", "of fixed length"])
def test_outputs_keep_their_length(name):
    assert found(name, samples()) is None


def test_what_outputs_depend_on_stays():
    assert found("not masked", samples(7.0)) is None


def test_samples_that_fill_the_axis_stay_as_they_are():
    given = samples()
    given.inputs["mask"][2] = 1
    assert found("masked", given) is None
