"""What onnxruntime's CPU takes to call kernels, in products in float: of small nets most of the time.

Fitted to chains of two and of six products with 16 to 256 columns and 1 to 128 rows, float and 8 bits in turn, one
thread of the processor that `kernel_times` knows; what the shorter chain takes beside its layers is the run's. Calls of
convolutions were not fitted and are counted alike: with a Relu, 1 x 1 and 3 x 3 with 16 to 64 channels on 4 x 4 to
16 x 16 places took 0.7 to 1.4 times as long in integers as in float. What is called between kernels was held against
whole small nets, each all in float and all in integers.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from quant_core.export.kernels.placed_run import Pass, PlacedRun

RUN = 600_000
"""A run, whatever is computed: 12 microseconds."""
CALL = 60_000
"""An operator: 1.2 microseconds."""
DYNAMIC = 180_000
"""A product whose input is rounded as the model runs."""
PASSED: Mapping[Pass, float] = {"border": 1.5 * CALL, "blocks": CALL}
"""What is done between two kernels; every other border has a Transpose as well."""
_FUSED = frozenset({"LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""What is computed with a convolution, and with a Gemm in float."""


def calls_time(run: PlacedRun) -> float:
    """Estimate what one run takes beside what `estimated_time` counts, which grows with what is computed.

    Args:
        run: The file.

    Returns:
        Time in products in float.
    """
    time = RUN + sum(PASSED[kind] for _, kind in run.passes)
    for node in run.model.graph:
        layer = run.owners.get(str(node.name))
        if layer is not None:
            time += DYNAMIC if run.placement.forms[layer.name] == "dynamic" else CALL
        elif not (run.takes_nothing(node) or _is_fused(node, run)):
            time += CALL
    return time


def _is_fused(node: ir.Node, run: PlacedRun) -> bool:
    if node.op_type not in _FUSED or node.domain or node.inputs[0] is None:
        return False
    value = node.inputs[0]
    maker = value.producer()
    layer = None if maker is None else run.owners.get(str(maker.name))
    if layer is None or layer.op not in {"Conv", "Gemm"} or run.placement.forms[layer.name] == "dynamic":
        return False
    return len(value.uses()) == 1 and not value.is_graph_output()
