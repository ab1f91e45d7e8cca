"""The loss of whole plans, measured with all their weights rounded at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from quant_core.calibration import RangeWatch
from quant_core.codes import QuantizedWeight
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.processors.side_by_side import side_by_side
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.sensitivity import Batch, Objective
from quant_core.sensitivity.curvature.derivatives import Replace
from quant_core.sensitivity.float_run import stand_in_tensors
from quant_core.spec import FLOAT_BITS
from quant_core.spec.width import stored_of, weight_of

Bits = Mapping[str, int]
Move = Mapping[str, int]
"""Layers that change together -> their new bits."""

Rows = tuple[torch.Tensor, ...]
StandIns = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Measured:
    """The increase of the loss over the float network's.

    Attributes:
        increase: Increase of every sample, float64.
    """

    increase: torch.Tensor

    @property
    def mean(self) -> float:
        """Mean over the samples."""
        return float(self.increase.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean; NaN for a single sample."""
        return _stderr(self.increase)

    def beats(self, other: Measured, errors: float) -> bool:
        """Tell whether this is lower by more than chance, sample by sample.

        Args:
            other: Measured on the same samples.
            errors: By how many standard errors of the mean difference.

        Returns:
            True if it is; False where either is not finite.
        """
        fall = other.increase - self.increase
        error = _stderr(fall) if len(fall) > 1 else 0.0
        return float(fall.mean()) > errors * error


@dataclass(frozen=True, eq=False)
class _Fold:
    """Samples, and codes that have not seen them.

    Attributes:
        rounded: Every layer at every width.
        batches: The samples.
        reference: What the float network gives for each batch.
        before: Its loss, sample by sample.
    """

    rounded: RoundedWeights
    batches: Sequence[Batch]
    reference: Sequence[Rows]
    before: Sequence[torch.Tensor]


class PlanMeter:
    """Measures plans on the samples that scored the layers.

    Activations stay float, as they do when layers are scored: rounding them adds the same to every plan. Where their
    bits are open they are rounded as the plan has it.

    Attributes:
        samples: Number of samples.
        batches: Those of the first fold, in batches.
    """

    def __init__(
        self,
        program: Program,
        layers: Sequence[Layer],
        objective: Objective,
        batches: Sequence[Batch],
        rounded: RoundedWeights,
        activations: Callable[[Bits], Replace] | None = None,
        watch: RangeWatch | None = None,
        further: Sequence[tuple[Sequence[Batch], RoundedWeights]] = (),
    ) -> None:
        """Run the float network once.

        Args:
            program: The float network.
            layers: Its layers.
            objective: The loss.
            batches: The samples.
            rounded: Every layer at every width.
            activations: Plan -> tensor name -> how it is rounded, where bits of activations are open.
            watch: Shown the run over `batches`.
            further: Further samples, each with codes of their own.
        """
        self.batches = batches
        self._program, self._objective = program, objective
        self._layers = {layer.name: layer for layer in layers}
        self._activations = activations
        self._known: dict[tuple[tuple[str, int], ...], Measured] = {}
        others = [self._fold(samples, codes) for samples, codes in further]
        self._folds = [self._fold(batches, rounded, watch), *others]
        self.samples = sum(batch.size for fold in self._folds for batch in fold.batches)

    def loss(self, bits: Bits) -> Measured:
        """Measure one plan.

        Args:
            bits: Layer name -> bits.

        Returns:
            `mean_n [L_n(plan) - L_n(float)]`; not finite if the network gives NaN or infinity.
        """
        key = tuple(bits.items())
        if key not in self._known:
            replace = {} if self._activations is None else self._activations(bits)
            self._known[key] = self._measured(lambda rounded: self._stand_ins(bits, rounded), replace)
        return self._known[key]

    def loss_of(self, weights: Callable[[RoundedWeights], Mapping[str, QuantizedWeight]]) -> Measured:
        """Measure rounded weights, with activations in float.

        Args:
            weights: Takes them from every layer at every width: layer name -> codes and scales; the others stay as they
                are.

        Returns:
            `mean_n [L_n(weights) - L_n(float)]`; not finite if the network gives NaN or infinity.
        """

        def stand_ins(rounded: RoundedWeights) -> StandIns:
            return {
                name: stand_in_tensors(self._program, self._layers[name], weight)
                for name, weight in weights(rounded).items()
            }

        return self._measured(stand_ins, {})

    def _fold(
        self, batches: Sequence[Batch], rounded: RoundedWeights, watch: RangeWatch | None = None
    ) -> _Fold:
        reference: list[Rows] = []
        before: list[torch.Tensor] = []
        wanted = dict.fromkeys((*self._objective.tensors, *(() if watch is None else watch.tensors)))
        for batch in batches:
            with torch.no_grad():
                found = self._program.evaluate(
                    batch.feeds, outputs=[name for name in wanted if name not in batch.feeds]
                )
                values = {**batch.feeds, **found}
                if watch is not None:
                    watch.add(values)
                rows = self._objective.rows(values, batch.size)
                reference.append(rows)
                before.append(self._objective.per_sample(rows, rows, batch.labels))
        return _Fold(rounded, batches, reference, before)

    def _measured(self, stand_ins: Callable[[RoundedWeights], StandIns], replace: Replace) -> Measured:
        changes = []
        for fold in self._folds:
            weights = _merge(stand_ins(fold.rounded))
            for index, batch in enumerate(fold.batches):
                with torch.no_grad():
                    values = self._program.evaluate(
                        batch.feeds, outputs=self._objective.tensors, weights=weights, replace=replace
                    )
                changes.append(self._increase(fold, index, values))
        return Measured(torch.cat(changes).double().cpu())

    def around(self, bits: Bits, moves: Sequence[Move]) -> list[float]:
        """Measure neighbours of a plan; each is run only from its changed layers on.

        Args:
            bits: The plan.
            moves: What each neighbour changes.

        Returns:
            Mean loss increase of each neighbour over the float network's.
        """
        if self._activations is not None:
            return [self.loss({**bits, **move}).mean for move in moves]
        sums = [0.0] * len(moves)
        for fold in self._folds:
            planned = self._stand_ins(bits, fold.rounded)
            weights = _merge(planned)
            for index, batch in enumerate(fold.batches):
                kept = self._program.every_tensor(batch.feeds, self._objective.tensors, weights)

                def moved(
                    move: Move,
                    fold: _Fold = fold,
                    index: int = index,
                    planned: StandIns = planned,
                    kept: Mapping[str, torch.Tensor] = kept,
                ) -> float:
                    behind = self._behind(move)
                    with torch.no_grad():
                        values = self._program.evaluate(
                            {name: value for name, value in kept.items() if name not in behind},
                            outputs=self._objective.tensors,
                            weights=_merge({**planned, **self._stand_ins(move, fold.rounded)}),
                        )
                        return float(self._increase(fold, index, values).double().sum())

                with closing(side_by_side(moved, moves, self._program.device)) as increases:
                    sums = [total + increase for total, increase in zip(sums, increases, strict=True)]
        return [total / self.samples for total in sums]

    def _behind(self, layers: Iterable[str]) -> frozenset[str]:
        return frozenset().union(*(self._program.downstream(self._layers[name].weight) for name in layers))

    def _increase(self, fold: _Fold, index: int, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        batch = fold.batches[index]
        rows = self._objective.rows(values, batch.size)
        changed = self._objective.per_sample(rows, fold.reference[index], batch.labels)
        return changed - fold.before[index]

    def _stand_ins(self, bits: Bits, rounded: RoundedWeights) -> StandIns:
        return {
            name: {}
            if weight_of(width) == FLOAT_BITS
            else stand_in_tensors(self._program, self._layers[name], rounded[name][stored_of(width)])
            for name, width in bits.items()
        }


def _merge(stand_ins: StandIns) -> dict[str, torch.Tensor]:
    return {initializer: value for found in stand_ins.values() for initializer, value in found.items()}


def _stderr(values: torch.Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
