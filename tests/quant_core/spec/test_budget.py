import pytest
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
    with pytest.raises(ValidationError, match=r"ratio of the float file|at most 100%") as told:
        QuantizeSpec.model_validate({"size": size})
    assert told.value.errors()[0]["loc"] == ("size",)
    assert QuantizeSpec.model_validate({"peak_memory": 80}).budget.peak_memory == 80


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
