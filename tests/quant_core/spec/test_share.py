import pytest
from pydantic import ValidationError

from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec


@pytest.mark.parametrize("written", [0.02, "0.02", "2%", " 2 % ", "2e-2"])
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (QuantizeSpec, "float_islands"),
        (QuantizeSpec, "held_back"),
        (QuantizeSpec, "sparse"),
        (AnalyzeSpec, "held_back"),
        (AnalyzeSpec, "tolerance"),
        (AnalyzeSpec, "sparse"),
    ],
)
def test_shares_are_read_as_sizes_are(spec, field, written):
    asked = spec.model_validate({field: written})
    assert getattr(asked, field) == pytest.approx(0.02)
    assert spec.model_validate_json(asked.model_dump_json()) == asked


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("120%", "'120%' is too large|less than or equal to 1"),
        ("much", "cannot read 'much' as a share; write a number such as 0.9 or a percentage such as 90%"),
        ("2% more", "cannot read '2% more' as a share"),
        (True, "number"),
    ],
)
def test_what_is_no_share_is_named(written, told):
    with pytest.raises(ValidationError, match=told) as refused:
        QuantizeSpec.model_validate({"float_islands": written})
    assert refused.value.errors()[0]["loc"] == ("float_islands",)


def test_a_share_left_out_stays_left_out():
    assert QuantizeSpec().float_islands is None
    assert QuantizeSpec.model_validate({"float_islands": None}).float_islands is None
    assert PlanSpec.model_validate({"size": "20%"}).budget.size == 0.2
