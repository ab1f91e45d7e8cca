"""Grids of the activations that a file rounds, found from the calibration samples once for all files of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quant_core.calibration import RangeWatch, Samples, choose_range, ranges_in_parts
from quant_core.calibration.activation_range import ActivationRange
from quant_core.export import Placement
from quant_core.ingest.maxima import before_maxima
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, activation_grid
from quant_core.quantizers.activation import float8_grid, symmetric_grid
from quant_core.quantizers.activation_worth import Floats, activation_worth
from quant_core.sensitivity import Batch
from quant_core.spec import QuantizeSpec
from quant_core.spec.bits import WIDE_BITS

_BYTE = 8  # bits
_MACS, _FEWEST, _MOST = 1e10, 4, 16
"""Products in a run of the samples that tell what errors are worth, and their number."""


@dataclass(eq=False)
class ActivationGrids:
    """Finds grids, and keeps what it has found.

    Attributes:
        job: The prepared job.
        spec: The request.
        journal: Told what happens.
        parts: Calibration samples; a part that comes twice counts once.
        watches: What was shown the parts, where they ran for another's sake.
        batches: Samples that tell what errors are worth at the outputs; none are needed but for ranges by `output`.
        found: Grids found so far, by tensor and bits.
    """

    job: Prepared
    spec: QuantizeSpec
    journal: Journal
    parts: Sequence[Samples]
    watches: Sequence[RangeWatch] = ()
    batches: Sequence[Batch] = ()
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
                self.watches,
                batch_size=self.job.batch_size,
                device=self.job.device,
                on_batch=lambda done, total: self.journal.tell(
                    "calibration", done / total, f"activation ranges: {done} of {total} samples"
                ),
            )
            worth = self._worth({name: seen for name, seen in ranges.items() if bits[name] == _BYTE})
            for name, observed in ranges.items():
                self.found[name, bits[name]] = self._grid(observed, bits[name], worth.get(name))
        else:
            self.journal.tell("calibration", 1, f"{len(placement.points)} tensors have a grid")
        return {name: self.found[name, bits[name]] for name in placement.points}

    def _worth(self, ranges: Mapping[str, ActivationRange]) -> Mapping[str, Floats]:
        """Tensor -> what errors of its values are worth, where ranges are chosen by that."""
        if self.spec.activation_range is None:
            maximised = before_maxima(self.job.model)
            ranges = {name: observed for name, observed in ranges.items() if name in maximised}
        elif self.spec.activation_range != "output":
            return {}
        if self.job.target.float8 or not ranges:
            return {}
        left = int(min(_MOST, max(_FEWEST, _MACS / max(1, sum(layer.macs for layer in self.job.layers)))))
        feeds = []
        for batch in self.batches:
            if left <= 0:
                break
            feeds.append((batch if self.job.samples.batch else batch.part(0, min(left, batch.size))).feeds)
            left -= batch.size
        return activation_worth(self.job.program, feeds, ranges, self.spec.seed)

    def _grid(self, observed: ActivationRange, bits: int, worth: Floats | None) -> ActivationGrid:
        if self.job.target.float8:  # fine near 0 whatever the range, so nothing is clipped
            return float8_grid(*choose_range(observed, "minmax"))
        low, high = choose_range(observed, self.spec.activation_range or "output", bits, worth)
        return symmetric_grid(low, high) if self.job.target.symmetric else activation_grid(low, high, bits)
