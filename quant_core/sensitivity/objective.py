"""The loss as the estimators see it: per-sample values, and a square root of its curvature in the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["cross_entropy", "kl", "squared_error"]
Values = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Term:
    """The loss on one output.

    With z the tensor as [samples n, positions M, classes C] and p = softmax(z):
    cross entropy `-log p[y]` and divergence `KL(p_float || p)`, both averaged over positions, or squared error
    `1/2 ||z - z_float||^2`, summed over everything. All are multiplied by `weight`.

    Attributes:
        output: Graph output the loss stands for.
        tensor: Tensor it is computed from: the output, or the logits in front of its softmax.
        kind: Which loss.
        axis: Class axis of the tensor; not used by squared error.
        sample_axis: Axis that counts samples. 0 also where the first axis holds several rows a sample.
        probabilities: Whether the tensor holds probabilities rather than logits; their logarithms stand in.
        weight: Factor of this loss among several.
        beyond_doubt: Whether squared error stands in for the divergence of class scores that leave no doubt.
    """

    output: str
    tensor: str
    kind: Kind
    axis: int = -1
    sample_axis: int = 0
    probabilities: bool = False
    weight: float = 1.0
    beyond_doubt: bool = False

    @property
    def holds_classes(self) -> bool:
        """Whether the output holds scores of classes, so that answers can be counted."""
        return self.kind != "squared_error" or self.beyond_doubt

    def rows(self, value: torch.Tensor, samples: int) -> torch.Tensor:
        """Arrange a tensor by sample, position and class.

        Args:
            value: The tensor as the graph gives it.
            samples: How many samples it belongs to.

        Returns:
            Shape [samples, positions, classes]; for squared error [samples, 1, elements].
        """
        if self.kind == "squared_error":
            return value.movedim(self.sample_axis, 0).reshape(samples, 1, -1)
        axis, rank = self.axis % value.dim(), value.dim()
        rest = [i for i in range(rank) if i not in (self.sample_axis, axis)]
        ordered = value.permute(self.sample_axis, *rest, axis).reshape(samples, -1, value.shape[axis])
        if self.probabilities:
            return ordered.clamp_min(torch.finfo(value.dtype).tiny).log()
        return ordered

    def per_sample(
        self, rows: torch.Tensor, reference: torch.Tensor | None, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Give the loss of every sample.

        Args:
            rows: The output, arranged by `rows`.
            reference: The float model's output, arranged alike; not used by cross entropy.
            labels: Class of each sample; used by cross entropy only.

        Returns:
            Shape [samples].
        """
        if self.kind == "cross_entropy":
            assert labels is not None  # choose_loss gives this kind only with labels
            picked = rows.log_softmax(-1).gather(-1, labels.view(-1, 1, 1).expand(-1, rows.shape[1], 1))
            return -self.weight * picked.mean(dim=(1, 2))
        assert reference is not None  # every caller holds the float model's outputs
        if self.kind == "kl":
            target = reference.log_softmax(-1)
            return self.weight * (target.exp() * (target - rows.log_softmax(-1))).sum(-1).mean(-1)
        return self.weight * 0.5 * (rows - reference).square().sum(dim=(1, 2))

    def root(self, rows: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """Multiply by a square root S of the loss's Hessian in the output, `H = S S^T`.

        For a softmax `S r = sqrt(p) * r - p * (sqrt(p) . r)`, so that `H = diag(p) - p p^T`; the identity for squared
        error. With independent signs `E[(S r)(S r)^T] = H`.

        Args:
            rows: The output, arranged by `rows`; no gradient is taken through it.
            signs: Same shape.

        Returns:
            Same shape.
        """
        if self.kind == "squared_error":
            return math.sqrt(self.weight) * signs
        probability = rows.softmax(-1)
        scaled = probability.sqrt() * signs
        centred = scaled - probability * scaled.sum(-1, keepdim=True)
        return math.sqrt(self.weight / rows.shape[1]) * centred

    def pull(self, rows: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Multiply by the transpose of that square root, so that `z^T H z = ||S^T z||^2`.

        For a softmax `S^T z = sqrt(p) * (z - p . z)`.

        Args:
            rows: The output, arranged by `rows`, at which the Hessian is taken.
            change: A change z of it, same shape.

        Returns:
            Same shape.
        """
        if self.kind == "squared_error":
            return math.sqrt(self.weight) * change
        probability = rows.softmax(-1)
        centred = change - (probability * change).sum(-1, keepdim=True)
        return math.sqrt(self.weight / rows.shape[1]) * probability.sqrt() * centred


@dataclass(frozen=True)
class Objective:
    """The loss of a model: the sum of its terms.

    Attributes:
        terms: One per output that counts.
        guessed: Why these losses were chosen, or None if they were asked for.
        factors: Output and factor of its loss, for those that a user weighted.
    """

    terms: tuple[Term, ...]
    guessed: str | None = None
    factors: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The losses by name, with the factors that a user gave."""
        name = " + ".join(dict.fromkeys(term.kind for term in self.terms))
        factors = ", ".join(f"{output} x {factor:g}" for output, factor in self.factors)
        return f"{name} ({factors})" if factors else name

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors that the loss is computed from."""
        return tuple(dict.fromkeys(term.tensor for term in self.terms))

    def rows(self, values: Values, samples: int) -> tuple[torch.Tensor, ...]:
        """Arrange the outputs of every term.

        Args:
            values: Tensor name -> value.
            samples: How many samples they belong to.

        Returns:
            One tensor a term, [samples, positions, classes].
        """
        return tuple(term.rows(values[term.tensor], samples) for term in self.terms)

    def per_sample(
        self,
        rows: tuple[torch.Tensor, ...],
        reference: tuple[torch.Tensor, ...] | None,
        labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """Give the loss of every sample.

        Args:
            rows: Outputs, one tensor a term.
            reference: The float model's outputs, or None if only cross entropy is asked for.
            labels: Class of each sample, or None.

        Returns:
            Shape [samples].
        """
        parts = [
            term.per_sample(row, None if reference is None else reference[i], labels)
            for i, (term, row) in enumerate(zip(self.terms, rows, strict=True))
        ]
        return torch.stack(parts).sum(dim=0)
