"""Which tensors have a size that the network itself chooses."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quant_core.ingest.varying_sizes import varying_tensors
from tests.networks import network


def test_what_is_selected_varies_until_it_is_written_somewhere():
    proto = network("""g (float[n, 4] x) => (float[n, 4] z) {
            none = Constant<value_float = 0.0>()
            chosen = Greater(x, none)
            found = NonZero(chosen)
            places = Transpose(found)
            rows = GatherND(x, places)
            more = Relu(rows)
            z = ScatterND(x, places, more)
        }""")
    assert varying_tensors(ir.from_proto(proto)) == {"found", "places", "rows", "more"}


def test_sizes_taken_from_sizes_do_not_vary():
    proto = network("""g (float[n, 4] x, int64[2] size) => (float[a, b] y, float[c, d] z, float[e, f] w) {
            own = Shape(x)
            y = Expand(x, own)
            z = Expand(x, size)
            two = Constant<value_ints = [0, 0]>()
            w = Slice(x, two, size)
        }""")
    assert varying_tensors(ir.from_proto(proto)) == {"z", "w"}


def test_a_window_that_moves_keeps_its_size():
    proto = network("""g (float[n, 4] x, int64[1] start, int64[1] end) => (float[a, b] y) {
            y = Slice(x, start, end)
        }""")
    assert varying_tensors(ir.from_proto(proto)) == set()


def test_what_a_branch_selects_or_hands_on_varies():
    proto = network(
        """g (float[n, 4] x, bool yes) => (float[a] y, float[b] z, float[c] w) {
            chosen = Compress(x, flags)
            y = If (yes) <then_branch = one () => (float[a] kept) { kept = Relu(chosen) },
                          else_branch = other () => (float[a] left) { left = Neg(chosen) }>
            z = If (yes) <then_branch = three () => (float[b] picked) { at = NonZero(x) picked = Cast<to = 1>(at) },
                          else_branch = four () => (float[b] none) { none = Cast<to = 1>(x) }>
            w = If (yes) <then_branch = five () => (float[c] same) { same = Relu(x) },
                          else_branch = six () => (float[c] less) { less = Neg(x) }>
        }""",
        {"flags": np.array([True, False])},
    )
    assert {"chosen", "y", "z"} <= varying_tensors(ir.from_proto(proto))
    assert "w" not in varying_tensors(ir.from_proto(proto))
