"""What does each option make of a model? `python -m benchmarks.options [task [bytes]] [--only NAME ...]`.

One whole file for the defaults and one for each option changed alone, all within the same bytes; judged by onnxruntime
on samples that no job saw (`python -m benchmarks.zoo` fetches models and samples).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.accuracy_tasks import TASKS
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec

BYTES = {"resnet20": 111_328, "efficientnet-lite0": 2_500_000, "minilm": 11_406_482, "ppocr-rec": 1_591_399}
OPTIONS: dict[str, dict[str, object]] = {
    "defaults": {},
    "effort fast": {"effort": "fast"},
    "activation_range minmax": {"activation_range": "minmax"},
    "activation_range percentile": {"activation_range": "percentile"},
    "activation_range entropy": {"activation_range": "entropy"},
    "weight_range mse": {"weight_range": "mse"},
    "weight_range minmax": {"weight_range": "minmax"},
    "weight_range percentile": {"weight_range": "percentile"},
    "rounding nearest": {"rounding": "nearest"},
    "rounding foem": {"rounding": "foem"},
    "rounding adaround": {"rounding": "adaround"},
    "no descent": {"descent": False},
    "no follow": {"follow": False},
    "no bias_correction": {"bias_correction": False},
    "equalize none": {"equalize": "none"},
    "equalize all": {"equalize": "all"},
    "sparse auto": {"sparse": "auto"},
    "asymmetric": {"symmetric": False},
    "granularity tensor": {"granularity": "tensor"},
    "blocks of 32": {"granularity": "block"},
    "no mix_channels": {"mix_channels": False},
    "no float_islands": {"float_islands": 0},
}


def main() -> None:
    """Print one row an option."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=__doc__)
    parser.add_argument("task", nargs="?", choices=BYTES, default="resnet20")
    parser.add_argument("bytes", nargs="?", type=int)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="NAME")
    given = parser.parse_args()
    size = given.bytes or BYTES[given.task]
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        task = TASKS[given.task](folder)
        reference = task.outputs(task.model, 1)
        print(f"{task.title}, at most {size:,} bytes; {task.metric}")
        print(f"{'option':28} {'bytes':>10}  result     SQNR  CPU seconds", flush=True)
        for name in given.only:
            spec = QuantizeSpec.model_validate({"size": size, "workers": 1} | OPTIONS[name])
            start, out = time.process_time(), folder / "out"
            report = quantize(task.model, task.samples, spec, out)
            seconds = time.process_time() - start
            found = task.find(out / "model.onnx", reference, 1)
            more = "".join(f"  {key} {value:.4g}" for key, value in found.more.items())
            row = f"{name:28} {report.model.quantized_bytes:10,}  {task.form.format(found.metric):>8}"
            print(f"{row}  {found.sqnr_db:5.1f} dB  {seconds:6.0f}{more}", flush=True)


if __name__ == "__main__":
    main()
