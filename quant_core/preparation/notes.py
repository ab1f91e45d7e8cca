"""What the user should know of samples and grids before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from quant_core.allocation.candidates import Candidates
from quant_core.calibration import Samples
from quant_core.export import Form, Target
from quant_core.ingest import Layer
from quant_core.spec import QuantizeSpec, WeightOptions

_FEWEST_DISTINCT = 0.9
"""Share of the samples: a copy here and there moves no figure by much."""


def copies_note(samples: Samples) -> tuple[str, ...]:
    """Warn where held-back samples are among those that decide: what they judge, they have seen.

    Args:
        samples: The user's samples.

    Returns:
        The warning, if one is due.
    """
    distinct = samples.distinct
    if distinct > _FEWEST_DISTINCT * samples.count:
        return ()
    note = (
        f"Only {distinct} of the {samples.count} samples differ from each other. Held-back ones that are copies of "
        "those that the file is made with look better than others would: give each sample once."
    )
    return (note,)


def grid_note(
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    model: ir.Model,
    spec: QuantizeSpec,
    target: Target,
) -> tuple[str, ...]:
    """Say which widths run in float because of their grid alone.

    Args:
        layers: The layers.
        candidates: Layer name -> bits it may be given.
        model: The normalised model.
        spec: The request.
        target: The runtime.

    Returns:
        The note, if there are such widths.
    """

    def form(layer: Layer, bits: int, options: WeightOptions) -> Form | None:
        return target.form(layer, model, bits, spec.default_activation_bits, options.grid(bits))

    widths = sorted(
        {
            bits
            for layer in layers
            for bits in candidates[layer.name].bits
            if not spec.grid(bits).suits_int8_kernels(bits)
            and form(layer, bits, spec) == "weight_only"
            and form(layer, bits, WeightOptions()) in {"static", "dynamic"}
        }
    )
    if not widths:
        return ()
    listed, grid = ", ".join(map(str, widths)), spec.grid(widths[-1])
    nearest = "granularity channel" if grid.format == "int" and grid.block else "symmetric weights"
    note = (
        f"No integer kernel takes the grid of layers of {listed} bits: they run in float, unpacked at load. The "
        f"nearest that has one: {'weight_format int' if grid.format != 'int' else nearest}."
    )
    return (note,)
