"""Hessian traces in the inputs of layers, and what rounding those activations costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import (
    Replace,
    bend,
    forward,
    inner,
    losses,
    random_gradient,
    slopes,
)
from quant_core.sensitivity.curvature.probes import probe_generator, signed_root
from quant_core.sensitivity.curvature.traces import Floats, Probing, average_traces
from quant_core.sensitivity.objective import Objective


@dataclass(frozen=True, eq=False)
class ActivationTraces:
    """Traces of the Hessian of each sample's own loss in the tensors that layers read, averaged over samples.

    Attributes:
        tensors: Names of the tensors, in the order of their first reader; integer ones have no derivative and are
            left out.
        trace: Tr(H_a) for each tensor, not divided by n_a; 0 where the loss does not depend on it, NaN where the
            network gave NaN or infinity.
        stderr: Standard error over samples and probes.
        elements: n_a, the tensor's elements for one sample.
        probes: Number of random probes.
        samples: Number of samples seen.
        stopped: Why the estimate ended.
    """

    tensors: tuple[str, ...]
    trace: Floats
    stderr: Floats
    elements: tuple[int, ...]
    probes: int
    samples: int
    stopped: str

    def of_layers(self, layers: Sequence[Layer]) -> tuple[Floats, Floats]:
        """Add up the traces of the tensors each layer reads.

        Args:
            layers: Any layers.

        Returns:
            Trace and standard error of each; NaN for layers that read no float tensor. The standard errors of a layer
            that reads several tensors are added, since the same samples gave them.
        """
        place = {name: k for k, name in enumerate(self.tensors)}
        read = [[place[name] for name in layer.inputs if name in place] for layer in layers]
        trace, stderr = (
            np.array([values[k].sum() if k else np.nan for k in read]) for values in (self.trace, self.stderr)
        )
        return trace, stderr


def activation_traces(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    curvature: Literal["gauss_newton", "hessian"] = "gauss_newton",
    **probing: Unpack[Probing],
) -> ActivationTraces:
    """Estimate `Tr(H_a) = 1/N sum_n Tr(d^2 L_n / d a_n^2)` for the inputs a of all layers at once.

    The samples of a batch do not touch each other, so one backward pass serves all samples and all tensors (HAWQ-V2,
    arXiv:1911.03852, section on mixed-precision activations, which takes one sample and one layer at a time).

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples.
        seed: Seed of the probes.
        curvature: `gauss_newton`: `E ||J_a^T S r||^2`, one backward pass a probe. `hessian`: `E[v . (H_a v)]`, which
            also holds the bend of the layers behind; one Hessian-vector product a probe.
        **probing: How precise the shares are to be, and with how many probes at most.

    Returns:
        Traces with standard errors.
    """
    elements = _elements(program, layers, batches[0])
    names = tuple(elements)

    def probe(index: int, number: int) -> Floats:
        batch, generator = batches[index], probe_generator(seed, number)
        held: dict[str, torch.Tensor] = {}
        rows = forward(program, objective, batch, {}, {name: _hold(held, name) for name in names})
        # What the loss does not depend on is not run.
        reached = [k for k, name in enumerate(names) if name in held]
        tensors = [held[names[k]] for k in reached]
        found = np.zeros(len(names))
        if not reached:
            return found
        if curvature == "gauss_newton":
            gradients = random_gradient(objective, rows, batch, tensors, signed_root, generator)
            found[reached] = inner(gradients, gradients)
        else:
            signs = [rademacher(tensor, generator) for tensor in tensors]
            gradients = slopes(losses(objective, rows, batch).mean(), tensors)
            found[reached] = inner(signs, bend(gradients, tensors, signs))
        return found

    found = average_traces(probe, [batch.size for batch in batches], **probing)
    return ActivationTraces(
        tensors=names,
        trace=found.trace,
        stderr=found.stderr,
        elements=tuple(elements.values()),
        probes=found.probes,
        samples=found.samples,
        stopped=found.stopped,
    )


def activation_errors(program: Program, batches: Sequence[Batch], rounding: Replace) -> dict[str, float]:
    """Measure what rounding changes in tensors of the float network.

    Args:
        program: The network.
        batches: The samples.
        rounding: Tensor name -> Q.

    Returns:
        Tensor name -> `||Q(a) - a||^2` for one sample, averaged over samples.
    """
    sums = dict.fromkeys(rounding, 0.0)
    with torch.no_grad():
        for batch in batches:
            for name, value in program.evaluate(batch.feeds, outputs=tuple(rounding)).items():
                sums[name] += float((rounding[name](value) - value).double().square().sum())
    total = sum(batch.size for batch in batches)
    return {name: value / total for name, value in sums.items()}


def activation_scores(
    traces: ActivationTraces, layers: Sequence[Layer], errors: Mapping[str, float]
) -> Floats:
    """Score the rounding of each layer's inputs, `Tr(H_a)/n_a * ||Q(a) - a||^2`, summed over its tensors.

    HAWQ-V2's score for activations; like that for weights it has no factor 1/2.

    Args:
        traces: The traces.
        layers: The layers.
        errors: Tensor name -> `||Q(a) - a||^2` for one sample, averaged; tensors left out stay float.

    Returns:
        One score a layer.
    """
    each = {
        name: trace / count * errors.get(name, 0.0)
        for name, trace, count in zip(traces.tensors, traces.trace, traces.elements, strict=True)
    }
    return np.array([sum(each.get(name, 0.0) for name in layer.inputs) for layer in layers])


def _elements(program: Program, layers: Sequence[Layer], batch: Batch) -> dict[str, int]:
    names = tuple(dict.fromkeys(name for layer in layers for name in layer.inputs))
    with torch.no_grad():
        values = program.evaluate(batch.feeds, outputs=names)
    return {name: value.numel() // batch.size for name, value in values.items() if value.is_floating_point()}


def _hold(held: dict[str, torch.Tensor], name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # The first tensors on every way become variables; those behind are functions of them.
        held[name] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return held[name]

    return keep
