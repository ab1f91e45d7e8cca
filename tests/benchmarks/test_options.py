"""Options that are compared can be asked for, each with the others left alone."""

import pytest

from benchmarks.accuracy_tasks import TASKS
from benchmarks.options import BYTES, OPTIONS
from quant_core.spec import QuantizeSpec


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "defaults"])
def test_each_option_changes_a_request(name):
    changed = QuantizeSpec.model_validate({"size": 0.2} | OPTIONS[name])
    assert changed != QuantizeSpec.model_validate({"size": 0.2})


def test_every_task_has_a_budget():
    assert set(BYTES) == set(TASKS)
