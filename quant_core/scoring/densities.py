"""Eigenvalue densities of the loss, beside the scores."""

from __future__ import annotations

from pathlib import Path

from quant_core.artifacts import SPECTRUM_HTML, SPECTRUM_JSON
from quant_core.calibration import Samples
from quant_core.preparation import Prepared
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.report.spectrum_page import render_spectrum
from quant_core.scoring.question import asked
from quant_core.sensitivity.spectra import spectra, spectrum_table
from quant_core.spec import Request
from quant_core.spec.progress import Tell
from quant_core.spec.spectrum import SpectrumTable


def estimate_densities(
    job: Prepared, samples: Samples, rounded: RoundedWeights, request: Request, tell: Tell
) -> SpectrumTable:
    """Estimate the eigenvalue density of the loss's Hessian, of every layer and of the whole network.

    Args:
        job: The prepared job.
        samples: Samples to estimate with; a few are used.
        rounded: Every layer at each of its widths.
        request: What is asked.
        tell: Called with the fraction done and a message.

    Returns:
        The densities.
    """
    with asked(job, samples, rounded, request, tell) as question:
        return spectrum_table(question.objective.name, request.seed, spectra(question))


def write_densities(model: str, densities: SpectrumTable, folder: Path) -> None:
    """Write `spectrum.json` and `spectrum.html`.

    Args:
        model: File name of the model.
        densities: The densities.
        folder: An existing folder.
    """
    (folder / SPECTRUM_JSON).write_text(densities.model_dump_json(indent=1))
    (folder / SPECTRUM_HTML).write_text(render_spectrum(model, densities), encoding="utf-8")
