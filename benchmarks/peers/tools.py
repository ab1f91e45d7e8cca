"""The tools by name, and the process that runs one: `python -m benchmarks.peers.tools TOOL MODEL SAMPLES FOLDER`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Tool = Callable[..., None]

TOOLS = {
    "static": "benchmarks.peers.onnxruntime_files:static",
    "dynamic": "benchmarks.peers.onnxruntime_files:dynamic",
    "fused_dynamic": "benchmarks.peers.onnxruntime_files:fused_dynamic",
    "nbits": "benchmarks.peers.onnxruntime_files:nbits",
    "nncf": "benchmarks.peers.nncf_files:quantize",
    "aimet": "benchmarks.peers.aimet_files:quantize",
    "ours": "benchmarks.peers.our_files:quantize",
}
"""Tool -> the function `(model, samples, folder, **options)` that writes `model.onnx` into the folder."""


def samples_of(path: Path) -> Arrays:
    """Read the inputs of a sample file.

    Args:
        path: An `.npz` with one array a graph input, and perhaps labels.

    Returns:
        Graph input name -> array, samples along the first axis.
    """
    with np.load(path) as held:
        return {name: held[name] for name in held.files if name != "labels"}


def batches(samples: Arrays, size: int) -> list[dict[str, NDArray[Any]]]:
    """Cut samples into batches.

    Args:
        samples: Graph input name -> array.
        size: Samples a batch.

    Returns:
        The batches, the last one perhaps smaller.
    """
    count = len(next(iter(samples.values())))
    return [{name: a[at : at + size] for name, a in samples.items()} for at in range(0, count, size)]


def batch_of(model: Path, samples: Arrays, most: int) -> int:
    """Tell how many samples a run may have.

    Args:
        model: The model.
        samples: Graph input name -> array.
        most: The most wanted.

    Returns:
        As many, or the fewest that an input is fixed at.
    """
    inputs = onnx.load(model, load_external_data=False).graph.input
    first = [entry.type.tensor_type.shape.dim[0] for entry in inputs if entry.name in samples]
    return min([axis.dim_value for axis in first if axis.dim_value > 0], default=most)


def main(arguments: list[str]) -> None:
    """Make one file.

    Args:
        arguments: Tool, model, samples, folder, and the options as JSON.
    """
    name, model, samples, folder, options = arguments
    module, function = TOOLS[name].split(":")
    tool: Tool = getattr(importlib.import_module(module), function)
    tool(Path(model), Path(samples), Path(folder), **json.loads(options))


if __name__ == "__main__":
    main(sys.argv[1:])
