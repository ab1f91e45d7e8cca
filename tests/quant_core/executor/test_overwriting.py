"""An activation takes the place of what it is applied to, where nothing else can see that."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from quant_core.executor import compile_model

_TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,8,8] x) => (float[2,3,8,8] y, float[2,3,8,8] z)
<float[3,3,1,1] w = {1.0, -2.0, 0.5, 0.25, 1.0, -1.0, 2.0, 0.5, -0.5}, float low = {0.0}, float high = {1.5}>
{
    once = Conv(x, w)
    clipped = Clip(once, low, high)
    sum = Add(clipped, x)
    y = Relu(sum)
    twice = Conv(y, w)
    positive = Relu(twice)
    z = Add(positive, twice)
}"""


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def program():
    return compile_model(ir.from_proto(onnx.parser.parse_model(_TEXT)), device="cpu")


def _run(program, x, **options):
    with _Seen() as seen, torch.no_grad():
        found = program.evaluate({"x": x}, **options)
    return found, {name for name in seen.names if name.endswith("_") and name[:-1] in {"relu", "hardtanh"}}


def test_what_nothing_else_reads_is_overwritten_and_all_else_is_not(program):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    plain = {name: value.detach() for name, value in program.evaluate({"x": x}, program.order).items()}
    found, written = _run(program, x)
    assert written == {"relu_", "hardtanh_"}  # `sum` and `once`, but not `twice`, which `z` reads
    for name, value in found.items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    kept, written = _run(program, x, outputs=["once", "sum", "z"])
    assert not written
    assert all(torch.equal(value, plain[name]) for name, value in kept.items())


def test_what_a_caller_was_shown_or_gave_stays(program):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = {}

    def show(name):
        return lambda value: shown.setdefault(name, value)

    plain = program.evaluate({"x": x}, program.order)
    _, written = _run(program, x, replace={name: show(name) for name in ("once", "sum")})
    assert not written
    for name, value in shown.items():
        assert torch.equal(value, plain[name])
    given = plain["sum"].detach().clone()
    with torch.no_grad():
        program.evaluate({"sum": given}, outputs=["z"])
    assert torch.equal(given, plain["sum"])


def test_where_gradients_are_wanted_nothing_is_overwritten(program):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with _Seen() as seen:
        program.evaluate({"x": x})["z"].sum().backward()
    assert not {"relu_", "hardtanh_"} & set(seen.names)
    with _Seen() as seen, torch.no_grad():
        torch.func.vmap(lambda values: program.evaluate({"x": values})["z"])(x.detach()[None])
    assert not {"relu_", "hardtanh_"} & set(seen.names)
