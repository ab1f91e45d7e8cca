"""Steps of a run that others exceed are left out, and no peak changes by it."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quant_core.preparation import prepare, pricing
from quant_core.spec import QuantizeSpec
from quant_core.spec.costs import MemoryStep
from tests.quant_core.export.networks import Net

SPEC = QuantizeSpec.model_validate({"size": "1MB", "device": "cpu"})


@pytest.mark.parametrize("name", ["transformer", "branches", "two_readers"])
def test_a_peak_is_that_of_all_steps_whatever_the_bits(name, tmp_path, monkeypatch):
    net = Net(name)
    onnx.save(ir.to_proto(net.model), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", **net.feeds)
    job = prepare(tmp_path / "net.onnx", tmp_path / "x.npz", SPEC)
    kept = pricing.memory_steps(job)
    monkeypatch.setattr(pricing, "_undominated", tuple)
    every = pricing.memory_steps(job)
    assert len(kept) < len(every)
    assert [step for step in every if step in kept] == list(kept)
    for widths in itertools.product((1, 4), repeat=len(job.layers)):
        size = dict(zip((layer.name for layer in job.layers), widths, strict=True))
        peaks = [
            max(step.fixed + sum(n * size[owner] for owner, n in step.elements.items()) for step in steps)
            for steps in (kept, every)
        ]
        assert peaks[0] == peaks[1]


def test_a_step_stays_that_holds_more_of_anything():
    def step(node, fixed, **elements):
        return MemoryStep(node=node, fixed=fixed, elements=elements)

    most, other_bytes = step("most", 0, a=100, b=10), step("bytes", 8, a=90, b=10)
    other_layer, less, same = step("layer", 0, a=1, c=1), step("less", 0, a=99), step("same", 0, a=100, b=10)
    found = pricing._undominated([less, most, other_layer, same, other_bytes])
    assert [kept.node for kept in found] == ["most", "layer", "bytes"]
