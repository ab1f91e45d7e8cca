"""The layers of a quantized file that lose most, and what more bits would give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quant_core.debugging.case import Case, read_case
from quant_core.debugging.variants import Outputs, Variants
from quant_core.errors import ModelError
from quant_core.ingest import Layer
from quant_core.quantizers import quantize_weight
from quant_core.spec.debugging import Debugging, LayerFinding
from quant_core.spec.progress import Tell, tell_nobody
from quant_core.spec.weight_grid import WeightGrid
from quant_core.verification import Difference
from quant_core.verification.float_twins import FloatTwins

_BYTE = 8


def debug(
    model: Path,
    quantized: Path,
    data: Path,
    *,
    worst: int = 10,
    samples: int = 32,
    on_progress: Tell = tell_nobody,
) -> Debugging:
    """Find the layers of a quantized file that lose most, and try what other weights would give back.

    One run with a twin beside every layer that has its float weight shows where error enters; then each of the worst
    layers gets its float weight, and one of 8 bits, and the output is compared again. Nodes run as they are written,
    without onnxruntime's fusions.

    Args:
        model: The float ONNX file.
        quantized: The quantized file, or the folder of the job that made it: then layers whose channels were scaled
            are understood, bits are known, and the job's held-back samples are run. A file that lies in such a folder
            stands for it.
        data: The sample file; that of the job where its folder is known.
        worst: Layers to try other weights for.
        samples: The most samples run.
        on_progress: Told what is done; may raise to stop.

    Returns:
        The layers, worst first.

    Raises:
        ModelError: If the files are no models, or have no layer in common.
        SamplesError: If the samples do not fit.
    """
    case = read_case(model, quantized, data, samples, on_progress)
    twins = FloatTwins(case.quantized, case.model, case.layers)
    if not twins.found:
        raise ModelError(
            "no layer of the float model is found in the quantized file by the name of its node or output.",
            remedy="Give the float model that the file was made from.",
            where=str(case.path),
        )
    with Variants(case, twins) as runs:
        on_progress(0.1, f"{len(twins.found)} layers against their float weights")
        base, gathered, own = runs.everything()
        if not base.parts:
            raise ModelError(
                "the sizes of all outputs depend on what the net finds, so nothing can be compared.",
                remedy="Give scores or boxes before their selection out as well.",
                where=model.name,
            )
        chosen = sorted(twins.found, key=lambda layer: own[layer.name].sqnr_db)[:worst]
        gains: dict[str, _Gain] = {}
        for index, layer in enumerate(chosen):
            on_progress(0.2 + 0.8 * index / len(chosen), f"other weights for {layer.name}")
            gains[layer.name] = _gain(runs, layer, base)
    found = [_finding(layer, case, gathered, own, gains.get(layer.name, _Gain())) for layer in twins.found]
    names = {layer.name for layer in twins.found}
    return Debugging(
        model=str(model),
        quantized=str(case.path),
        output=", ".join(base.parts),
        samples=case.samples.count,
        output_sqnr_db=base.sqnr_db,
        layers=tuple(sorted(found, key=_badness)),
        not_found=tuple(layer.name for layer in case.layers if layer.name not in names),
    )


@dataclass(frozen=True)
class _Gain:
    """What other weights for one layer give back; None where they were not tried.

    Attributes:
        whole: Decibels of its float weight.
        byte: Decibels of one of 8 bits.
        share: Share of the noise that goes with the float weight.
    """

    whole: float | None = None
    byte: float | None = None
    share: float | None = None


def _gain(runs: Variants, layer: Layer, base: Outputs) -> _Gain:
    weight = runs.weights[layer.weight]
    whole = runs.output_with(layer, weight)
    share = 1 - whole.noise / base.noise if base.noise else 0.0
    wide, narrow = runs.case.bits.get(layer.name, (0, None))
    if (narrow or wide) >= _BYTE:
        return _Gain(whole.gain_db(base), None, share)
    codes = quantize_weight(weight, _BYTE, layer.step_axis(WeightGrid()))
    return _Gain(whole.gain_db(base), runs.output_with(layer, codes.dequantize()).gain_db(base), share)


def _finding(
    layer: Layer,
    case: Case,
    gathered: Mapping[str, Difference | None],
    own: Mapping[str, Difference],
    gain: _Gain,
) -> LayerFinding:
    wide, narrow = case.bits.get(layer.name, (None, None))
    so_far = gathered[layer.name]
    return LayerFinding(
        name=layer.name,
        op=layer.op,
        parameters=layer.parameters,
        weight_bits=wide,
        narrow_bits=narrow,
        sqnr_db=None if so_far is None else so_far.sqnr_db,
        own_sqnr_db=own[layer.name].sqnr_db,
        float_gain_db=gain.whole,
        byte_gain_db=gain.byte,
        share=gain.share,
    )


def _badness(layer: LayerFinding) -> tuple[bool, float]:
    if layer.float_gain_db is not None:
        return False, -layer.float_gain_db
    return True, layer.own_sqnr_db
