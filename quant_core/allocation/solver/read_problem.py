"""The parts of a problem read and checked one by one: tables, names, budgets, ties, pins."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from quant_core.errors import SpecError

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def read_matrix(values: npt.ArrayLike, where: str) -> Matrix:
    """Read a table of layers x choices.

    Args:
        values: The table as given.
        where: What messages call it.

    Returns:
        The table.

    Raises:
        SpecError: If it is no table of real numbers.
    """
    matrix = read_numbers(values, where)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise SpecError(
            f"it has shape {matrix.shape}.",
            remedy="Give layers x choices numbers, at least 1 x 1.",
            where=where,
        )
    return matrix


def read_numbers(values: npt.ArrayLike, where: str) -> Matrix:
    """Read numbers in rows of equal length, however deep they are nested.

    Args:
        values: The numbers as given.
        where: What messages call them.

    Returns:
        The numbers.

    Raises:
        SpecError: If they are no real numbers, or rows differ in length.
    """
    try:
        # Complex numbers would lose a part: as objects they are refused.
        return np.asarray(values, dtype=object if np.iscomplexobj(values) else None).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(
            "it is not a table of numbers with rows of equal length.",
            remedy="Give one for each layer and choice; mask choices a layer does not have.",
            where=where,
        ) from error


def read_costs(costs: Mapping[str, npt.ArrayLike], shape: tuple[int, ...]) -> dict[str, Matrix]:
    """Read tables of costs.

    Args:
        costs: Cost name -> layers x choices.
        shape: Layers and choices.

    Returns:
        The tables.

    Raises:
        SpecError: If one is no table of real numbers, or of another shape.
    """
    found = {name: read_matrix(cost, f"costs[{name!r}]") for name, cost in costs.items()}
    for name, cost in found.items():
        if cost.shape != shape:
            raise SpecError(
                f"it is {cost.shape[0]} x {cost.shape[1]}, the scores are {shape[0]} x {shape[1]}.",
                remedy="Give one cost for each layer and choice.",
                where=f"costs[{name!r}]",
            )
    return found


def read_names(
    names: Sequence[str] | None, labels: Sequence[str] | None, shape: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what messages call layers and choices.

    Args:
        names: Names of the layers; None numbers them.
        labels: Names of the choices; None numbers them.
        shape: Layers and choices.

    Returns:
        Names and labels.

    Raises:
        SpecError: If there are fewer or more than layers or choices.
    """
    layers, choices = shape
    names = [f"layer {i}" for i in range(layers)] if names is None else names
    labels = [f"choice {k}" for k in range(choices)] if labels is None else labels
    if len(names) != layers or len(labels) != choices:
        raise SpecError(
            f"names and labels have {len(names)} and {len(labels)} entries, the scores are {layers} x {choices}.",
            remedy="Give one name a layer and one label a choice.",
        )
    return tuple(names), tuple(labels)


def read_mask(allowed: npt.ArrayLike | None, shape: tuple[int, ...]) -> Mask:
    """Read which choices are allowed.

    Args:
        allowed: Layers x choices; None allows all.
        shape: Layers and choices.

    Returns:
        Layers x choices.

    Raises:
        SpecError: If they are no truth values, or the shape is another.
    """
    if allowed is None:
        return np.ones(shape, dtype=np.bool_)
    mask = read_numbers(allowed, "allowed").astype(np.bool_)
    if mask.shape != shape:
        raise SpecError(
            f"it has shape {mask.shape}, the scores have {shape}.",
            remedy="Give one truth value for each layer and choice.",
            where="allowed",
        )
    return mask


def read_budgets(budgets: Mapping[str, float], costs: Mapping[str, Matrix]) -> dict[str, float]:
    """Read the budgets; one of infinity is none.

    Args:
        budgets: Name of a cost -> limit.
        costs: The costs.

    Returns:
        Name -> limit.

    Raises:
        SpecError: If there is no such cost, or the limit is no number.
    """
    for name, limit in budgets.items():
        if name not in costs:
            raise SpecError(
                f"there is no cost named {name!r}; the costs are {', '.join(costs) or 'none'}.",
                remedy="Name a cost, or leave the budget out.",
                where=f"budgets[{name!r}]",
            )
        try:
            number = float(limit)
        except (TypeError, ValueError):
            number = math.nan
        if not -math.inf < number:
            raise SpecError(
                f"it is {limit!r}.",
                remedy="Give a number, or leave the budget out.",
                where=f"budgets[{name!r}]",
            )
    return {name: float(limit) for name, limit in budgets.items() if float(limit) != math.inf}


def merge_ties(ties: Sequence[Sequence[int]], layers: int) -> tuple[tuple[int, ...], ...]:
    """Merge overlapping groups of tied layers.

    Args:
        ties: Groups of layer indices.
        layers: How many layers there are.

    Returns:
        Every layer once, in groups in the order of their first layer.

    Raises:
        SpecError: If a group holds anything but indices of layers.
    """
    try:
        groups = [[operator.index(layer) for layer in group] for group in ties]
    except TypeError as error:
        raise SpecError(
            f"{ties!r} are no groups of layer indices.",
            remedy="Give a list of lists of indices from 0, such as [[0, 3], [5, 6, 7]].",
            where="ties",
        ) from error
    root = list(range(layers))

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for group in groups:
        for layer in group:
            if not 0 <= layer < layers:
                raise SpecError(
                    f"layer index {layer} does not exist; there are {layers} layers.",
                    remedy="Use indices from 0.",
                    where="ties",
                )
            first, second = sorted((find(group[0]), find(layer)))
            root[second] = first
    merged: dict[int, list[int]] = {}
    for layer in range(layers):
        merged.setdefault(find(layer), []).append(layer)
    return tuple(tuple(group) for _, group in sorted(merged.items()))


def apply_pins(
    pins: Mapping[int, int],
    members: tuple[tuple[int, ...], ...],
    unpinned: Mask,
    names: tuple[str, ...],
    labels: tuple[str, ...],
) -> tuple[Mask, dict[int, int]]:
    """Rule out what pins rule out.

    Args:
        pins: Layer index -> choice index.
        members: Layer indices of each row.
        unpinned: Rows x choices allowed without pins.
        names: Layer names.
        labels: Choice names.

    Returns:
        Rows x choices allowed, and the row of each pin -> the layer whose pin it is.

    Raises:
        SpecError: If an index does not exist, or pins contradict each other, a tie or a limit.
    """
    try:
        pins = {operator.index(layer): operator.index(choice) for layer, choice in pins.items()}
    except (AttributeError, TypeError) as error:
        raise SpecError(
            f"{pins!r} do not map layer indices to choice indices.",
            remedy="Give a mapping of indices from 0, such as {0: 2}.",
            where="pins",
        ) from error
    row_of = {layer: row for row, group in enumerate(members) for layer in group}
    allowed = unpinned.copy()
    pinned_by: dict[int, int] = {}
    for layer, choice in sorted(pins.items()):
        if layer not in row_of or not 0 <= choice < len(labels):
            raise SpecError(
                f"layer {layer} cannot be pinned to choice {choice}: there are {len(names)} layers and "
                f"{len(labels)} choices.",
                remedy="Use indices from 0.",
                where="pins",
            )
        row = row_of[layer]
        if row in pinned_by and pins[pinned_by[row]] != choice:
            other = pinned_by[row]
            raise SpecError(
                f"{names[other]} is pinned to {labels[pins[other]]} and {names[layer]} to {labels[choice]}, "
                "but the two are tied.",
                remedy="Pin them alike, or untie them.",
                where=names[layer],
            )
        if not unpinned[row, choice]:
            tied = [names[i] for i in members[row] if i != layer]
            among = f" together with {', '.join(tied)}, which it is tied to" if tied else ""
            raise SpecError(
                f"{names[layer]} is pinned to {labels[choice]}, which is not allowed for it{among}.",
                remedy="Lift the pin or the limit.",
                where=names[layer],
            )
        pinned_by[row] = layer
        allowed[row] = False
        allowed[row, choice] = True
    return allowed, pinned_by
