"""The figures at the top of a page are those of the report, faster or slower, better or worse."""

import math

import pytest

from quant_core.report.headline import mean_bits, result_rows, simulation_facts, summary

TITLES = {
    "top1": ["Size on disk", "Top-1 accuracy", "Same class as float", "Output SQNR", "Latency"],
    "top1_agreement": ["Size on disk", "Same class as float", "Output SQNR", "Latency"],
    "mean_cosine": ["Size on disk", "Mean cosine", "Output SQNR", "Latency"],
}


def told(job, metric="top1", **parts):
    report, _, _ = job(metric=metric)
    return report.model_copy(
        update={name: getattr(report, name).model_copy(update=values) for name, values in parts.items()}
    )


@pytest.mark.parametrize("metric", TITLES)
def test_each_measure_has_a_row(job, metric):
    assert [row.title for row in result_rows(told(job, metric))] == TITLES[metric]


def test_a_size(job):
    found = told(
        job,
        model={
            "float_bytes": 1_000_000,
            "quantized_bytes": 247_500,
            "predicted_bytes": 250_000,
            "ratio": 0.2475,
        },
    )
    row = result_rows(found)[0]
    assert (row.before, row.after, row.change) == ("1.00 MB", "248 KB", "24.8 % of the size")
    assert (row.before_bar, row.after_bar) == (100, 24.8)
    assert row.after_detail == "247,500 bytes, −1.0% from the plan"
    grown = told(job, model={"ratio": 1.5, "budget_bytes": None})
    assert (result_rows(grown)[0].after_bar, result_rows(grown)[0].detail) == (100, "")


@pytest.mark.parametrize(
    ("before", "after", "speedup", "change", "words", "bars"),
    [
        (2.0, 1.0, 2.0, "2.00× faster", "takes 1.00 ms instead of 2.00 ms, 2.00 times faster.", (100, 50)),
        (1.0, 4.0, 0.25, "4.00× slower", "takes 4.00 ms instead of 1.00 ms, 4.00 times slower.", (25, 100)),
        (1.0, 1.0, 1.0, "1.00× faster", "takes 1.00 ms instead of 1.00 ms, 1.00 times faster.", (100, 100)),
    ],
)
def test_a_latency(job, before, after, speedup, change, words, bars):
    found = told(job, latency_ms={"float_": before, "quantized": after, "speedup": speedup, "threads": 1})
    row = result_rows(found)[-1]
    assert (row.change, row.before_bar, row.after_bar) == (change, *bars)
    assert "batch 1, 1 thread, 100 pairs" in row.detail
    assert summary(found).endswith(words)


def test_an_accuracy_with_its_bounds(job):
    row = result_rows(told(job, metrics={"interval": (0.9, 0.93), "change_interval": (-0.012, 0.003)}))[1]
    assert (row.before, row.after) == ("92.08 %", "91.63 %")
    assert row.change == "−0.45 points (95 % interval −1.20 to +0.30)"
    assert row.after_detail == "95 % interval 90.00 % to 93.00 %"


@pytest.mark.parametrize(
    ("sqnr", "noise"), [(20, "10.0 %"), (0, "100.0 %"), (40, "1.0 %"), (math.inf, "0.0 %")]
)
def test_a_ratio_as_noise(job, sqnr, noise):
    row = result_rows(told(job, metrics={"sqnr_db": sqnr}))[-2]
    assert (row.after, row.change) == (f"{sqnr:.1f} dB", f"noise is {noise} of the signal")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("top1", "Top-1 accuracy is 91.63 %, 92.08 % in float, on 128 samples that decided nothing."),
        ("top1_agreement", "same class as the float model for 97.00 % of the held-back samples."),
        ("mean_cosine", "output is 0.9987 on the held-back samples."),
    ],
)
def test_a_quality_in_words_where_there_is_one(job, metric, words):
    assert words in summary(told(job, metric))
    assert words not in summary(told(job, metric, metrics={"samples": 0}))


def test_bits_are_those_of_weights_with_what_outliers_take(job):
    report, _, _ = job()
    kinds = ({"parameters": 1000, "weight_bits": 4}, {"parameters": 3000, "weight_bits": 8, "outliers": 500})
    layers = [layer.model_copy(update=kind) for layer, kind in zip(report.layers, kinds, strict=False)]
    found = report.model_copy(update={"layers": tuple(layers)})
    assert mean_bits(found) == pytest.approx((4 * 1000 + 8 * 3000 + 12 * 500) / 4000)
    assert mean_bits(report.model_copy(update={"layers": ()})) == 0


@pytest.mark.parametrize(("metric", "count"), [("top1", 4), ("mean_cosine", 3)])
def test_the_simulation_is_held_against_onnxruntime(job, metric, count):
    facts = simulation_facts(told(job, metric))
    assert [fact.value for fact in facts] == ["21.4 dB", "21.4 dB", "48.2 dB", "99.20 %"][:count]
