"""An estimator with its arguments, as a value that can be sent to other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.units import RunUnits


@dataclass(frozen=True, eq=False)
class Assignment:
    """An estimator with everything it needs but the network and the samples, which every process holds already.

    Attributes:
        estimator: A public function of this package; it takes program, layers, objective and batches first, and `run`.
        layers: The layers.
        objective: The loss.
        cut: How the samples are cut.
        options: Its other arguments.
    """

    estimator: Callable[..., Any]
    layers: Sequence[Layer]
    objective: Objective
    cut: Cut
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, program: Program, batches: Sequence[Batch], **more: Any) -> Any:
        """Start the estimator.

        Args:
            program: The network.
            batches: The samples, cut as `cut` says.
            more: Arguments that belong to this process alone.

        Returns:
            What the estimator gives.
        """
        return self.estimator(program, self.layers, self.objective, batches, **self.options, **more)


class Crew(Protocol):
    """Processes that hold the same network and samples."""

    def on(self, assignment: Assignment) -> AbstractContextManager[RunUnits]:
        """Have every process start an estimator and work off its units.

        Args:
            assignment: The estimator.

        Returns:
            What runs the units, for as long as the context lasts.
        """
        ...
