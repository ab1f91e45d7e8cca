"""The plans and files that were tried, as tables."""

from __future__ import annotations

from quant_core.report.numbers import format_bytes, format_loss, format_share
from quant_core.report.plain_table import PlainTable
from quant_core.spec import BandSearch, Report
from quant_core.spec.width import format_width


def trial_tables(report: Report) -> list[PlainTable]:
    """Show what was tried before the plan was settled.

    Args:
        report: The report.

    Returns:
        Plans measured against each other, rounds of refinement, files of an accuracy band; those there are.
    """
    tables = [_plans(report)] if report.trials else []
    tables += [_rounds(report)] if report.refinement else []
    tables += [_band(report.band)] if report.band is not None else []
    return tables


def _plans(report: Report) -> PlainTable:
    rows = tuple(
        (
            trial.name,
            format_bytes(trial.bytes),
            f"{trial.effective_bits:.2f}",
            format_loss(trial.predicted_loss),
            format_loss(trial.measured_loss)
            + ("" if trial.stderr is None else f" ± {format_loss(trial.stderr)}"),
        )
        for trial in report.trials
    )
    chosen = next((i for i, trial in enumerate(report.trials) if trial.chosen), None)
    return PlainTable(
        "Plans measured against each other",
        f"Loss increase with every weight rounded at once, on {report.trials[0].samples} calibration samples. "
        "The widest uniform plan inside the budget is always among them.",
        ("Plan", "File", "Mean bits", "Predicted loss", "Measured loss"),
        rows,
        chosen,
    )


def _rounds(report: Report) -> PlainTable:
    rows = []
    for number, step in enumerate(report.refinement, 1):
        moves = ", ".join(f"{move.name} {_short(move.before)} → {_short(move.after)}" for move in step.moves)
        rows.append(
            (
                str(number),
                str(step.neighbours),
                format_loss(step.before),
                format_loss(step.after),
                moves or "none",
            )
        )
    return PlainTable(
        "Refined by measuring around the plan",
        "Each round measured every layer one width up and down with all others as planned, and kept what lowered the "
        "loss by more than chance.",
        ("Round", "Neighbours", "Loss before", "Loss after", "Layers moved"),
        tuple(rows),
    )


def _band(search: BandSearch) -> PlainTable:
    def value(number: float) -> str:
        if search.band.metric == "drop":
            return format_share(number)
        return f"{number:.1f} dB" if search.band.metric == "sqnr" else f"{number:.4g}"

    rows = tuple(
        (
            format_bytes(one.bytes),
            f"{one.effective_bits:.2f}",
            format_loss(one.predicted_loss),
            value(one.value).replace("-", "−"),
            f"{value(one.low)} to {value(one.high)}".replace("-", "−"),
            "–" if one.expected is None else value(one.expected),
            "–" if one.bound is None else value(one.bound).replace("-", "−"),
            "yes" if one.inside else "no",
        )
        for one in search.evaluations
    )
    titles = {
        "drop": "Top-1 lost" if search.labelled else "Answers changed",
        "sqnr": "Output SQNR",
        "cosine": "Mean cosine",
        "loss": "Loss increase",
    }
    return PlainTable(
        "Files held against the accuracy band",
        f"Asked for {search.band}; each file ran in onnxruntime on {search.samples} samples that decided nothing else. "
        f"{search.reason[0].upper()}{search.reason[1:]}",
        (
            "File",
            "Mean bits",
            "Predicted loss",
            titles[search.band.metric],
            "95 % interval",
            "Expected",
            f"{100 * search.confidence:g} % bound",
            "Inside",
        ),
        rows,
        search.chosen,
    )


def _short(width: int) -> str:
    return format_width(width).removesuffix(" bits")
