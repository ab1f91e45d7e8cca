"""HAWQ-V3's published ResNet-18 configurations (arXiv:2011.10680)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant_core.allocation import Problem, pareto_front, solve

FACTS = json.loads((Path(__file__).parents[3] / "data" / "hawq_v3_resnet18.json").read_text())
BITS = (4, 8)


def published(name: str) -> tuple[Problem, str, list[int]]:
    resource, fraction = name.rsplit("_", 1)
    macs = np.array(FACTS["macs"])
    costs: dict[str, Any] = {
        "size": np.array(FACTS["parameters"])[:, None] * np.array(BITS) / 8,
        "bops": macs[:, None] * np.array(BITS) ** 2,
        "latency": np.array([FACTS["latency"][str(b)] for b in BITS]).T,
    }
    least, most = costs[resource].sum(axis=0)
    perturbation = np.array([FACTS["delta_weight_squared"][str(b)] for b in BITS]).T
    problem = Problem(
        sensitivity=np.array(FACTS["trace"])[:, None] * perturbation,
        costs=costs,
        budgets={resource: least + float(fraction) * (most - least)},
        ties=FACTS["ties"],
        names=FACTS["layers"],
    )
    return problem, resource, FACTS["published_bits"][name]


@pytest.mark.parametrize("solver", ["highs", "cbc"])
@pytest.mark.parametrize("name", FACTS["published_bits"])
def test_integer_program_gives_the_published_bits(name: str, solver: Any) -> None:
    problem, _, bits = published(name)
    plan = solve(problem, solver=solver)
    assert [BITS[k] for k in plan.choice] == bits
    assert plan.optimal
    assert plan.gap == 0


@pytest.mark.parametrize("name", FACTS["published_bits"])
def test_front_passes_through_the_published_bits(name: str) -> None:
    problem, resource, bits = published(name)
    front = pareto_front(
        Problem(problem.sensitivity, problem.costs, ties=problem.ties, names=problem.names), cost=resource
    )
    assert [BITS[k] for k in front.plan(problem.budgets[resource]).choice] == bits
