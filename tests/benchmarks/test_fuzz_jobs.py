"""A sample of the jobs that are drawn at random, and what counts as a finding."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fuzz_jobs
from benchmarks.fuzz_jobs import BUDGETS, draw, judge
from quant_core.artifacts import MODEL, REPORT_JSON


def _sound():
    """A perceptron's job that ends in a file."""
    cases = (draw(0, index) for index in range(100))
    case = next(each for each in cases if each.net == "perceptron" and "labels" not in each.samples)
    samples = {"x": np.random.default_rng(0).standard_normal((24, 12)).astype(np.float32)}
    return replace(case, samples=samples, request={"effective_bits": 4, "device": "cpu", "effort": "fast"})


@pytest.mark.parametrize("index", range(6))
def test_jobs_end_in_a_file_or_a_refusal(index, tmp_path):
    found = judge(draw(7, index), tmp_path)
    assert not found.startswith("FINDING"), found


def test_the_same_numbers_draw_the_same_job():
    one, other = draw(3, 5), draw(3, 5)
    assert one.model == other.model
    assert one.request == other.request
    assert all(np.array_equal(one.samples[name], other.samples[name]) for name in one.samples)
    assert set(BUDGETS) & set(one.request)


def test_what_a_job_makes_is_held_against_what_was_asked(tmp_path, monkeypatch):
    case, real = _sound(), fuzz_jobs.quantize
    assert judge(case, tmp_path) == "made"

    def too_large(model, data, spec, out):
        report = real(model, data, spec, out)
        (out / MODEL).write_bytes((out / MODEL).read_bytes() + bytes(100_000))
        return report

    def told_otherwise(model, data, spec, out):
        report = real(model, data, spec, out)
        text = json.loads((out / REPORT_JSON).read_text(encoding="utf-8"))
        text["layers"] = []
        (out / REPORT_JSON).write_text(json.dumps(text), encoding="utf-8")
        return report

    def broken(*_):
        raise ZeroDivisionError("by hand")

    for fault, words in ((told_otherwise, "read back"), (broken, "ZeroDivisionError: by hand")):
        monkeypatch.setattr(fuzz_jobs, "quantize", fault)
        assert words in judge(case, tmp_path)
    monkeypatch.setattr(fuzz_jobs, "quantize", too_large)
    limited = replace(case, request={"size": 1, "device": "cpu", "effort": "fast"})
    assert "were allowed" in judge(limited, tmp_path)
