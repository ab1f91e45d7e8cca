"""Every target by the name that users write."""

from __future__ import annotations

from quant_core.export.targets.gpu import ORT_CUDA, tensorrt
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.portable import DEFAULT_OPSET, portable
from quant_core.export.targets.target import Target
from quant_core.spec import QuantizeSpec


def target_of(spec: QuantizeSpec) -> Target:
    """Find the target of a request.

    Args:
        spec: The request.

    Returns:
        The target.
    """
    if spec.target == "portable":
        return portable(spec.opset or DEFAULT_OPSET)
    if spec.target == "tensorrt":
        return tensorrt(spec.weight_format)
    return {target.name: target for target in (ORT_CPU, ORT_CUDA)}[spec.target]
