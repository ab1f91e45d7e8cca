"""Our own files."""

from __future__ import annotations

from pathlib import Path

from quant_core.pipeline import quantize as quantize_model
from quant_core.spec import QuantizeSpec


def quantize(model: Path, samples: Path, folder: Path, **request: object) -> None:
    """Quantize as `bitwright quantize` does.

    Args:
        model: The float model.
        samples: All samples; the engine itself keeps some back.
        folder: Becomes the job's folder.
        request: Fields of `QuantizeSpec`.
    """
    quantize_model(model, samples, QuantizeSpec.model_validate(request), folder)
