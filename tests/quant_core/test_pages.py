"""What the pages show of the engine runs as it stands there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from quant_core.executor import Program, compile_model
from quant_core.ingest import find_layers, normalise
from quant_core.quantizers import quantize_weight

ROOT = Path(__file__).parents[2]


def _examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _run(page: str, **names: Any) -> dict[str, Any]:
    (example,) = _examples(ROOT / "docs" / f"{page}.md")
    exec(example, names)
    return names


@pytest.fixture(scope="module")
def model() -> ir.Model:
    weight = ", ".join(str(value) for value in np.random.default_rng(0).normal(size=15).round(3))
    return normalise(
        ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        classes (float[N, 5] input) => (float[N, 3] output) <float[5, 3] weight = {{{weight}}}> {{
            scores = MatMul(input, weight)
            output = Softmax(scores)
        }}
        """)
    )


def test_every_example_in_python_is_run() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = Counter({page.stem: len(_examples(page)) for page in pages})
    elsewhere = Counter(README=1, cli=1, sdk=5)  # tests/app/test_readme.py, test_docs.py, test_sdk_page.py
    assert +found - elsewhere == Counter(allocation=1, architecture=1, sensitivity=1)  # run below


def test_the_solver_as_a_library() -> None:
    names = _run("allocation")
    assert names["plan"].optimal
    assert names["plan"].choice[0] == 1
    assert names["front"].plan(50).costs["bytes"] <= 50


def test_the_contract_of_the_executor(model: ir.Model) -> None:
    x = torch.randn(4, 5)
    names = _run("architecture", model=model, feeds={"input": x}, name="scores")
    program: Program = names["program"]
    assert (program.inputs, program.outputs, program.order[-1]) == (("input",), ("output",), "output")
    (weight,) = program.weights.values()
    torch.testing.assert_close(names["values"]["output"], (x @ weight).softmax(-1))
    assert program.downstream("scores") == {"output"}


def test_a_table_of_sensitivities(model: ir.Model) -> None:
    program, x = compile_model(model), torch.randn(16, 5)
    few = {"input": x[:8]}
    names = _run(
        "sensitivity",
        program=program,
        model=model,
        layers=find_layers(model),
        x=x,
        few=few,
        outputs=program.evaluate(few),
        labels=torch.arange(16) % 3,
        quantized=lambda layer, bits: quantize_weight(program.weights[layer.weight].numpy(), bits, axis=1),
    )
    (layer,) = names["table"].layers
    assert layer.sensitivity[2] > layer.sensitivity[8] > 0
