from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import NonFiniteError
from quant_core.sensitivity import Objective, Term, output, split_batches

BITS = (2, 3, 4, 8)


@pytest.mark.parametrize("kind", ["kl", "squared_error", "cross_entropy"])
def test_equals_the_loss_measured_directly(tiny: Any, samples: torch.Tensor, rounded: Any, kind: Any) -> None:
    net = tiny("Tanh")
    labels = torch.arange(96) % 3
    quantized = [[rounded(weight, bits) for bits in BITS] for weight in net.weights.values()]
    batches = split_batches({"x": samples}, labels, sample_bytes=1, seed=0, largest=20, clusters=1)
    found = output(net.program, net.layers, Objective((Term("y", "y", kind),)), batches, quantized)
    z = net.forward(samples, net.weights)
    p = z.softmax(-1)
    for i, name in enumerate(net.weights):
        for k in range(len(BITS)):
            q = net.forward(samples, {**net.weights, name: torch.from_numpy(quantized[i][k].dequantize())})
            change = {
                "kl": (p * (z.log_softmax(-1) - q.log_softmax(-1))).sum(-1),
                "squared_error": 0.5 * (q - z).square().sum(-1),
                "cross_entropy": torch.nn.functional.cross_entropy(q, labels, reduction="none")
                - torch.nn.functional.cross_entropy(z, labels, reduction="none"),
            }[kind]
            assert found.increase[i, k] == pytest.approx(float(change.mean()), rel=1e-3, abs=1e-7)
            assert found.stderr[i, k] == pytest.approx(float(change.std()) / 96**0.5, rel=1e-2, abs=1e-7)
    assert found.samples == 96


def test_stops_once_the_scores_are_known(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Tanh")
    quantized = [[rounded(weight, bits) for bits in BITS] for weight in net.weights.values()]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, largest=8, clusters=1)
    objective = Objective((Term("y", "y", "squared_error"),))
    loose = output(net.program, net.layers, objective, batches, quantized, tolerance=0.25)
    assert 32 <= loose.samples < 96
    assert "90% of the scores known to 25%" in loose.stopped
    assert np.mean(loose.stderr <= 0.25 * loose.increase) >= 0.85
    exact = output(net.program, net.layers, objective, batches, quantized)
    assert exact.samples == 96
    assert np.mean(np.abs(loose.increase - exact.increase) < 3 * loose.stderr) >= 0.75


def test_progress_is_told_as_the_share_of_the_scores(tiny: Any, samples: torch.Tensor, rounded: Any) -> None:
    net = tiny("Tanh")
    quantized = [
        [rounded(weight, bits) for bits in bits_of]
        for weight, bits_of in zip(net.weights.values(), (BITS, BITS[:1]), strict=True)
    ]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0, largest=24, clusters=1)
    told: list[tuple[float, str]] = []
    objective = Objective((Term("y", "y", "squared_error"),))
    output(
        net.program, net.layers, objective, batches, quantized,
        on_progress=lambda share, said: told.append((share, said)),
    )  # fmt: skip
    each = len(batches)
    shares = [share for share, said in told if said.endswith("bit-widths")]
    assert shares == pytest.approx(
        [(5 * batch + done) / (5 * each) for batch in range(each) for done in (4, 5)]
    )
    assert [share for share, said in told if said.endswith(" samples")] == pytest.approx(
        [(batch + 1) / each for batch in range(each)]
    )
    assert told[-1][0] == 1


def test_a_layer_that_breaks_the_network_leaves_the_others_usable(
    tiny: Any, samples: torch.Tensor, rounded: Any
) -> None:
    net = tiny("Relu")
    broken = rounded(net.weights["two"], 4)
    broken.weight[0, 0] = np.nan
    quantized = [[rounded(net.weights["one"], 4)], [broken]]
    batches = split_batches({"x": samples}, None, sample_bytes=1, seed=0)
    found = output(net.program, net.layers, Objective((Term("y", "y", "kl"),)), batches, quantized)
    assert np.isfinite(found.increase[0, 0])
    assert np.isnan(found.increase[1, 0])


def test_a_network_that_is_broken_already_is_refused(tiny: Any, rounded: Any) -> None:
    net = tiny("Relu")
    batches = split_batches({"x": torch.full((4, 5), torch.inf)}, None, sample_bytes=1, seed=0)
    with pytest.raises(NonFiniteError, match="y: the network gives NaN"):
        output(net.program, net.layers, Objective((Term("y", "y", "kl"),)), batches, [[], []])
