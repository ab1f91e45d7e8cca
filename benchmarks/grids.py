"""What does each grid make of a model? `python -m benchmarks.grids [model [samples]]`.

All weights of a model of the zoo at one width, rounded to the nearest, activations in float: bytes of the file, and by
onnxruntime the SQNR and the mean cosine of its first output to the float model's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from benchmarks.zoo import zoo_folder
from quant_core.export import export_model, place
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.spec import FLOAT_BITS, WeightOptions

GRIDS = {
    "int8": (8, WeightOptions()),
    "fp8_e4m3": (8, WeightOptions(weight_format="fp8_e4m3")),
    "fp8_e5m2": (8, WeightOptions(weight_format="fp8_e5m2")),
    "int4": (4, WeightOptions()),
    "int4 asymmetric": (4, WeightOptions(symmetric=False)),
    "int4 in blocks of 128, asymmetric": (
        4,
        WeightOptions(granularity="block", block_size=128, symmetric=False),
    ),
    "int4 in blocks of 64": (4, WeightOptions(granularity="block", block_size=64)),
    "int4 in blocks of 32": (4, WeightOptions(granularity="block")),
    "int4 in blocks of 32, asymmetric": (4, WeightOptions(granularity="block", symmetric=False)),
    "mxfp4": (4, WeightOptions(weight_format="mxfp4")),
    "nvfp4": (4, WeightOptions(weight_format="nvfp4")),
    "int3": (3, WeightOptions()),
    "int3 in blocks of 32, asymmetric": (3, WeightOptions(granularity="block", symmetric=False)),
}


def main() -> None:
    """Print one row a grid."""
    name = sys.argv[1] if len(sys.argv) > 1 else "minilm"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    folder = zoo_folder() / name
    model = normalise(ir.from_proto(onnx.load(folder / "model.onnx")))
    layers = find_layers(model)
    session = ort.InferenceSession(folder / "model.onnx")
    with np.load(folder / "samples.npz") as samples:
        feeds = {value.name: samples[value.name][:count] for value in session.get_inputs()}
    wanted = session.run(None, feeds)[0].astype(np.float64).reshape(count, -1)
    print(f"{name}, {count} samples\n{'grid':34} {'bytes':>10}   SQNR  cosine  CPU seconds")
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "model.onnx"
        for label, (bits, options) in GRIDS.items():
            start = time.process_time()
            weights = {}
            for layer in layers:
                tensor = model.graph.initializers[layer.weight].const_value
                assert tensor is not None
                weights[layer.name] = quantize_weight(tensor.numpy(), bits, layer.axis, options.grid(bits))
            seconds = time.process_time() - start
            plan = {layer.name: bits for layer in layers}
            placement = place(model, layers, plan, FLOAT_BITS, options=options)
            onnx.save(export_model(model, layers, weights, placement, {}), path)
            found = ort.InferenceSession(path).run(None, feeds)[0].astype(np.float64).reshape(count, -1)
            noise = 10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())
            lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
            cosine = ((wanted * found).sum(1) / lengths).mean()
            print(
                f"{label:34} {path.stat().st_size:10,} {noise:6.2f}  {cosine:.4f}  {seconds:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
