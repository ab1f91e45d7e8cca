"""How fast is one matrix product with few rows and with many: weights in blocks, in channels, in float?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.peers.section import table
from quant_core.export import export_model, place
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight
from quant_core.spec import FLOAT_BITS, WeightOptions
from quant_core.verification.latency import time_in_turn, timing_session

ROWS = (1, 8, 128)
TITLE = "One matrix product, 768 x 3,072"

_INPUTS, _OUTPUTS = 768, 3072
_FEWEST, _WARM = 15, 5
_FILES: Mapping[str, tuple[int, WeightOptions]] = {
    "float": (FLOAT_BITS, WeightOptions()),
    "8 bits a channel": (8, WeightOptions()),
    "4 bits a channel": (4, WeightOptions()),
    "2 bits a channel": (2, WeightOptions()),
    "8 bits in blocks of 32": (8, WeightOptions(granularity="block")),
    "4 bits in blocks of 32": (4, WeightOptions(granularity="block")),
    "4 bits in blocks of 128": (4, WeightOptions(granularity="block", block_size=128)),
    "2 bits in blocks of 64": (2, WeightOptions(granularity="block", block_size=64)),
}


def write_files(folder: Path) -> list[Path]:
    """Write the product in every form, weights rounded to the nearest.

    Args:
        folder: Where to.

    Returns:
        One file a form, in the order of the table.
    """
    random = np.random.default_rng(0)
    graph = onnx.parser.parse_graph(
        f"g (float[n,{_INPUTS}] x) => (float[n,{_OUTPUTS}] y) {{ y = MatMul(x, w) }}"
    )
    weight = (random.standard_normal((_INPUTS, _OUTPUTS)) / _INPUTS**0.5).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    model = normalise(ir.from_proto(proto))
    (layer,) = layers = find_layers(model)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (bits, options) in enumerate(_FILES.values()):
        placement = place(model, layers, {layer.name: bits}, 8, options=options)
        codes = (
            {}
            if bits == FLOAT_BITS
            else {layer.name: quantize_weight(weight, bits, layer.axis, options.grid(bits))}
        )
        paths.append(folder / f"{number}.onnx")
        onnx.save(export_model(model, layers, codes, placement, {}), paths[-1])
    return paths


def tell_rows(folder: Path, threads: int, seconds: float) -> str:
    """Time the forms in turn, for every number of rows.

    Args:
        folder: Where files are kept.
        threads: Threads of onnxruntime.
        seconds: Of timing for each number of rows.

    Returns:
        A heading and a table.
    """
    paths, columns = write_files(folder), []
    clock = time.thread_time if threads == 1 else time.perf_counter
    sessions = [timing_session(path, threads) for path in paths]
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, _INPUTS)).astype(np.float32)
        runs = [lambda session=session, x=x: session.run(None, {"x": x}) for session in sessions]
        for run in runs:
            for _ in range(_WARM):
                run()
        times = 1e6 * time_in_turn(runs, rounds=2000, fewest=_FEWEST, seconds=seconds, clock=clock)
        ratios = np.median(times[:, :1] / times, axis=0)
        columns.append((np.median(times, axis=0), ratios))
    head = ["", "bytes", *(f"{rows} row{'s' * (rows > 1)}, us (times faster than float)" for rows in ROWS)]
    cells = [
        [
            name,
            f"{path.stat().st_size:,}",
            *(f"{middle[n]:,.0f} ({ratio[n]:.2f})" for middle, ratio in columns),
        ]
        for n, (name, path) in enumerate(zip(_FILES, paths, strict=True))
    ]
    clocked = "one thread, its processor time" if threads == 1 else f"{threads} threads"
    return f"### {TITLE}\n\n{clocked}; files of Bitwright with `target` ort-cpu.\n\n{table(head, cells)}\n"
