"""Networks of few layers with drawn weights, as stages before rounding see them."""

import numpy as np
import onnx_ir as ir

from quant_core.ingest import find_layers, normalise
from tests.networks import drawn, network


def build(text, **shapes):
    rng = np.random.default_rng(0)
    proto = network(text, drawn(rng, shapes))
    model = normalise(ir.from_proto(proto))
    return model, find_layers(model)
