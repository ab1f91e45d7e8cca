"""Raise a model to an opset that holds all operators the exporter needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common

from quant_core.errors import ModelError
from quant_core.ingest.passes.legacy_resize import LAST_LEGACY_OPSET, restore_sampling
from quant_core.ingest.shape_inference import infer_shapes

TARGET_OPSET = 21
"""First opset with 4-bit integers."""
TARGET_IR_VERSION = 10
"""The file format version that goes with it."""

# Operators that the converter gets wrong, up to which opset, and what changed.
_WRONG = {
    "Hardmax": (12, "Hardmax flattened its input before opset 13"),
    "Scan": (8, "Scan had a batch axis before opset 9"),
}


_FIRST_LAYER_NORM = 17
_ASIDE = "bitwright.aside"
"""A domain that the converters pass over."""

_LAST_SILENT_TRAINING = 13
_FIRST_ALIKE = 18
_CHANGED = frozenset({"DFT", "GridSample", "GroupNormalization"})
"""Operators that changed from that opset on; the others only took more types or got attributes with defaults."""


class RaiseOpset(ir.passes.InPlacePass):
    """Convert models below `TARGET_OPSET` up to it, and leave newer ones alone.

    onnxscript's converter is used from opset 18 on and onnx's own below, which is how each is right: measured on 300
    single-operator models of opsets 7 to 20, compared in onnxruntime. The exceptions are repaired or refused here.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert in place.

        Args:
            model: A model without local functions, whose initializers are no graph inputs.

        Returns:
            The same model.

        Raises:
            ModelError: If an operator cannot be expressed in the newer opset.
        """  # noqa: DOC501 - `_refusal` makes a ModelError
        model.ir_version = max(model.ir_version or 0, TARGET_IR_VERSION)
        version = model.graph.opset_imports.get("")
        if version is None:
            model.graph.opset_imports[""] = TARGET_OPSET
            return ir.passes.PassResult(model, modified=True)
        if version >= TARGET_OPSET:
            return ir.passes.PassResult(model, modified=False)
        operators = {node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)}
        for operator, (last, change) in _WRONG.items():
            if operator in operators and version <= last:
                raise _refusal(version, change)
        _check_statistics(model, version)
        if "GroupNormalization" in operators:
            # Its scale changes from one per group to one per channel, so the number of channels must be known.
            infer_shapes(model)
        if version >= _FIRST_ALIKE and operators.isdisjoint(_CHANGED) and not model.functions:
            _relabel(model)
            return ir.passes.PassResult(model, modified=True)
        # Loaded here, because it takes longer to load than a model of the newest opset takes to read.
        from onnxscript.version_converter import ConvertVersionPass

        with _early_norms_aside(model, version), _warnings_of_converter() as warnings:
            ConvertVersionPass(target_version=TARGET_OPSET, fallback=True)(model)
        if model.graph.opset_imports.get("") != TARGET_OPSET or warnings:
            raise _refusal(version, "; ".join(warnings) or "the converter gave no reason")
        if version <= LAST_LEGACY_OPSET:
            restore_sampling(model, version)
        return ir.passes.PassResult(model, modified=True)


@contextmanager
def _early_norms_aside(model: ir.Model, version: int) -> Iterator[None]:
    """Hide the layer norms that onnxruntime writes into older models too, where no converter knows them.

    What they compute is what the standard defined later.
    """
    if version < _FIRST_LAYER_NORM:
        _move_norms(model, "", _ASIDE)
    try:
        yield
    finally:
        _move_norms(model, _ASIDE, "")
        model.graph.opset_imports.pop(_ASIDE, None)


def _move_norms(model: ir.Model, domain: str, other: str) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "LayerNormalization" and node.domain == domain:
            node.domain, node.version = other, None
            model.graph.opset_imports.setdefault(other, 1)


def _check_statistics(model: ir.Model, version: int) -> None:
    """Refuse batch normalization that gives statistics out: before opset 14 that was how it is asked to train."""
    if version > _LAST_SILENT_TRAINING:
        return
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "BatchNormalization" and any(output.name for output in node.outputs[1:]):
            raise ModelError(
                f"batch normalization {node.name or node.outputs[0].name!r} gives out the statistics of the batch: "
                "the model was exported for training.",
                remedy="Export it in evaluation mode.",
            )


def _relabel(model: ir.Model) -> None:
    """Give all nodes the new version, and leave out what nothing reads, as the converter does."""
    model.graph.opset_imports[""] = TARGET_OPSET
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain == "":
            node.version = TARGET_OPSET
    common.RemoveUnusedNodesPass()(model)


def _refusal(version: int, reason: str) -> ModelError:
    return ModelError(
        f"the model uses opset {version} and cannot be raised to {TARGET_OPSET}: {reason}.",
        remedy=f"Export it again with opset_version={TARGET_OPSET}.",
    )


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        # The choice of converter is also logged as a warning, by the package itself.
        if record.name != "onnxscript.version_converter" or record.exc_info:
            self.messages.append(record.getMessage())


@contextmanager
def _warnings_of_converter() -> Iterator[list[str]]:
    """Catch what the converters only log: nodes they skipped, and failures of the one in C++."""
    logger = logging.getLogger("onnxscript.version_converter")
    messages: list[str] = []
    handler, propagate = _Collector(messages), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
