"""One smallest size of a model, whoever names it, and a file that keeps it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.allocation.replan import replan
from quant_core.errors import InfeasibleBudgetError, SamplesError
from quant_core.pipeline import quantize
from quant_core.spec import PlanSpec, QuantizeSpec
from tests.networks import network

NET = """<ir_version: 8, opset_import: ["": 18]>
net (float[n,3,8,8] x) => (float[n,4,1,1] y) {
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, first) b = Relu(a)
  c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(b, second) d = Sigmoid(c) y = GlobalAveragePool(d) }"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, random = tmp_path_factory.mktemp("net"), np.random.default_rng(0)
    model = network(
        NET,
        {
            name: random.standard_normal(shape)
            for name, shape in {"first": (8, 3, 3, 3), "second": (4, 8, 3, 3)}.items()
        },
    )
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "data.npz", x=random.standard_normal((16, 3, 8, 8)).astype(np.float32))
    return folder / "net.onnx", folder / "data.npz"


def named(error: pytest.ExceptionInfo[InfeasibleBudgetError]) -> int:
    found = re.search(r"smallest reachable file is (\d+) bytes", str(error.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    ("request_", "zero_points"), [({}, False), ({"float_islands": 0}, True)], ids=["in float", "in integers"]
)
def test_job_and_plan_name_the_same_size_and_a_file_keeps_it(request_, zero_points, files, tmp_path):
    def spec(size: int) -> QuantizeSpec:
        return QuantizeSpec.model_validate({"size": size, "effort": "fast", **request_})

    with pytest.raises(InfeasibleBudgetError) as of_job:
        quantize(*files, spec(300), tmp_path / "out")
    smallest = named(of_job)
    made = quantize(*files, spec(smallest), tmp_path / "out").model.quantized_bytes
    assert made <= smallest <= 1.05 * made
    assert (made == smallest) is not zero_points  # nothing is kept free for what a float file does not have
    with pytest.raises(InfeasibleBudgetError) as of_plan:
        replan(tmp_path / "out", PlanSpec.model_validate({"size": 300}))
    assert named(of_plan) == smallest


def test_what_the_codes_alone_exceed_is_refused_before_samples_are_read(files, tmp_path):
    np.savez(tmp_path / "data.npz", another=np.zeros((16, 3), np.float32))
    codes = (8 * 3 * 9 + 4 * 8 * 9) * 2 // 8
    for size, error in ((codes - 1, InfeasibleBudgetError), (codes, SamplesError)):
        with pytest.raises(error):
            quantize(files[0], tmp_path / "data.npz", QuantizeSpec(size=size), tmp_path / "out")
