"""A Transpose between two Reshapes moves blocks; onnxruntime says that the graph computes the same."""

import numpy as np
import pytest

from tests.networks import network
from tests.quant_core.ingest.normalised import kept

SHUFFLE = (
    "g (float[n,6,4,5] x) => (float[n,c,h,w] y) <int64[5] groups = {-1, 2, 3, 4, 5}, int64[4] back = {0, 6, 4, 5}> "
    "{ a = Reshape(x, groups) b = Transpose<perm = [0, 2, 1, 3, 4]>(a) y = Reshape(b, back) }"
)
COMPUTED = (
    "g (float[n,6,4,5] x) => (float[n,c,h,w] y) <int64[4] parts = {2, 3, 4, 5}, int64[3] image = {6, 4, 5}> "
    "{ n = Shape<start = 0, end = 1>(x) groups = Concat<axis = 0>(n, parts) back = Concat<axis = 0>(n, image) "
    "a = Reshape(x, groups) b = Transpose<perm = [0, 2, 1, 3, 4]>(a) y = Reshape(b, back) }"
)


def transposed(text):
    """Order of the Transpose after normalising, which is held against the model as given."""
    x = np.random.default_rng(0).standard_normal((7, 6, 4, 5)).astype(np.float32)
    merged = kept(network(text), {"x": x}, 0)
    (node,) = (node for node in merged.graph if node.op_type == "Transpose")
    return list(node.attributes["perm"].as_ints())


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (SHUFFLE, [0, 2, 1, 3]),
        (COMPUTED, [0, 2, 1, 3]),
        (SHUFFLE.replace("{-1, 2, 3, 4, 5}", "{0, 2, 3, -1, 5}"), [0, 2, 1, 3]),
        (SHUFFLE.replace("{-1, 2, 3, 4, 5}", "{7, 2, 3, 4, 5}"), [0, 2, 1, 3]),
        (SHUFFLE.replace("[0, 2, 1, 3, 4]", "[0, 3, 4, 1, 2]"), [0, 2, 1]),
        (SHUFFLE.replace("[0, 2, 1, 3, 4]", "[0, 4, 1, 2, 3]"), [0, 2, 1]),
        (
            SHUFFLE.replace("[5] groups = {-1, 2, 3, 4, 5}", "[6] groups = {-1, 2, 3, 2, 2, 5}")
            .replace("{0, 6, 4, 5}", "{0, 4, 10, 3}")
            .replace("[0, 2, 1, 3, 4]", "[0, 3, 1, 4, 5, 2]"),
            [0, 3, 1, 4, 2],  # whose inverse is another
        ),
    ],
)
def test_axes_side_by_side_become_one(text, order):
    assert transposed(text) == order


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (SHUFFLE.replace("[0, 2, 1, 3, 4]", "[0, 2, 1, 4, 3]"), [0, 2, 1, 4, 3]),
        (SHUFFLE.replace("[0, 2, 1, 3, 4]", "[1, 0, 2, 3, 4]").replace("{0, 6,", "{-1, 6,"), [1, 0, 2, 3, 4]),
        # the second Reshape copies a size of what it reads
        (SHUFFLE.replace("{0, 6, 4, 5}", "{0, 0, 8, 5}"), [0, 2, 1, 3, 4]),
        # two sizes are only known when it runs
        (
            COMPUTED.replace("int64[4] parts = {2, 3, 4, 5}", "int64[4] parts = {2, 3, -1, 5}"),
            [0, 2, 1, 3, 4],
        ),
        # others read what lies between
        (SHUFFLE.replace("y) <", "y, float[n,2,3,4,5] a) <"), [0, 2, 1, 3, 4]),
        (SHUFFLE.replace("y) <", "y, float[n,3,2,4,5] b) <"), [0, 2, 1, 3, 4]),
        (SHUFFLE.replace("y) <", "y, float[n,2,3,4,5] z) <").replace(" }", " z = Neg(a) }"), [0, 2, 1, 3, 4]),
    ],
)
def test_others_stay(text, order):
    assert transposed(text) == order
