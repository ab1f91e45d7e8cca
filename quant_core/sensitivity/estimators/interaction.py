"""What layers in few bits cost together: every pair from the same forward passes that measure each layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.chance import rademacher
from quant_core.sensitivity.batches import Batch
from quant_core.sensitivity.curvature.probes import probe_generator
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.estimators.output import IncreaseSums, LossIncrease, mean_and_error
from quant_core.sensitivity.float_run import FloatRun, Quantized, Rows, float_runs, stand_in_tensors
from quant_core.sensitivity.objective import Objective
from quant_core.sensitivity.running.units import RunUnits, in_turn
from quant_core.spec.progress import Tell, tell_nobody

_STORED = 256 << 20
"""Bytes of output changes that may be held at a time."""

_NARROWEST = 256
"""Numbers a sample that output changes are never folded below."""

_GRAM = 1 << 22
"""Entries of the products of single samples that are made at a time."""


_TRUSTED = 3.0
"""Standard errors below which a pair counts as nothing."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Loss increases of single layers and of all pairs; L layers, K bit-widths, NaN where there is no such choice.

    Attributes:
        layers: Names of the layers.
        increase: Measured increase of the mean loss with one layer rounded, [L, K].
        increase_stderr: Its standard error over samples; NaN for a single sample.
        own: `mean_n 1/2 z^T H z`, the part of it that the curvature in the output explains, [L, K].
        own_stderr: Its standard error.
        pairs: `mean_n z(i,k)^T H z(j,l)`, [L, K, L, K], symmetric; 0 within a layer.
        pairs_stderr: Its standard error.
        samples: Number of samples.
        stopped: Why the measurement ended.
        folded: Numbers a sample that wider output changes were folded to, or 0 where none were.
    """

    layers: tuple[str, ...]
    increase: Floats
    increase_stderr: Floats
    own: Floats
    own_stderr: Floats
    pairs: Floats
    pairs_stderr: Floats
    samples: int
    stopped: str
    folded: int = 0

    @property
    def measured(self) -> LossIncrease:
        """The measured increases, as `output` gives them."""
        return LossIncrease(self.increase, self.increase_stderr, self.samples, self.stopped)

    @property
    def trusted_pairs(self) -> Floats:
        """Pairs shrunk towards 0 by what their errors allow: `pairs * max(0, 1 - (3 stderr / pairs)^2)`, [L, K, L, K].

        For a search over plans, which would pick out the pairs that chance made most negative: there are thousands,
        most of them small beside their errors. With few samples nothing is left and the plan is that of `increase`
        alone. The form is James and Stein's positive part, the factor 3 is from docs/sensitivity.md. To predict a
        given plan, take `pairs`, whose errors average out. With a single sample nothing is known of errors, and all
        is kept.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.clip(1 - (_TRUSTED * self.pairs_stderr / self.pairs) ** 2, 0.0, 1.0)
        return np.asarray(self.pairs * np.where(np.isnan(kept), 1.0, kept), dtype=np.float64)

    def plan_loss(self, choice: npt.ArrayLike, *, curvature: bool = False) -> float:
        """Predict the loss increase of a whole plan: `sum_i increase_i + sum_{i<j} pairs_ij`.

        Args:
            choice: Position of each layer's bit-width, [L]; -1 for float.
            curvature: Take `own` instead of the measured increase.

        Returns:
            The prediction; NaN if the plan holds a choice that was not measured.
        """
        chosen = np.asarray(choice, dtype=np.intp)
        rounded = np.flatnonzero(chosen >= 0)
        widths = chosen[rounded]
        alone = (self.own if curvature else self.increase)[rounded, widths].sum()
        return float(alone + 0.5 * self.pairs[rounded, widths][:, rounded, widths].sum())

    def save(self, path: Path) -> None:
        """Write to a `.npz` file that `load` reads.

        Args:
            path: The file.
        """
        np.savez_compressed(path, allow_pickle=False, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Interactions:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The same numbers.
        """
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        names = tuple(str(name) for name in held.pop("layers"))
        plain = {name: array.item() for name, array in held.items() if array.ndim == 0}
        return cls(layers=names, **(held | plain))


def interactions(
    program: Program,
    layers: Sequence[Layer],
    objective: Objective,
    batches: Sequence[Batch],
    quantized: Sequence[Sequence[Quantized]],
    *,
    tolerance: float = 0.0,
    seed: int = 0,
    on_progress: Tell = tell_nobody,
    run: RunUnits = in_turn,
) -> Interactions:
    """Measure what every pair of layers and bit-widths costs together.

    With z(i,b) the change of the output when layer i runs at b bits, and H the Hessian of the loss in the output,
    `L(all) - L = 1/2 (sum_i z_i)^T H (sum_j z_j) + ...`, as long as changes of the output add up. So one forward pass
    for each layer and bit-width gives all L K (L K - 1) / 2 cross terms, which otherwise take a measurement each
    ("Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision Post-Training Quantization",
    arXiv:2306.04879). H is `S S^T` (for a softmax `diag(p) - p p^T`); what is kept of a pass is `S^T z` in float32.

    Held at a time are the changes of one batch: 4 bytes x samples x choices x outputs a sample. Where that would
    exceed 256 MiB (vocabularies, maps), each sample's `S^T z` is folded at random to fewer numbers that keep inner
    products in the mean (count sketch, Charikar et al., 2002): a pair is then off by about `1/sqrt(width)` of
    `2 sqrt(own_i own_j)` in one sample, less in the mean of many. `own` and `increase` are always exact.

    Args:
        program: The network.
        layers: The layers.
        objective: The loss.
        batches: The samples; the tensors of one batch are held at a time.
        quantized: Layers x bit-widths: the weights as they would be exported.
        tolerance: Stop once nine in ten measured increases have this relative standard error; 0 to use all batches.
        seed: Seed of the folding of wide outputs.
        on_progress: Called with the fraction done and a message; an exception from it ends the work.
        run: Works the batches off; where it ends early, time was up.

    Returns:
        Increases, their curvature parts, and all pairs, with standard errors.

    Raises:
        NonFiniteError: If the network gives NaN or infinity even with float weights.
    """
    places = np.argwhere(IncreaseSums.empty(quantized).asked)
    count = len(places)
    work = max(1, len(batches) * count)

    def measure(index: int, _: int) -> Floats:
        part = _PairSums.empty(quantized, count)
        (one,) = float_runs(program, layers, objective, [batches[index]])
        size, outputs = one.batch.size, sum(rows[0].numel() for rows in one.reference)
        width = min(outputs, max(_NARROWEST, _STORED // (4 * size * max(1, count))))
        fold = _Fold(outputs, width, seed, index, one.reference[0]) if width < outputs else None
        kept = torch.empty(size, count, width, device=program.device)
        for place, (i, k) in enumerate(places):
            with torch.no_grad():
                rows = one.changed(layers[i], stand_in_tensors(program, layers[i], quantized[i][k]))
                part.increases.add(i, k, one, rows)
                pulled = _pull(one, rows)
                half = 0.5 * pulled.double().square().sum(dim=1)
                kept[:, place] = pulled if fold is None else fold(pulled)
            part.own[:, place] += float(half.sum()), float(half.square().sum())
            if place + 1 == count or places[place + 1, 0] != i:
                done = index * count + place + 1
                on_progress(done / work, f"{layers[i].name} at {len(quantized[i])} bit-widths")
        _add_products(kept, *part.pairs)
        part.folded = width if fold is not None else 0
        return part.packed()

    total = _PairSums.empty(quantized, count)
    with closing(run(measure, ((index, 0) for index in range(len(batches))))) as results:
        for number, (batch, result) in enumerate(zip(batches, results, strict=False), start=1):
            total.join(_PairSums.unpacked(result, quantized, count), batch.size)
            on_progress(number * count / work, f"{total.increases.count} samples")
            if total.increases.known(tolerance):
                break
    found = total.finish(layers, places, tolerance, sum(batch.size for batch in batches))
    on_progress(1.0, f"{found.samples} samples, {found.stopped}")
    return found


@dataclass(eq=False)
class _PairSums:
    """Sums over samples: of everything the sum of the values and that of their squares.

    Attributes:
        increases: Those of the measured increases.
        own: Of each choice, [2, choices].
        pairs: Of each two, [2, choices, choices].
        folded: Numbers a sample that outputs were folded to, the most of any batch; 0 where they were not.
    """

    increases: IncreaseSums
    own: Floats
    pairs: Floats
    folded: int = 0

    @classmethod
    def empty(cls, quantized: Sequence[Sequence[Quantized]], count: int) -> _PairSums:
        return cls(IncreaseSums.empty(quantized), np.zeros((2, count)), np.zeros((2, count, count)))

    def packed(self) -> Floats:
        """Put them into the one array that a unit of work gives."""
        tables = (self.increases.sums, self.increases.squares, self.own, self.pairs)
        return np.concatenate([[self.folded], *(table.ravel() for table in tables)])

    @classmethod
    def unpacked(cls, values: Floats, quantized: Sequence[Sequence[Quantized]], count: int) -> _PairSums:
        sums = cls.empty(quantized, count)
        rest = values[1:]
        for table in (sums.increases.sums, sums.increases.squares, sums.own, sums.pairs):
            table[...] = rest[: table.size].reshape(table.shape)
            rest = rest[table.size :]
        sums.folded = int(values[0])
        return sums

    def join(self, batch: _PairSums, samples: int) -> None:
        """Add those of a batch of so many samples."""
        self.increases.sums += batch.increases.sums
        self.increases.squares += batch.increases.squares
        self.increases.count += samples
        self.own += batch.own
        self.pairs += batch.pairs
        self.folded = max(self.folded, batch.folded)

    def finish(
        self, layers: Sequence[Layer], places: npt.NDArray[np.intp], tolerance: float, samples: int
    ) -> Interactions:
        """Turn the sums into means; `places` holds the layer and the bit-width of each choice."""
        measured = self.increases.finish(tolerance, samples)
        at, shape, count = tuple(places.T), self.increases.asked.shape, self.increases.count
        own = [_spread(values, at, shape) for values in mean_and_error(self.own[0], self.own[1], count)]
        pairs = [
            _spread_pairs(values, at, shape) for values in mean_and_error(self.pairs[0], self.pairs[1], count)
        ]
        return Interactions(
            layers=tuple(layer.name for layer in layers),
            increase=measured.increase,
            increase_stderr=measured.stderr,
            own=own[0],
            own_stderr=own[1],
            pairs=pairs[0],
            pairs_stderr=pairs[1],
            samples=measured.samples,
            stopped=measured.stopped,
            folded=self.folded,
        )


class _Fold:
    """Adds the outputs up in as many random groups as there is room for, each with a random sign."""

    def __init__(self, outputs: int, width: int, seed: int, batch: int, like: torch.Tensor) -> None:
        generator = probe_generator(seed, batch)
        self._signs = rademacher(torch.empty(outputs, device=like.device), generator)
        self._group = (torch.randperm(outputs, generator=generator) % width).to(like.device)
        self._width = width

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        folded = values.new_zeros(len(values), self._width)
        return folded.index_add_(1, self._group, values * self._signs)


def _pull(run: FloatRun, rows: Rows) -> torch.Tensor:
    # S^T z of every term side by side, [samples, outputs].
    parts = [
        term.pull(base, row - base).flatten(1)
        for term, base, row in zip(run.objective.terms, run.reference, rows, strict=True)
    ]
    return torch.cat(parts, dim=1).float()


def _add_products(kept: torch.Tensor, sums: Floats, squares: Floats) -> None:
    # Products of single samples, for the spread between them.
    count = kept.shape[1]
    for part in torch.split(kept, max(1, _GRAM // max(1, count) ** 2)):
        products = (part @ part.transpose(1, 2)).double()
        sums += products.sum(dim=0).cpu().numpy()
        squares += products.square_().sum(dim=0).cpu().numpy()


def _spread(values: Floats, at: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, ...]) -> Floats:
    full = np.full(shape, np.nan)
    full[at] = values
    return full


def _spread_pairs(values: Floats, at: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, ...]) -> Floats:
    full = np.full((*shape, *shape), np.nan)
    layer, width = at
    same = layer[:, None] == layer
    full[layer[:, None], width[:, None], layer, width] = np.where(same, 0.0, values)
    return full
