"""Whether the engine's own arithmetic foretold what onnxruntime returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from quant_core.errors import InternalError
from quant_core.spec import Simulation
from quant_core.verification.differences import Difference


@dataclass(eq=False)
class SimulationCheck:
    """Compares float, simulated and measured outputs of the same samples, batch by batch.

    Attributes:
        predicted: The simulation against float.
        measured: onnxruntime against float.
        agreement: onnxruntime against the simulation.
    """

    predicted: Difference = field(default_factory=lambda: Difference("simulation"))
    measured: Difference = field(default_factory=lambda: Difference("measurement"))
    agreement: Difference = field(default_factory=lambda: Difference("agreement"))

    def add(self, reference: NDArray[Any], simulated: NDArray[Any], returned: NDArray[Any]) -> None:
        """Add a batch.

        Args:
            reference: One output of the float model.
            simulated: That of the simulation.
            returned: That of onnxruntime.

        Raises:
            NonFiniteError: If an output holds NaN or infinity.
        """
        self.predicted.add(reference, simulated)
        self.measured.add(reference, returned)
        self.agreement.add(simulated, returned)

    def result(self, *, classes: bool) -> Simulation:
        """Say how far the three lie apart.

        Args:
            classes: Whether that output holds class logits.

        Returns:
            Signal-to-noise ratios of simulation and measurement against float and between the two.

        Raises:
            InternalError: If there was no batch.
        """
        if not self.agreement.samples:
            raise InternalError("The simulation was compared with onnxruntime on no samples.")
        return Simulation(
            predicted_sqnr_db=self.predicted.sqnr_db,
            measured_sqnr_db=self.measured.sqnr_db,
            agreement_sqnr_db=self.agreement.sqnr_db,
            top1_agreement=self.agreement.top1_agreement if classes else None,
        )
