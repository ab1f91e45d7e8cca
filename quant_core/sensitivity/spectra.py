"""Eigenvalue densities of the whole network and of every layer, within a few hundred products."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from quant_core.ingest.macs import affordable_samples
from quant_core.sensitivity.curvature.traces import Floats
from quant_core.sensitivity.estimators.spectrum import Spectrum, spectrum
from quant_core.sensitivity.methods import SECOND
from quant_core.sensitivity.question import Question
from quant_core.spec.spectrum import SpectrumEntry, SpectrumTable

WHOLE = "whole net"

_SAMPLES = 32
_WHOLE_STEPS, _WHOLE_PROBES = 32, 2
_LAYER_STEPS = 12

_MOST_PROBES = 4
"""Probes of a layer where they cost next to nothing: one alone tells a trace without an error."""
_CHEAP_SWEEPS, _CHEAP_MACS = 300, 1e11
"""What all layers may take for that: calls, which small networks spend their time on, and arithmetic."""
_PASSES = 8
"""Passes that a product costs, roughly."""


def spectra(question: Question) -> dict[str, Spectrum]:
    """Estimate the densities on a few samples: each step of each probe is a product with all of them.

    Args:
        question: What is asked.

    Returns:
        Name -> density; the whole network's under `WHOLE`.
    """
    used = min(question.samples, max(_SAMPLES, question.fixed_batch or 1))
    few = dataclasses.replace(
        question.alone(),
        feeds={name: tensor[:used] for name, tensor in question.feeds.items()},
        labels=None if question.labels is None else question.labels[:used],
    )
    steps, probes = _WHOLE_STEPS * _WHOLE_PROBES, _layer_probes(few)
    share = steps / (steps + len(few.layers) * _LAYER_STEPS * probes)
    found = {WHOLE: _spectrum(few.part(0.0, share), None, _WHOLE_STEPS, _WHOLE_PROBES)}
    for i, layer in enumerate(few.layers):
        start = share + (1 - share) * i / len(few.layers)
        asked = few.part(start, start + (1 - share) / len(few.layers))
        found[layer.name] = _spectrum(asked, i, _LAYER_STEPS, probes)
    return found


def spectrum_table(loss: str, seed: int, found: Mapping[str, Spectrum]) -> SpectrumTable:
    """Write densities as a table.

    Args:
        loss: Name of the loss.
        seed: Seed of the probes.
        found: Name -> density.

    Returns:
        The table.
    """
    return SpectrumTable(
        loss=loss,
        samples=max(one.samples for one in found.values()),
        seed=seed,
        spectra=tuple(_entry(name, one) for name, one in found.items()),
    )


def _layer_probes(question: Question) -> int:
    sweeps = max(1, len(question.layers)) * _LAYER_STEPS
    affordable = affordable_samples(question.layers, _CHEAP_MACS, _PASSES * question.samples * sweeps)
    return max(1, min(_MOST_PROBES, _CHEAP_SWEEPS // sweeps, affordable))


def _spectrum(question: Question, layer: int | None, steps: int, probes: int) -> Spectrum:
    size = sum(one.parameters for one in (question.layers if layer is None else [question.layers[layer]]))
    return question.estimate(
        spectrum,
        question.cut(SECOND, clusters=1),
        seed=question.seed,
        steps=min(steps, size),
        probes=probes,
        layer=layer,
    )


def _entry(name: str, one: Spectrum) -> SpectrumEntry:
    finite = bool(np.isfinite(one.values).all())
    trace, stderr = one.moment(1)
    smallest, largest = one.extremes if finite else (None, None)
    return SpectrumEntry(
        name=name,
        parameters=one.parameters,
        values=_rows(one.values) if finite else (),
        weights=_rows(one.weights) if finite else (),
        smallest=smallest,
        largest=largest,
        trace=trace if finite else None,
        trace_stderr=stderr if finite and np.isfinite(stderr) else None,
        frobenius=float(np.sqrt(max(0.0, one.moment(2)[0]))) if finite else None,
    )


def _rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in table)
