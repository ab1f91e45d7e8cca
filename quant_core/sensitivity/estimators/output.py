"""Output perturbation: the loss increase measured with one layer at a time in few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.processors.heap import trim_heap
from quant_core.processors.side_by_side import side_by_side
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.estimators.foretold import Changes, changes_of
from quant_core.sensitivity.estimators.proportions import proportions
from quant_core.sensitivity.float_run import FloatRun, Quantized, Rows, float_runs
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.probe_log import Once, anew
from quant_core.sensitivity.running.units import RunUnits, in_turn
from quant_core.spec.progress import Tell, tell_nobody

_FEW = 32
"""Samples before a standard error is believed."""

_FEWEST_SHARED = 8
"""Samples of a batch that is measured in parts; full batches are of networks whose runs are cheap, and are measured as
a whole."""

_ON_ALL = 4
"""One layer in so many, the last ones, whose runs are short, tells how much more some samples cost than others."""

_WELL_KNOWN = 0.9
"""Share of the scores that must be known to the tolerance; the rest have a few samples that weigh heavily."""


@dataclass(frozen=True, eq=False)
class LossIncrease:
    """Measured increase of the mean loss.

    Attributes:
        increase: Layers x bit-widths; NaN where the network gave NaN or infinity, or nothing was asked.
        stderr: Standard error over samples; NaN for a single sample.
        samples: Number of samples.
        stopped: Why the measurement ended.
    """

    increase: Floats
    stderr: Floats
    samples: int
    stopped: str


def output(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    quantized: Sequence[Sequence[Quantized]],
    *,
    tolerance: float = 0.0,
    foretell: bool = False,
    divisible: bool = True,
    on_progress: Tell = tell_nobody,
    run: RunUnits = in_turn,
    once: Once = anew,
) -> LossIncrease:
    """Measure `mean_n [L_n(layer i at b bits) - L_n(all float)]` for every layer and bit-width.

    One forward pass each, from the layer on: tensors that do not depend on its weight are kept from one float run
    over the batch. The reference of divergence and squared error is the float network's output.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples; the tensors of one batch are held at a time.
        quantized: Layers x bit-widths: the weights as they would be exported.
        tolerance: Stop once nine in ten scores have this relative standard error; 0 to use all batches.
        foretell: Take widths from coarser ones by the layer's own error where that agrees, `foretold.py`, and half of
            the samples from the others where the last layers show that these suffice, `proportions.py`.
        divisible: Whether the network takes parts of a batch.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the batches off; where it ends early, time was up.
        once: Gives what one layer does to one batch, where an earlier attempt measured it.

    Returns:
        Increases with standard errors.

    Raises:
        NonFiniteError: If the network gives NaN or infinity even with float weights.
    """
    sums = IncreaseSums.empty(quantized)
    work, known = max(1, len(batches) * int(sums.asked.sum())), 0

    def measure(index: int, _: int) -> Floats:
        part = IncreaseSums.empty(quantized)
        done = index * int(part.asked.sum())

        def increases(lacking: Sequence[int]) -> Iterator[Floats]:
            if not lacking:
                return
            parts = _parts(batches[index]) if foretell and divisible else [batches[index]]
            runs = list(float_runs(program, layers, objective, parts))

            found = _all_changes(runs, layers, quantized, lacking, foretell=foretell)
            for i, changes in zip(lacking, found, strict=True):
                alone = IncreaseSums.empty([quantized[i]])
                for k, (change, measured) in enumerate(changes):
                    alone.take(0, k, change, measured=measured)
                yield alone.packed()[:, 0]

        with closing(once(index, range(len(layers)), increases)) as pieces:
            for i, found in enumerate(pieces):
                part.put(i, found)
                done += len(quantized[i])
                on_progress(done / work, f"{layers[i].name} at {len(quantized[i])} bit-widths")
        return part.packed()

    with closing(run(measure, ((index, 0) for index in range(len(batches))))) as results:
        for batch, (added, squares, foretold) in zip(batches, results, strict=False):
            sums.sums += added
            sums.squares += squares
            sums.foretold += foretold
            sums.count += batch.size
            known += int(sums.asked.sum())
            on_progress(known / work, f"{sums.count} samples")
            if sums.known(tolerance):
                break
    result = sums.finish(tolerance, sum(batch.size for batch in batches))
    trim_heap()
    on_progress(1.0, f"{result.samples} samples, {result.stopped}")
    return result


def _parts(batch: Batch) -> list[Batch]:
    """Samples to compare widths on, others that are measured with them, and those that may follow from both."""
    if not _FEWEST_SHARED <= batch.size < _FEW:
        return [batch]
    few, half = batch.size // 8, batch.size // 2
    return [batch.part(0, few), batch.part(few, half), batch.part(half, batch.size)]


def _all_changes(
    runs: Sequence[FloatRun],
    layers: Sequence[Layer],
    quantized: Sequence[Sequence[Quantized]],
    lacking: Sequence[int],
    *,
    foretell: bool,
) -> Iterator[Changes]:
    """What layers do to one batch: measured on all samples, or on the first parts where these suffice."""

    def on(runs: Sequence[FloatRun]) -> Callable[[int], Changes]:
        # Widths are compared on half of what is measured.
        half = max(1, len(runs) - 1)
        return lambda i: changes_of(runs, layers[i], quantized[i], foretell=foretell, compared=half)

    device, some = runs[0].program.device, runs[:-1]
    last = range(len(layers) - len(layers) // _ON_ALL, len(layers))
    if len(some) < 2 or not last or set(last).issuperset(lacking):
        yield from side_by_side(on(runs), lacking, device)
        return
    known = dict(zip(last, side_by_side(on(runs), last, device), strict=True))
    finest = [[change for change, measured in known[i] if measured][-1] for i in last if quantized[i]]
    few = proportions(finest, sum(run.batch.size for run in some))
    others = [i for i in lacking if i not in known]
    for changes in side_by_side(on(runs if few is None else some), others, device):
        yield changes if few is None else [(few.extended(change), told) for change, told in changes]
    yield from (known[i] for i in lacking if i in known)


@dataclass(eq=False)
class IncreaseSums:
    """Sums over samples that a `LossIncrease` is made of.

    Attributes:
        asked: Layers x bit-widths: whether there is such a weight.
        sums: Sum of the increases, layers x bit-widths.
        squares: Sum of their squares.
        foretold: In how many batches they were not measured.
        count: Number of samples whose increases are all added.
    """

    asked: npt.NDArray[np.bool_]
    sums: Floats
    squares: Floats
    foretold: Floats
    count: int = 0

    @classmethod
    def empty(cls, quantized: Sequence[Sequence[Quantized]]) -> IncreaseSums:
        """Start with no samples.

        Args:
            quantized: Layers x bit-widths.

        Returns:
            Sums of zero.
        """
        shape = (len(quantized), max((len(row) for row in quantized), default=0))
        asked = np.array([[k < len(row) for k in range(shape[1])] for row in quantized]).reshape(shape)
        return cls(asked, np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, layer: int, width: int, run: FloatRun, rows: Rows) -> None:
        """Add what one layer at one bit-width does to a batch.

        Args:
            layer: Position of the layer.
            width: Position of the bit-width.
            run: The batch with float weights.
            rows: Its outputs with that weight rounded.
        """
        self.take(layer, width, (run.per_sample(rows) - run.before).double())

    def take(self, layer: int, width: int, change: torch.Tensor, *, measured: bool = True) -> None:
        """Add what one layer at one bit-width does to a batch.

        Args:
            layer: Position of the layer.
            width: Position of the bit-width.
            change: Change of the loss of every sample, float64.
            measured: Whether it was measured.
        """
        self.foretold[layer, width] += not measured
        self.sums[layer, width] += float(change.sum())
        self.squares[layer, width] += float(change.square().sum())

    def put(self, layer: int, found: Floats) -> None:
        """Set what one layer does to a batch.

        Args:
            layer: Position of the layer.
            found: Its row of each table, [3, bit-widths].
        """
        count = found.shape[1]
        self.sums[layer, :count], self.squares[layer, :count], self.foretold[layer, :count] = found

    def packed(self) -> Floats:
        """Put the tables into one array, [3, layers, bit-widths]."""
        return np.stack([self.sums, self.squares, self.foretold])

    def known(self, tolerance: float) -> bool:
        """Tell whether the increases are known well enough.

        Args:
            tolerance: Wanted relative standard error of nine in ten.

        Returns:
            Whether they are; never before 32 samples.
        """
        return self.count >= _FEW and _relative_error(*mean_and_error(*self._moments())) <= tolerance

    def finish(self, tolerance: float, samples: int) -> LossIncrease:
        """Turn the sums into means.

        Args:
            tolerance: What `known` was asked with.
            samples: How many samples there are.

        Returns:
            Increases with standard errors.
        """
        mean, stderr = mean_and_error(*self._moments())
        missing = np.where(self.asked, 0.0, np.nan)
        known = f"{_WELL_KNOWN:.0%} of the scores known to {tolerance:.0%}"
        used = "all samples used" if self.count == samples else "time limit"
        stopped = known if self.known(tolerance) else used
        if self.foretold.any():
            share = f"{np.count_nonzero(self.foretold)} of {np.count_nonzero(self.asked)}"
            stopped += f"; {share} scores follow from coarser widths by the layer's own error"
        return LossIncrease(mean + missing, stderr + missing, self.count, stopped)

    def _moments(self) -> tuple[Floats, Floats, int]:
        return self.sums, self.squares, self.count


def mean_and_error(sums: Floats, squares: Floats, count: int) -> tuple[Floats, Floats]:
    """Give the mean over samples and its standard error.

    Args:
        sums: Sum over the samples, any shape.
        squares: Sum of squares.
        count: Number of samples.

    Returns:
        Mean and standard error; NaN where the mean is not finite, the error also for a single sample.
    """
    with np.errstate(invalid="ignore"):
        mean = sums / count
        variance = np.maximum(squares / count - mean**2, 0.0) / max(count - 1, 1)
    bad = np.where(np.isfinite(mean), 0.0, np.nan)
    unknown = np.nan if count < 2 else 0.0
    return mean + bad, np.sqrt(variance) + bad + unknown


def _relative_error(mean: Floats, stderr: Floats) -> float:
    known = np.isfinite(mean) & (stderr > 0)
    if not known.any():
        return 0.0
    return float(
        np.quantile(stderr[known] / np.maximum(np.abs(mean[known]), np.finfo(float).tiny), _WELL_KNOWN)
    )
