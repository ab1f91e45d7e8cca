from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quant_core.spec import Budget, PlanSpec, QuantizeSpec


def test_a_quarter_of_the_file_where_nothing_is_asked():
    assert QuantizeSpec().budget == Budget(size=0.25)
    assert QuantizeSpec.model_validate({"size": None}).budget.limit_bytes(1000) == 250
    assert QuantizeSpec.model_validate({"bops": "5%"}).budget.size is None


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"size": "2.5MB"}, "size", 2_500_000),
        ({"size": "18%"}, "size", 0.18),
        ({"size": "1e6"}, "size", 1e6),
        ({"size": "1.5e-1"}, "size", 0.15),
        ({"bops": "3.5G"}, "bops", 3.5e9),
        ({"bops": "5%"}, "bops", 0.05),
        ({"bops": "1e9"}, "bops", 1e9),
        ({"effective_bits": "4.5"}, "effective_bits", 4.5),
        (
            {"budget": {"max_drop": {"metric": "drop", "limit": 0.01}}},
            "max_drop",
            Budget(max_drop="1%").max_drop,
        ),
    ],
)
def test_budgets_as_people_write_them(written, field, value):
    spec = QuantizeSpec.model_validate(written)
    assert getattr(spec.budget, field) == value
    assert QuantizeSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        ("size", "200 B", 200),
        ("size", "2kb", 2_000),
        ("size", "2KiB", 2_048),
        ("size", " 2 MB ", 2e6),
        ("size", "2mib", 2_097_152),
        ("size", ".5GB", 5e8),
        ("size", "2GiB", 2_147_483_648),
        ("size", "100%", 1),
        ("peak_memory", "300kB", 300_000),
        ("bops", "3k", 3e3),
        ("bops", "3MBOPs", 3e6),
        ("bops", "3 T", 3e12),
        ("bops", "3P", 3e15),
        ("latency", 2.5, 2.5),
        ("latency", "2.5", 2.5),
        ("latency", "2.5ms", 2.5),
        ("latency", "800 us", 0.8),
        ("latency", "1S", 1_000),
        ("max_drop", 0.5, "a drop of at most 50%"),
        ("max_drop", "drop <= 0.5%", "a drop of at most 0.5%"),
        ("max_drop", "sqnr >= 20 dB", "an output SQNR of at least 20 dB"),
        ("max_drop", "cosine>=0.99", "a cosine of at least 0.99"),
        ("max_drop", "cosine>=1", "a cosine of at least 1"),
        ("max_drop", "loss<=1.5", "a loss of at most 1.5"),
        ("max_drop", {"metric": "sqnr", "limit": -3}, "an output SQNR of at least -3 dB"),
        ("max_drop", {"metric": "cosine", "limit": -1}, "a cosine of at least -1"),
    ],
)
def test_units(field, written, value):
    found = getattr(Budget.model_validate({field: written}), field)
    assert (str(found) if field == "max_drop" else found) == (
        value if isinstance(value, str) else pytest.approx(value)
    )


@pytest.mark.parametrize(
    "band",
    [
        1,
        -0.01,
        "100%",
        True,
        "cosine>=1.01",
        {"metric": "cosine", "limit": -1.1},
        {"metric": "loss", "limit": -1},
    ],
)
def test_bands_that_no_result_can_keep_or_miss(band):
    with pytest.raises(ValidationError):
        QuantizeSpec.model_validate({"max_drop": band})


@given(
    st.sampled_from(["size", "peak_memory", "bops", "latency", "max_drop", "confidence"]),
    st.from_regex(
        r"(drop<=|sqnr>=|cosine>=|loss<=)?[0-9.]{1,3}(e[0-9]{1,3})? ?[%kmgtpiubs]{0,4}", fullmatch=True
    ),
)
def test_whatever_is_written_is_read_or_refused(field, written):
    asked = {"max_drop": "1%"} | {field: written}
    with suppress(ValidationError):
        assert getattr(Budget.model_validate(asked), field) is not None


def test_only_what_was_given_is_written():
    spec = QuantizeSpec.model_validate({"size": 0.18, "max_drop": "0.5%"})
    assert spec.model_dump()["budget"] == {"size": 0.18, "max_drop": {"metric": "drop", "limit": 0.005}}


@pytest.mark.parametrize(
    "written",
    [
        {"size": 0.2, "budget": {"size": 0.2}},
        {"bops": "lots"},
        {"bops": -1},
        {"effective_bits": 33},
        {"latency": "fast"},
        {"max_drop": "50 percent"},
        {"size": "0.5B"},
        {"bops": "120%"},
        {"peak_memory": "101%"},
        {"budget": {"weight": 3}},
    ],
)
def test_budgets_that_make_no_sense(written):
    with pytest.raises(ValidationError):
        QuantizeSpec.model_validate(written)


@pytest.mark.parametrize("size", [1.2, "1.2", 25, "25", "120%", "80 B"])
def test_what_is_neither_a_ratio_nor_the_bytes_of_a_file_is_asked_about(size):
    with pytest.raises(ValidationError, match=r"ratio of the float file|at most 100%|few bytes") as told:
        QuantizeSpec.model_validate({"size": size})
    assert told.value.errors()[0]["loc"] == ("size",)
    assert repr(size) in str(told.value)
    assert QuantizeSpec.model_validate({"peak_memory": 80}).budget.peak_memory == 80


def test_a_unit_that_is_none_is_told():
    with pytest.raises(ValidationError, match="cannot read '5iB' as a size"):
        QuantizeSpec.model_validate({"size": "5iB"})


def test_bytes_are_no_ratio():
    with pytest.raises(ValidationError) as told:
        QuantizeSpec.model_validate({"size": "20B"})
    assert told.value.errors()[0]["msg"].startswith("Value error, '20B' would be too few bytes for any file")


@pytest.mark.parametrize("confidence", [0.9, "0.9", "90%"])
def test_a_confidence_belongs_to_a_band(confidence):
    spec = QuantizeSpec.model_validate({"max_drop": "0.5%", "confidence": confidence})
    assert spec.budget.confidence == pytest.approx(0.9)
    with pytest.raises(ValidationError, match="give max_drop too"):
        QuantizeSpec.model_validate({"size": 0.2, "confidence": confidence})
    for wrong in (0.2, 1, "much"):
        with pytest.raises(ValidationError, match="confidence"):
            QuantizeSpec.model_validate({"max_drop": "0.5%", "confidence": wrong})


def test_a_plan_keeps_no_band():
    with pytest.raises(ValidationError, match="measuring files"):
        PlanSpec.model_validate({"max_drop": "1%"})
    assert PlanSpec.model_validate({"size": 0.2, "pin": {"fc": 8}}).rules[0].pin == 8
