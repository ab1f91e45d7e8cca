"""The float network, as those read it who round its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quant_core.executor import Program
from quant_core.ingest.layer import Layer


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A network before anything in it is rounded.

    Attributes:
        program: What runs it.
        model: Its normalised graph.
        layers: Its layers, in graph order.
        batch_size: Most samples a run.
    """

    program: Program
    model: ir.Model
    layers: Sequence[Layer]
    batch_size: int
