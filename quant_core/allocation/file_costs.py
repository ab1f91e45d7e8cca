"""What files cost: weights add up layer by layer, unpacking functions are paid once for each width in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from quant_core.allocation.candidates import Candidates
from quant_core.spec import CostTable
from quant_core.spec.width import functions_of

_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class FileCosts:
    """What a file costs: `base + sum of layers + functions of the widths in use`.

    Attributes:
        base: Bytes of everything but the weights.
        layers: Layer name -> bits -> bytes.
        functions: Bits, or `OUTLIERS` -> bytes that unpacking them costs once a file.
        zero_points: The most bytes that zero points of activations take beside `base`; calibration tells them.
    """

    base: int
    layers: Mapping[str, Mapping[int, int]]
    functions: Mapping[int, int] = field(default_factory=dict)
    zero_points: int = 0

    @classmethod
    def of(cls, costs: CostTable) -> FileCosts:
        """Read a cost table.

        Args:
            costs: The table.

        Returns:
            Its bytes.
        """
        layers = {layer.name: layer.bytes for layer in costs.layers}
        return cls(costs.base, layers, costs.functions, costs.zero_points)

    def overhead(self, widths: Iterable[int]) -> int:
        """Predict what a set of widths costs once a file.

        Args:
            widths: Bits in use.

        Returns:
            Bytes.
        """
        return sum(self.functions.get(key, 0) for key in frozenset().union(*map(functions_of, widths)))

    def total(self, bits: Mapping[str, int]) -> int:
        """Predict a file's size.

        Args:
            bits: Layer name -> bits.

        Returns:
            Bytes.
        """
        weights = sum(self.layers[name][width] for name, width in bits.items())
        return self.base + weights + self.overhead(bits.values())

    def totals(
        self, names: Sequence[str], widths: Sequence[int], choices: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """Predict the sizes of many files.

        Args:
            names: Layer names.
            widths: Bits.
            choices: Index of the bits of each layer, `[files, layers]`.

        Returns:
            Bytes, `[files]`.
        """
        table = np.array([[self.layers[name].get(width, 0) for width in widths] for name in names], np.int64)
        sizes: npt.NDArray[np.int64] = self.base + table[np.arange(len(names)), choices].sum(1)
        used = np.stack([(choices == index).any(1) for index in range(len(widths))], 1)
        for key, size in self.functions.items():
            readers = [index for index, width in enumerate(widths) if key in functions_of(width)]
            sizes += size * used[:, readers].any(1)
        return sizes


def all_widths(candidates: Mapping[str, Candidates]) -> tuple[int, ...]:
    """List every width that some layer may be given.

    Args:
        candidates: Layer name -> bits it may be given.

    Returns:
        Bits, rising.
    """
    return tuple(sorted({bits for choice in candidates.values() for bits in choice.bits}))


def width_sets(
    candidates: Mapping[str, Candidates], files: FileCosts, budget: int | None
) -> list[tuple[int, ...]]:
    """List the sets of widths worth solving under.

    A width whose unpacking function is not stored leaves its bytes to the weights.

    Args:
        candidates: Layer name -> bits it may be given.
        files: File costs.
        budget: Largest file, or None.

    Returns:
        The sets, all widths first; only those that leave every layer a choice.
    """
    widths = all_widths(candidates)
    keys = frozenset().union(*map(functions_of, widths))
    costly = [key for key in sorted(keys) if files.functions.get(key, 0) > 0]
    if budget is None or files.overhead(widths) < budget * _NEGLIGIBLE:
        return [widths]
    sets = (
        tuple(width for width in widths if functions_of(width).isdisjoint(left_out))
        for count in range(len(costly) + 1)
        for left_out in combinations(costly, count)
    )
    return [kept for kept in sets if all(set(choice.bits) & set(kept) for choice in candidates.values())]


def smallest_reachable(
    candidates: Mapping[str, Candidates], files: FileCosts, ties: Iterable[Sequence[str]] = ()
) -> int:
    """Predict the smallest file any allowed plan gives.

    Args:
        candidates: Layer name -> bits it may be given.
        files: File costs.
        ties: Groups of layers that are given the same bits; no layer is in two.

    Returns:
        Bytes.
    """
    groups = [tuple(group) for group in ties if group]
    tied = {name for group in groups for name in group}
    groups += [(name,) for name in candidates if name not in tied]
    open_to = [set.intersection(*(set(candidates[name].bits) for name in group)) for group in groups]
    return min(
        files.base
        + files.overhead(widths)
        + sum(
            min(sum(files.layers[name][width] for name in group) for width in choice & set(widths))
            for group, choice in zip(groups, open_to, strict=True)
        )
        for widths in width_sets(candidates, files, budget=0)
        if all(choice & set(widths) for choice in open_to)
    )


def smallest_kept(
    candidates: Mapping[str, Candidates], files: FileCosts, ties: Iterable[Sequence[str]] = ()
) -> int:
    """Give the smallest budget that a file keeps whatever zero points calibration finds.

    Args:
        candidates: Layer name -> bits it may be given.
        files: File costs.
        ties: Groups of layers that are given the same bits; no layer is in two.

    Returns:
        Bytes.
    """
    return smallest_reachable(candidates, files, ties) + files.zero_points
