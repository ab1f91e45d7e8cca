"""Interactions between pairs of layers, checked and summed over tie groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quant_core.allocation.solver.read_problem import read_numbers
from quant_core.errors import NonFiniteError, SpecError

Floats = npt.NDArray[np.float64]


def read_interactions(
    values: npt.ArrayLike, reachable: npt.NDArray[np.bool_], names: Sequence[str]
) -> Floats:
    """Check a table of interactions and keep what can be chosen.

    Args:
        values: Layers x choices x layers x choices.
        reachable: Layers x choices that may be chosen.
        names: Layer names, for messages.

    Returns:
        The table, 0 except where the first layer comes before the second and both choices are reachable.

    Raises:
        SpecError: If it is no table of real numbers, or the shape is wrong.
        NonFiniteError: If an interaction that could be chosen is NaN or infinite.
    """
    table = read_numbers(values, "interactions")
    if table.shape != (*reachable.shape, *reachable.shape):
        layers, choices = reachable.shape
        raise SpecError(
            f"it has shape {table.shape}, the scores are {layers} x {choices}.",
            remedy=f"Give {layers} x {choices} x {layers} x {choices} numbers.",
            where="interactions",
        )
    before = np.triu(np.ones((len(reachable), len(reachable)), dtype=np.bool_), k=1)
    counts = before[:, None, :, None] & reachable[:, :, None, None] & reachable
    bad = (~np.isfinite(table) & counts).any(axis=(1, 3))
    if bad.any():
        first, second = np.argwhere(bad)[0]
        raise NonFiniteError(
            f"the interaction of {names[first]} with {names[second]} holds NaN or infinity.",
            remedy="Rule those choices out, or leave the interactions out.",
            where=names[first],
        )
    return np.where(counts, table, 0.0)


def sum_interactions(table: Floats, members: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
    """Sum interactions over rows of layers that choose alike.

    Args:
        table: Layers x choices x layers x choices, 0 except above the diagonal.
        members: Layer indices of each row.

    Returns:
        Rows x choices x rows x choices between different rows, symmetric; and rows x choices within each row.
    """
    starts = np.cumsum([0, *(len(group) for group in members[:-1])])
    order = np.concatenate([list(group) for group in members])
    both = (table + table.transpose(2, 3, 0, 1))[order][:, :, order]
    pairs = np.add.reduceat(np.add.reduceat(both, starts, axis=0), starts, axis=2)
    index = np.arange(len(members))
    own = pairs[index, :, index, :]
    within = 0.5 * np.diagonal(own, axis1=1, axis2=2)
    pairs[index, :, index, :] = 0.0
    return pairs, within
