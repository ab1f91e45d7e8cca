"""Where a layer can be followed: what one node multiplies with columns that can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.codes import CorrectedBias
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.ingest.macs import affordable_samples
from quant_core.ingest.varying_sizes import varying_tensors
from quant_core.quantizers.bias_correction.input_means import find_bias
from quant_core.quantizers.moments.input_moments import has_moments
from quant_core.quantizers.moments.rows import rows_shape, to_rows
from quant_core.quantizers.rounding.round_weights import knows_more
from quant_core.spec.memory_share import memory_share

FEWEST = 16
"""Samples that it takes to follow a layer."""

_MOST = 512
"""Samples that are followed at most."""
_MOST_MACS = 64e9
"""Multiply-accumulates in one run of all of them."""
_BYTES, _BYTES_AN_ELEMENT = 1 << 30, 16
"""What one layer may take in memory, and what each element that it reads or writes does."""


@dataclass(frozen=True, eq=False)
class FollowedPlace:
    """Where a layer is watched.

    Attributes:
        layer: The layer.
        node: Its only node.
        rows: Its float weight, `[groups, outputs, inputs]`.
        added: What the node adds to the product, `[outputs]` or 0.
        bias: What is added to the product that may change.
    """

    layer: Layer
    node: ir.Node
    rows: Tensor
    added: Tensor
    bias: CorrectedBias | None


def followed_places(graph: ir.Model, layers: Sequence[Layer], samples: Samples) -> list[FollowedPlace]:
    """Find the layers that can be followed.

    Args:
        graph: The graph.
        layers: Layers with codes.
        samples: Calibration samples.

    Returns:
        Those whose weight one node multiplies with columns, as many whatever the network computes, and adds at most a
        constant. None where the graph prescribes the batch, where there are fewer than 16 samples or fewer fit in
        memory at once, and where less than half of the arithmetic is in layers whose inputs are known by then
        (`knows_more`): most of what errors of inputs have in common would be chance.
    """
    count = followed_samples(layers, samples)
    known = sum(layer.macs for layer in layers if knows_more(layer, count))
    if samples.batch is not None or count < FEWEST or 2 * known < sum(layer.macs for layer in layers):
        return []
    nodes = {str(node.name): node for node in graph.graph}
    varying, places = varying_tensors(graph), []
    for layer in layers:
        node = nodes[layer.uses[0].node]
        if len(layer.uses) > 1 or not has_moments(layer) or rows_shape(layer)[0] != layer.group:
            continue
        if layer.op == "ConvTranspose" or (layer.op == "Gemm" and not _is_plain(node)):
            continue
        if layer.uses[0].input in varying:
            continue  # its rows belong to other samples once others are chosen
        added = node.inputs[2] if layer.op != "MatMul" and len(node.inputs) > 2 else None
        if added is not None and added.const_value is None:
            continue
        rows = to_rows(layer, np.asarray(stored_tensor(graph, layer.weight).numpy(), dtype=np.float32))
        constant = None if added is None else added.const_value
        bias = np.zeros(1, np.float32) if constant is None else np.array(constant.numpy())
        places.append(FollowedPlace(layer, node, rows, torch.from_numpy(bias), find_bias(graph, layer)))
    return places


def followed_samples(layers: Sequence[Layer], samples: Samples) -> int:
    """Tell how many samples are followed at once, by what the network computes and its largest layer holds.

    Args:
        layers: The layers that are followed.
        samples: Calibration samples.

    Returns:
        At most 512, and no more than `fitting_samples`.
    """
    enough = max(FEWEST, affordable_samples(layers, _MOST_MACS))
    return min(samples.count, _MOST, enough, fitting_samples(layers))


def fitting_samples(layers: Sequence[Layer]) -> int:
    """Tell how many samples of the largest layer memory takes at once.

    Args:
        layers: The layers that are followed.

    Returns:
        As many as a gigabyte holds, or this process's share of it.
    """
    held = max((layer.input_elements + layer.output_elements for layer in layers), default=0)
    return int(memory_share() * _BYTES / max(1, _BYTES_AN_ELEMENT * held))


def _is_plain(node: ir.Node) -> bool:
    attributes = node.attributes
    scaled = any(attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return not scaled and attributes.get_int("transA", 0) == 0
