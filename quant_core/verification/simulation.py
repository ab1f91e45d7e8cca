"""Whether the engine's own arithmetic foretold what onnxruntime returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from quant_core.errors import InternalError
from quant_core.spec import Simulation
from quant_core.verification.metrics import Difference

Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def check_simulation(batches: Iterable[Outputs], *, classes: bool) -> Simulation:
    """Compare float, simulated and measured outputs of the same samples.

    Args:
        batches: For each batch one output of the float model, of the simulation, and of onnxruntime.
        classes: Whether that output holds class logits.

    Returns:
        Signal-to-noise ratios of simulation and measurement against float and between the two.

    Raises:
        InternalError: If there was no batch.
        NonFiniteError: If an output holds NaN or infinity.
    """
    predicted, measured, agreement = (Difference(name) for name in ("simulation", "measurement", "agreement"))
    for reference, simulated, returned in batches:
        predicted.add(reference, simulated)
        measured.add(reference, returned)
        agreement.add(simulated, returned)
    if not agreement.samples:
        raise InternalError("The simulation was compared with onnxruntime on no samples.")
    return Simulation(
        predicted_sqnr_db=predicted.sqnr_db,
        measured_sqnr_db=measured.sqnr_db,
        agreement_sqnr_db=agreement.sqnr_db,
        top1_agreement=agreement.top1_agreement if classes else None,
    )
