"""Derivatives of the loss in the weights: one backward pass, or the product of its Hessian with a vector."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from quant_core.errors import UnsupportedOperatorError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.probes import Draw
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.objective import Objective

Tensors = Sequence[torch.Tensor]
Replace = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]

_NO_DERIVATIVE = re.compile(r"derivative for '?(?:aten::)?(\w+?)'? is not implemented", re.IGNORECASE)


_ROW = 4096
"""Numbers that are summed in single precision."""


def leaves(program: Program, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    """Take the weights of the layers as variables.

    Args:
        program: The network.
        layers: The layers.

    Returns:
        Weight name -> tensor that gradients are taken in; shares the program's memory.
    """
    return {layer.weight: program.weights[layer.weight].detach().requires_grad_() for layer in layers}


def forward(
    program: Program,
    objective: Objective,
    batch: Batch,
    weights: Mapping[str, torch.Tensor],
    replace: Replace | None = None,
) -> tuple[torch.Tensor, ...]:
    """Run a batch.

    Args:
        program: The network.
        objective: The loss.
        batch: The samples.
        weights: Weight name -> variable used in its place.
        replace: Tensor name -> function applied to it as soon as it is known.

    Returns:
        The outputs that the loss reads, one tensor a term, [samples, positions, classes].
    """
    values = program.evaluate(batch.feeds, outputs=objective.tensors, weights=weights, replace=replace)
    return objective.rows(values, batch.size)


def losses(objective: Objective, rows: tuple[torch.Tensor, ...], batch: Batch) -> torch.Tensor:
    """Give the loss of each sample, with these outputs as the float model's own.

    Args:
        objective: The loss.
        rows: What `forward` gave.
        batch: The samples.

    Returns:
        Shape [samples].
    """
    return objective.per_sample(rows, tuple(row.detach() for row in rows), batch.labels)


def pull_back(
    rows: Tensors, tensors: Tensors, cotangents: Tensors, *, retain: bool = False
) -> tuple[torch.Tensor, ...]:
    """Multiply by the transposed Jacobian, `J^T c`, in one backward pass.

    Args:
        rows: Outputs; some may be functions of nothing, such as an input that is handed through.
        tensors: What they are functions of.
        cotangents: The c, one tensor an output.
        retain: Whether the graph is needed again.

    Returns:
        One tensor for each of `tensors`; zero where no output depends on it.
    """
    reached = [(row, pulled) for row, pulled in zip(rows, cotangents, strict=True) if row.requires_grad]
    if not reached:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)
    return torch.autograd.grad(
        [row for row, _ in reached],
        list(tensors),
        grad_outputs=[pulled for _, pulled in reached],
        retain_graph=retain,
        allow_unused=True,
        materialize_grads=True,
    )


def random_gradient(
    objective: Objective,
    rows: Tensors,
    batch: Batch,
    tensors: Tensors,
    draw: Draw,
    generator: torch.Generator,
) -> tuple[torch.Tensor, ...]:
    """Pull one random cotangent back, `g = 1/sqrt(N) sum_n J_n^T c_n`, so that `E[g g^T]` is the Gauss-Newton matrix.

    Products of different samples have mean zero, since every c_n is drawn for itself.

    Args:
        objective: The loss.
        rows: What `forward` gave.
        batch: The samples.
        tensors: What gradients are taken in.
        draw: How to draw c_n.
        generator: Source of randomness, on the CPU.

    Returns:
        One tensor for each of `tensors`.
    """
    cotangents = [
        draw(term, row, generator) / batch.size**0.5 for term, row in zip(objective.terms, rows, strict=True)
    ]
    return pull_back(rows, tensors, cotangents)


def slopes(loss: torch.Tensor, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    """Take the gradient so that it can be differentiated again.

    Args:
        loss: A number.
        tensors: What it is a function of.

    Returns:
        One gradient for each tensor; zero where the loss does not depend on it.
    """
    if not loss.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)
    with _second_derivatives():
        return torch.autograd.grad(
            loss, list(tensors), create_graph=True, allow_unused=True, materialize_grads=True
        )


def bend(
    gradients: Tensors, tensors: Tensors, vectors: Tensors, *, retain: bool = False
) -> tuple[torch.Tensor, ...]:
    """Multiply the Hessian by a vector: differentiate `gradients . vectors`.

    Args:
        gradients: What `slopes` gave, all of them or those of one diagonal block.
        tensors: The variables.
        vectors: One for each gradient.
        retain: Whether the graph is needed again.

    Returns:
        One tensor for each variable.
    """
    curved = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    if not curved:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)
    with _second_derivatives():
        return torch.autograd.grad(
            [g for g, _ in curved],
            list(tensors),
            grad_outputs=[v for _, v in curved],
            retain_graph=retain,
            allow_unused=True,
            materialize_grads=True,
        )


def inner(left: Tensors, right: Tensors) -> Floats:
    """Take one inner product for each pair of tensors, summed in double precision.

    Args:
        left: Tensors.
        right: Tensors of the same shapes.

    Returns:
        One number a pair.
    """
    products = torch.stack([_inner(a, b) for a, b in zip(left, right, strict=True)])
    return np.asarray(products.cpu().numpy(), dtype=np.float64)


@torch.no_grad()
def _inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Short rows in single precision, their sum in double: as exact as double throughout, without copies of the tensors.
    if a.stride() == b.stride():
        order = sorted(range(a.dim()), key=a.stride, reverse=True)
        a, b = a.permute(order), b.permute(order)
    a, b = a.reshape(-1), b.reshape(-1)
    whole = a.numel() // _ROW * _ROW
    rows = torch.linalg.vecdot(a[:whole].view(-1, _ROW), b[:whole].view(-1, _ROW))
    total: torch.Tensor = rows.sum(dtype=torch.float64) + torch.dot(a[whole:], b[whole:]).double()
    return total


@contextmanager
def _second_derivatives() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        found = _NO_DERIVATIVE.search(str(error))
        if found is None:
            raise
        operator = found[1].removesuffix("_backward")
        raise UnsupportedOperatorError(
            f"{operator} has no second derivative, so the Hessian cannot be taken.",
            remedy="Use gauss_newton or output, which need first derivatives or none.",
            where=operator,
        ) from error
