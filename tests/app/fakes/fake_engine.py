"""Stands in for the engine in tests of the service: the sample's seed tells it what to do.

`seed` 1 waits in Python, 2 waits in C with the interpreter locked, 3 ends the process with SIGSEGV, 4 raises an
unknown error, 5 raises a user error, 6 runs out of memory, 7 leaves a checkpoint and waits, or goes on from it,
8 takes 16 GB, 9 waits at the gate that its model names, 10 writes 1 GB, 11 tells its environment and waits there too,
12 runs out of memory unless its batches are a sixteenth. Everything else succeeds at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from quant_core.checkpoints import Checkpoints
from quant_core.errors import InfeasibleBudgetError, ModelError
from quant_core.spec import (
    STAGES,
    AnalyzeSpec,
    BitPlan,
    CostTable,
    LayerCosts,
    LayerSensitivity,
    Progress,
    ProgressCallback,
    QuantizeSpec,
    Report,
    SensitivityTable,
)
from quant_core.spec.memory_share import memory_share

ENDLESS = 3600

_TABLE = SensitivityTable(
    method="output",
    trace_method="gauss_newton",
    loss="kl",
    samples=1,
    probes=1,
    seed=0,
    layers=(
        LayerSensitivity(name="fc", weight="fc.w", parameters=100, sensitivity={2: 1.0, 4: 0.1, 8: 0.0}),
    ),
)
_COSTS = CostTable(
    model="net.onnx",
    float_bytes=500,
    base=50,
    functions={},
    layers=(
        LayerCosts(
            name="fc",
            weight="fc.w",
            op="Gemm",
            parameters=100,
            macs=100,
            bits=(2, 4, 8),
            bytes={2: 25, 4: 50, 8: 100},
            activation_bits={2: 8, 4: 8, 8: 8},
        ),
    ),
)


def quantize(
    model: Path,
    data: Path,
    spec: QuantizeSpec,
    out: Path,
    on_progress: ProgressCallback | None = None,
    earlier: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Report:
    say = on_progress or (lambda _: None)
    if earlier is not None:
        told = f"{earlier.name}: {' '.join(sorted(path.name for path in earlier.iterdir()))}"
        say(Progress(stage="ingest", fraction=0.0, message=told))
    say(Progress(stage="ingest", fraction=0.5, message=f"pid={os.getpid()}"))
    say(Progress(stage="ingest", fraction=1.0, message="read"))
    if spec.seed == 1:
        for step in range(ENDLESS * 20):
            say(Progress(stage="sensitivity", fraction=step / (ENDLESS * 20), message="waiting"))
            time.sleep(0.05)
    elif spec.seed == 2:
        tempfile.mkstemp()
        ctypes.PyDLL(None).sleep(ENDLESS)  # keeps the interpreter's lock, as a long kernel can
    elif spec.seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif spec.seed == 4:
        raise ZeroDivisionError("a fault of ours")
    elif spec.seed == 5:
        raise InfeasibleBudgetError("too small", remedy="Ask for at least 1234 bytes.", where="budget.size")
    elif spec.seed == 6:
        raise MemoryError
    elif spec.seed == 7:
        found = checkpoints.find("sensitivity") if checkpoints else None
        if found is None:
            with checkpoints.keep("sensitivity") as kept:
                (kept / "pid").write_text(str(os.getpid()))
            time.sleep(ENDLESS)
        say(
            Progress(stage="sensitivity", fraction=1.0, message=f"goes on from {(found / 'pid').read_text()}")
        )
    elif spec.seed == 8:
        bytearray(2**34).find(1)
    elif spec.seed == 9:
        _wait(model)
    elif spec.seed == 12:
        say(Progress(stage="ingest", fraction=1.0, message=f"batches of {memory_share():g}"))
        if memory_share() > 1 / 16:
            raise MemoryError
    elif spec.seed == 11:
        told = {"sees": os.environ.get("CUDA_VISIBLE_DEVICES"), "names": sorted(os.environ)}
        say(Progress(stage="ingest", fraction=1.0, message=json.dumps(told)))
        _wait(model)
    elif spec.seed == 10:
        out.mkdir(parents=True)
        with (out / "model.onnx").open("wb") as large:
            for _ in range(1024):
                large.write(bytes(2**20))
    for stage in STAGES[1:]:
        say(Progress(stage=stage, fraction=1.0, message=f"{stage} done"))
    out.mkdir(parents=True)
    report = _report(model, spec)
    (out / "model.onnx").write_bytes(model.read_bytes()[::-1])
    (out / "report.json").write_text(report.model_dump_json())
    (out / "report.html").write_text("<!doctype html><title>report</title>")
    table = _TABLE.model_copy(update={"method": spec.sensitivity, "seed": spec.seed})
    (out / "sensitivity.json").write_text(table.model_dump_json())
    (out / "pareto.json").write_text('{"version": 1}')
    (out / "costs.json").write_text(_COSTS.model_dump_json())
    return report


def analyze(
    model: Path,
    data: Path,
    spec: AnalyzeSpec,
    out: Path,
    on_progress: ProgressCallback | None = None,
    checkpoints: Checkpoints | None = None,
) -> SensitivityTable:
    say = on_progress or (lambda _: None)
    say(Progress(stage="ingest", fraction=1.0, message=f"pid={os.getpid()}"))
    say(Progress(stage="sensitivity", fraction=1.0, message="probed"))
    out.mkdir(parents=True)
    table = _TABLE.model_copy(
        update={"method": spec.sensitivity, "seed": spec.seed, "interactions": "interactions.npz"}
    )
    (out / "sensitivity.json").write_text(table.model_dump_json())
    (out / "interactions.npz").write_bytes(b"PK pairs")
    (out / "costs.json").write_text(_COSTS.model_dump_json())
    return table


def validate(model: Path, data: Path, spec: QuantizeSpec | AnalyzeSpec) -> None:
    content = model.read_bytes()
    if content.startswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if content.startswith(b"heap"):
        bytearray(2**34).find(1)
    if content.startswith(b"slow"):
        tempfile.mkstemp()
        time.sleep(ENDLESS)
    if content.startswith(b"external"):
        for name in content.decode().split()[1:]:
            if not (model.parent / name).is_file():
                raise ModelError("lacks its external data.", remedy="Send it too.", where=name)
    elif content.startswith(b"check until "):
        _wait(model)
    elif not content.startswith(b"\x08"):
        raise ModelError("is not an ONNX model.", remedy="Export one.", where=model.name)


def _wait(model: Path) -> None:
    """Wait for the file that the model names, and say so beside it; go on at once where it names none."""
    gate = Path(os.fsdecode(model.read_bytes().partition(b" until ")[2]))
    if gate.name:
        gate.with_suffix(".reached").touch()
        while not gate.exists():
            time.sleep(0.02)


def _report(model: Path, spec: QuantizeSpec) -> Report:
    size = model.stat().st_size
    return Report.model_validate(
        {
            "model": {
                "name": model.name,
                "float_bytes": size,
                "quantized_bytes": size // 2,
                "predicted_bytes": size // 2,
                "budget_bytes": size,
                "ratio": 0.5,
                "opset": 21,
                "parameters": 10,
                "macs": 100,
            },
            "spec": spec.model_dump(mode="json"),
            "loss": "kl",
            "plan": BitPlan(
                layers=(),
                predicted_loss=0.0,
                predicted_bytes=size // 2,
                budget_bytes=size,
                optimal=True,
                solver="none",
            ),
            "layers": [],
            "metrics": {
                "name": "top1",
                "float": 0.9,
                "quantized": 0.89,
                "samples": 4,
                "labelled": True,
                "sqnr_db": 20.0,
                "top1_agreement": 0.99,
                "mean_cosine": 0.999,
            },
            "latency_ms": {
                "float": 2.0,
                "quantized": 1.0,
                "float_spread": 0.1,
                "quantized_spread": 0.1,
                "speedup": 2.0,
                "batch": 1,
                "threads": 1,
                "runs": 3,
            },
            "simulation": {
                "predicted_sqnr_db": 20.0,
                "measured_sqnr_db": 20.0,
                "agreement_sqnr_db": 60.0,
                "top1_agreement": 1.0,
            },
            "pareto": [],
            "band": spec.budget.max_drop
            and {
                "band": spec.budget.max_drop.model_dump(),
                "samples": 2,
                "labelled": False,
                "evaluations": [],
                "chosen": 0,
                "confidence": 0.95,
                "met": spec.budget.max_drop.limit > 0.1,
                "reason": "so it was",
            },
            "peak_memory_bytes": 1,
            "seed": spec.seed,
            "versions": {},
        }
    )
