"""OMPQ: how alike the layers' outputs are, and what a layer is worth because of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from quant_core.errors import ModelError, SamplesError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.sample_axes import find_sample_axes


def orm(program: Program, layers: Sequence[Layer], batches: Sequence[Batch]) -> Floats:
    """Give the linear CKA of every two layers' outputs, on unlabelled samples.

    With `X_i` the output of layer i, a row a sample, columns centred, and `K_i = X_i X_i^T`,
    `ORM_ij = <K_i, K_j> / (||K_i|| ||K_j||)`, which is `||X_i^T X_j||_F^2 / (||X_i^T X_i||_F ||X_j^T X_j||_F)` (OMPQ,
    arXiv:2109.07865, equation 8; linear CKA of Kornblith et al., arXiv:1905.00414). Over several batches the three
    products are averaged first. One batch of 32 or so is what the paper takes. A layer that several nodes share
    counts with all its outputs side by side.

    Args:
        program: The network.
        layers: The layers.
        batches: The samples; each batch needs at least two.

    Returns:
        Layers x layers, between 0 and 1, 1 on the diagonal. A layer whose output is the same for all samples, such as
        a table of positions, is like no other: 0. NaN for a layer whose output is not finite.

    Raises:
        SamplesError: If a batch holds a single sample.
        ModelError: If no axis of a layer's output counts samples.
    """
    products = np.zeros((len(layers), len(layers)))
    names = tuple(dict.fromkeys(name for layer in layers for name in layer.outputs))
    for batch in batches:
        if batch.size < 2:
            raise SamplesError(
                "one sample is left to compare layers with, and alone it does not tell how alike they are.",
                remedy="Give more samples.",
            )
        with torch.no_grad():
            values = program.evaluate(batch.feeds, outputs=names)
            turned = {name: value.roll(1, 0) for name, value in batch.feeds.items()}
            others = program.evaluate(turned, outputs=names)
        varying = {name: value for name, value in values.items() if not torch.equal(value, others[name])}
        finite = {name: value for name, value in varying.items() if torch.isfinite(value).all()}
        axes = find_sample_axes(program, batch.feeds, finite, batch.size)
        grams = torch.stack([_gram(layer, varying, axes, batch.size).flatten() for layer in layers])
        products += (grams @ grams.T).cpu().numpy()
    norms = np.sqrt(products.diagonal())
    scale = np.outer(norms, norms)
    similarity = products / np.where(scale == 0, 1.0, scale)
    similarity[np.diag(norms == 0)] = 1.0
    similarity[~np.isfinite(similarity)] = np.nan
    return np.asarray(similarity, dtype=np.float64)


def ompq_importance(similarity: Floats, beta: float = 1.0) -> Floats:
    """Give what a bit is worth in each layer: `exp(-beta sum_{j != i} ORM_ij)`.

    A layer unlike the others is worth more. OMPQ then maximises `sum_i bits_i * mean_{j >= i} importance_j` within a
    size (arXiv:2109.07865, section 3.3); it tells nothing of what a bit-width costs.

    Args:
        similarity: Layers x layers, from `orm`.
        beta: How much similarity counts.

    Returns:
        One number a layer, between 0 and 1; NaN where the similarity is.
    """
    others = np.where(np.eye(len(similarity), dtype=np.bool_), 0.0, similarity)
    undefined = np.where(np.isnan(similarity.diagonal()), np.nan, 0.0)
    return np.asarray(np.exp(-beta * np.nansum(others, axis=1)) + undefined, dtype=np.float64)


def _gram(
    layer: Layer, varying: Mapping[str, torch.Tensor], axes: Mapping[str, int | None], size: int
) -> torch.Tensor:
    features = torch.zeros(size, 0, dtype=torch.float64)
    for name in layer.outputs:
        if name not in varying:
            continue
        if name not in axes:
            return torch.full((size, size), torch.nan, dtype=torch.float64)
        axis = axes[name]
        if axis is None:
            raise ModelError(
                f"no axis of its output '{name}' counts samples, so layers cannot be compared.",
                remedy="Choose another sensitivity method.",
                where=layer.name,
            )
        part = varying[name].double().movedim(axis, 0).reshape(size, -1)
        features = torch.cat([features.to(part), part], dim=1)
    features = features - features.mean(dim=0)
    return features @ features.T
