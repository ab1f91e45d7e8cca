"""Grids of the activations that a file rounds, found from the calibration samples once for all files of a job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from quant_core.calibration import RangeWatch, Samples, choose_range, ranges_in_parts
from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.discrete_range import discrete_range
from quant_core.calibration.far_samples import far_samples
from quant_core.calibration.output_range import OutputErrors
from quant_core.export import Placement
from quant_core.ingest.macs import affordable_samples
from quant_core.ingest.maxima import before_maxima
from quant_core.ingest.value_bounds import value_bounds
from quant_core.journal import Journal
from quant_core.preparation import Prepared
from quant_core.quantizers import ActivationGrid, activation_grid
from quant_core.quantizers.grids.activation import float8_grid, symmetric_grid
from quant_core.quantizers.simulation.range_errors import range_errors
from quant_core.spec import QuantizeSpec
from quant_core.spec.bits import WIDE_BITS

_BYTE = 8  # bits
_FEWEST, _AT_LEAST, _ENOUGH, _MOST, _SMALL = 4, 16, 64, 96, 256
"""Samples that tell what errors do to the outputs: the fewest, those that are run however large the network is, those
that suffice where there are more, the most, and those that must be affordable where there are fewer than the second,
for jobs of few samples are short."""
_MACS = 2e10
"""Products that one run of these samples may take."""
_LOOK = 1e11
"""Products that a run of those may take which they are picked from."""


@dataclass(eq=False)
class ActivationGrids:
    """Finds grids, and keeps what it has found.

    Attributes:
        job: The prepared job.
        spec: The request.
        journal: Told what happens.
        parts: Calibration samples; a part that comes twice counts once.
        watches: What was shown the parts, where they ran for another's sake.
        batch_size: Samples a run with gradients.
        found: Grids found so far, by tensor and bits.
    """

    job: Prepared
    spec: QuantizeSpec
    journal: Journal
    parts: Sequence[Samples]
    watches: Sequence[RangeWatch] = ()
    batch_size: int = 1
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
                on_batch=lambda done, total: self.journal.tell(
                    "calibration", done / total, f"activation ranges: {done} of {total} samples"
                ),
            )
            errors = self._errors({name: seen for name, seen in ranges.items() if bits[name] == _BYTE})
            bounds = value_bounds(self.job.model)
            for name, observed in ranges.items():
                ends = bounds.get(name, (-math.inf, math.inf))
                self.found[name, bits[name]] = self._grid(observed, bits[name], errors.get(name), ends)
        else:
            self.journal.tell("calibration", 1, f"{len(placement.points)} tensors have a grid")
        return {name: self.found[name, bits[name]] for name in placement.points}

    def _errors(self, ranges: Mapping[str, ActivationRange]) -> Mapping[str, OutputErrors]:
        """Tensor -> what its errors do to the outputs, where ranges are chosen by that."""
        job, method = self.job, self.spec.activation_range
        if method not in {None, "output"} or job.target.float8:
            return {}
        first, *others = {id(part): part for part in self.parts}.values()
        affordable = affordable_samples(job.layers, _MACS)
        count = first.count + sum(part.count for part in others)
        needed = min(count, _ENOUGH) if count >= _AT_LEAST else _SMALL
        if method is None and (count < _FEWEST or affordable < needed):
            maximised = before_maxima(job.model)
            ranges = {name: observed for name, observed in ranges.items() if name in maximised}
        if not ranges:
            return {}
        few = min(_MOST, max(_AT_LEAST, affordable))
        looked_at = reduce(Samples.joined, others, first).spread(
            max(few, affordable_samples(job.layers, _LOOK))
        )
        samples, times = far_samples(job.program, looked_at, ranges, few, batch_size=job.batch_size)
        feeds = ((batch.feeds(job.program.device), batch.count) for batch in samples.batches(self.batch_size))
        errors = range_errors(job.program, feeds, ranges, self.spec.seed)
        return {name: each.repeated(times) for name, each in errors.items()}

    def _grid(
        self, observed: ActivationRange, bits: int, errors: OutputErrors | None, ends: tuple[float, float]
    ) -> ActivationGrid:
        if self.job.target.float8:  # fine near 0 whatever the range, so nothing is clipped
            return float8_grid(*choose_range(observed, "minmax"))
        if bits == _BYTE and self.spec.activation_range is None and not self.job.target.symmetric:
            exact = discrete_range(observed)
            if exact is not None and exact[0] >= min(ends[0], 0.0) and exact[1] <= max(ends[1], 0.0):
                return activation_grid(*exact)
        low, high = choose_range(observed, self.spec.activation_range or "output", bits, errors)
        if ends != (0.0, 0.0):
            # A grid with headroom beyond the end of a Clip would not clip in its place.
            low, high = max(low, min(ends[0], 0.0)), min(high, max(ends[1], 0.0))
        return symmetric_grid(low, high) if self.job.target.symmetric else activation_grid(low, high, bits)
