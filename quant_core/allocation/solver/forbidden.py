"""Pairs of choices that may not be taken together, folded onto rows."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quant_core.errors import SpecError

Option = tuple[int, int]
Mask = npt.NDArray[np.bool_]


class Conflict(NamedTuple):
    """Two choices of different rows that exclude each other; the first row comes before the second."""

    first: int
    first_choice: int
    second: int
    second_choice: int


def read_forbidden(
    pairs: Sequence[tuple[Option, Option]],
    members: Sequence[Sequence[int]],
    names: Sequence[str],
    choices: int,
) -> tuple[tuple[Conflict, ...], Mask]:
    """Check forbidden pairs and fold them onto rows of layers that choose alike.

    Two layers of one row never take different choices, so a pair between them either says nothing or rules a
    choice of the row out.

    Args:
        pairs: Two options (layer, choice) each.
        members: Layer indices of each row.
        names: Layer names.
        choices: How many choices there are.

    Returns:
        Conflicts between rows, each once and in order; and rows x choices, False where a choice of a row is ruled out.

    Raises:
        SpecError: If a pair is no pair of options, an index does not exist, or both options are of one layer.
    """
    row_of = {layer: row for row, group in enumerate(members) for layer in group}
    allowed = np.ones((len(members), choices), dtype=np.bool_)
    conflicts = set()
    for at, pair in enumerate(pairs):
        where = f"forbidden[{at}]"
        try:
            (i, k), (j, m) = ((index(layer), index(choice)) for layer, choice in pair)
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"{pair!r} is not a pair of options.",
                remedy="Write ((layer, choice), (layer, choice)), all indices from 0.",
                where=where,
            ) from error
        if not {i, j} <= row_of.keys() or not (0 <= k < choices and 0 <= m < choices):
            raise SpecError(
                f"{pair!r} names an option that does not exist: there are {len(names)} layers and {choices} choices.",
                remedy="Use indices from 0.",
                where=where,
            )
        if i == j:
            raise SpecError(
                f"both options are of {names[i]}, which takes one choice in any case.",
                remedy="Name two layers; rule out a choice of one layer with `allowed`.",
                where=where,
            )
        first, second = sorted([(row_of[i], k), (row_of[j], m)])
        if first[0] != second[0]:
            conflicts.add(Conflict(*first, *second))
        elif k == m:
            allowed[first[0], k] = False
    return tuple(sorted(conflicts)), allowed


def refuse_fixed(
    conflicts: Sequence[Conflict],
    allowed: Mask,
    members: Sequence[Sequence[int]],
    pins: dict[int, int],
    names: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Refuse two rows without a choice of their own whose only choices exclude each other.

    Args:
        conflicts: Conflicts between rows.
        allowed: Rows x choices, after pins.
        members: Layer indices of each row.
        pins: Row -> the layer whose pin holds it.
        names: Layer names.
        labels: Choice names.

    Raises:
        SpecError: If there are such rows; names both.
    """

    def fixed(row: int, choice: int) -> tuple[str, str]:
        layer = pins.get(row, members[row][0])
        return names[layer], f"{'is pinned to' if row in pins else 'can only take'} {labels[choice]}"

    for a, k, b, m in conflicts:
        if allowed[a, k] and allowed[b, m] and allowed[a].sum() == allowed[b].sum() == 1:
            (one, takes), (other, takes_too) = fixed(a, k), fixed(b, m)
            raise SpecError(
                f"{one} {takes} and {other} {takes_too}, but the two are a forbidden pair.",
                remedy="Pin one of them differently, or lift the pair.",
                where=other,
            )


def may_replace(conflicts: Sequence[Conflict], shape: tuple[int, int]) -> Mask:
    """Tell which choice of a row can stand in for another in every plan, as far as forbidden pairs go.

    It can where it excludes nothing that the other one does not exclude as well.

    Args:
        conflicts: Conflicts between rows.
        shape: Rows and choices.

    Returns:
        Rows x choices x choices: whether the last may stand in for the one before.
    """
    rows, choices = shape
    excludes: dict[Option, set[Option]] = {}
    for a, k, b, m in conflicts:
        excludes.setdefault((a, k), set()).add((b, m))
        excludes.setdefault((b, m), set()).add((a, k))
    can = np.ones((rows, choices, choices), dtype=np.bool_)
    for (row, by), others in excludes.items():
        for choice in range(choices):
            can[row, choice, by] = others <= excludes.get((row, choice), set())
    return can


def conflict_table(conflicts: Sequence[Conflict], shape: tuple[int, int]) -> Mask:
    """Spell conflicts out as a table.

    Args:
        conflicts: Conflicts between rows.
        shape: Rows and choices.

    Returns:
        Rows x choices x rows x choices, symmetric, True where two choices exclude each other.
    """
    table = np.zeros((*shape, *shape), dtype=np.bool_)
    for a, k, b, m in conflicts:
        table[a, k, b, m] = table[b, m, a, k] = True
    return table
