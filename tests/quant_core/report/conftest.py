"""A made-up job of any depth, with values of the magnitudes that real ones have."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from quant_core.spec import (
    FLOAT_BITS,
    BitPlan,
    Latency,
    LayerPlan,
    LayerReport,
    LayerSensitivity,
    Metrics,
    ModelSummary,
    ParetoFront,
    ParetoPoint,
    QuantizeSpec,
    Report,
    SensitivityTable,
    Simulation,
    Timing,
)

Job = tuple[Report, SensitivityTable, ParetoFront]
BITS = (2, 3, 4, 5, 6, 8)


def make_job(
    depth: int = 20,
    *,
    name: str = "resnet20_cifar10.onnx",
    layer_name: Callable[[int], str] = lambda k: (
        f"/layer{k // 6 + 1}/layer{k // 6 + 1}.{k % 6 // 2}/conv{k % 2 + 1}/Conv"
    ),
    traced: bool = True,
    metric: str = "top1",
    warnings: tuple[str, ...] = (),
    lossless: bool = False,
    seed: int = 0,
) -> Job:
    source = random.Random(seed)
    rows, layers = [], []
    for k in range(depth):
        trace = 10 ** source.uniform(0.5, 3.5) if traced else None
        scale = 10 ** source.uniform(-3, -1)
        losses = {b: 0.0 if lossless else scale * 4.0 ** (3 - b) * source.uniform(0.7, 1.3) for b in BITS}
        losses[8] -= 1e-6  # an estimate may fall below zero
        bits = (
            source.choice((2, 3, 3, 4, 4, 4, 5, 6, 8)) if 0 < k < depth - 1 else FLOAT_BITS if k == 0 else 8
        )
        parameters = 432 * 4 ** (3 * k // depth) * (1 + k % 3)
        errors = {b: abs(v) * source.uniform(0.05, 1.2) for b, v in losses.items()}
        rows.append(
            LayerSensitivity(
                name=layer_name(k),
                weight=f"w{k}",
                parameters=parameters,
                trace=trace,
                trace_stderr=trace and trace * 0.2,
                perturbation={b: 4.0**-b for b in BITS},
                sensitivity=losses | {FLOAT_BITS: 0.0},
                sensitivity_stderr=errors | {FLOAT_BITS: 0.0},
            )
        )
        layers.append(
            LayerReport(
                name=layer_name(k),
                op="Gemm" if k == depth - 1 else "Conv",
                weight=f"w{k}",
                parameters=parameters,
                macs=parameters * 1024,
                weight_bits=bits,
                activation_bits=FLOAT_BITS if bits == FLOAT_BITS else 8,
                form="float" if bits == FLOAT_BITS else "static",
                kernel="Conv" if bits == FLOAT_BITS else "QGemm" if k == depth - 1 else "QLinearConv",
                bytes=parameters * bits // 8 + 64,
                trace=trace,
                trace_stderr=trace and trace * 0.2,
                sensitivity=rows[-1].sensitivity[bits],
                sensitivity_stderr=errors.get(bits, 0.0),
                reason="excluded by the rule stem*"
                if k == 0
                else "pinned to 8 bits"
                if k == depth - 1
                else "budget",
            )
        )
    parameters = sum(layer.parameters for layer in layers)
    before, after = parameters * 4 + 20_000, sum(layer.bytes for layer in layers) + 20_000
    points = tuple(
        ParetoPoint(
            bytes=int(before * (0.1 + 0.9 * k / 900)), predicted_loss=0.0 if lossless else 0.8 * 0.99**k
        )
        for k in range(901)
    )
    front = ParetoFront(layers=tuple(layer.name for layer in layers), points=points)
    nearest = max((p for p in points if p.bytes <= after), key=lambda p: p.bytes, default=points[0])
    plan = BitPlan(
        layers=tuple(
            LayerPlan(name=layer.name, bits=layer.weight_bits, reason=layer.reason) for layer in layers
        ),
        predicted_loss=nearest.predicted_loss,
        predicted_bytes=after - 120,
        budget_bytes=int(after * 1.02),
        optimal=True,
        solver="HiGHS",
    )
    quality = {"top1": (0.9208, 0.9163), "top1_agreement": (1.0, 0.97), "mean_cosine": (1.0, 0.9987)}[metric]
    classes = metric != "mean_cosine"
    report = Report(
        model=ModelSummary(
            name=name,
            float_bytes=before,
            quantized_bytes=after,
            predicted_bytes=after - 120,
            budget_bytes=int(after * 1.02),
            ratio=after / before,
            opset=21,
            parameters=parameters,
            macs=parameters * 1024,
        ),
        spec=QuantizeSpec.model_validate({"size": 0.18, "pin": {"fc": 8}, "exclude": ["stem*"]}),
        loss="cross_entropy, chosen because the samples have labels",
        plan=plan,
        layers=tuple(layers),
        metrics=Metrics.model_validate(
            {
                "name": metric,
                "float": quality[0],
                "quantized": quality[1],
                "samples": 128,
                "labelled": metric == "top1",
                "sqnr_db": 21.37,
                "top1_agreement": 0.97 if classes else None,
                "mean_cosine": 0.9987,
                "sqnr_db_by_output": {"logits": 21.37},
            }
        ),
        latency_ms=Latency.model_validate(
            {
                "float": 1.31,
                "quantized": 0.62,
                "float_spread": 0.04,
                "quantized_spread": 0.02,
                "speedup": 2.11,
                "batch": 1,
                "threads": 2,
                "runs": 100,
            }
        ),
        simulation=Simulation(
            predicted_sqnr_db=21.4,
            measured_sqnr_db=21.37,
            agreement_sqnr_db=48.2,
            top1_agreement=0.992 if classes else None,
        ),
        pareto=points,
        warnings=warnings,
        timings=tuple(
            Timing(stage=stage, seconds=seconds)
            for stage, seconds in (
                ("ingest", 0.8),
                ("calibration", 4.1),
                ("sensitivity", 61.0),
                ("export", 1.2),
            )
        ),
        peak_memory_bytes=812_345_678,
        seed=0,
        versions={"bitwright": "0.1.0", "onnxruntime": "1.31.1", "torch": "2.13.0"},
    )
    table = SensitivityTable(
        method="output",
        trace_method="gauss_newton",
        loss="cross_entropy",
        samples=384,
        probes=32,
        seed=0,
        layers=tuple(rows),
    )
    return report, table, front


@pytest.fixture
def job() -> Callable[..., Job]:
    return make_job
