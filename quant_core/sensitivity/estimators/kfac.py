"""Kronecker factors of the Gauss-Newton matrix of each layer, and the loss they predict for a concrete change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import RECURRENT, Layer, Use
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import forward, inner, leaves, random_gradient
from quant_core.sensitivity.curvature.probes import probe_generator, signed_root
from quant_core.sensitivity.curvature.traces import Floats, probed_traces
from quant_core.sensitivity.curvature.weight_matrix import input_matrices, output_matrix, weight_matrix
from quant_core.sensitivity.objective import Objective
from quant_core.spec.progress import Tell, tell_nobody

Uses = Sequence[tuple[Layer, Use]]
Moments = tuple[int, torch.Tensor | None, torch.Tensor]
"""Number of the use, A and B of one batch, averaged over its samples."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One Kronecker product `A (x) B`.

    Attributes:
        use: The node whose view of the weight gives it its two axes.
        inputs: A, [groups, inputs, inputs]; for the rows of a table their frequencies, [rows].
        outputs: B, [groups, outputs, outputs].
    """

    use: Use
    inputs: torch.Tensor
    outputs: torch.Tensor

    def form(self, matrix: torch.Tensor) -> float:
        """Give `tr(A dW^T B dW)`, summed over groups.

        Args:
            matrix: dW, [groups, outputs, inputs].

        Returns:
            The number.
        """
        right = matrix * self.inputs if self.inputs.dim() == 1 else matrix @ self.inputs
        return float(((self.outputs @ matrix).double() * right).sum())

    @property
    def trace(self) -> float:
        """`tr(A) tr(B)`, summed over groups."""
        if self.inputs.dim() == 1:
            return float(self.inputs.double().sum()) * float(_traces(self.outputs).sum())
        return float((_traces(self.inputs) * _traces(self.outputs)).sum())


@dataclass(frozen=True, eq=False)
class KroneckerFactors:
    """The Gauss-Newton matrix of each layer as Kronecker products, `G_i = scale_i * sum A (x) B`.

    Holds inputs^2 + outputs^2 numbers a layer and group, inputs counted with the elements of the kernel.

    Attributes:
        layers: The layers.
        pairs: The products of each layer; none where the layer does not tell which axis holds its outputs,
            and for activations of recurrent nodes.
        trace: Tr(G_i) from the same backward passes; NaN where a layer gave NaN or infinity.
        stderr: Standard error of `trace`, over samples and probes.
        probes: Number of random probes.
        samples: Number of samples.
    """

    layers: tuple[Layer, ...]
    pairs: tuple[tuple[Pair, ...], ...]
    trace: Floats
    stderr: Floats
    probes: int
    samples: int

    def loss_increase(self, index: int, change: torch.Tensor) -> float:
        """Predict the loss for a change of one layer's weight, `1/2 scale * sum tr(A dW^T B dW)`.

        `scale = Tr(G) / sum tr(A) tr(B)`, so that a change spread evenly over all directions is predicted right.

        Args:
            index: The layer.
            change: dW, in the weight's shape.

        Returns:
            Expected increase of the mean loss; NaN where the layer has no finite factors.
        """
        layer, found = self.layers[index], self.pairs[index]
        if self.trace[index] == 0:
            return 0.0
        if not found or not np.isfinite(self.trace[index]):
            return float("nan")
        size = sum(pair.trace for pair in found)
        forms = sum(pair.form(_matrix(layer, pair.use, change.to(pair.outputs))) for pair in found)
        return 0.5 * float(self.trace[index]) / size * forms


def kfac(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    sweeps: int = 4,
    factors: Literal["gradients", "activations"] = "gradients",
    on_progress: Tell = tell_nobody,
) -> KroneckerFactors:
    """Estimate a Kronecker product for every layer, with the random cotangents of `gauss_newton`.

    With G the gradient in the weight as a matrix [outputs, inputs], `gradients` takes `A = E[G^T G]` and
    `B = E[G G^T] / Tr`: one step from the identity towards the Kronecker product nearest to the Gauss-Newton matrix
    (Van Loan and Pitsianis, 1993; GFWSVD, arXiv:2505.17974, iterates it; Morwani et al., 2024, on the single step). It
    holds what places of a sample and uses of a weight have in common, for every operator alike.

    `activations` takes `A = E[sum a a^T]` and `B = E[sum g g^T]`, with a the columns that the weight matrix is
    multiplied by (patches of a convolution) and g the gradients in what comes out, summed over the places of a sample,
    as if those were independent of each other and from place to place (K-FAC, arXiv:1503.05671; for convolutions
    arXiv:1602.01407). A weight read by several nodes has a product for each.

    Either way the trace of the layer, from the same backward passes, sets the size.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples.
        seed: Seed of the probes.
        sweeps: Backward passes for each batch.
        factors: What the factors are made from.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.

    Returns:
        The factors.
    """
    weights = leaves(program, layers)
    if factors == "gradients":
        uses = [(layer, layer.uses[0]) for layer in layers]
    else:
        uses = [(layer, use) for layer in layers for use in layer.uses if _has_outputs(program, layer, use)]
    inputs: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}
    estimates: list[Floats] = []
    total, passes = sum(batch.size for batch in batches), sweeps * len(batches)
    for number in range(passes):
        batch, generator = batches[number % len(batches)], probe_generator(seed, number)
        share = batch.size / total
        if factors == "gradients":
            of_weights, of_uses = _gradient_moments(program, uses, objective, batch, weights, generator)
        else:
            of_weights, of_uses = _activation_moments(
                program, uses, objective, batch, weights, generator, read=number < len(batches)
            )
        estimates.append(inner(of_weights, of_weights))
        for k, moment_in, moment_out in of_uses:
            if moment_in is not None:
                _add(inputs, k, moment_in.mul_(share / sweeps if factors == "gradients" else share))
            _add(outputs, k, moment_out.mul_(share / sweeps))
        on_progress((number + 1) / passes, f"pass {number + 1}")
    if factors == "gradients":
        outputs = {k: _of_trace_one(b) for k, b in outputs.items()}
    order = [number % len(batches) for number in range(passes)]
    trace, stderr = probed_traces(estimates, order, [batch.size for batch in batches])
    pairs = [(uses[k][0], Pair(uses[k][1], inputs[k], outputs[k])) for k in sorted(outputs)]
    return KroneckerFactors(
        layers=tuple(layers),
        pairs=tuple(tuple(pair for owner, pair in pairs if owner is layer) for layer in layers),
        trace=trace,
        stderr=stderr,
        probes=passes,
        samples=total,
    )


def _gradient_moments(
    program: Program,
    uses: Uses,
    objective: Objective,
    batch: Batch,
    weights: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> tuple[tuple[torch.Tensor, ...], Iterator[Moments]]:
    rows = forward(program, objective, batch, weights)
    gradients = random_gradient(objective, rows, batch, list(weights.values()), signed_root, generator)

    def moments() -> Iterator[Moments]:
        for k, ((layer, use), gradient) in enumerate(zip(uses, gradients, strict=True)):
            matrix = _matrix(layer, use, gradient)
            # Rows of a table are taken one by one; their moments with each other would be a matrix of the vocabulary.
            each = matrix.square().sum(dim=(0, 1)) if use.op == "Gather" else matrix.mT @ matrix
            yield k, each, matrix @ matrix.mT

    return gradients, moments()


def _activation_moments(
    program: Program,
    uses: Uses,
    objective: Objective,
    batch: Batch,
    weights: dict[str, torch.Tensor],
    generator: torch.Generator,
    *,
    read: bool,
) -> tuple[tuple[torch.Tensor, ...], Iterator[Moments]]:
    held: dict[str, torch.Tensor] = {}
    hooks = {name: _Keep(held, name) for _, use in uses for name in (use.input, use.output)}
    rows = forward(program, objective, batch, weights, hooks)
    # What the loss does not depend on is not run.
    reached = [k for k, (_, use) in enumerate(uses) if use.output in held]
    tensors = [*weights.values(), *(held[uses[k][1].output] for k in reached)]
    gradients = random_gradient(objective, rows, batch, tensors, signed_root, generator)

    def moments() -> Iterator[Moments]:
        for k, gradient in zip(reached, gradients[len(weights) :], strict=True):
            layer, use = uses[k]
            matrix = output_matrix(layer, use, gradient)
            moment = _input_moment(program, layer, use, batch, held[use.input]) if read else None
            yield k, moment, matrix @ matrix.mT

    return gradients[: len(weights)], moments()


class _Keep:
    def __init__(self, held: dict[str, torch.Tensor], name: str) -> None:
        self._held, self._name = held, name

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        self._held[self._name] = tensor
        return tensor


def _has_outputs(program: Program, layer: Layer, use: Use) -> bool:
    # A recurrent node does not show what its gates compute, nor the states that they read.
    return use.op not in RECURRENT and weight_matrix(layer, use, program.weights[layer.weight]) is not None


def _matrix(layer: Layer, use: Use, weight: torch.Tensor) -> torch.Tensor:
    # A product of gradients' moments does not care which of the two axes holds the outputs.
    matrix = weight_matrix(layer, use, weight)
    return weight.reshape(1, weight.shape[0], -1) if matrix is None else matrix


@torch.no_grad()
def _input_moment(
    program: Program, layer: Layer, use: Use, batch: Batch, value: torch.Tensor
) -> torch.Tensor:
    if use.op == "Gather":
        counts = torch.bincount(value.reshape(-1) % layer.shape[0], minlength=layer.shape[0])
        return counts.to(program.weights[layer.weight]) / batch.size
    columns = input_matrices(program, layer, use, batch, value)
    return torch.stack([part @ part.mT for part in columns]).sum(dim=0) / batch.size


def _add(sums: dict[int, torch.Tensor], key: int, value: torch.Tensor) -> None:
    sums[key] = sums[key].add_(value) if key in sums else value


def _of_trace_one(matrices: torch.Tensor) -> torch.Tensor:
    sizes = _traces(matrices)
    return matrices / torch.where(sizes > 0, sizes, 1.0).to(matrices)[:, None, None]


def _traces(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).double().sum(dim=-1)
