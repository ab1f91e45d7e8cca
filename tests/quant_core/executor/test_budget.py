"""What a small file may not do: fill the memory or compute for ever. Refused before memory is taken."""

from __future__ import annotations

import resource
import sys

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.errors import ModelError
from quant_core.executor import compile_model
from quant_core.executor.budget import Budget, Limits, claim, within
from quant_core.executor.guard import Guard, estimate
from tests.networks import network


def compiled(body: str, limits: Limits | None = None, **stored: np.ndarray):
    text = f"hostile (float[a, b, c, d] x, int64[n] sizes, int64 trips) => (float[o] y) {{ {body} }}"
    proto = network(text, stored)
    return compile_model(ir.serde.deserialize_model(proto), limits=limits)


GROWING = {
    "ConstantOfShape": "y = ConstantOfShape(sizes)",
    "Expand": "flat = Expand(x, sizes) y = Relu(flat)",
    "Tile": "y = Tile(x, sizes)",
    "Pad": "y = Pad(x, sizes)",
    "Range": "one = Constant<value = int64 {1}>() zero = Constant<value = int64 {0}>() y = Range(zero, trips, one)",
    "Resize": 'e = Constant<value = float[0] {}>() y = Resize<mode = "linear">(x, e, e, sizes)',
    "CenterCropPad": "y = CenterCropPad(x, sizes)",
    "OneHot": "v = Constant<value = float[2] {0.0, 1.0}>() i = Shape(x) y = OneHot(i, trips, v)",
    "RandomNormal": "y = RandomNormal<shape = [1048576, 1048576]>()",
    "HannWindow": "y = HannWindow(trips)",
    "AffineGrid": "t = Constant<value_floats = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]>() s = Constant<value_ints = [1, 2, 3]>()"
    " one = Reshape(t, s) theta = Concat<axis = 0>(one, one) y = AffineGrid(theta, sizes)",
    "Conv": "y = Conv<pads = [1000000, 1000000, 1000000, 1000000]>(x, x)",
    "ConvTranspose": "y = ConvTranspose<strides = [1000000, 1000000]>(x, x)",
    "Einsum": 'y = Einsum<equation = "abcd,efgh,ijkl->abcdefghijkl">(x, x, x)',
    "Concat": " ".join(
        f"x{i + 1} = Concat<axis = 0>({f'x{i}' if i else 'x'}, {f'x{i}' if i else 'x'})" for i in range(60)
    )
    + " y = Relu(x60)",
    "Add": "o = Constant<value = int64[1] {0}>() a = Reshape(x, m) b = Reshape(x, n)"
    " c = Add(a, b) d = Reshape(c, m) e = Reshape(c, n) y = Add(d, e)",
}
IMAGE = [1, 1, 1 << 20, 1 << 20]
SIZES = {
    "Resize": IMAGE,
    "CenterCropPad": IMAGE,
    "AffineGrid": [2, *IMAGE[1:]],
    "Pad": [0] * 6 + [1 << 20] * 2,
    "Tile": [1, 1, 1 << 20, 1 << 20],
    "Expand": [1 << 20, 1 << 20, 1, 1, 4, 4],
}


@pytest.mark.parametrize("op", GROWING)
def test_growth_is_refused_before_it_happens(op: str) -> None:
    sizes = SIZES.get(op, [1 << 20, 1 << 20])
    stored = {"m": np.array([-1, 1]), "n": np.array([1, -1])} if op == "Add" else {}
    program = compiled(GROWING[op], **stored)
    side = 64 if op in {"Add", "Einsum"} else 4
    feeds = {
        "x": torch.zeros(1, 1, side, side),
        "sizes": torch.tensor(sizes),
        "trips": torch.tensor(1 << 40),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="is refused") as caught:
        program.evaluate({name: feeds[name] for name in program.inputs})
    assert "not enough memory" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (600 << 20) / (1 if sys.platform == "darwin" else 1024)


LOOP = """
    yes = Constant<value = bool {1}>()
    y = Loop(trips, yes, x) <body = step (int64 i, bool go, float[a, b, c, d] h)
        => (bool going, float[a, b, c, d] out) {
        going = Identity(go)
        out = Sin(h)
    }>"""


def test_a_loop_ends_when_its_work_is_spent() -> None:
    program = compiled(LOOP, Limits(work=1 << 26))
    feeds = {"x": torch.zeros(1, 1, 2, 2), "sizes": torch.zeros(1, dtype=torch.int64)}
    program.evaluate({**feeds, "trips": torch.tensor(20)})
    with pytest.raises(ModelError, match="asks for more work"):
        program.evaluate({**feeds, "trips": torch.tensor(1 << 40)})


def test_limits_grow_with_weights_and_inputs() -> None:
    limits = Limits(elements=10, work=10)
    assert limits.budget(0, 0).elements == 10
    assert limits.budget(10**6, 10**4).elements == 512 * 10**5
    assert limits.budget(10**6, 10**4).work == 16 * 10**10
    program = compiled("a = Reshape(x, sizes) b = Tile(a, sizes) y = Tile(b, sizes)", Limits(elements=100))
    with pytest.raises(ModelError, match=r"Tile is refused: a tensor of 1\.07e\+09 elements"):
        program.evaluate({"x": torch.zeros(1, 1, 1, 1024), "sizes": torch.tensor([1024])})


def _operations():
    x, w, v = torch.zeros(2, 4, 9, 8), torch.zeros(6, 2, 3, 2), torch.zeros(4, 3, 3, 2)
    m, row, column, one = torch.zeros(5, 7), torch.zeros(5), torch.zeros(4, 1), torch.zeros(1)
    left, right, few = torch.zeros(3, 4, 5), torch.zeros(3, 5, 6), torch.zeros(2, 3, dtype=torch.int64)
    gates = [torch.zeros(16, 3), torch.zeros(16, 4)]
    state = torch.zeros(1, 2, 4)
    steps = torch.zeros(5, 2, 3)
    return {
        "conv": lambda: torch.conv2d(x, w, None, (2, 1), (1, 0), (1, 2), 2),
        "transposed": lambda: torch.conv_transpose2d(x, v, None, 2, 1, 1, 2),
        "mm": lambda: m @ m.t(),
        "bmm": lambda: torch.bmm(left, right),
        "addmm": lambda: torch.addmm(row, m, m.t()),
        "add": lambda: column + row,
        "where": lambda: torch.where(column > 0, row, 1.0),
        "full": lambda: torch.full([3, 4], 1.0),
        "cat": lambda: torch.cat([m, m]),
        "pad": lambda: torch.nn.functional.pad(m, (1, 2)),
        "arange": lambda: torch.arange(17),
        "repeat": lambda: m.repeat(2, 3),
        "index": lambda: m.index_select(0, few[0]),
        "gather": lambda: m.gather(0, few),
        "sum": lambda: m.sum(0),
        "softmax": lambda: torch.softmax(m, -1),
        "copy of an expanded view": lambda: one.expand(50).contiguous(),
        "pool": lambda: torch.max_pool2d(x, 2),
        "lstm": lambda: torch.lstm(steps, (state, state), gates, False, 1, 0.0, False, False, False)[0],
    }


@pytest.mark.parametrize("name", _operations())
def test_estimates_are_no_less_than_what_is_made(name: str) -> None:
    operation = _operations()[name]
    seen: list[float] = []

    class Look(Guard):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if not func.is_view:
                seen.append(estimate(func, args, kwargs or {})[0])
            return func(*args, **(kwargs or {}))

    with Look(Budget(1 << 40, 1 << 40)):
        made = operation()
    assert max(seen) >= made.numel()
    assert max(seen) <= 16 * made.numel()


SLOW = {
    "sort": lambda x: x.flatten().sort(),
    "a few of the largest": lambda x: x.flatten().topk(1),
    "unique values": lambda x: x.flatten().unique(),
    "unique rows": lambda x: x.reshape(-1, 1).unique(dim=0),
    "maximum over windows": lambda x: torch.max_pool2d(x.reshape(1, 1, 256, 256), 31, 1),
    "mean over windows": lambda x: torch.nn.functional.avg_pool2d(x.reshape(1, 1, 256, 256), 31, 1),
    "maximum over boxes": lambda x: torch.max_pool3d(x.reshape(1, 1, 16, 64, 64), 9, 1),
    "mean over boxes": lambda x: torch.nn.functional.avg_pool3d(x.reshape(1, 1, 16, 64, 64), 9, 1),
    "transform": lambda x: torch.fft.fft(x.flatten()[:65521]),
    "determinant": lambda x: torch.linalg.det(x.reshape(256, 256)),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_reads_each_value_many_times_is_more_work_than_a_copy(name: str) -> None:
    """A loop around it would go on for hours within the work that copies are allowed."""
    x = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    copied, spent = Budget(1 << 40, 1 << 40), Budget(1 << 40, 1 << 40)
    with Guard(copied):
        x.clone()
    with Guard(spent):
        SLOW[name](x)
    assert (1 << 40) - spent.work > 8 * ((1 << 40) - copied.work)


def test_claims_outside_of_an_evaluation_are_free() -> None:
    claim(1e30)
    with within(Budget(10, 10)), pytest.raises(Exception, match="11"):
        claim(11)
