"""Samples that need no measuring: where one sample costs all layers alike, some layers tell of it for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_FEWEST_LAYERS = 3
_MOST_MISSED = 0.15
"""Root mean square of how far layers' means, foretold from few samples, may lie off."""


@dataclass(frozen=True, eq=False)
class Proportions:
    """How much more one sample of a batch costs than another.

    Attributes:
        shares: Cost of each sample, relative to the mean, `[samples]`.
        measured: How many samples are measured for every layer, the first ones.
    """

    shares: torch.Tensor
    measured: int

    def extended(self, change: torch.Tensor) -> torch.Tensor:
        """Give the change of all samples from that of those that were measured.

        Args:
            change: What a layer does to the loss of the first samples, `[measured]`.

        Returns:
            `[samples]`: those, and the others in proportion to their mean.
        """
        known = self.shares[: self.measured].mean()
        return torch.cat([change, change.mean() * self.shares[self.measured :] / known])


def proportions(changes: Sequence[torch.Tensor], measured: int) -> Proportions | None:
    """Tell whether few samples suffice, from layers that were measured on all.

    What rounding a layer changes in sample n is about `c_i p_n`: a sample whose answer is near a tie costs more
    whichever layer moves it. With p the mean over layers of `m_in / mean_n m_in`, the mean of layer i over all samples
    is foretold from the first ones as `mean_few(m_i) mean(p) / mean_few(p)`, each layer's by the p of the others.

    Args:
        changes: What some layers do to the loss of every sample, each `[samples]`.
        measured: How many samples would be measured for other layers.

    Returns:
        The proportions; None where these means are missed by more than 15 %, root mean square, or of fewer than three
        layers.
    """
    if len(changes) < _FEWEST_LAYERS:
        return None
    table = torch.stack([*changes])
    means = table.mean(1, keepdim=True)
    if not bool((torch.isfinite(means) & (means > 0)).all()):
        return None
    relative = table / means
    others = (relative.sum(0) - relative) / (len(table) - 1)
    known = others[:, :measured].mean(1)
    if not bool((known > 0).all()):
        return None
    missed = relative[:, :measured].mean(1) * others.mean(1) / known - 1
    if not math.sqrt(float(missed.square().mean())) <= _MOST_MISSED:
        return None
    return Proportions(relative.mean(0), measured)
