"""Losses a training graph ends in."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.executor.node import Node
from quant_core.executor.registry import Kernel, operator


def _nll(logs: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignored: int | None) -> Tensor:
    target = target.to(torch.int64)
    kept = torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored
    safe = torch.where(kept, target, torch.zeros_like(target))
    loss = -logs.gather(1, safe.unsqueeze(1)).squeeze(1)
    factor = kept.to(logs.dtype) if weight is None else torch.where(kept, weight[safe], 0)
    loss = loss * factor
    if reduction == "none":
        return loss
    return loss.sum() / factor.sum() if reduction == "mean" else loss.sum()


@operator("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(node: Node) -> Kernel:
    reduction, ignored = node.string("reduction", "mean"), node.int("ignore_index")
    return lambda logs, target, weight=None: _nll(logs, target, weight, reduction, ignored)


@operator("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(node: Node) -> Kernel:
    reduction, ignored = node.string("reduction", "mean"), node.int("ignore_index")

    def loss(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logs = torch.log_softmax(scores, 1)
        return _nll(logs, target, weight, reduction, ignored), logs

    return loss
