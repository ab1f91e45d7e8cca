"""Work that runs out of memory goes on with less at a time."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from quant_core.calibration.padding import Filled, Padding
from quant_core.errors import MemoryLimitError, ModelError
from quant_core.ingest.layer import Layer
from quant_core.sensitivity import Objective, Term
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.memory import is_out_of_memory, with_less_at_a_time
from quant_core.sensitivity.table import answer

KL = Objective((Term("y", "y", "kl"),))
LAYERS = tuple(Layer(name, "MatMul", name, (2, 2), 1, ()) for name in "abcd")


def allocate_too_much() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def test_allocators_that_fail_are_recognised_also_behind_a_node_that_failed() -> None:
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)
    behind = ModelError("MatMul failed", remedy="none")
    behind.__cause__ = caught.value
    assert is_out_of_memory(behind)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_batches_halve_and_then_layers_are_taken_in_groups() -> None:
    tried: list[tuple[int, str]] = []

    def attempt(cut: Cut, layers: Sequence[Layer]) -> list[str]:
        names = "".join(layer.name for layer in layers)
        tried.append((cut.size, names))
        if cut.size * len(layers) > 2:
            allocate_too_much()
        return [names]

    cut = Cut(samples=20, sample_bytes=1, seed=0, clusters=4)
    found = with_less_at_a_time(attempt, cut, LAYERS, lambda parts: [name for part in parts for name in part])
    assert found == ["ab", "cd"]
    assert tried == [(5, "abcd"), (2, "abcd"), (1, "abcd"), (1, "ab"), (1, "cd")]


@pytest.mark.parametrize("padding", [None, Padding((Filled("x", 1, 0.0),))], ids=["plain", "padded"])
@pytest.mark.parametrize("fixed", [None, 4])
def test_a_cut_tells_the_size_of_its_batches(padding: Padding | None, fixed: int | None) -> None:
    feeds = {"x": torch.ones(64, 3)}
    cut: Cut | None = Cut(64, 1, 0, fixed, clusters=1, padding=padding)
    sizes = []
    while cut is not None:
        assert max(batch.size for batch in cut.batches(feeds, None, "cpu")) == cut.size
        sizes.append(cut.size)
        cut = cut.halved()
    assert sizes == [4] if fixed else sizes == [32, 16, 8, 4, 2, 1][padding is not None :]


def test_a_single_layer_that_does_not_fit_is_named() -> None:
    def attempt(cut: Cut, layers: Sequence[Layer]) -> list[str]:
        if any(layer.name == "c" for layer in layers):
            raise MemoryError
        return [layer.name for layer in layers]

    with pytest.raises(MemoryLimitError, match="batch of 1") as caught:
        with_less_at_a_time(attempt, Cut(1, 1, 0), LAYERS, lambda parts: parts[0])
    assert caught.value.where == "c"
    assert caught.value.code == "out_of_memory"


def test_other_errors_are_left_alone() -> None:
    def attempt(cut: Cut, layers: Sequence[Layer]) -> None:
        raise ValueError("of another kind")

    with pytest.raises(ValueError, match="another kind"):
        with_less_at_a_time(attempt, Cut(8, 1, 0, clusters=1), LAYERS, lambda parts: None)


@pytest.mark.parametrize("method", ["gauss_newton", "hawq_v2", "output", "gnb", "kfac", "pqi"])
def test_estimates_survive_an_allocation_that_fails(
    tiny: Any, samples: torch.Tensor, rounded: Any, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny("Relu")
    question = Question(
        net.program,
        net.layers,
        {"x": samples},
        lambda layer, bits: rounded(net.weights[layer.weight], bits),
        KL,
        bits=(2, 4),
        max_probes=200,
        score_tolerance=0.0,
        fixed_batch=None,
    )
    whole = answer(question, method).table
    run, largest = type(net.program).evaluate, 1 if method not in {"output", "pqi"} else 8

    def evaluate(self: Any, feeds: Any, *arguments: Any, **options: Any) -> Any:
        if next(iter(feeds.values())).shape[0] > largest:
            allocate_too_much()
        return run(self, feeds, *arguments, **options)

    monkeypatch.setattr(type(net.program), "evaluate", evaluate)
    little = answer(replace(question), method).table
    for a, b in zip(whole.layers, little.layers, strict=True):
        for bits in (2, 4):
            assert b.sensitivity[bits] == pytest.approx(a.sensitivity[bits], rel=0.4)


LITTLE = """
import resource
import onnx_ir as ir, torch
from quant_core.executor import compile_model
from quant_core.ingest import find_layers
from quant_core.sensitivity import Objective, Term, gnb
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.running.memory import with_less_at_a_time

torch.set_num_threads(1)
model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 21]>
net (float[n, 1] x) => (float[n, 2] y)
<int64[2] wide = {1, 1000000}, int64[3] to = {0, 250000, 4}, int64[1] one = {1},
 float[4, 2] w = {1, -1, 2, 0, 1, 1, -1, 2}>
{ a = Expand(x, wide) b = Exp(a) c = Reshape(b, to) m = MatMul(c, w) y = ReduceMean<keepdims=0>(m, one) }''')
program = compile_model(model)
layers = [layer for layer in find_layers(model) if layer.weight == "w"]
x, loss = torch.rand(64, 1), Objective((Term("y", "y", "kl"),))
tried = []

def attempt(cut, layers):
    tried.append(cut.size)
    batches = cut.batches({"x": x}, None, "cpu")
    return gnb(program, layers, loss, batches, seed=0, max_probes=4, tolerance=1e-9)

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)
found = with_less_at_a_time(attempt, Cut(64, 1, 0, clusters=2), layers)
print(*tried, float(found.trace[0]) > 0)
"""


def test_a_process_with_little_memory_halves_its_batches() -> None:
    # 32 samples take 128 MB in a single tensor, and the process may have 150 MB more than it has at the start.
    done = subprocess.run(
        [sys.executable, "-c", LITTLE], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *tried, positive = done.stdout.split()
    assert tried[0] == "32"
    assert len(tried) > 1
    assert [int(size) for size in tried] == [32 >> k for k in range(len(tried))]
    assert positive == "True"
