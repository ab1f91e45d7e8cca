"""Scores that count what following leaves of them, on chains of layers of one size that lose alike."""

from dataclasses import replace

import pytest

from quant_core.allocation.candidates import Candidates
from quant_core.allocation.file_costs import FileCosts
from quant_core.allocation.healing import healed
from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PlanProblem

NAMES = [f"layer{index}" for index in range(6)]
BITS = (2, 3, 4, 5, 6)


@pytest.fixture
def chain():
    return PlanProblem(
        {name: Candidates(BITS, None) for name in NAMES},
        {name: {bits: 4.0**-bits for bits in BITS} for name in NAMES},
        FileCosts(0, {name: {bits: 100 * bits for bits in BITS} for name in NAMES}, {}),
    )


def following(problem, names):
    return replace(problem, followed=tuple(names))


def shares(problem, found):
    return [found.scores[name][2] / problem.scores[name][2] for name in NAMES]


def test_nothing_heals_what_the_last_layer_loses(chain):
    found = shares(chain, healed(following(chain, NAMES)))
    assert found[-1] == 1
    assert found == sorted(found)
    assert 0.4 < found[0] < 0.401
    assert shares(chain, chain) == [1] * 6


def test_only_layers_that_are_followed_heal(chain):
    found = shares(chain, healed(following(chain, NAMES[:3])))
    assert found[2:] == [1, 1, 1, 1]
    assert found[0] < found[1] < 1


def test_bits_go_to_the_end(chain):
    limits = {"bytes": 100 * (6 * 3 + 1)}
    bits = plan_bits(healed(following(chain, NAMES)), limits).bits
    assert bits == dict.fromkeys(NAMES[:-1], 3) | {NAMES[-1]: 4}


def test_a_plan_tells_the_loss_that_its_layers_have_and_not_their_share(chain):
    problem = following(chain, NAMES)
    plan = plan_bits(problem, {"bytes": 100 * (6 * 3 + 1)}, healed(problem))
    assert plan.bits == dict.fromkeys(NAMES[:-1], 3) | {NAMES[-1]: 4}
    assert plan.predicted_loss == pytest.approx(5 * 4.0**-3 + 4.0**-4)
    assert f"lower the predicted loss by {4.0**-3 - 4.0**-4:.3g}," in plan.layers[0].reason


def test_where_nothing_is_followed_and_by_other_rules_scores_stay(chain):
    named = replace(chain, allocation="hawq_v2", priority=dict.fromkeys(NAMES, 1.0), followed=tuple(NAMES))
    assert healed(named) is named
    assert healed(chain) is chain
