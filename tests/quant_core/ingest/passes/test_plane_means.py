"""Means over the places of an image become pools; onnxruntime says that the graph computes the same."""

import numpy as np
import pytest

from tests.networks import network
from tests.quant_core.ingest.normalised import kept, normal, ops

MEAN = "g (float[n,3,5,h] x) => (float[n,a,b,c] y) <int64[2] places = {2, 3}> { y = ReduceMean(x, places) }"
WITHOUT = MEAN.replace("ReduceMean(", "ReduceMean<keepdims=0>(").replace("[n,a,b,c]", "[n,a]")


def both(text, shape=(2, 3, 5, 7), dtype=np.float32):
    x = (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype)
    return ops(kept(network(text), {"x": x}))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (MEAN, ["GlobalAveragePool"]),
        (MEAN.replace("{2, 3}", "{-1, 2}"), ["GlobalAveragePool"]),
        (WITHOUT, ["GlobalAveragePool", "Flatten"]),
        (WITHOUT.replace("y = ", "m = ").replace("places) }", "places) y = Neg(m) }"), None),
    ],
)
def test_means_of_images_become_pools(text, left):
    assert both(text) == (left or ["GlobalAveragePool", "Flatten", "Neg"])


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        (MEAN.replace("{2, 3}", "{1, 2}"), (2, 3, 5, 7), np.float32),
        (MEAN.replace("[2] places = {2, 3}", "[1] places = {3}"), (2, 3, 5, 7), np.float32),
        (MEAN.replace("[n,3,5,h]", "[n,3,5,h,k]").replace("c] y", "c,d] y"), (2, 3, 5, 7, 2), np.float32),
        (MEAN.replace("float", "int32"), (2, 3, 5, 7), np.int32),
        (MEAN.replace("(x, places)", "<noop_with_empty_axes=1>(x)"), (2, 3, 5, 7), np.float32),
    ],
)
def test_other_means_stay(text, shape, dtype):
    assert set(both(text, shape, dtype)) <= {"ReduceMean", "Identity"}


def test_a_tensor_of_unknown_rank_stays():
    text = "g (float[n,3,5,h] x, int64[k] s) => (float[n,a] y) <int64[2] places = {2, 3}> "
    text += "{ r = Reshape(x, s) y = ReduceMean<keepdims=0>(r, places) }"
    assert ops(normal(network(text))) == ["Reshape", "ReduceMean"]
