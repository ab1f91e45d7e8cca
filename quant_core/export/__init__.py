"""A bit plan and integer weights become an ONNX file."""

from quant_core.export.place import layer_form, place
from quant_core.export.placement.forms import Form, Placement
from quant_core.export.size.predict_sizes import predict_sizes
from quant_core.export.targets.candidates import within_target
from quant_core.export.targets.target import Target
from quant_core.export.targets.target_of import target_of
from quant_core.export.writing.exporter import export_model

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
