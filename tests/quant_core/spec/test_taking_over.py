import pytest

from quant_core.errors import SpecError
from quant_core.spec import QuantizeSpec, SensitivityTable
from quant_core.spec.taking_over import taking_over


def _table(method: str) -> SensitivityTable:
    return SensitivityTable(method=method, loss="kl", samples=1, probes=1, seed=7, layers=())


def test_what_is_not_asked_is_as_the_table_was_made():
    spec = taking_over(QuantizeSpec(size=0.3), _table("fisher"))
    assert (spec.sensitivity, spec.seed, spec.budget.size) == ("fisher", 7, 0.3)
    assert taking_over(spec, _table("fisher")) == spec
    assert taking_over(QuantizeSpec.model_validate_json(spec.model_dump_json()), _table("fisher")) == spec


@pytest.mark.parametrize(("field", "value"), [("sensitivity", "output"), ("seed", 0)])
def test_what_is_asked_otherwise_is_refused(field, value):
    with pytest.raises(SpecError, match=f"estimated with {field}") as told:
        taking_over(QuantizeSpec.model_validate({field: value}), _table("fisher"))
    assert told.value.where == field


def test_a_method_of_analyses_alone_is_no_method_of_a_job():
    assert taking_over(QuantizeSpec(), _table("orm")).sensitivity == "output"
