"""Every layer at every candidate width, as it would be exported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy.typing as npt

from quant_core.codes import QuantizedWeight
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.processors.heap import trim_heap
from quant_core.processors.side_by_side import side_by_side
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.chance import chance_of
from quant_core.quantizers.grids.weight import quantize_weight
from quant_core.quantizers.moments.calibration_moments import CalibrationMoments
from quant_core.quantizers.moments.input_moments import InputMoments, Moments, has_moments
from quant_core.quantizers.moments.principal_moments import INDEPENDENT_PER_SAMPLE
from quant_core.quantizers.moments.rows import rows_shape
from quant_core.quantizers.moments.table_moments import is_table
from quant_core.quantizers.rounding.adaround import adaround
from quant_core.quantizers.rounding.coordinate_descent import descend
from quant_core.quantizers.rounding.gptq import Improve, gptq
from quant_core.quantizers.rounding.stochastic import round_stochastically
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.spec.progress import Tell
from quant_core.spec.weight_grid import WeightGrid

_MOMENT_BYTES = 1 << 30
"""Bytes of moments that are held at a time."""

RoundedWeights = Mapping[str, Mapping[int, QuantizedWeight]]
"""Layer name -> bits -> codes and scales."""


def round_weights(
    calibration: CalibrationMoments,
    widths: Mapping[str, Collection[int]],
    options: WeightOptions,
    *,
    on_progress: Tell,
    given: RoundedWeights | None = None,
) -> RoundedWeights:
    """Round each layer of a network at each of its widths.

    GPTQ and FOEM round what is multiplied with input columns, GPTQ tables too, by how the outputs move with their
    columns; left-hand operands are rounded to the nearest code. Biases of what is multiplied make up for the change of
    their layer's mean output.

    Args:
        calibration: The network and its calibration samples; their seed is also that of stochastic rounding.
        widths: Layer name -> candidate bits; float is passed over.
        options: How weights find their codes. What tunes the codes of a plan starts from GPTQ, which is what it gets
            here.
        on_progress: Called with the fraction done and a message; may raise to stop.
        given: What was rounded without the samples that joined, whose ranges are kept; others are then found with all.

    Returns:
        Layer name -> bits -> codes and scales.
    """
    layers = calibration.network.layers
    integer = {layer.name: [b for b in widths[layer.name] if b != FLOAT_BITS] for layer in layers}
    by_moments = [
        layer for layer in layers if not options.by_value and integer[layer.name] and has_moments(layer)
    ]
    by_value = [layer for layer in layers if layer not in by_moments]
    rounding = _Rounding(calibration, integer, options, given or {})
    rounded: dict[str, Mapping[int, QuantizedWeight]] = {}
    total = len(layers)
    for group in _groups(by_moments):
        start = len(rounded)

        def observed(done: int, of: int, start: int = start, size: int = len(group)) -> None:
            told = f"input moments of {size} layers: {done} of {of} samples"
            on_progress(min(1.0, (start + 0.5 * size * done / of) / total), told)

        moments = calibration.of(group, observed)
        # The longest first, so that no core waits for the last of them.
        turns = sorted(group, key=_operations, reverse=True)
        with closing(side_by_side(partial(rounding.by_moments, moments=moments), turns)) as pieces:
            for index, (layer, found) in enumerate(zip(turns, pieces, strict=True)):
                rounded[layer.name] = found
                done = (start + 0.5 * (len(group) + index + 1)) / total
                on_progress(done, f"{'FOEM' if options.rounding == 'foem' else 'GPTQ'} {layer.name}")
    tables = calibration.of_tables(rounding.new_tables(by_value))
    for layer in by_value:
        rounded[layer.name] = rounding.by_value(layer, tables.get(layer.name))
        on_progress(min(1.0, len(rounded) / total), f"rounded {layer.name}")
    trim_heap()
    return rounded


@dataclass(frozen=True, eq=False)
class _Rounding:
    """How each layer of a network is rounded; `widths` are those without float."""

    calibration: CalibrationMoments
    widths: Mapping[str, Sequence[int]]
    options: WeightOptions
    given: RoundedWeights

    def _stored(self, layer: Layer) -> npt.NDArray[Any]:
        return stored_tensor(self.calibration.network.model, layer.weight).numpy()

    def by_moments(self, layer: Layer, moments: dict[str, Moments]) -> Mapping[int, QuantizedWeight]:
        """Codes of a layer by its input moments, which are taken out of those given."""
        return gptq(
            layer,
            self._stored(layer),
            moments.pop(layer.name),
            self.widths[layer.name],
            find_bias(self.calibration.network.model, layer) if self.options.bias_correction else None,
            beta=self.options.foem_beta if self.options.rounding == "foem" else 0.0,
            grid_of=self.options.grid,
            improve=improvement(self.options),
            given=self.given.get(layer.name),
        )

    def new_tables(self, layers: Sequence[Layer]) -> list[Layer]:
        """The tables among some layers that are not rounded yet."""
        return [layer for layer in layers if self._is_by_curvature(layer) and layer.name not in self.given]

    def _is_by_curvature(self, layer: Layer) -> bool:
        return not self.options.by_value and bool(self.widths[layer.name]) and is_table(layer)

    def by_value(self, layer: Layer, moments: InputMoments | None) -> Mapping[int, QuantizedWeight]:
        """Codes of a layer that has no input columns: nearest ones, or of a table by its moments."""
        widths = self.widths[layer.name]
        if layer.name in self.given and self._is_by_curvature(layer):
            return {bits: self.given[layer.name][bits] for bits in widths}
        weight = self._stored(layer)
        if moments is not None:
            return gptq(layer, weight, moments, widths, grid_of=partial(_of_tables, self.options))
        nearest = {
            bits: quantize_weight(
                weight, bits, layer.step_axis(self.options.grid(bits)), self.options.grid(bits)
            )
            for bits in widths
        }
        if self.options.rounding != "stochastic":
            return nearest
        return {
            bits: round_stochastically(weight, start, chance_of(self.calibration.seed, layer.name, bits))
            for bits, start in nearest.items()
        }


def improvement(options: WeightOptions) -> Improve | None:
    """Give what makes integer codes of GPTQ and FOEM better.

    Args:
        options: How weights find their codes.

    Returns:
        Coordinate descent, AdaRound, or nothing.
    """
    if options.rounding == "adaround":
        return adaround
    return descend if options.descent else None


def knows_more(layer: Layer, samples: int) -> bool:
    """Tell whether a layer's codes should be found again with samples that join those they were scored beside.

    Args:
        layer: The layer.
        samples: How many samples there are then.

    Returns:
        True where its codes rest on the moments of its inputs and these are known then: from as many independent
        columns as inputs on, counting 16 of each sample. With fewer, other samples give other codes that are hardly
        better, and a plan is chosen by what the first ones lose.
    """
    _, _, inputs = rows_shape(layer)
    return has_moments(layer) and samples * INDEPENDENT_PER_SAMPLE >= inputs


def _of_tables(options: WeightOptions, bits: int) -> WeightGrid:
    """The grid of a table: ranges of least weight error, for rows differ in what is made of them."""
    grid = options.grid(bits)
    return replace(grid, range_search="mse") if grid.range_search == "hessian" else grid


def _operations(layer: Layer) -> int:
    groups, outputs, inputs = rows_shape(layer)
    return groups * outputs * inputs**2


def _groups(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Cut the layers where their moments together would take too much memory."""
    group: list[Layer] = []
    held = 0
    for layer in layers:
        groups, _, inputs = rows_shape(layer)
        size = 4 * groups * inputs**2
        if group and held + size > _MOMENT_BYTES:
            yield group
            group, held = [], 0
        group.append(layer)
        held += size
    if group:
        yield group
