"""Runs an ONNX graph in torch, twice differentiable, with every tensor addressed by its ONNX name."""

from quant_core.executor.batching import batch_difference, compile_beside
from quant_core.executor.compiler import compile_model, unsupported_operators
from quant_core.executor.doors import load, run
from quant_core.executor.parity import Parity, check_parity
from quant_core.executor.program import Program

__all__ = [
    "Parity",
    "Program",
    "batch_difference",
    "check_parity",
    "compile_beside",
    "compile_model",
    "load",
    "run",
    "unsupported_operators",
]
