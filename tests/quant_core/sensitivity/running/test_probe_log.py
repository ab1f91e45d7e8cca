"""An estimate that was cut off is taken up again: nothing is measured twice, and the numbers are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from quant_core.sensitivity import Objective, Term
from quant_core.sensitivity.cut import Cut
from quant_core.sensitivity.estimators import output
from quant_core.sensitivity.question import Question
from quant_core.sensitivity.running.assignment import Assignment
from quant_core.sensitivity.running.probe_log import ProbeLog
from quant_core.sensitivity.running.workers import Workers
from quant_core.sensitivity.table import answer

BITS = (2, 4, 8)


class _CutOffError(Exception):
    pass


class _Written:
    """What was written down, and how many results of each kind."""

    def __init__(self, after: int | None = None) -> None:
        self.found: dict[str, np.ndarray] = {}
        self._after = after

    def __call__(self, new: Mapping[str, np.ndarray]) -> None:
        assert not self.found.keys() & new.keys()
        self.found |= new
        if self._after is not None and len(self.found) >= self._after:
            raise _CutOffError


def _log(known: Mapping[str, np.ndarray], write: Any) -> ProbeLog:
    return ProbeLog(known, write, clock=lambda: 0.0)  # writes every result at once


@pytest.fixture
def question(tiny: Any, samples: torch.Tensor, rounded: Any) -> Question:
    net = tiny("Tanh")
    return Question(
        net.program,
        net.layers,
        {"x": samples[:48]},
        lambda layer, bits: rounded(net.program.weights[layer.weight], bits),
        Objective((Term("y", "y", "squared_error"),)),
        bits=BITS,
        max_probes=40,
    )


@pytest.mark.parametrize(
    "method", ["output", "interaction", "pqi", "gauss_newton", "hawq_v2", "fisher", "gnb", "hutch++", "kfac"]
)
def test_a_second_attempt_measures_what_the_first_did_not(question: Question, method: Any) -> None:
    whole = answer(question, method).table
    full = _Written()
    assert answer(dataclasses.replace(question, log=_log({}, full)), method).table == whole
    if method in {"hutch++", "kfac"}:  # these sweep over all samples in every step, and leave nothing
        assert not full.found
        return
    first = _Written(after=len(full.found) * 2 // 3)
    with pytest.raises(_CutOffError):
        answer(dataclasses.replace(question, log=_log({}, first)), method)
    assert 0 < len(first.found) < len(full.found)
    second = _Written()
    log = _log(first.found, second)
    assert log.known == len(first.found)
    assert answer(dataclasses.replace(question, log=log), method).table == whole
    assert second.found.keys() == full.found.keys() - first.found.keys()


def test_layers_of_an_unfinished_batch_are_not_measured_again(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    changes_of = output.changes_of

    def counted(run: Any, layer: Any, *more: Any, **options: Any) -> Any:
        measured.append(layer.name)
        return changes_of(run, layer, *more, **options)

    monkeypatch.setattr(output, "changes_of", counted)
    one_batch = dataclasses.replace(question, feeds={"x": question.feeds["x"][:32]})
    names = [layer.name for layer in question.layers]
    full = _Written()
    answer(dataclasses.replace(one_batch, log=_log({}, full)), "output")
    assert measured == names
    pieces = {key: found for key, found in full.found.items() if ".piece.0.0" in key}
    assert len(pieces) == 1
    measured.clear()
    answer(dataclasses.replace(one_batch, log=_log(pieces, _Written())), "output")
    assert measured == names[1:]


@pytest.mark.slow
def test_units_that_other_processes_worked_off_are_known_as_well(question: Question, tiny: Any) -> None:
    whole = answer(question, "output").table
    full, second = _Written(), _Written()
    with Workers(tiny("Tanh").model, question.feeds, None, ["cpu", "cpu"]) as crew:
        shared = dataclasses.replace(question, crew=crew)
        table = answer(dataclasses.replace(shared, log=_log({}, full)), "output").table
        early = dict(list(full.found.items())[: len(full.found) * 2 // 3])
        again = answer(dataclasses.replace(shared, log=_log(early, second)), "output").table
    assert again == table
    assert second.found.keys() == full.found.keys() - early.keys()
    for one, other in zip(table.layers, whole.layers, strict=True):
        assert one.sensitivity == pytest.approx(other.sensitivity, rel=1e-4)


def test_results_are_written_now_and_then() -> None:
    moment, writes = [0.0], []
    log = ProbeLog(
        {}, lambda new: writes.append((moment[0], sorted(new))), seconds=3.0, clock=lambda: moment[0]
    )
    for second in range(400):
        moment[0] = float(second)
        log.note(str(second), np.zeros(1))
    times = [time for time, _ in writes]
    assert times[:3] == [3.0, 6.0, 9.0]
    assert np.diff(times).max() == pytest.approx(0.05 * 400, rel=0.1)
    written = [name for _, names in writes for name in names]
    assert len(written) == len(set(written))
    assert int(max(written, key=int)) >= 400 - 21


def test_what_belongs_to_another_estimate_is_not_taken(question: Question) -> None:
    def estimator() -> None: ...

    def named(**changes: Any) -> str:
        cut = Cut(96, 1000, 0, **changes.pop("cut", {}))
        options = {"seed": 0, "replace": {"x": object()}} | changes
        made: list[str] = []
        log = _log({}, made.extend)
        assignment = Assignment(estimator, question.layers, question.objective, cut, options)
        for _ in range(2):  # the same once more is another estimate
            list(log.of(assignment).once(0, [0], lambda lacking: [np.zeros(1) for _ in lacking]))
        assert len(set(made)) == 2
        return made[0]

    assert named() == named()
    assert len({named(), named(seed=1), named(cut={"largest": 16})}) == 3
