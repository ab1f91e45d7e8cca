"""What a sample takes while all its tensors are held."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quant_core.sensitivity.batches import activation_bytes


def test_bytes_of_a_sample_are_those_of_every_tensor_and_measured_once(
    monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    net = tiny("Relu", hidden=6)
    x = torch.zeros(4, 5)
    # m, a and h hold 6 floats each, z and y 3.
    assert activation_bytes(net.program, {"x": x}) == 4 * (3 * 6 + 2 * 3)
    assert activation_bytes(net.program, {"x": x}, 4) == 4 * (3 * 6 + 2 * 3)
    monkeypatch.setattr(type(net.program), "evaluate", None)
    assert activation_bytes(net.program, {"x": x[:2]}) == 4 * (3 * 6 + 2 * 3)
    with pytest.raises(TypeError):
        activation_bytes(tiny("Relu", hidden=6).program, {"x": x})
