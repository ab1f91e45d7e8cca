"""Files of onnxruntime's own tools: static, dynamic, and block-wise weights in few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.peers.tools import batch_of, batches, samples_of

_TYPES = {"S8": QuantType.QInt8, "U8": QuantType.QUInt8, "S4": QuantType.QInt4, "U4": QuantType.QUInt4}
_BATCH = 8
_CHANNELS_OPSET = 13


class _Reader(CalibrationDataReader):
    def __init__(self, model: Path, samples: Path, count: int) -> None:
        few = {name: array[:count] for name, array in samples_of(samples).items()}
        self._left = iter(batches(few, batch_of(model, few, _BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def static(
    model: Path,
    samples: Path,
    folder: Path,
    *,
    activations: str = "U8",
    weights: str = "S8",
    per_channel: bool = True,
    qdq: bool = True,
    calibration: str = "MinMax",
    count: int = 128,
) -> None:
    """Quantize weights and activations with calibrated ranges.

    Args:
        model: The float model.
        samples: Calibration samples.
        folder: Receives `model.onnx`.
        activations: S8 or U8.
        weights: S8, U8, S4 or U4.
        per_channel: One scale an output channel.
        qdq: QuantizeLinear and DequantizeLinear around float operators; else operators on integers.
        calibration: Name of a `CalibrationMethod`.
        count: The most samples calibrated on.
    """
    quantize_static(
        str(_prepared(model, folder)),
        str(folder / "model.onnx"),
        _Reader(model, samples, count),
        quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator,
        per_channel=per_channel,
        activation_type=_TYPES[activations],
        weight_type=_TYPES[weights],
        calibrate_method=CalibrationMethod[calibration],
    )


def dynamic(
    model: Path, samples: Path, folder: Path, *, weights: str = "S8", per_channel: bool = True
) -> None:
    """Quantize weights now and activations at run time.

    Args:
        model: The float model.
        samples: Not looked at.
        folder: Receives `model.onnx`.
        weights: S8 or U8.
        per_channel: One scale an output channel.
    """
    del samples
    quantize_dynamic(
        str(
            _prepared(model, folder, shapes=False)
        ),  # it transposes weights, and their old shapes would contradict
        str(folder / "model.onnx"),
        weight_type=_TYPES[weights],
        per_channel=per_channel,
    )


def fused_dynamic(model: Path, samples: Path, folder: Path, *, heads: int, width: int) -> None:
    """Fuse a BERT with onnxruntime's transformer optimizer, then quantize as in `dynamic`.

    Args:
        model: The float model.
        samples: Not looked at.
        folder: Receives `model.onnx`.
        heads: Attention heads.
        width: Hidden size.
    """
    from onnxruntime.transformers.optimizer import optimize_model

    fused = folder / "fused.onnx"
    optimize_model(str(model), model_type="bert", num_heads=heads, hidden_size=width).save_model_to_file(
        str(fused)
    )
    dynamic(fused, samples, folder)


def nbits(
    model: Path,
    samples: Path,
    folder: Path,
    *,
    bits: int = 4,
    block: int = 32,
    accuracy_level: int | None = 4,
    qdq: bool = False,
) -> None:
    """Store the weights of matrix products in blocks of few bits.

    Args:
        model: The float model.
        samples: Not looked at.
        folder: Receives `model.onnx`.
        bits: Bits a weight.
        block: Weights that share a scale.
        accuracy_level: 4 multiplies in int8, None in float.
        qdq: DequantizeLinear in front of MatMul in place of MatMulNBits.

    Raises:
        ValueError: If the model has no matrix product that the tool takes.
    """
    del samples
    config = DefaultWeightOnlyQuantConfig(
        block_size=block,
        is_symmetric=True,
        bits=bits,
        accuracy_level=accuracy_level,
        quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator,
    )
    quantizer = MatMulNBitsQuantizer(onnx.load(_prepared(model, folder)), algo_config=config)
    quantizer.process()
    found: onnx.ModelProto = quantizer.model.model
    if not any(node.op_type in {"MatMulNBits", "DequantizeLinear"} for node in found.graph.node):
        raise ValueError("no matrix product with constant weights")
    onnx.save(found, folder / "model.onnx")


def _prepared(model: Path, folder: Path, *, shapes: bool = True) -> Path:
    """Raise opsets without scales for channels, fold batch norms and infer shapes, as its documentation asks."""
    path, raised = folder / "prepared.onnx", folder / "raised.onnx"
    loaded = onnx.load(model)
    opset = next(entry.version for entry in loaded.opset_import if entry.domain in {"", "ai.onnx"})
    if opset < _CHANNELS_OPSET:
        onnx.save(onnx.version_converter.convert_version(loaded, _CHANNELS_OPSET), raised)
    # Symbolic shape inference does not know every operator; the plain one suffices for the quantizer.
    quant_pre_process(str(raised if raised.exists() else model), str(path), skip_symbolic_shape=True)
    if not shapes:
        prepared = onnx.load(path)
        del prepared.graph.value_info[:]
        onnx.save(prepared, path)
    return path
