"""Files of AIMET's ONNX side (https://github.com/quic/aimet).

It wants many packages that nothing else here needs, so it lives in a folder of its own beside the zoo:

    pip install --no-deps --target ~/.cache/bitwright/aimet -r benchmarks/peers/aimet.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from benchmarks.peers.tools import batches, samples_of
from benchmarks.zoo import zoo_folder

_BATCH = 8


def quantize(
    model: Path,
    samples: Path,
    folder: Path,
    *,
    weights: str = "int8",
    equalise: bool = False,
    adaround: int = 0,
    count: int = 128,
) -> None:
    """Quantize with calibrated 8-bit activations and per-channel weights.

    Args:
        model: The float model.
        samples: Calibration samples.
        folder: Receives `model.onnx`.
        weights: int8 or int4.
        equalise: Cross-layer equalisation beforehand.
        adaround: Steps of AdaRound a layer; 0 rounds to the nearest.
        count: The most samples calibrated on.

    Raises:
        ModuleNotFoundError: If AIMET is not installed.
    """
    place = zoo_folder().parent / "aimet"
    if not place.exists():
        raise ModuleNotFoundError(
            "AIMET is not installed: pip install --no-deps --target ~/.cache/bitwright/aimet "
            "-r benchmarks/peers/aimet.txt"
        )
    sys.path.append(str(place))  # last, so that torch and numpy stay ours
    from aimet_onnx import apply_adaround
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
    from aimet_onnx.cross_layer_equalization import equalize_model
    from aimet_onnx.quantsim import QuantizationSimModel

    few = {name: array[:count] for name, array in samples_of(samples).items()}
    loaded = onnx.load(model)
    if equalise:
        equalize_model(loaded)
    else:
        fold_all_batch_norms_to_weight(loaded)
    sim = QuantizationSimModel(loaded, param_type=weights, activation_type="int8")
    if adaround:
        apply_adaround(sim, batches(few, _BATCH), num_iterations=adaround)
    sim.compute_encodings(batches(few, _BATCH))
    found = sim.to_onnx_qdq(prequantize_constants=True, export_int32_bias=True)
    onnx.save(found, folder / "model.onnx")
