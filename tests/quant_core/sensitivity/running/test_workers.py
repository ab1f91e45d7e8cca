"""Two processes stand in for two devices: the same numbers to the last bit."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quant_core.errors import MemoryLimitError
from quant_core.sensitivity import Objective, Term
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.estimators.gauss_newton import gauss_newton
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.workers import OneThread, Workers
from quant_core.sensitivity.table import answer

KL = Objective((Term("y", "y", "kl"),))
LABELS = torch.arange(96) % 3


@pytest.fixture(scope="module")
def net(tiny: Any) -> Any:
    return tiny("Tanh")


@pytest.fixture(scope="module")
def two(net: Any, samples: torch.Tensor) -> Iterator[Workers]:
    with Workers(net.model, {"x": samples}, LABELS, ["cpu", "cpu"]) as workers:
        yield workers


@pytest.fixture(scope="module")
def question(net: Any, samples: torch.Tensor, rounded: Any) -> Question:
    def quantized(layer: Any, bits: int) -> Any:
        return rounded(net.weights[layer.weight], bits)

    return Question(
        net.program, net.layers, {"x": samples}, quantized, KL, bits=(2, 4), max_probes=45, seed=3
    )


@pytest.mark.parametrize(
    ("method", "max_probes"),
    [
        ("gauss_newton", 45),
        ("gauss_newton", 2000),
        ("hawq_v2", 45),
        ("output", 45),
        ("interaction", 45),
        ("pqi", 45),
    ],
)
def test_the_table_is_the_same_whatever_the_number_of_processes(
    question: Question, two: Workers, method: Any, max_probes: int
) -> None:
    told: list[str] = []
    question = replace(question, max_probes=max_probes)
    one = answer(replace(question, crew=OneThread()), method).table
    many = answer(replace(question, crew=two, on_progress=lambda _, said: told.append(said)), method).table
    assert many.model_dump_json() == one.model_dump_json()
    assert told
    assert all(layer.trace for layer in many.layers)


def test_labels_reach_the_other_processes(question: Question, two: Workers) -> None:
    known = replace(question, labels=LABELS, objective=Objective((Term("y", "y", "cross_entropy"),)))
    one = answer(replace(known, crew=OneThread()), "output").table
    assert answer(replace(known, crew=two), "output").table == one
    assert one.layers != answer(replace(question, crew=OneThread()), "output").table.layers


def test_pairs_are_the_same_whatever_the_number_of_processes(question: Question, two: Workers) -> None:
    one = answer(replace(question, crew=OneThread()), "interaction").interactions
    many = answer(replace(question, crew=two), "interaction").interactions
    assert one is not None
    assert many is not None
    assert np.abs(one.pairs).max() > 0
    for field in fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(many, field.name))


def test_the_stopping_rule_does_not_see_how_many_work(question: Question, two: Workers) -> None:
    early = replace(question, tolerance=0.4, max_probes=500, objective=KL)
    one = answer(replace(early, crew=OneThread()), "hawq_v2").table
    many = answer(replace(early, crew=two), "hawq_v2").table
    assert many.probes == one.probes < 500
    assert many == one


def test_an_error_in_a_process_is_raised_here_and_the_process_goes_on(
    net: Any, samples: torch.Tensor, question: Question, two: Workers
) -> None:
    cut = Cut(len(samples), 100, 0)
    # The estimator must be importable there, so a public one is given arguments it cannot take.
    broken = Assignment(gauss_newton, net.layers, KL, cut, {"seed": "none", "tolerance": 0, "max_probes": 3})
    batches = cut.batches({"x": samples}, None, "cpu")
    with pytest.raises(ValueError, match="seed"), two.on(broken) as run:
        broken.run(net.program, batches, run=run)
    again = answer(replace(question, crew=two), "gauss_newton").table
    assert again == answer(replace(question, crew=OneThread()), "gauss_newton").table


def test_a_killed_process_is_told_with_its_likely_cause(net: Any, samples: torch.Tensor) -> None:
    with Workers(net.model, {"x": samples}, None, ["cpu"]) as workers:
        workers._workers[0]._process.kill()
        cut = Cut(len(samples), 100, 0)
        options = {"seed": 0, "tolerance": 0.0, "max_probes": 3}
        assignment = Assignment(gauss_newton, net.layers, KL, cut, options)
        batches = cut.batches({"x": samples}, None, "cpu")
        with pytest.raises(MemoryLimitError, match="fewer workers"), workers.on(assignment) as run:
            assignment.run(net.program, batches, run=run)


def test_what_is_not_wanted_any_more_is_not_waited_for(
    net: Any, samples: torch.Tensor, two: Workers, tmp_path: Path
) -> None:
    """Every unit but the first ends only after the estimate was left."""
    cut = Cut(len(samples), 100, 0)
    first = Assignment(take_one, net.layers, KL, cut, {"left": tmp_path / "left", "units": 6})
    batches = cut.batches({"x": samples}, None, "cpu")
    with two.on(first) as run:
        assert first.run(net.program, batches, run=run) == 0
    (tmp_path / "left").touch()
    with two.on(first) as run:  # both processes take part again
        found = [int(values[0]) for values in run(lambda *_: np.zeros(1), ((0, n) for n in range(5)))]
    assert found == [*range(5)]


def take_one(
    program: Any, layers: Any, objective: Any, batches: Any, *, left: Path, units: int, run: Any
) -> int:
    def unit(batch: int, number: int) -> np.ndarray:
        for _ in range(90_000 if number else 0):
            if left.exists():
                break
            time.sleep(0.01)
        else:
            assert number == 0, "never left"
        return np.array([float(number)])

    with closing(run(unit, ((0, number) for number in range(units)))) as results:
        return int(next(results)[0])
