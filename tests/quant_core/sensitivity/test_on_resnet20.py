"""Claims about real networks, on the ResNet-20 that the project carries: scored on some images, measured on others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from quant_core.calibration import Samples, load_samples
from quant_core.executor import compile_model
from quant_core.ingest import find_layers, normalise, read_model
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.rounding.round_weights import round_weights
from quant_core.sensitivity import (
    Batch,
    Interactions,
    LossIncrease,
    Objective,
    Term,
    gauss_newton,
    interactions,
    output,
    pqi,
    split_batches,
)
from quant_core.spec import WeightOptions

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / "benchmarks" / "data"
BITS = (2, 3, 4)


@dataclass(frozen=True)
class Study:
    scored: Interactions
    fresh: LossIncrease
    trace_score: np.ndarray
    plans: np.ndarray
    losses: np.ndarray
    integral: np.ndarray
    same_samples: np.ndarray


@pytest.fixture(scope="module")
def study() -> Study:
    model = normalise(read_model(DATA / "resnet20_cifar10.onnx").model)
    layers = find_layers(model)
    program = compile_model(model)
    samples = load_samples(DATA / "cifar10_calibration.npz", model)
    rounded = round_weights(
        CalibrationMoments(FloatNetwork(program, model, layers, 64), samples.take(np.arange(128)), 0),
        {layer.name: BITS for layer in layers},
        WeightOptions(),
        on_progress=lambda fraction, message: None,
    )
    weights = [[rounded[layer.name][bits] for bits in BITS] for layer in layers]
    objective = Objective((Term(program.outputs[0], program.outputs[0], "kl"),))
    scoring, measuring = batches(samples, 128, 320), batches(samples, 320, 512)
    scored = interactions(program, layers, objective, scoring, weights)
    fresh = output(program, layers, objective, measuring, weights)
    traces = gauss_newton(program, layers, objective, scoring, seed=0, max_probes=64)
    steps = [
        [np.square(w.dequantize() - program.weights[layer.weight].numpy()).sum() for w in row]
        for layer, row in zip(layers, weights, strict=True)
    ]
    trace_score = 0.5 * (traces.trace / [layer.parameters for layer in layers])[:, None] * np.array(steps)

    rng = np.random.default_rng(0)
    plans = np.stack([rng.choice(3, len(layers), p=rng.dirichlet(np.ones(3))) for _ in range(40)])
    losses = []
    for plan in plans:
        stand_ins = {
            name: torch.from_numpy(values)
            for layer, row, k in zip(layers, weights, plan, strict=True)
            for name, values in row[k].stand_ins(layer.weight).items()
        }
        total = 0.0
        with torch.no_grad():
            for batch in measuring:
                float_rows = objective.rows(program.evaluate(batch.feeds), batch.size)
                rows = objective.rows(program.evaluate(batch.feeds, weights=stand_ins), batch.size)
                total += float(objective.per_sample(rows, float_rows, None).double().sum())
        losses.append(total / 192)

    few = batches(samples, 128, 160)
    some = layers[1::5]
    nearest = round_weights(
        CalibrationMoments(FloatNetwork(program, model, some, 8), samples.take(np.arange(8)), 0),
        {layer.name: (2,) for layer in some},
        WeightOptions(rounding="nearest"),
        on_progress=lambda fraction, message: None,
    )
    low = [[row[0], nearest[layer.name][2]] for layer, row in zip(some, weights[1::5], strict=True)]
    integral = pqi(program, some, objective, few, low).increase
    same_samples = output(program, some, objective, few, low).increase
    return Study(scored, fresh, trace_score, plans, np.array(losses), integral, same_samples)


def batches(samples: Samples, start: int, stop: int) -> tuple[Batch, ...]:
    feeds = {name: torch.from_numpy(array[start:stop]) for name, array in samples.inputs.items()}
    return split_batches(feeds, None, sample_bytes=1 << 20, seed=0, largest=64, clusters=1)


def test_output_tells_the_loss_at_2_bits_where_the_trace_is_off_by_several_times(study: Study) -> None:
    truth = study.fresh.increase[:, 0]
    for told, error, share in (
        (study.scored.increase, study.scored.increase_stderr, 0.9),
        (study.scored.own, study.scored.own_stderr, 0.8),
    ):
        ratio = told[:, 0] / truth
        assert np.median(ratio) == pytest.approx(1, abs=0.25)
        # What is further off is so because a few images weigh heavily, in either set.
        noise = np.hypot(error[:, 0], study.fresh.stderr[:, 0])
        assert np.mean((np.abs(ratio - 1) < 0.25) | (np.abs(told[:, 0] - truth) < 2 * noise)) > share
    taylor = study.trace_score[:, 0] / truth
    assert np.mean(np.abs(np.log(taylor)) > np.log(2)) > 0.5


def test_interactions_and_single_layers_tell_the_loss_of_whole_plans(study: Study) -> None:
    index = np.arange(study.plans.shape[1])
    alone = np.array([study.scored.increase[index, plan].sum() for plan in study.plans])
    together = np.array([study.scored.plan_loss(plan) for plan in study.plans])
    for told in (together, alone):
        assert spearmanr(told, study.losses)[0] > 0.85  # of 40 plans
        assert np.sqrt(np.mean(np.log(told / study.losses) ** 2)) < 0.4


def test_the_integral_is_what_is_measured_at_2_bits(study: Study) -> None:
    off = np.abs(study.integral / study.same_samples - 1)  # GPTQ's codes, nearest codes
    assert off.max() < 0.02
