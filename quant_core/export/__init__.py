"""A bit plan and integer weights become an ONNX file."""

from quant_core.export.exporter import export_model
from quant_core.export.forms import Form, Placement
from quant_core.export.placement import layer_form, place
from quant_core.export.size import predict_sizes
from quant_core.export.target import Target
from quant_core.export.target_candidates import within_target
from quant_core.export.targets import target_of

__all__ = [
    "Form",
    "Placement",
    "Target",
    "export_model",
    "layer_form",
    "place",
    "predict_sizes",
    "target_of",
    "within_target",
]
