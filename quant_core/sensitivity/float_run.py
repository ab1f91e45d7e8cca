"""One batch run with float weights and kept, so that a change of one layer is run only from that layer on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.objective import Objective

Rows = tuple[torch.Tensor, ...]


class Quantized(Protocol):
    """What stands in for a layer's weight at some bits."""

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Give the weights as float32, in the weight's shape."""
        ...

    def stand_ins(self, weight: str) -> dict[str, npt.NDArray[np.float32]]:
        """Give every initializer that rounding this weight changes, the weight among them, by name."""
        ...


@dataclass(frozen=True, eq=False)
class FloatRun:
    """The tensors of one batch with float weights.

    Attributes:
        program: The network.
        objective: The loss.
        batch: The samples.
        values: Every tensor of the run by name.
        reference: The outputs, one tensor a term, [samples, positions, classes].
        before: The loss of every sample before any weight is changed.
        after: Weight name -> the tensors that depend on it.
    """

    program: Program
    objective: Objective
    batch: Batch
    values: Mapping[str, torch.Tensor]
    reference: Rows
    before: torch.Tensor
    after: Mapping[str, frozenset[str]]

    def changed(self, layer: Layer, weights: Mapping[str, torch.Tensor]) -> Rows:
        """Run again from a layer on.

        Args:
            layer: The layer.
            weights: Name -> tensor used instead; initializers that only this layer and what follows it read.

        Returns:
            The outputs, arranged like `reference`; differentiable in `weights`.
        """
        behind = self.after[layer.weight]
        feeds = {name: value for name, value in self.values.items() if name not in behind}
        values = self.program.evaluate(feeds, outputs=self.objective.tensors, weights=weights)
        return self.objective.rows(values, self.batch.size)

    def per_sample(self, rows: Rows) -> torch.Tensor:
        """Give the loss of every sample.

        Args:
            rows: Outputs, arranged like `reference`.

        Returns:
            Shape [samples].
        """
        return self.objective.per_sample(rows, self.reference, self.batch.labels)


def float_runs(
    program: Program, layers: Sequence[Layer], objective: Objective, batches: Sequence[Batch]
) -> Iterator[FloatRun]:
    """Run every batch with float weights.

    Args:
        program: The network.
        layers: The layers that will be changed.
        objective: The loss; its reference is what the network gives here.
        batches: The samples; hold one run at a time.

    Yields:
        One run a batch.

    Raises:
        NonFiniteError: If the network gives NaN or infinity even with float weights.
    """
    after = {layer.weight: program.downstream(layer.weight) for layer in layers}
    for batch in batches:
        with torch.no_grad():
            values = program.every_tensor(batch.feeds, objective.tensors)
            reference = objective.rows(values, batch.size)
            before = objective.per_sample(reference, reference, batch.labels)
        if not torch.isfinite(before).all():
            raise NonFiniteError(
                "the network gives NaN or infinity on the samples before any weight is quantized.",
                remedy="Check the samples and the model.",
                where=", ".join(term.output for term in objective.terms),
            )
        yield FloatRun(program, objective, batch, values, reference, before, after)


def stand_in_tensors(program: Program, layer: Layer, quantized: Quantized) -> dict[str, torch.Tensor]:
    """Give what rounding a layer puts in place of its float initializers.

    Args:
        program: The network.
        layer: The layer.
        quantized: Its weight at some bits.

    Returns:
        Initializer name -> tensor of the program's type, on its device.
    """
    return {
        name: torch.from_numpy(values).to(program.weights[name])
        for name, values in quantized.stand_ins(layer.weight).items()
    }
