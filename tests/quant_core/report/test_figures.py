from __future__ import annotations

import math

import pytest

from quant_core.report.figures import MOST_POINTS, predicted_error, report_figures, thin_out
from quant_core.spec import FLOAT_BITS, ParetoPoint


def test_layers_are_drawn_as_they_are_reported(job):
    report, table, front = job(20)
    for layer, bar in zip(report.layers, report_figures(report, table, front)["layers"], strict=True):
        assert (bar["name"], bar["op"], bar["bits"]) == (layer.name, layer.op, layer.weight_bits)
        assert bar["reason"] == layer.reason
        assert bar["loss"] == pytest.approx(layer.sensitivity, rel=1e-5)
        assert bar["lossError"] == pytest.approx(layer.sensitivity_stderr, rel=1e-5)
        assert bar["trace"] == pytest.approx(layer.trace, rel=1e-5)


def test_the_front_carries_the_choice_the_budget_and_both_ends(job):
    report, table, front = job(10)
    drawn = report_figures(report, table, front)["front"]
    assert drawn["budget"] == report.plan.budget_bytes
    assert drawn["choice"]["x"] == report.plan.predicted_bytes
    assert drawn["choice"]["y"] == pytest.approx(report.plan.predicted_loss, rel=1e-5)
    points = drawn["curves"][0]["points"]
    assert len(points) == MOST_POINTS
    assert [points[0]["x"], points[-1]["x"]] == [front.points[0].bytes, front.points[-1].bytes]


def test_errors_of_layers_add_up_in_quadrature_and_float_layers_have_none(job):
    _, table, _ = job(3)
    rows = {row.name: row for row in table.layers}
    names = list(rows)
    point = ParetoPoint(bytes=1, predicted_loss=0.1, bits=(2, FLOAT_BITS, 4))
    first, last = (rows[name].sensitivity_stderr for name in (names[0], names[2]))
    assert predicted_error(names, point, rows) == pytest.approx(math.hypot(first[2], last[4]))
    assert predicted_error(names, point.model_copy(update={"bits": (2, 7, 4)}), rows) is None
    assert predicted_error(names, point.model_copy(update={"bits": ()}), rows) is None


def test_thinning_keeps_both_ends_and_the_order(job):
    points = job(3)[2].points
    kept = thin_out(points, 100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert [p.bytes for p in kept] == sorted({p.bytes for p in kept})


def test_a_score_that_is_missing_or_not_a_number_leaves_a_gap(job):
    report, table, front = job(6)
    layers = list(report.layers)
    layers[2] = layers[2].model_copy(update={"sensitivity": math.nan, "trace": None, "trace_stderr": None})
    report = report.model_copy(update={"layers": tuple(layers)})
    bar = report_figures(report, table, front)["layers"][2]
    assert bar["loss"] is None
    assert bar["trace"] is None
