"""More columns and mixed samples are followed only where samples that were not followed confirm it."""

import numpy as np
import onnx_ir as ir
import pytest

from quant_core.calibration import Samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import Simulation, quantize_weight
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.following.look_trial import best_look
from tests.networks import network

TEXT = "g (float[n,6] x) => (float[n,4] y) { y = MatMul(x, w) }"


class Trial:
    """A product whose weight comes out in as many bits as each look is given."""

    def __init__(self, few=4, many=4, mixed=4, count=24, **samples):
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((6, 4)).astype(np.float32)
        proto = network(TEXT, {"w": weight})
        self.model = normalise(ir.from_proto(proto))
        self.layers = find_layers(self.model)
        self.network = FloatNetwork(compile_model(self.model), self.model, self.layers, 5)
        (layer,) = self.layers
        self.codes = {
            look: {layer.name: quantize_weight(weight, bits, layer.axis)}
            for look, bits in {"few": few, "many": many, "mixed": mixed}.items()
        }
        x = rng.standard_normal((count, 6)).astype(np.float32)
        self.samples = Samples({"x": x}, **samples)
        self.asked = []

    def followed(self, samples, look):
        self.asked.append((look, samples.inputs["x"]))
        return self.codes[look]

    def best(self):
        return best_look(
            self.network,
            self.followed,
            lambda weights: Simulation(self.model, self.layers, weights, {}, ()),
            self.samples,
        )


@pytest.mark.parametrize(
    ("few", "many", "mixed", "best"),
    [(3, 4, 6, "mixed"), (3, 6, 4, "many"), (4, 6, 3, "many"), (6, 4, 3, "few"), (4, 4, 4, "few")],
)
def test_the_error_on_other_samples_decides(few, many, mixed, best):
    assert Trial(few, many, mixed).best() == best


def test_every_sample_judges_what_has_not_followed_it(monkeypatch):
    trial, judged = Trial(3, 6, 6), []

    def falls(network, before, after, samples):
        judged.append(samples.inputs["x"])
        return np.stack([np.ones(samples.count)] * 2) + np.arange(samples.count) / 100

    monkeypatch.setattr("quant_core.quantizers.following.look_trial.error_falls", falls)
    assert trial.best() == "many"
    assert [look for look, _ in trial.asked] == ["few", "many", "mixed"] * 3
    for (_, followed), others in zip(trial.asked[::3], judged[::2], strict=True):
        both = np.concatenate([followed, others])
        np.testing.assert_array_equal(np.sort(both, 0), np.sort(trial.samples.inputs["x"], 0))
        assert not (followed[:, None] == others[None]).all(2).any()


def test_one_sample_does_not_decide(monkeypatch):
    trial = Trial()
    monkeypatch.setattr(
        "quant_core.quantizers.following.look_trial.error_falls",
        lambda *given: np.stack([np.eye(given[3].count)[0]] * 2),
    )
    assert trial.best() == "few"


def test_a_look_that_a_third_speaks_against_is_not_tried_again():
    trial = Trial(few=4, many=6, mixed=3)
    assert trial.best() == "many"
    assert [look for look, _ in trial.asked] == ["few", "many", "mixed", *["few", "many"] * 2]


def test_few_samples_tell_nothing():
    trial = Trial(3, 6, 6, count=23)
    assert trial.best() == "few"
    assert not trial.asked


def test_samples_that_cannot_be_mixed_are_not():
    trial = Trial(3, 4, 6, batch=1)
    assert trial.best() == "many"
    assert {look for look, _ in trial.asked} == {"few", "many"}
