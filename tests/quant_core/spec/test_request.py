"""What each target takes, and what only makes sense together."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec
from quant_core.spec.request import TargetName

CPU, PORTABLE, GPUS = {"ort-cpu"}, {"portable"}, {"tensorrt", "ort-cuda"}


@pytest.mark.parametrize(
    ("asked", "targets", "words"),
    [
        ({}, CPU | PORTABLE | GPUS, ""),
        ({"opset": 21}, PORTABLE, "only portable ones let you choose"),
        ({"activation_bits": 16}, CPU, "written for ort-cpu alone"),
        ({"activation_bits": [8, 16]}, CPU, "for ort-cpu alone"),
        ({"activation_bits": [8, "float"]}, CPU, "chosen layer by layer for ort-cpu alone"),
        ({"rules": [{"match": "a", "activation_bits": 16}]}, CPU, "written for ort-cpu alone"),
        ({"rules": [{"match": "a", "activation_bits": 32}]}, CPU | PORTABLE | GPUS, ""),
        ({"sparse": 0.01}, CPU | PORTABLE, "does not fold"),
        ({"sparse": 0}, CPU | PORTABLE | GPUS, ""),
        ({"trellis": True}, CPU | PORTABLE, "does not fold"),
    ],
)
def test_a_target_takes_what_its_kernels_run(asked: dict[str, Any], targets: set[str], words: str) -> None:
    assert set(get_args(TargetName)) == CPU | PORTABLE | GPUS
    for target in CPU | PORTABLE | GPUS:
        if target in targets:
            QuantizeSpec.model_validate(asked | {"target": target})
        else:
            with pytest.raises(ValidationError, match=words):
                QuantizeSpec.model_validate(asked | {"target": target})


@pytest.mark.parametrize("held_back", [0, 1, -0.1, 1.5])
def test_some_samples_are_held_back_and_some_are_not(held_back: float) -> None:
    with pytest.raises(ValidationError):
        QuantizeSpec(held_back=held_back)
    assert (QuantizeSpec().held_back, AnalyzeSpec(held_back=0).held_back) == (0.25, 0)


def test_a_latency_budget_needs_a_table() -> None:
    with pytest.raises(ValidationError, match="needs a latency_table"):
        QuantizeSpec.model_validate({"latency": "2ms"})
    assert PlanSpec.model_validate({"latency": "2ms"}).budget.latency == 2


def test_orm_gives_no_scores_to_plan_with() -> None:
    with pytest.raises(ValidationError, match="`analyze` takes it"):
        QuantizeSpec.model_validate({"sensitivity": "orm"})
    assert AnalyzeSpec.model_validate({"sensitivity": "orm"}).sensitivity == "orm"


def test_a_new_plan_changes_no_activations() -> None:
    with pytest.raises(ValidationError, match="rule 'fc' changes how a layer runs"):
        PlanSpec.model_validate({"rules": [{"match": "fc", "pin": 8, "activation_bits": 16}]})
