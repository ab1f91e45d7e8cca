"""How the loss of a rounded layer spreads over its output channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.quantizers.simulation.slopes import slopes_in
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.float_run import Quantized, stand_in_tensors
from quant_core.sensitivity.objective import Objective

Floats = npt.NDArray[np.float64]

_ALIKE = 0.5
"""How reliable shares must be for a layer's channels to be told apart."""


def channel_shares(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batch: Batch,
    weights: Mapping[str, Quantized],
    seed: int,
) -> dict[str, Floats]:
    """Estimate which share of a layer's loss each of its output channels makes up.

    To second order the loss of an error e at a layer's output is `1/2 e^T J^T H J e`, H the loss's Hessian in the
    network's outputs and J their slopes. With independent errors of channel c at its places it is
    `1/2 E[g_c^2] E[e_c^2]`, g the gradient of `z . (S r)` with random signs r and `S S^T = H`: one backward run for all
    layers, and one run of each layer alone.

    Args:
        program: The float network.
        layers: Layers of one node each, with codes.
        objective: The loss.
        batch: Samples.
        weights: Layer name -> its rounded weight.
        seed: Seed of the signs.

    Returns:
        Layer name -> share by channel, `[channels]`, of sum 1; of layers that neither lose nor matter nothing.
    """
    outputs = {layer.uses[0].output: layer for layer in layers}
    inputs = [layer.uses[0].input for layer in layers]
    read, slopes = _slopes(program, objective, batch, outputs, inputs, seed)
    shares = {}
    for name, layer in outputs.items():
        if name not in slopes:
            continue
        value, slope = slopes[name]
        with torch.no_grad():
            rounded = program.evaluate(
                {**batch.feeds, layer.uses[0].input: read[layer.uses[0].input]},
                outputs=[name],
                weights=stand_in_tensors(program, layer, weights[layer.name]),
            )[name]
        lost = _by_channel(layer, slope) * _by_channel(layer, rounded - value)
        total = float(lost.sum())
        if np.isfinite(total) and total > 0:
            shares[layer.name] = (lost / total).cpu().numpy()
    return shares


def confirmed_shares(first: Mapping[str, Floats], second: Mapping[str, Floats]) -> dict[str, Floats]:
    """Keep of the shares that two sets of samples give what they have in common.

    With the correlation r of both over the channels, `q = 2 r / (1 + r)` is that of their mean with another such mean
    (Spearman 1910, Brown 1910); the share of a channel is `q` times the mean and `1 - q` times that of all channels
    alike. The rows of a classifier, of which each sample needs one, mostly differ between the two.

    Args:
        first: Layer name -> shares by channel on some samples.
        second: The same on others.

    Returns:
        Layer name -> shares, of the layers with q above a half.
    """
    found = {}
    for name, shares in first.items():
        both = np.stack([shares, second.get(name, np.zeros_like(shares))])
        if not (both.std(1) > 0).all():
            continue
        alike = float(np.corrcoef(both)[0, 1])
        alike = 2 * alike / (1 + alike) if alike > 0 else 0.0
        if alike > _ALIKE:
            found[name] = alike * both.mean(0) + (1 - alike) / len(shares)
    return found


def _slopes(
    program: Program,
    objective: Objective,
    batch: Batch,
    outputs: Collection[str],
    inputs: Collection[str],
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """What the layers read; what they write and the gradient in it."""
    chance = torch.Generator().manual_seed(seed)

    def total(values: Mapping[str, Tensor]) -> Tensor:
        number = torch.zeros((), device=program.device)
        for term, rows in zip(objective.terms, objective.rows(values, batch.size), strict=True):
            number = number + (rows * term.root(rows.detach(), rademacher(rows, chance))).sum()
        return number

    inner = (name for name in inputs if name not in batch.feeds)
    wanted = list(dict.fromkeys((*objective.tensors, *inner)))
    values, slopes = slopes_in(program, batch.feeds, outputs, wanted, total)
    read = {name: value.detach() for name, value in {**values, **batch.feeds}.items()}
    return read, {name: (value.detach(), slope) for name, (value, slope) in slopes.items()}


def _by_channel(layer: Layer, value: Tensor) -> Tensor:
    """Mean square of every channel, float64."""
    channels = value.movedim(1 if layer.op == "Conv" else -1, -1)
    return channels.reshape(-1, channels.shape[-1]).double().square().mean(0)
