"""The result as onnxruntime runs it: parity, task metric, latency, kernels."""

from quant_core.verification.answers import find_correct
from quant_core.verification.comparison import compare
from quant_core.verification.differences import Difference, sqnr_db
from quant_core.verification.latency import measure_latency, timing_session
from quant_core.verification.layer_check import check_layers
from quant_core.verification.layer_sqnr import LayerNoise, layer_sqnr
from quant_core.verification.metrics import MetricAccumulator
from quant_core.verification.optimized_graph import (
    FLOAT_OPERATORS,
    FOLDED,
    INT8_OPERATORS,
    NOT_FOUND,
    kernels,
    optimized_graph,
    read_saved,
)
from quant_core.verification.session import (
    choose_batch,
    fixed_batch,
    open_session,
    run_batches,
)
from quant_core.verification.simulation import SimulationCheck

__all__ = [
    "FLOAT_OPERATORS",
    "FOLDED",
    "INT8_OPERATORS",
    "NOT_FOUND",
    "Difference",
    "LayerNoise",
    "MetricAccumulator",
    "SimulationCheck",
    "check_layers",
    "choose_batch",
    "compare",
    "find_correct",
    "fixed_batch",
    "kernels",
    "layer_sqnr",
    "measure_latency",
    "open_session",
    "optimized_graph",
    "read_saved",
    "run_batches",
    "sqnr_db",
    "timing_session",
]
