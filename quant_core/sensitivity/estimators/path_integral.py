"""Post-quantization integral: the gradient added up along the way from the float to the rounded weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.estimators.output import LossIncrease
from quant_core.sensitivity.float_run import FloatRun, Quantized, float_runs, stand_in_tensors
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.probe_log import Once, anew
from quant_core.sensitivity.running.units import RunUnits, in_turn
from quant_core.spec.progress import Tell, tell_nobody


@dataclass(frozen=True, eq=False)
class ElementIntegral:
    """What every single weight adds to the loss when all layers are rounded together.

    Attributes:
        parts: Initializer name -> contribution of each element, in the weight's shape; float64, on the CPU.
        samples: Number of samples.
    """

    parts: Mapping[str, torch.Tensor]
    samples: int

    @property
    def increase(self) -> float:
        """The increase of the mean loss: the sum of all contributions."""
        return float(sum(float(part.sum()) for part in self.parts.values()))


def pqi(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    quantized: Sequence[Sequence[Quantized]],
    *,
    gradients: int = 16,
    on_progress: Tell = tell_nobody,
    run: RunUnits = in_turn,
    once: Once = anew,
) -> LossIncrease:
    """Integrate the gradient along the path of each layer and bit-width.

    `L(Q) - L(W) = int_0^1 dL/dW(W + t (Q - W)) . (Q - W) dt`, by Gauss-Legendre: exact for the whole path, where a
    Taylor series around W holds only near it (Hu et al., Identifying Sensitive Weights via Post-quantization Integral,
    arXiv:2503.01901, equation 5). On smooth paths eight gradients are within 2 % of the loss at 2 bits; with ReLU,
    whose paths have kinks, it takes sixteen (docs/sensitivity.md). What it gives is what `output` measures with a
    single forward pass instead of `gradients` forward and backward passes; use `pqi_elements` for what single weights
    cost.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples; the tensors of one batch are held at a time.
        quantized: Layers x bit-widths: the weights as they would be exported.
        gradients: How many on each path.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the batches off; where it ends early, time was up.
        once: Gives what one layer does to one batch, where an earlier attempt measured it.

    Returns:
        Increases; the standard errors are from the spread between batches, NaN for fewer than two.

    Raises:
        NonFiniteError: If the network gives NaN or infinity even with float weights.
    """
    shape = (len(layers), max((len(row) for row in quantized), default=0))

    def measure(index: int, _: int) -> Floats:
        mean = np.full(shape, np.nan)

        def integrals(lacking: Sequence[int]) -> Iterator[Floats]:
            if not lacking:
                return
            one = next(float_runs(program, layers, objective, [batches[index]]))
            for i in lacking:
                ends = (stand_in_tensors(program, layers[i], weight) for weight in quantized[i])
                yield np.array([_integrate(one, layers[i], end, gradients) for end in ends], dtype=np.float64)

        with closing(once(index, range(len(layers)), integrals)) as pieces:
            for i, found in enumerate(pieces):
                mean[i, : len(quantized[i])] = found
                done = index + (i + 1) / len(layers)
                on_progress(done / len(batches), f"{layers[i].name} at {len(quantized[i])} bit-widths")
        return mean

    means: list[Floats] = []
    with closing(run(measure, ((index, 0) for index in range(len(batches))))) as results:
        for mean in results:
            means.append(mean)
            on_progress(len(means) / len(batches), f"{len(means)} of {len(batches)} batches")
    sizes = np.array([batch.size for batch in batches[: len(means)]], dtype=np.float64)
    share = (sizes / sizes.sum())[:, None, None]
    table = np.stack(means)
    increase = (share * table).sum(axis=0)
    increase[~np.isfinite(increase)] = np.nan
    count = len(means)
    spread = (share**2 * (table - increase) ** 2).sum(axis=0)
    stderr = np.sqrt(count / (count - 1) * spread) if count > 1 else np.full(shape, np.nan)
    stopped = "all samples used" if count == len(batches) else "time limit"
    return LossIncrease(increase, stderr, int(sizes.sum()), stopped)


def pqi_elements(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    quantized: Sequence[Quantized],
    *,
    gradients: int = 16,
    on_progress: Tell = tell_nobody,
) -> ElementIntegral:
    """Integrate the gradient, weight by weight, along the path on which all layers are rounded together.

    `parts = (Q - W) * int_0^1 dL/dW(W + t (Q - W)) dt`; they add up to the loss increase of the whole network. A large
    one marks a weight that is better kept apart in full precision (arXiv:2503.01901, section 4).

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples.
        quantized: One rounded weight a layer.
        gradients: How many on the path, each over all samples.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        Contributions of every element of every initializer that rounding changes.

    Raises:
        NonFiniteError: If the loss is NaN or infinite somewhere on the path.
    """
    ends: dict[str, torch.Tensor] = {}
    for layer, weight in zip(layers, quantized, strict=True):
        ends |= stand_in_tensors(program, layer, weight)
    way = {name: end - program.weights[name] for name, end in ends.items()}
    sums = {name: torch.zeros(end.shape, dtype=torch.float64) for name, end in ends.items()}
    total = sum(batch.size for batch in batches)
    for number, batch in enumerate(batches):
        with torch.no_grad():
            values = program.evaluate(batch.feeds, outputs=objective.tensors)
            reference = objective.rows(values, batch.size)
        for point, share in _points(gradients):
            weights = {
                name: (program.weights[name] + point * step).requires_grad_() for name, step in way.items()
            }
            values = program.evaluate(batch.feeds, outputs=objective.tensors, weights=weights)
            rows = objective.rows(values, batch.size)
            loss = objective.per_sample(rows, reference, batch.labels).sum() * (share / total)
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the loss is not finite {point:.0%} of the way to the rounded weights.",
                    remedy="Give the layers more bits.",
                    where=", ".join(term.output for term in objective.terms),
                )
            slopes = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for name, gradient in zip(weights, slopes, strict=True):
                sums[name] += (gradient * way[name]).double().cpu()
        on_progress((number + 1) / len(batches), f"{gradients} gradients of {batch.size} samples")
    return ElementIntegral(sums, total)


def _integrate(run: FloatRun, layer: Layer, ends: Mapping[str, torch.Tensor], gradients: int) -> float:
    starts = {name: run.program.weights[name] for name in ends}
    total = 0.0
    for point, share in _points(gradients):
        at = torch.tensor(point, dtype=run.before.dtype, device=run.before.device, requires_grad=True)
        weights = {name: start + at * (ends[name] - start) for name, start in starts.items()}
        loss = run.per_sample(run.changed(layer, weights)).mean()
        if not loss.requires_grad:  # nothing that counts depends on the layer
            return 0.0
        (slope,) = torch.autograd.grad(loss, at, materialize_grads=True)
        total += share * float(slope)
    return total


def _points(gradients: int) -> list[tuple[float, float]]:
    # Gauss-Legendre on [0, 1]: where the gradient is taken, and the length of the interval it stands for.
    nodes, lengths = np.polynomial.legendre.leggauss(gradients)
    return [
        (float(0.5 + 0.5 * node), float(0.5 * length)) for node, length in zip(nodes, lengths, strict=True)
    ]
