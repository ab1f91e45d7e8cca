"""GatherND of a constant's rows becomes Gather; onnxruntime says that the graph computes the same."""

import numpy as np
import pytest

from quant_core.ingest import find_layers
from tests.networks import network
from tests.quant_core.ingest.normalised import kept

ROWS = (
    "g (int64[n,2] i) => (float[n,2,4,3] y) <int64 last = {-1}, int64 two = {2}, int64 one = {1}> "
    "{ u = Unsqueeze(i, last) y = GatherND(w, u) }"
)


def both(text, shape=(6, 4, 3)):
    table = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    proto = network(text, {"w": table})
    return kept(proto, {"i": np.array([[0, -1], [3, 2], [5, 0]])}, 0)


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace("Unsqueeze(i, last)", "Unsqueeze(i, two)"),
        ROWS.replace("y = GatherND(w, u)", "t = GatherND(w, u) y = Neg(t)"),
    ],
)
def test_rows_are_looked_up_by_gather(text):
    (layer,) = find_layers(both(text))
    assert (layer.op, layer.weight, layer.inputs) == ("Gather", "w", ("i",))


def test_two_look_ups_with_one_index():
    text = ROWS.replace("[n,2,4,3] y)", "[n,2,4,3] y, float[n,2,1] z)").replace(
        "GatherND(w, u) }", "GatherND(w, u) z = Cast<to=1>(u) }"
    )
    assert len(find_layers(both(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        ROWS.replace("float[n,2,4,3]", "float[n,3]").replace("u = Unsqueeze(i, last)", "u = Identity(i)"),
        ROWS.replace("Unsqueeze(i, last)", "Unsqueeze(i, one)").replace("[n,2,4,3]", "[n,1,3]"),
    ],
)
def test_other_look_ups_stay(text):
    assert find_layers(both(text)) == ()
