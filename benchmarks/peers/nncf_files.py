"""Files of NNCF's ONNX side (https://github.com/openvinotoolkit/nncf), which runs without OpenVINO."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx

from benchmarks.peers.tools import batches, samples_of


def quantize(
    model: Path, samples: Path, folder: Path, *, count: int = 128, transformer: bool = False
) -> None:
    """Quantize weights and activations to 8 bits, with NNCF's bias correction and equalisation.

    Args:
        model: The float model.
        samples: Calibration samples.
        folder: Receives `model.onnx`.
        count: The most samples calibrated on.
        transformer: Whether to tell NNCF that it is a transformer.

    Raises:
        ModuleNotFoundError: If NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ModuleNotFoundError("NNCF is not installed: pip install -c constraints.txt --group peers")
    import nncf

    few = {name: array[:count] for name, array in samples_of(samples).items()}
    found = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(batches(few, 1)),
        subset_size=count,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    onnx.save(found, folder / "model.onnx")
