"""What is asked of the allocation, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Problem:
    """Choose one option for each layer: least total sensitivity within every budget.

    Minimise `sum_i sensitivity[i, choice_i]` subject to `sum_i costs[b][i, choice_i] <= budgets[b]` for every
    budget b. Nested lists and arrays are both accepted; nothing is checked until the problem is solved.

    Attributes:
        sensitivity: Layers x choices: expected loss increase; may be negative.
        costs: Name -> layers x choices, such as bytes, bit operations or milliseconds; adds up over layers.
        budgets: Name of a cost -> the most it may add up to.
        ties: Groups of layer indices that must take the same choice; overlapping groups merge.
        pins: Layer index -> the choice index it must take.
        allowed: Layers x choices, False where a choice is ruled out; there scores and costs may be anything.
        names: Layer names, for messages.
        labels: Names of the choices, such as `4 bits`, for messages.
    """

    sensitivity: npt.ArrayLike
    costs: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)
    ties: Sequence[Sequence[int]] = ()
    pins: Mapping[int, int] = field(default_factory=dict)
    allowed: npt.ArrayLike | None = None
    names: Sequence[str] | None = None
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Plan:
    """One choice a layer.

    Attributes:
        choice: Choice index of every layer.
        objective: Sum of the chosen sensitivities.
        costs: Every cost of the problem, summed over the chosen options.
        optimal: Whether no better plan exists, by proof.
        gap: Largest possible `(objective - best) / |objective|`; 0 when optimal.
        solver: What found the plan.
    """

    choice: tuple[int, ...]
    objective: float
    costs: Mapping[str, float]
    optimal: bool
    gap: float
    solver: str
