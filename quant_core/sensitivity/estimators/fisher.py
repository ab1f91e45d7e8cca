"""Traces of the empirical Fisher matrix, and the gradients it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import torch

from quant_core.errors import SpecError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.derivatives import forward, inner, leaves, random_gradient
from quant_core.sensitivity.curvature.probes import Draw, probe_generator, sampled_score
from quant_core.sensitivity.curvature.traces import Floats, Probing, TraceEstimate, average_traces
from quant_core.sensitivity.objective import Objective, Term

Labels = Literal["given", "model"]


def fisher(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    *,
    seed: int,
    labels: Labels = "given",
    **probing: Unpack[Probing],
) -> TraceEstimate:
    """Estimate `Tr(F_i)` of the empirical Fisher matrix `F = 1/N sum_n g_n g_n^T`, one backward pass a probe.

    g_n is the gradient of sample n's cross entropy. With a random sign r_n for each sample,
    `g = 1/sqrt(N) sum_n r_n g_n` has `E[g g^T] = F`, so that no gradient of a single sample is needed; in batches of
    one sample it is exact. With the given labels F is large where the model is wrong (Kunstner, Hennig and Balles,
    2019); with labels drawn from the model it is the Gauss-Newton matrix, as in `gnb`.

    Args:
        program: The network.
        layers: The layers, in the order of the result.
        objective: The loss; with given labels divergences count as cross entropies, squared errors not at all.
        batches: The samples.
        seed: Seed of signs and labels.
        labels: `given` with the samples, or drawn from the `model`.
        **probing: How precise the shares are to be, and with how many backward passes at most.

    Returns:
        Traces with standard errors.

    Raises:
        SpecError: If given labels are asked for and are missing, or number no output's classes.
    """
    check_labels(objective, batches, labels)
    weights = leaves(program, layers)

    def probe(index: int, number: int) -> Floats:
        gradients = signed_gradient(program, objective, batches[index], weights, labels, seed, number)
        return inner(gradients, gradients)

    return average_traces(probe, [batch.size for batch in batches], **probing)


def check_labels(objective: Objective, batches: Sequence[Batch], labels: Labels) -> None:
    """Refuse labels that do not fit before any work is done.

    Args:
        objective: The loss.
        batches: The samples.
        labels: Which labels are asked for.

    Raises:
        SpecError: If given labels are asked for and are missing, or no output holds classes.
    """
    if labels == "model":
        return
    if any(batch.labels is None for batch in batches):
        raise SpecError(
            "the Fisher matrix of given labels needs labels.",
            remedy="Add `labels` to the samples, or draw them from the model.",
            where="labels",
        )
    if not _labelled(objective):
        raise SpecError(
            "no output holds classes that labels could number.",
            remedy="Draw the targets from the model.",
            where="labels",
        )


def signed_gradient(
    program: Program,
    objective: Objective,
    batch: Batch,
    weights: dict[str, torch.Tensor],
    labels: Labels,
    seed: int,
    number: int,
) -> tuple[torch.Tensor, ...]:
    """Take one random gradient g of a batch with `E[g g^T] = F`.

    Args:
        program: The network.
        objective: The loss.
        batch: The samples.
        weights: What `leaves` gave.
        labels: Which labels are meant.
        seed: Seed of the whole estimate.
        number: Number of the gradient.

    Returns:
        One tensor for each weight.
    """
    rows = forward(program, objective, batch, weights)
    generator = probe_generator(seed, number)
    draw = sampled_score if labels == "model" else _signed_loss(objective, batch, generator)
    return random_gradient(objective, rows, batch, list(weights.values()), draw, generator)


def _signed_loss(objective: Objective, batch: Batch, generator: torch.Generator) -> Draw:
    assert batch.labels is not None  # checked before
    labels = batch.labels.long()
    counted = _labelled(objective)
    # One sign a sample, the same for all terms: the loss of a sample is their sum.
    signs = rademacher(torch.empty(batch.size), generator)

    def draw(term: Term, rows: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        if term not in counted:
            return torch.zeros_like(rows)
        if int(labels.max()) >= rows.shape[-1]:
            raise SpecError(
                f"label {int(labels.max())} is no class of output '{term.output}', which has {rows.shape[-1]}.",
                remedy="Ask for the loss cross_entropy, or draw the labels from the model.",
                where="labels",
            )
        picked = labels.view(-1, 1, 1).expand(-1, rows.shape[1], 1)
        score = rows.detach().softmax(-1)
        score = score.scatter_add(-1, picked, -torch.ones_like(score))
        return signs.to(rows).view(-1, 1, 1) * term.weight / rows.shape[1] * score

    return draw


def _labelled(objective: Objective) -> list[Term]:
    classes = [term for term in objective.terms if term.kind != "squared_error"]
    return [term for term in classes if term.kind == "cross_entropy"] or classes
