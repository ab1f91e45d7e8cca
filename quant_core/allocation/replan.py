"""A new plan from the tables of an ended job: no network, no samples, no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quant_core.allocation.healing import healed
from quant_core.allocation.limits import read_limits
from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PairLosses, PlanProblem
from quant_core.allocation.unmatched_rule import refuse_unmatched
from quant_core.errors import SpecError
from quant_core.spec import (
    WEIGHT_BITS,
    BitPlan,
    CostTable,
    LayerRule,
    PlanSpec,
    SensitivityTable,
    format_bits,
)
from quant_core.spec.width import weight_of
from quant_core.written_files import read_written

_WRITER = "a quantization or an analysis"
_REMEDY = f"Name the folder of {_WRITER}, with sensitivity.json and costs.json in it."
_SENSITIVITY, _COSTS = "sensitivity.json", "costs.json"
_TRUSTED = 3.0
"""Standard errors below which a pair counts as nothing, as where pairs are measured."""


def replan(path: Path, spec: PlanSpec) -> BitPlan:
    """Make a plan from the artifacts of a job.

    Args:
        path: The folder of a quantization or an analysis, or its `sensitivity.json` with `costs.json` beside it.
        spec: What is asked.

    Returns:
        The plan.

    Raises:
        SpecError: If the tables are missing or do not fit.
        InfeasibleBudgetError: If no plan keeps the budgets.
    """
    table_path = path / _SENSITIVITY if path.is_dir() else path
    table = read_written(SensitivityTable, table_path, _WRITER, _REMEDY)
    costs = read_written(CostTable, table_path.with_name(_COSTS), _WRITER, _REMEDY)
    if [row.name for row in table.layers] != [row.name for row in costs.layers]:
        raise SpecError(
            "it lists other layers than the costs beside it.",
            remedy="Keep the two tables of one job together.",
            where=str(table_path),
        )
    if not any(row.sensitivity for row in table.layers):
        raise SpecError(
            f"{table.method} gives no loss increase to plan with.",
            remedy="Analyze with a method that does, such as `output`.",
            where=str(table_path),
        )
    costs = narrow(costs, spec.rules)
    pairs = None
    if table.interactions is not None and table.method == "interaction":
        pairs = _read_pairs(table_path.with_name(table.interactions), table)
    problem = PlanProblem.of(table, costs, allocation=spec.allocation, pairs=pairs)
    return plan_bits(problem, read_limits(spec.budget, costs), healed(problem))


def narrow(costs: CostTable, rules: tuple[LayerRule, ...]) -> CostTable:
    """Apply more rules to the bits that layers may be given.

    Args:
        costs: The table.
        rules: The rules.

    Returns:
        The table with fewer bits to choose from.

    Raises:
        SpecError: If a rule leaves a layer nothing that the table has.
    """
    refuse_unmatched(rules, costs.layers)
    rows = []
    for layer in costs.layers:
        holding = [rule for rule in rules if rule.matches(layer)]
        bits = tuple(b for b in layer.bits if all(rule.allows(weight_of(b)) for rule in holding))
        if not bits:
            known = ", ".join(map(format_bits, sorted({weight_of(b) for b in layer.bits})))
            told = "; ".join(f"{rule.effect} by rule {rule.match!r}" for rule in holding)
            contradict = not any(all(rule.allows(b) for rule in holding) for b in WEIGHT_BITS)
            if contradict:
                raise SpecError(
                    f"no bit-width is left: {told} contradict each other.",
                    remedy="Drop one of these rules.",
                    where=layer.name,
                )
            raise SpecError(
                f"{told} leaves nothing of the bits it was scored at: {known}.",
                remedy="Loosen the rule, or run a job with other candidate bits.",
                where=layer.name,
            )
        words = [layer.reason] if layer.reason else []
        words += [f"{rule.effect} by rule {rule.match!r}" for rule in holding]
        rows.append(layer.model_copy(update={"bits": bits, "reason": "; ".join(words) or None}))
    return costs.model_copy(update={"layers": tuple(rows)})


def _read_pairs(path: Path, table: SensitivityTable) -> PairLosses:
    try:
        with np.load(path, allow_pickle=False) as file:
            names, values = tuple(map(str, file["layers"])), np.asarray(file["pairs"], dtype=np.float64)
            errors = np.asarray(file["pairs_stderr"], dtype=np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise SpecError(
            "it holds no pairs of layers.",
            remedy="Keep it beside the table that names it.",
            where=str(path),
        ) from error
    # Shrunk as the job that measured them did: a search would pick out what chance made most negative.
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.clip(1 - (_TRUSTED * errors / values) ** 2, 0.0, 1.0)
    values = values * np.where(np.isnan(kept), 1.0, kept)
    return PairLosses.of(table, names, values)
