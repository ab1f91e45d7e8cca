"""A rule that matches nothing is answered with what may be meant."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quant_core.allocation.unmatched_rule import refuse_unmatched
from quant_core.errors import SpecError
from quant_core.spec import LayerRule


@dataclass(frozen=True)
class Layer:
    name: str
    weight: str
    op: str = "Conv"


LAYERS = [
    Layer("/conv1/Conv", "conv1.weight"),
    Layer("/fc/Gemm", "fc.weight"),
    Layer("/head/MatMul", "val_12"),
]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("fc", "'*fc*' matches /fc/Gemm."),
        ("*conv1", "'*conv1*' matches /conv1/Conv."),
        ("val", "'*val*' matches /head/MatMul."),
        ("/haed/MatMul", "did you mean '/head/MatMul'?"),
        ("stem*", "layers are /conv1/Conv, /fc/Gemm, /head/MatMul."),
    ],
)
def test_the_remedy_names_what_may_be_meant(written: str, told: str) -> None:
    with pytest.raises(SpecError, match="matches no layer") as refused:
        refuse_unmatched([LayerRule(match="Conv", pin=4), LayerRule(match=written, pin=8)], LAYERS)
    assert written in refused.value.message
    assert refused.value.remedy is not None
    assert refused.value.remedy.endswith(told)
    assert refused.value.where == "rules.1"


def test_a_long_list_is_cut() -> None:
    with pytest.raises(SpecError) as refused:
        refuse_unmatched([LayerRule(match="stem", pin=8)], [Layer(f"layer{k}", f"w{k}") for k in range(9)])
    assert refused.value.remedy is not None
    assert refused.value.remedy.endswith("layer4 and 4 more.")
