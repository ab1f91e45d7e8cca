"""The tools by name, and the process that runs one: `python -m benchmarks.peers.tools TOOL MODEL SAMPLES FOLDER`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
