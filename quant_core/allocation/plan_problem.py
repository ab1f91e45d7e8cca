"""One model's allocation by names: scores, candidates and costs of its layers, turned into a `Problem` to solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.chance import beyond_chance, chance_of
from quant_core.allocation.file_costs import FileCosts
from quant_core.allocation.solver.problem import Problem
from quant_core.errors import NonFiniteError, SpecError
from quant_core.spec import FLOAT_BITS, Allocation, CostTable, LayerCosts, LayerSensitivity, SensitivityTable
from quant_core.spec.costs import MemoryStep
from quant_core.spec.width import activation_of, format_width, stored_of, weight_of

BYTES = "bytes"
EFFECTIVE_BITS = "effective_bits"
BOPS = "bops"
LATENCY = "latency"
PEAK_MEMORY = "peak_memory"

ByLayer = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, eq=False)
class PairLosses:
    """What two layers in few bits cost together beyond the sum.

    Attributes:
        layers: Layer names.
        widths: Bits of each layer's choices; a layer in float costs nothing with any other.
        values: Layers x choices x layers x choices.
    """

    layers: tuple[str, ...]
    widths: tuple[tuple[int, ...], ...]
    values: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, table: SensitivityTable, layers: Sequence[str], values: npt.NDArray[np.float64]
    ) -> PairLosses:
        """Put pairs beside the widths that they were measured at, which need not be those that layers may be given.

        Args:
            table: The table that they were measured with.
            layers: Layer names.
            values: Layers x choices x layers x choices.

        Returns:
            The pairs.

        Raises:
            SpecError: If they were measured for other layers, or at more or fewer widths.
        """
        measured = {row.name: tuple(sorted({*row.perturbation} - {FLOAT_BITS})) for row in table.layers}
        widths = tuple(measured.get(name, ()) for name in layers)
        if {*layers} != measured.keys() or max(map(len, widths)) != values.shape[1]:
            raise SpecError(
                "these pairs of layers were measured for another table than the one that names them.",
                remedy="Keep the files of one job together.",
                where="interactions",
            )
        return cls(tuple(layers), widths, values)

    def over(self, names: Sequence[str], widths: Sequence[int]) -> npt.NDArray[np.float64]:
        """Arrange the table for other choices.

        Args:
            names: Layer names.
            widths: Bits of every choice.

        Returns:
            Names x widths x names x widths, 0 where nothing was measured.
        """
        row = {name: i for i, name in enumerate(self.layers)}
        rows = np.array([row[name] for name in names])
        count = self.values.shape[1]
        # The last column stands for what was not measured.
        padded = np.zeros((len(self.layers), count + 1, len(self.layers), count + 1))
        padded[:, :count, :, :count] = np.nan_to_num(self.values, nan=0.0)
        at = np.array(
            [[self.widths[r].index(w) if w in self.widths[r] else count for w in widths] for r in rows]
        )
        return np.asarray(padded[rows[:, None, None, None], at[:, :, None, None], rows[:, None], at])


@dataclass(frozen=True, eq=False)
class PlanProblem:
    """Everything that decides about a plan but the limits.

    Attributes:
        candidates: Layer name -> bits it may be given, in graph order.
        scores: Layer name -> bits -> expected loss increase; what is missing or not finite rules a choice out.
        files: File costs.
        costs: Name of another cost -> layer name -> bits -> cost; adds up over layers.
        ties: Groups of layers that must choose alike.
        pairs: What pairs of layers cost together, or None.
        peaks: Step of a run -> bytes of activations held then, by layer and bits, and what is held in any case; the
            peak of a plan is the largest sum.
        allocation: How bits are chosen.
        priority: Layer name -> mean trace for `hawq_v2`, or importance for `ompq`; not used by `optimal`.
        followed: Layers that are rounded again for what those before them give.
    """

    candidates: Mapping[str, Candidates]
    scores: ByLayer
    files: FileCosts
    costs: Mapping[str, ByLayer] = field(default_factory=dict)
    ties: tuple[tuple[str, ...], ...] = ()
    pairs: PairLosses | None = None
    peaks: Mapping[str, tuple[float, ByLayer]] = field(default_factory=dict)
    allocation: Allocation = "optimal"
    priority: Mapping[str, float] = field(default_factory=dict)
    followed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        table: SensitivityTable,
        costs: CostTable,
        *,
        allocation: Allocation = "optimal",
        pairs: PairLosses | None = None,
        priority: Mapping[str, float] | None = None,
    ) -> PlanProblem:
        """Put the two tables of a job together.

        Args:
            table: Expected loss increases.
            costs: Costs and candidates.
            allocation: How bits are chosen.
            pairs: What pairs of layers cost together, or None.
            priority: Importances for `ompq`; mean traces come from the table.

        Returns:
            The problem.
        """
        priced = {layer.name: layer for layer in costs.layers}
        chance = chance_of(table.layers)
        traces = {row.name: row.trace / row.parameters for row in table.layers if row.trace is not None}
        return replace(
            cls.priced(costs),
            scores={
                row.name: _scores(row, priced[row.name], chance) if row.name in priced else row.sensitivity
                for row in table.layers
            },
            pairs=pairs,
            allocation=allocation,
            priority=traces if allocation == "hawq_v2" else priority or {},
        )

    @classmethod
    def priced(cls, costs: CostTable) -> PlanProblem:
        """Give what plans cost, before any layer is scored.

        Args:
            costs: Costs and candidates.

        Returns:
            The problem without scores.
        """
        return cls(
            candidates={layer.name: Candidates(layer.bits, layer.reason) for layer in costs.layers},
            scores={},
            files=FileCosts.of(costs),
            costs=layer_costs(costs),
            ties=costs.ties,
            peaks={
                f"{PEAK_MEMORY} at {step.node}": (float(step.fixed), _held(step, costs))
                for step in costs.memory
            },
            followed=costs.followed,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names in graph order."""
        return tuple(self.candidates)

    def cost(self, name: str, bits: Mapping[str, int]) -> float:
        """Add up one cost of a plan.

        Args:
            name: `bytes` or another cost.
            bits: Layer name -> bits.

        Returns:
            The cost.
        """
        if name == BYTES:
            return float(self.files.total(bits))
        if name == PEAK_MEMORY:
            return max(
                fixed + sum(held[layer][bits[layer]] for layer in held) for fixed, held in self.peaks.values()
            )
        return float(sum(self.costs[name][layer][width] for layer, width in bits.items()))

    def loss(self, bits: Mapping[str, int]) -> float:
        """Predict the loss increase of a plan.

        Args:
            bits: Layer name -> bits.

        Returns:
            `sum of scores + sum over pairs`.
        """
        own = sum(self.scores[name][width] for name, width in bits.items())
        if self.pairs is None:
            return float(own)
        weights = [weight_of(width) for width in bits.values()]
        widths = tuple(sorted(set(weights)))
        at = np.array([widths.index(width) for width in weights])
        index = np.arange(len(at))
        table = self.pairs.over(tuple(bits), widths)
        return float(own + np.triu(table[index[:, None], at[:, None], index, at], 1).sum())

    def matrix(self, widths: Sequence[int], *, peaks: bool = False) -> Problem:
        """Arrange it for the solvers, with bytes as the first cost.

        Args:
            widths: Bits of every choice, rising.
            peaks: Whether each step of a run is a cost of its own.

        Returns:
            The problem without budgets.

        Raises:
            NonFiniteError: If a layer has no choice with a finite score.
        """
        scores: npt.NDArray[np.float64] = np.full((len(self.names), len(widths)), np.nan)
        steps = {name: held for name, (_, held) in self.peaks.items()} if peaks else {}
        tables: dict[str, npt.NDArray[np.float64]] = {
            name: np.zeros_like(scores) for name in (BYTES, *self.costs, *steps)
        }
        for i, (layer, choice) in enumerate(self.candidates.items()):
            for j, width in enumerate(widths):
                if width in choice.bits:
                    scores[i, j] = self.scores[layer].get(width, np.nan)
                    tables[BYTES][i, j] = self.files.layers[layer][width]
                    for name, costs in self.costs.items():
                        tables[name][i, j] = costs[layer][width]
                    for name, held in steps.items():
                        if layer in held:
                            tables[name][i, j] = held[layer][width]
        allowed = np.isfinite(scores)
        for i, layer in enumerate(self.names):
            if not allowed[i].any():
                raise NonFiniteError(
                    "no allowed bit-width of this layer has a finite score.",
                    remedy="Exclude the layer, or check its weights and the samples.",
                    where=layer,
                )
        return Problem(
            sensitivity=scores,
            costs=tables,
            ties=[[self.names.index(name) for name in group] for group in self.ties],
            allowed=allowed,
            names=self.names,
            labels=tuple(map(format_width, widths)),
            interactions=None
            if self.pairs is None
            else self.pairs.over(self.names, [weight_of(width) for width in widths]),
        )


def _scores(row: LayerSensitivity, costs: LayerCosts, chance: float) -> Mapping[int, float]:
    """Loss increase of every width: that of the weight, and that of its activations where they are open."""
    weights = {**beyond_chance(row, chance), **(row.sparse_sensitivity or {})}
    if all(activation_of(width) is None for width in costs.bits):
        return weights
    activations = {FLOAT_BITS: 0.0} | (row.activation_sensitivity or {})
    return {
        width: weights[stored_of(width)] + activations[activation_of(width) or FLOAT_BITS]
        for width in costs.bits
        if stored_of(width) in weights and (activation_of(width) or FLOAT_BITS) in activations
    }


def _held(step: MemoryStep, costs: CostTable) -> ByLayer:
    """Bytes of the tensors that have each layer's activation bits."""
    return {
        layer.name: {bits: step.elements[layer.name] * layer.activation_bits[bits] / 8 for bits in layer.bits}
        for layer in costs.layers
        if layer.name in step.elements
    }


def layer_costs(costs: CostTable) -> dict[str, ByLayer]:
    """Give what layers take of all that adds up over layers, but for bytes.

    Args:
        costs: The cost table.

    Returns:
        Cost name -> layer -> bits -> its part of the sum; of the effective bits, its part of their mean.
    """
    weights = max(1, sum(layer.parameters for layer in costs.layers))
    found: dict[str, ByLayer] = {
        EFFECTIVE_BITS: {
            layer.name: {bits: layer.parameters * layer.effective(bits) / weights for bits in layer.bits}
            for layer in costs.layers
        },
        BOPS: {layer.name: {bits: layer.bops(bits) for bits in layer.bits} for layer in costs.layers},
    }
    if all(layer.latency is not None for layer in costs.layers):
        found[LATENCY] = {layer.name: layer.latency or {} for layer in costs.layers}
    return found
