"""Grids of the activations that a file rounds, found from the calibration samples once for all files of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quant_core.calibration import RangeWatch, Samples, choose_range, ranges_in_parts
from quant_core.calibration.activation_range import ActivationRange
from quant_core.export import Placement
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, activation_grid
from quant_core.quantizers.activation import float8_grid, symmetric_grid
from quant_core.spec import QuantizeSpec
from quant_core.spec.bits import WIDE_BITS

_BYTE = 8  # bits


@dataclass(eq=False)
class ActivationGrids:
    """Finds grids, and keeps what it has found.

    Attributes:
        job: The prepared job.
        spec: The request.
        journal: Told what happens.
        parts: Calibration samples; a part that comes twice counts once.
        watch: What was shown the first part, if it ran for another's sake.
        found: Grids found so far, by tensor and bits.
    """

    job: Prepared
    spec: QuantizeSpec
    journal: Journal
    parts: Sequence[Samples]
    watch: RangeWatch | None = None
    found: dict[tuple[str, int], ActivationGrid] = field(default_factory=dict)

    def of(self, placement: Placement) -> dict[str, ActivationGrid]:
        """Find the grids of a file.

        Args:
            placement: Which tensors it rounds, and which of these to 16 bits.

        Returns:
            Tensor name -> grid.

        Raises:
            NonFiniteError: If a tensor holds NaN or infinity; names the tensor.
        """
        bits = {name: WIDE_BITS if name in placement.wide else _BYTE for name in placement.points}
        missing = [name for name in placement.points if (name, bits[name]) not in self.found]
        if missing:
            ranges = ranges_in_parts(
                self.job.program,
                self.parts,
                missing,
                self.watch,
                batch_size=self.job.batch_size,
                device=self.job.device,
                on_batch=lambda done, total: self.journal.tell(
                    "calibration", done / total, f"activation ranges: {done} of {total} samples"
                ),
            )
            for name, observed in ranges.items():
                self.found[name, bits[name]] = self._grid(observed, bits[name])
        else:
            self.journal.tell("calibration", 1, f"{len(placement.points)} tensors have a grid")
        return {name: self.found[name, bits[name]] for name in placement.points}

    def _grid(self, observed: ActivationRange, bits: int) -> ActivationGrid:
        if self.job.target.float8:  # fine near 0 whatever the range, so nothing is clipped
            return float8_grid(*choose_range(observed, "minmax"))
        low, high = choose_range(observed, self.spec.activation_range, bits)
        return symmetric_grid(low, high) if self.job.target.symmetric else activation_grid(low, high, bits)
