"""Every layer at every candidate width, as it would be exported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import onnx_ir as ir

from quant_core.calibration import RangeWatch, Samples
from quant_core.codes import QuantizedWeight
from quant_core.executor import Program
from quant_core.executor.heap import trim_heap
from quant_core.executor.side_by_side import side_by_side
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.quantizers.adaround import adaround
from quant_core.quantizers.bias_correction import find_bias
from quant_core.quantizers.chance import chance_of
from quant_core.quantizers.coordinate_descent import descend
from quant_core.quantizers.gptq import Improve, gptq
from quant_core.quantizers.input_moments import KeptMoments, Moments, has_moments, input_moments, joined
from quant_core.quantizers.principal_moments import INDEPENDENT_PER_SAMPLE
from quant_core.quantizers.read_positions import seeing_batch
from quant_core.quantizers.rows import rows_shape
from quant_core.quantizers.stochastic import round_stochastically
from quant_core.quantizers.table_moments import is_table, table_moments
from quant_core.quantizers.weight import quantize_weight
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.spec.progress import Tell
from quant_core.spec.weight_grid import WeightGrid

_MOMENT_BYTES = 1 << 30

RoundedWeights = Mapping[str, Mapping[int, QuantizedWeight]]
"""Layer name -> bits -> codes and scales."""


def round_weights(
    program: Program,
    model: ir.Model,
    layers: Sequence[Layer],
    widths: Mapping[str, Collection[int]],
    samples: Samples,
    options: WeightOptions,
    *,
    batch_size: int,
    device: str,
    seed: int,
    on_progress: Tell,
    more: Samples | None = None,
    given: RoundedWeights | None = None,
    kept: KeptMoments | None = None,
    watch: RangeWatch | None = None,
) -> RoundedWeights:
    """Round each layer at each of its widths.

    GPTQ and FOEM round what is multiplied with input columns, GPTQ tables too, by how the outputs move with their
    columns; left-hand operands are rounded to the nearest code. Biases of what is multiplied make up for the change of
    their layer's mean output.

    Args:
        program: The float program.
        model: The graph it was compiled from.
        layers: The layers.
        widths: Layer name -> candidate bits; float is passed over.
        samples: Calibration samples.
        options: How weights find their codes. What tunes the codes of a plan starts from GPTQ, which is what it gets
            here.
        batch_size: Samples a run.
        device: Where the program computes.
        seed: Seed of the choice of positions for GPTQ, and of stochastic rounding.
        on_progress: Called with the fraction done and a message; may raise to stop.
        more: Samples beyond those.
        given: What was rounded with `samples` alone, whose ranges are kept; others are then found with all.
        kept: Where the input moments of `samples` are found, or left for the next time.
        watch: Shown the first run over `samples` that moments are taken from, if there is one.

    Returns:
        Layer name -> bits -> codes and scales.
    """
    rounded: dict[str, Mapping[int, QuantizedWeight]] = {}
    integer = {layer.name: [b for b in widths[layer.name] if b != FLOAT_BITS] for layer in layers}
    by_moments = [
        layer for layer in layers if not options.by_value and integer[layer.name] and has_moments(layer)
    ]
    by_value = [layer for layer in layers if layer not in by_moments]
    total = len(layers)

    def tell(message: str, extra: float = 0.0) -> None:
        on_progress(min(1.0, (len(rounded) + extra) / total), message)

    kept = KeptMoments(limit=0) if kept is None else kept
    for group in _groups(by_moments):
        start = len(rounded)

        def observed(done: int, of: int, size: int = len(group)) -> None:
            tell(f"input moments of {size} layers: {done} of {of} samples", 0.5 * size * done / of)

        moments: dict[str, Moments] = {}
        for part in (samples,) if more is None else (samples, more):
            known = kept.find(group) if part is samples else {}
            lacking = [layer for layer in group if layer.name not in known]
            if lacking:
                known |= input_moments(
                    program,
                    model,
                    lacking,
                    part,
                    batch_size=batch_size,
                    device=device,
                    seed=seed,
                    on_batch=observed,
                    like=moments or None,
                    watch=watch if part is samples else None,
                )
                watch = None
            if part is samples:
                kept.keep(known)
            moments = {
                name: joined(moments[name], found) if name in moments else found
                for name, found in known.items()
            }

        def fitted(layer: Layer, moments: dict[str, Moments] = moments) -> Mapping[int, QuantizedWeight]:
            return gptq(
                layer,
                stored_tensor(model, layer.weight).numpy(),
                moments.pop(layer.name),
                integer[layer.name],
                find_bias(model, layer) if options.bias_correction else None,
                beta=options.foem_beta if options.rounding == "foem" else 0.0,
                grid_of=options.grid,
                improve=improvement(options),
                given=None if given is None else given[layer.name],
            )

        # The longest first, so that no core waits for the last of them.
        turns = sorted(group, key=_operations, reverse=True)
        with closing(side_by_side(fitted, turns)) as pieces:
            for index, (layer, found) in enumerate(zip(turns, pieces, strict=True)):
                rounded[layer.name] = found
                done = (start + 0.5 * (len(group) + index + 1)) / total
                on_progress(done, f"{'FOEM' if options.rounding == 'foem' else 'GPTQ'} {layer.name}")
    tables = [layer for layer in by_value if not options.by_value and integer[layer.name] and is_table(layer)]
    settled = {layer.name for layer in tables if given is not None and layer.name in given}
    seen = table_moments(
        program,
        [layer for layer in tables if layer.name not in settled],
        samples,
        batch_size=batch_size if samples.batch else min(batch_size, seeing_batch(layers)),
        device=device,
        seed=seed,
    )
    for layer in by_value:
        weight = stored_tensor(model, layer.weight).numpy()
        if given is not None and layer.name in settled:
            rounded[layer.name] = {bits: given[layer.name][bits] for bits in integer[layer.name]}
            continue
        if layer.name in seen:
            rounded[layer.name] = gptq(
                layer,
                weight,
                seen[layer.name],
                integer[layer.name],
                grid_of=lambda bits: _of_tables(options, bits),
            )
            tell(f"GPTQ {layer.name}")
            continue
        nearest = {
            bits: quantize_weight(weight, bits, layer.step_axis(options.grid(bits)), options.grid(bits))
            for bits in integer[layer.name]
        }
        rounded[layer.name] = nearest
        if options.rounding == "stochastic":
            rounded[layer.name] = {
                bits: round_stochastically(weight, start, chance_of(seed, layer.name, bits))
                for bits, start in nearest.items()
            }
        tell(f"rounded {layer.name}")
    trim_heap()
    return rounded


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
