"""A row of the table of layers says what the report says of the layer, and sorts by it."""

import pytest

from quant_core.report.layer_table import COLUMNS, bit_shares, kernels_note, layer_rows


def row(job, **told):
    report, _, _ = job(3)
    layers = (report.layers[0], report.layers[1].model_copy(update=told))
    cells = layer_rows(report.model_copy(update={"layers": layers}))[1]
    return dict(zip((column.title for column in COLUMNS), cells, strict=True))


def test_numbers_sort_by_their_value(job):
    told = {"parameters": 12_345, "macs": 6_789_000, "bytes": 4_321, "sensitivity": 0.25, "trace": 31.0}
    found = row(job, **told, sensitivity_stderr=0.01, trace_stderr=None, weight_bits=3)
    assert {title: (cell.text, cell.value) for title, cell in found.items() if cell.value is not None} == {
        "#": ("2", 2),
        "Bits": ("3", 3),
        "Weights": ("12.3 k", 12_345),
        "MACs": ("6.79 M", 6_789_000),
        "Bytes": ("4.32 KB", 4_321),
        "Loss increase": ("0.250 ± 0.010", 0.25),
        "Trace": ("31.0", 31.0),
    }
    assert row(job, macs=0)["MACs"].text == "–"


@pytest.mark.parametrize(
    ("told", "text", "detail"),
    [
        ({"weight_bits": 32}, "float", ""),
        ({"weight_bits": 4, "trellis": True}, "4", "trellis"),
        ({"weight_bits": 4, "outliers": 1_001}, "4", "1001 outliers, 1.50 KB"),
        ({"weight_bits": 5, "narrow_bits": 3, "narrow_share": 0.75}, "5", "3 for 75 % of the channels"),
    ],
)
def test_bits_come_with_what_is_special_about_them(job, told, text, detail):
    cell = row(job, **told)["Bits"]
    assert (cell.text, cell.detail, cell.chip) == (text, detail, told["weight_bits"])


def test_noise_and_form(job):
    found = row(job, sqnr_db=31.26, own_sqnr_db=40, form="weight_only", activation_bits=32, kernel="Conv")
    assert (found["SQNR"].text, found["SQNR"].value, found["SQNR"].detail) == (
        "31.3 dB",
        31.26,
        "alone 40.0 dB",
    )
    assert (found["Runs as"].text, found["Runs as"].detail) == ("Conv", "weight only, input float")
    assert row(job, sqnr_db=31.26, own_sqnr_db=None)["SQNR"].detail == ""
    unknown = row(job, sqnr_db=None, activation_bits=16)
    assert (unknown["SQNR"].text, unknown["SQNR"].value) == ("–", None)
    assert unknown["Runs as"].detail.endswith("input 16 bits")


def test_small_shares_keep_a_digit(job):
    report, _, _ = job(2)
    told = ({"parameters": 991, "weight_bits": 4}, {"parameters": 9, "weight_bits": 32})
    layers = tuple(layer.model_copy(update=each) for layer, each in zip(report.layers, told, strict=True))
    shares = bit_shares(report.model_copy(update={"layers": layers}))
    assert [(share.label, share.weights) for share in shares] == [("4 bits", "99 %"), ("float", "0.9 %")]
    assert bit_shares(report.model_copy(update={"layers": ()})) == []


def test_kernels_are_counted_the_most_first(job):
    report, _, _ = job(4)
    assert kernels_note(report).endswith(": QLinearConv 2, Conv 1, QGemm 1.")
    assert kernels_note(report.model_copy(update={"layers": ()})) == ""
