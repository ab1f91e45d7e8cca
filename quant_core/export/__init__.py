"""A bit plan and integer weights become an ONNX file."""

from quant_core.export.exporter import export_model
from quant_core.export.forms import Form, Placement
from quant_core.export.placement import layer_form, place
from quant_core.export.size import SizeModel, predict_sizes

__all__ = ["Form", "Placement", "SizeModel", "export_model", "layer_form", "place", "predict_sizes"]
