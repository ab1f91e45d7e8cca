"""What islands are estimated to take."""

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.export import place
from quant_core.export.kernels.far_memory import NEAR_BYTES, SAMPLES, far_time
from quant_core.export.kernels.placed_run import PlacedRun
from quant_core.export.kernels.run_time import estimated_time
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.file_making.island_search import IslandSearch
from quant_core.ingest import find_layers, normalise
from quant_core.spec import QuantizeSpec
from tests.networks import drawn, network

CHAIN = """g (float[1,16,8,8] x) => (float[1,16,8,8] y) {
    a = Conv(x, u) b = Conv(a, v) y = Conv(b, w)
}"""
NEAR = NEAR_BYTES // (4 * SAMPLES)


def search(size):
    proto = network(CHAIN, drawn(np.random.default_rng(0), dict.fromkeys("uvw", (16, 16, 1, 1))))
    model = normalise(ir.from_proto(proto))
    layers, spec = find_layers(model), QuantizeSpec.model_validate({"budget": {"effective_bits": 8}})
    bits = {layer.name: 8 for layer in layers}
    placement = place(model, layers, bits, 8, ORT_CPU, spec)
    names = ["x", *(value.name for node in model.graph for value in node.outputs)]
    job = SimpleNamespace(model=model, target=ORT_CPU)
    return IslandSearch(job, spec, layers, bits, placement, ("a", "b"), dict.fromkeys(names, size))


def share(found, placed, *times):
    def whole(placement):
        run = PlacedRun(found.job.model, found.layers, placement, found.elements)
        return sum(time(run) for time in times)

    return whole(placed) / whole(found.placement) - 1


@pytest.mark.parametrize(("size", "in_batch"), [(NEAR, False), (NEAR + 1, True)])
def test_islands_of_large_tensors_take_what_they_take_in_a_batch(size, in_batch):
    found = search(size)
    placed = found.placed([found.layers[1].name])
    alone, batch = share(found, placed, estimated_time), share(found, placed, estimated_time, far_time)
    assert (batch > alone) == in_batch
    assert found.more_time(placed) == pytest.approx(max(alone, batch))
