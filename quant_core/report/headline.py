"""Before and after: the table at the top, and the same in one paragraph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quant_core.codes.outliers import PAIR_BITS
from quant_core.report.numbers import format_bytes, format_ms, format_share
from quant_core.spec import Metrics, Report

METRIC_TITLES = {
    "top1": "Top-1 accuracy",
    "top1_agreement": "Same class as float",
    "mean_cosine": "Mean cosine",
}


@dataclass(frozen=True)
class ResultRow:
    """One measure before and after.

    Attributes:
        title: What is measured.
        before: The float model's value.
        after: The quantized model's value.
        change: What that means.
        detail: A remark on the measure.
        before_detail: A remark on the float model's value.
        after_detail: A remark on the quantized model's value.
        before_bar: Length of a bar in per cent, or None.
        after_bar: Length of a bar in per cent, or None.
    """

    title: str
    before: str
    after: str
    change: str
    detail: str = ""
    before_detail: str = ""
    after_detail: str = ""
    before_bar: float | None = None
    after_bar: float | None = None


@dataclass(frozen=True)
class Fact:
    """One figure with its name.

    Attributes:
        title: What it is.
        value: Its value.
        detail: A remark.
    """

    title: str
    value: str
    detail: str = ""


def mean_bits(report: Report) -> float:
    """Average the bits over all weights.

    Args:
        report: The report.

    Returns:
        Bits per weight, float counted as 32, what is stored of outliers on top.
    """
    total = sum(layer.parameters for layer in report.layers)
    bits = sum(layer.parameters * layer.mean_bits + layer.outliers * PAIR_BITS for layer in report.layers)
    return bits / max(total, 1)


def summary(report: Report) -> str:
    """Say in plain words what was reached.

    Args:
        report: The report.

    Returns:
        Two or three sentences.
    """
    model, latency, metrics = report.model, report.latency_ms, report.metrics
    size = (
        f"{format_bytes(model.quantized_bytes)} instead of {format_bytes(model.float_bytes)}, "
        f"{format_share(model.ratio, 1)} of the size, with {mean_bits(report):.1f} bits per weight on average."
    )
    faster = latency.speedup >= 1
    factor = latency.speedup if faster else 1 / latency.speedup
    speed = (
        f"One run takes {format_ms(latency.quantized)} instead of {format_ms(latency.float_)}, "
        f"{factor:.2f} times {'faster' if faster else 'slower'}."
    )
    return f"{size} {_quality(report)} {speed}" if metrics.samples else f"{size} {speed}"


def result_rows(report: Report) -> list[ResultRow]:
    """Lay out the table of before and after.

    Args:
        report: The report.

    Returns:
        Size, quality and latency rows.
    """
    return [_size_row(report), *_quality_rows(report), _latency_row(report)]


def simulation_facts(report: Report) -> list[Fact]:
    """Hold the simulation against onnxruntime.

    Args:
        report: The report.

    Returns:
        The figures in reading order.
    """
    simulation = report.simulation
    facts = [
        Fact("Simulated SQNR", f"{simulation.predicted_sqnr_db:.1f} dB", "simulation against float"),
        Fact("Measured SQNR", f"{simulation.measured_sqnr_db:.1f} dB", "onnxruntime against float"),
        Fact("Agreement", f"{simulation.agreement_sqnr_db:.1f} dB", "simulation against onnxruntime"),
    ]
    if simulation.top1_agreement is not None:
        facts.append(
            Fact("Same class", format_share(simulation.top1_agreement), "simulation and onnxruntime")
        )
    return facts


def _quality(report: Report) -> str:
    metrics = report.metrics
    if metrics.name == "top1":
        return (
            f"Top-1 accuracy is {format_share(metrics.quantized)}, {format_share(metrics.float_)} in float, "
            f"on {metrics.samples} samples that decided nothing."
        )
    if metrics.name == "top1_agreement":
        same = format_share(metrics.quantized)
        return f"It names the same class as the float model for {same} of the held-back samples."
    return (
        f"The mean cosine with the float model's output is {metrics.quantized:.4f} on the held-back samples."
    )


def _size_row(report: Report) -> ResultRow:
    model = report.model
    deviation = model.quantized_bytes / max(model.predicted_bytes, 1) - 1
    return ResultRow(
        "Size on disk",
        format_bytes(model.float_bytes),
        format_bytes(model.quantized_bytes),
        f"{format_share(model.ratio, 1)} of the size",
        detail="" if model.budget_bytes is None else f"budget {format_bytes(model.budget_bytes)}",
        before_detail=f"{model.float_bytes:,} bytes",
        after_detail=f"{model.quantized_bytes:,} bytes, {deviation:+.1%} from the plan".replace("-", "−"),
        before_bar=100,
        after_bar=round(100 * min(model.ratio, 1), 1),
    )


def _quality_rows(report: Report) -> list[ResultRow]:
    metrics = report.metrics
    title = METRIC_TITLES.get(metrics.name, metrics.name)
    on = f"{metrics.samples} held-back samples"
    rows = []
    if metrics.name == "top1":
        change = f"{100 * (metrics.quantized - metrics.float_):+.2f} points".replace("-", "−")
        rows.append(
            ResultRow(
                title,
                format_share(metrics.float_),
                format_share(metrics.quantized),
                change + _change_bounds(metrics),
                detail=on,
                after_detail=_bounds(metrics, format_share),
            )
        )
    if metrics.top1_agreement is not None:
        bounds = _bounds(metrics, format_share) if metrics.name == "top1_agreement" else ""
        agreement = format_share(metrics.top1_agreement)
        rows.append(
            ResultRow(METRIC_TITLES["top1_agreement"], "–", agreement, "", detail=on, after_detail=bounds)
        )
    if metrics.name == "mean_cosine":
        bounds = _bounds(metrics, "{:.4f}".format)
        rows.append(ResultRow(title, "1", f"{metrics.mean_cosine:.4f}", "", detail=on, after_detail=bounds))
    if metrics.name not in METRIC_TITLES:
        rows.append(ResultRow(title, f"{metrics.float_:.4g}", f"{metrics.quantized:.4g}", "", detail=on))
    noise = 10 ** (-metrics.sqnr_db / 20)
    rows.append(
        ResultRow(
            "Output SQNR",
            "–",
            f"{metrics.sqnr_db:.1f} dB",
            f"noise is {format_share(noise, 1)} of the signal",
            detail="signal to quantization noise",
        )
    )
    return rows


def _bounds(metrics: Metrics, text: Callable[[float], str]) -> str:
    if metrics.interval is None:
        return ""
    low, high = metrics.interval
    return f"95 % interval {text(low)} to {text(high)}"


def _change_bounds(metrics: Metrics) -> str:
    if metrics.change_interval is None:
        return ""
    low, high = (f"{100 * bound:+.2f}".replace("-", "−") for bound in metrics.change_interval)
    return f" (95 % interval {low} to {high})"


def _latency_row(report: Report) -> ResultRow:
    latency = report.latency_ms
    longest = max(latency.float_, latency.quantized)
    faster = latency.speedup >= 1
    factor = latency.speedup if faster else 1 / latency.speedup
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    return ResultRow(
        "Latency",
        format_ms(latency.float_),
        format_ms(latency.quantized),
        f"{factor:.2f}× {'faster' if faster else 'slower'}",
        detail=f"onnxruntime, batch {latency.batch}, {threads}, {latency.runs} pairs of runs in turn",
        before_detail=f"interquartile range {format_ms(latency.float_spread)}",
        after_detail=f"interquartile range {format_ms(latency.quantized_spread)}",
        before_bar=round(100 * latency.float_ / longest, 1),
        after_bar=round(100 * latency.quantized / longest, 1),
    )
