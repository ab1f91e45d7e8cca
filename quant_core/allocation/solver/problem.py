"""What is asked of the allocation, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Problem:
    """Choose one option for each layer: least total sensitivity within every budget.

    Minimise `sum_i sensitivity[i, c_i] + sum_{i<j} interactions[i, c_i, j, c_j]` over choices c subject to
    `sum_i costs[b][i, c_i] <= budgets[b]` for every budget b; without interactions the second sum
    is 0. Nested lists and arrays are both accepted; nothing is checked until the problem is solved.

    Attributes:
        sensitivity: Layers x choices: expected loss increase; may be negative.
        costs: Name -> layers x choices, such as bytes, bit operations or milliseconds; adds up over layers.
        budgets: Name of a cost -> the most it may add up to.
        ties: Groups of layer indices that must take the same choice; overlapping groups merge.
        pins: Layer index -> the choice index it must take.
        allowed: Layers x choices, False where a choice is ruled out; there scores and costs may be anything.
        forbidden: Pairs of options ((layer, choice), (layer, choice)) that may not be taken together.
        names: Layer names, for messages.
        labels: Names of the choices, such as `4 bits`, for messages.
        interactions: Layers x choices x layers x choices: what two choices cost together beyond their sum; read
            where the first layer comes before the second.
    """

    sensitivity: npt.ArrayLike
    costs: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)
    ties: Sequence[Sequence[int]] = ()
    pins: Mapping[int, int] = field(default_factory=dict)
    allowed: npt.ArrayLike | None = None
    forbidden: Sequence[tuple[tuple[int, int], tuple[int, int]]] = ()
    names: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    interactions: npt.ArrayLike | None = None


@dataclass(frozen=True)
class Plan:
    """One choice a layer.

    Attributes:
        choice: Choice index of every layer.
        objective: Sum of the chosen sensitivities, and of the interactions between them.
        costs: Every cost of the problem, summed over the chosen options.
        optimal: Whether no better plan exists, by proof.
        gap: Largest possible `(objective - best) / |objective|`; 0 when optimal. With interactions the bound behind it
            is weak: the gap says what is proved, and a small search is often better than it.
        solver: What found the plan.
    """

    choice: tuple[int, ...]
    objective: float
    costs: Mapping[str, float]
    optimal: bool
    gap: float
    solver: str
