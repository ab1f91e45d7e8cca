"""Random vectors with a seed of their own for every probe."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.objective import Term

Draw = Callable[[Term, torch.Tensor, torch.Generator], torch.Tensor]
"""Term, its rows and a generator -> random c of their shape: E[c c^T] is the loss's Hessian in each sample's rows."""


_TURNED = 32
"""Classes whose part of the loss's curvature is drawn along its own axes."""


def probe_generator(seed: int, probe: int) -> torch.Generator:
    """Seed a generator for one probe, so that probes do not depend on the order they are worked off in.

    Args:
        seed: Seed of the whole estimate.
        probe: Number of the probe.

    Returns:
        A generator on the CPU.
    """
    state = np.random.SeedSequence([seed, probe]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw independent numbers of variance 1; on the CPU, as signs are.

    Args:
        like: Gives shape, dtype and device.
        generator: Source of randomness, on the CPU.

    Returns:
        Normally distributed numbers.
    """
    return torch.randn(like.shape, generator=generator).to(device=like.device, dtype=like.dtype)


def signed_root(term: Term, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw `c = S Q r` with random signs r and Q orthogonal: `E[c c^T] = S S^T`, the Hessian of the loss in the output.

    Q makes the columns of S that belong to the likeliest classes orthogonal, which takes most of the spread between
    probes away.

    Args:
        term: The loss.
        rows: The output, arranged by the term.
        generator: Source of randomness, on the CPU.

    Returns:
        Shaped as the rows; no gradient flows through it.
    """
    values = rows.detach()
    signs = rademacher(rows, generator)
    return term.root(values, signs if term.kind == "squared_error" else _turned(values, signs))


def _turned(rows: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    # The columns of a softmax's S are far from orthogonal: between two likely classes they cancel or double, so that a
    # probe of a doubtful sample gives nothing or twice its trace. With Q orthogonal S Q is as good a root; this Q makes
    # the columns of the likeliest classes orthogonal: eigenvectors of H, as far as other classes are unlikely.
    probability = rows.double().softmax(-1)
    top = probability.topk(min(_TURNED, rows.shape[-1])).indices
    p = probability.gather(-1, top)
    shared = probability.square().sum(-1)[..., None, None]
    gram = torch.diag_embed(torch.ones_like(p)) - p[..., None] - p[..., None, :] + shared
    gram = gram * (p[..., None] * p[..., None, :]).sqrt()
    turn = torch.linalg.eigh(gram.nan_to_num(0.0, 0.0, 0.0)).eigenvectors.to(signs)
    picked = signs.gather(-1, top)[..., None]
    return signs.scatter(-1, top, (turn @ picked)[..., 0])


def sampled_score(term: Term, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a target from the model's own output distribution and take the gradient of its likelihood.

    For a softmax `c = p - e_y` with y drawn from p, for squared error `c = z - y` with y normal around z: both have
    mean zero and, with the factors of the loss, `E[c c^T]` is the Hessian of the loss in the output.

    Args:
        term: The loss.
        rows: The output, arranged by the term.
        generator: Source of randomness, on the CPU.

    Returns:
        Shaped as the rows; no gradient flows through it.
    """
    if term.kind == "squared_error":
        return math.sqrt(term.weight) * normal(rows, generator)
    probability = rows.detach().softmax(-1)
    # Drawn on the CPU, so that the same seed gives the same labels on every device but for rounding.
    level = torch.rand(rows.shape[:-1], generator=generator).to(rows)[..., None]
    labels = (probability.cumsum(-1) < level).sum(-1, keepdim=True).clamp_max(rows.shape[-1] - 1)
    score = probability.scatter_add(-1, labels, torch.full_like(probability, -1.0))
    return math.sqrt(term.weight / rows.shape[1]) * score
