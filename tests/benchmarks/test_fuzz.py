"""A sample of the mutation fuzz run: damaged models end in success or in an error of our own tree."""

from __future__ import annotations

import logging
import random
import time
import warnings

import onnx
import pytest

from benchmarks import fuzz
from benchmarks.recipes.fuzz_seeds import DATA, WEIGHTS, external_bytes, handmade
from benchmarks.recipes.mutations import MUTATIONS, mutate


@pytest.fixture
def quiet():
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_damaged_models(quiet, tmp_path) -> None:
    models = {**handmade(), "resnet20": onnx.load(DATA / "resnet20_cifar10.onnx")}
    (tmp_path / WEIGHTS).write_bytes(external_bytes() * 64)
    rng = random.Random(0)
    outcomes = []
    for index in range(3 * len(MUTATIONS)):
        name = rng.choice(list(models)) if index % 20 else "resnet20"
        kind = list(MUTATIONS)[index % len(MUTATIONS)]
        content = mutate(models[name], kind, rng)
        start = time.process_time()
        found = fuzz.judge(name, kind, content, tmp_path)
        assert found["outcome"] in fuzz.FINE, found
        assert time.process_time() - start < fuzz.SECONDS, found
        outcomes.append(found["outcome"])
    # Neither are all refused, nor is the damage harmless.
    assert 10 < outcomes.count("success") < len(outcomes) - 10


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_mutation_changes_something(kind: str) -> None:
    model = handmade()["control"]
    rng = random.Random(0)
    whole = model.SerializeToString()
    assert sum(mutate(model, kind, rng) != whole for _ in range(10)) >= 5
    assert model.SerializeToString() == whole


@pytest.mark.slow
def test_the_watch_sees_a_hang_and_a_crash(monkeypatch) -> None:
    results = [
        {"index": 0, "model": "m", "kind": "nest", "outcome": "hang", "cpu": 0.0, "megabytes": 0},
        {"index": 1, "model": "m", "kind": "nest", "outcome": "success", "cpu": 11.0, "megabytes": 10},
        {"index": 2, "model": "m", "kind": "wrap", "outcome": "refused", "cpu": 1.0, "megabytes": 3000},
        {"index": 3, "model": "m", "kind": "wrap", "outcome": "refused", "cpu": 1.0, "megabytes": 10},
    ]
    assert [fuzz.verdict(found) for found in results] == ["hang", "slow", "memory", "refused"]
    assert fuzz.table(results).count("FINDING") == 3
    worker = fuzz.Worker(0)
    try:
        first = worker.process.pid
        worker.process.kill()
        assert worker.case(0)["outcome"] == "crash"
        assert worker.process.pid != first
        assert worker.case(1)["outcome"] in fuzz.FINE
        monkeypatch.setattr(fuzz, "SECONDS", -1.0)
        assert worker.case(2)["outcome"] == "hang"
    finally:
        worker.stop()
