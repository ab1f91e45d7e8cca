"""Units are worked off in order, and no more of them than are wanted."""

from collections.abc import Iterator

import numpy as np
import pytest

from quant_core.sensitivity.curvature.traces import TraceEstimate, average_traces
from quant_core.sensitivity.estimators.activations import ActivationTraces
from quant_core.sensitivity.estimators.output import LossIncrease
from quant_core.sensitivity.findings import (
    Findings,
    join_activations,
    join_findings,
    join_increases,
    join_traces,
)
from quant_core.sensitivity.running.units import in_turn, within


def test_units_run_only_as_far_as_they_are_wanted() -> None:
    ran: list[tuple[int, int]] = []

    def unit(batch: int, number: int) -> np.ndarray:
        ran.append((batch, number))
        return np.array([float(number)])

    def order() -> Iterator[tuple[int, int]]:
        yield from ((0, number) for number in range(100))

    results = in_turn(unit, order())
    assert [float(next(results)[0]) for _ in range(3)] == [0.0, 1.0, 2.0]
    results.close()
    assert ran == [(0, 0), (0, 1), (0, 2)]


def test_the_stopping_rule_ignores_what_runs_ahead() -> None:
    rng = np.random.default_rng(0)
    table = 1 + 0.1 * rng.normal(size=(4096, 3))

    def unit(_: int, number: int) -> np.ndarray:
        return table[number]

    def ahead(unit, order):  # type: ignore[no-untyped-def]
        results = [unit(*one) for one in order]  # all of them, before the first is looked at
        yield from results

    given = {"tolerance": 0.01, "max_probes": 2000}
    one = average_traces(unit, [4] * 32, **given)
    many = average_traces(unit, [4] * 32, **given, run=ahead)
    assert (one.probes, one.stopped) == (many.probes, many.stopped)
    assert one.probes < 2000
    assert np.array_equal(one.trace, many.trace)


def test_one_result_comes_however_little_time_there_is() -> None:
    ran: list[int] = []

    def unit(_: int, number: int) -> np.ndarray:
        ran.append(number)
        return np.ones(1)

    order = [(0, number) for number in range(5)]
    assert len(list(within(1e-9)(unit, order))) == 1
    assert ran == [0]
    assert len(list(within(1e9)(unit, order))) == 5


def test_inputs_that_groups_of_layers_share_are_joined_once() -> None:
    def traces(names: tuple[str, ...], *values: float) -> ActivationTraces:
        array = np.array(values)
        return ActivationTraces(names, array, array / 10, tuple(int(v) for v in values), 3, 8, "probe limit")

    joined = join_activations([traces(("a", "b"), 1.0, 2.0), traces(("b", "c"), 9.0, 3.0)])
    assert joined.tensors == ("a", "b", "c")
    assert joined.trace.tolist() == [1.0, 2.0, 3.0]
    assert joined.stderr.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert joined.elements == (1, 2, 3)
    assert (joined.probes, joined.samples) == (6, 8)


def test_groups_of_layers_are_joined() -> None:
    def traces(*values: float) -> TraceEstimate:
        array = np.array(values)
        return TraceEstimate(array, array / 10, array, probes=5, samples=7, stopped="probe limit")

    joined = join_traces([traces(1.0, 2.0), traces(5.0)])
    assert joined.trace.tolist() == [1.0, 2.0, 5.0]
    assert joined.share_stderr == pytest.approx(np.array([0.1, 0.2, 0.5]) / 8)
    assert (joined.probes, joined.samples, joined.stopped) == (10, 7, "probe limit")
    wide, narrow = np.array([[1.0, 2.0]]), np.array([[3.0]])
    increases = join_increases([LossIncrease(wide, wide, 7, "a"), LossIncrease(narrow, narrow, 7, "b")])
    assert increases.increase[0].tolist() == [1.0, 2.0]
    assert increases.increase[1, 0] == 3.0
    assert np.isnan(increases.increase[1, 1])
    assert increases.stopped == "a; b"
    found = join_findings([Findings(7, "a", 1, score=wide), Findings(7, "a", 1, score=narrow)])
    assert found.score is not None
    assert found.score.shape == (2, 2)
    assert found.trace is None
