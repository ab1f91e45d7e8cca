"""What was asked, with what it was made, and how long that took."""

from __future__ import annotations

from dataclasses import dataclass

from quant_core.report.numbers import format_bytes, format_count, format_seconds, format_share
from quant_core.spec import Report, SensitivityTable, format_bits
from quant_core.spec.budget import CONFIDENCE

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class StageBar:
    """One stage's share of the wall time.

    Attributes:
        start: Where its part begins, in per cent of the whole.
        width: How long it is, in per cent of the whole.
        title: Name and time.
        depth: Opacity, from 0 to 1, so that neighbours differ.
    """

    start: float
    width: float
    title: str
    depth: float


def request_pairs(report: Report) -> Pairs:
    """List what was asked.

    Args:
        report: The report.

    Returns:
        Titles and values.
    """
    spec = report.spec
    return [
        *_budget_pairs(report),
        ("Weight bits", ", ".join(map(format_bits, spec.weight_bits))),
        (
            "Activation bits",
            ", ".join(map(format_bits, spec.open_activations or [spec.default_activation_bits])),
        ),
        ("Rules", "; ".join(f"{rule.match}: {rule.effect}" for rule in spec.rules) or "none"),
        *([("Tied", "; ".join(map(", ".join, spec.ties)))] if spec.ties else []),
        ("Sensitivity", spec.sensitivity.replace("_", " ")),
        ("Allocation", spec.allocation),
        ("Loss", report.loss),
        ("Held back", format_share(spec.held_back, 0) + " of the samples"),
        ("Target", spec.target),
        ("Device", spec.device),
        ("Seed", str(report.seed)),
    ]


def _budget_pairs(report: Report) -> Pairs:
    budget, limits = report.spec.budget, report.plan.limits
    pairs = []
    if budget.size is not None:
        size = (
            f"{format_share(budget.size, 1)} of the float file"
            if budget.size <= 1
            else format_bytes(budget.size)
        )
        pairs.append(("Size", f"{size}: at most {report.plan.budget_bytes:,} bytes"))
    if budget.effective_bits is not None:
        pairs.append(("Effective bits", f"at most {budget.effective_bits:g} a weight"))
    if budget.bops is not None:
        pairs.append(("Bit operations", f"at most {format_count(limits['bops'])} a sample"))
    if budget.peak_memory is not None:
        pairs.append(("Peak activations", f"at most {format_bytes(limits['peak_memory'])} for one sample"))
    if budget.latency is not None:
        pairs.append(("Latency", f"at most {budget.latency:g} ms by the table"))
    if budget.max_drop is not None:
        confidence = CONFIDENCE if budget.confidence is None else budget.confidence
        pairs.append(("Accuracy", f"{budget.max_drop} with {100 * confidence:g} % confidence"))
    return pairs


def _latency_pairs(report: Report) -> Pairs:
    """What the latency table foretold beside what the file took."""
    table, layers = report.spec.latency_table, report.plan.costs.get("latency")
    if table is None or layers is None:
        return []
    rest = table.rest({layer.form for layer in report.layers})
    measured = report.latency_ms.quantized
    text = f"{layers:.3f} ms of layers + {rest:.3f} ms of the rest by the table, {measured:.3f} ms measured"
    return [("Latency foretold", f"{text} ({(layers + rest) / measured - 1:+.0%})".replace("-", "−"))]


def making_pairs(report: Report, table: SensitivityTable) -> Pairs:
    """List how it was made.

    Args:
        report: The report.
        table: The sensitivity table.

    Returns:
        Titles and values.
    """
    plan, model = report.plan, report.model
    timings = ", ".join(f"{timing.stage} {format_seconds(timing.seconds)}" for timing in report.timings)
    probes = (
        f", {table.probes} probes for the traces ({(table.trace_method or 'none').replace('_', ' ')})"
        if table.probes
        else ""
    )
    return [
        (
            "Time",
            f"{format_seconds(sum(timing.seconds for timing in report.timings))} ({timings})"
            if timings
            else "–",
        ),
        ("Peak memory", format_bytes(report.peak_memory_bytes)),
        ("Estimates", f"{table.method.replace('_', ' ')} on {table.samples} samples{probes}"),
        ("Solver", f"{plan.solver}, {'proven optimal' if plan.optimal else 'not proven optimal'}"),
        *_latency_pairs(report),
        (
            "Model",
            f"{format_count(model.parameters)} weights, {format_count(model.macs)} MACs, opset {model.opset}",
        ),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items())) or "–",
        ),
        ("Report", f"format {report.version}"),
    ]


def stage_bars(report: Report) -> list[StageBar]:
    """Divide a bar among the stages.

    Args:
        report: The report.

    Returns:
        One part a stage, in order.
    """
    total = sum(timing.seconds for timing in report.timings) or 1.0
    bars, start = [], 0.0
    for number, timing in enumerate(report.timings):
        width = 100 * timing.seconds / total
        title = f"{timing.stage}: {format_seconds(timing.seconds)}"
        bars.append(StageBar(round(start, 2), round(width, 2), title, 0.45 if number % 2 else 1.0))
        start += width
    return bars
