"""Mixed samples are followed only where samples that were not followed confirm it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import Simulation, quantize_weight
from quant_core.quantizers.mixture_trial import mixtures_help

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n,6] x) => (float[n,4] y) { y = MatMul(x, w) }"""


class Trial:
    """A product whose weight comes out in `plain` bits without mixtures, and in `mixed` with them."""

    def __init__(self, plain=4, mixed=4, count=24, **samples):
        rng = np.random.default_rng(0)
        proto = onnx.parser.parse_model(TEXT)
        weight = rng.standard_normal((6, 4)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        self.model = normalise(ir.from_proto(proto))
        self.layers = find_layers(self.model)
        self.program = compile_model(self.model)
        (layer,) = self.layers
        self.codes = {
            look: {layer.name: quantize_weight(weight, bits, layer.axis)}
            for look, bits in {"many": plain, "mixed": mixed}.items()
        }
        x = rng.standard_normal((count, 6)).astype(np.float32)
        self.samples = Samples({"x": x}, **samples)
        self.asked = []

    def followed(self, samples, look):
        self.asked.append((look, samples.inputs["x"]))
        return self.codes[look]

    def helps(self):
        return mixtures_help(
            self.program,
            self.followed,
            lambda weights: Simulation(self.model, self.layers, weights, {}, ()),
            self.samples,
            ["y"],
            batch_size=5,
        )


@pytest.mark.parametrize(("plain", "mixed", "helps"), [(3, 6, True), (6, 3, False), (4, 4, False)])
def test_the_error_on_other_samples_decides(plain, mixed, helps):
    assert Trial(plain, mixed).helps() == helps


def test_every_sample_judges_what_has_not_followed_it(monkeypatch):
    trial, judged = Trial(3, 6), []

    def falls(program, before, after, samples, outputs, batch_size):
        judged.append(samples.inputs["x"])
        return np.stack([np.ones(samples.count)] * 2) + np.arange(samples.count) / 100

    monkeypatch.setattr("quant_core.quantizers.mixture_trial.error_falls", falls)
    assert trial.helps()
    assert [look for look, _ in trial.asked] == ["many", "mixed"] * 3
    for (_, followed), others in zip(trial.asked[::2], judged, strict=True):
        both = np.concatenate([followed, others])
        np.testing.assert_array_equal(np.sort(both, 0), np.sort(trial.samples.inputs["x"], 0))
        assert not (followed[:, None] == others[None]).all(2).any()


def test_one_sample_does_not_decide(monkeypatch):
    trial = Trial()
    monkeypatch.setattr(
        "quant_core.quantizers.mixture_trial.error_falls",
        lambda *given: np.stack([np.eye(given[3].count)[0]] * 2),
    )
    assert not trial.helps()


@pytest.mark.parametrize("given", [{"count": 23}, {"batch": 1}])
def test_nothing_is_followed_for_it_where_it_cannot_be_told(given):
    trial = Trial(3, 6, **given)
    assert not trial.helps()
    assert not trial.asked
