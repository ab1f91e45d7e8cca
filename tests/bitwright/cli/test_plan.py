"""`bitwright plan` on the tables of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main
from quant_core.spec import BitPlan, CostTable, LayerCosts, LayerSensitivity, SensitivityTable
from quant_core.spec.costs import MemoryStep

BITS = (2, 4, 8)
SIZES = {"stem": 80, "body": 400}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = SensitivityTable(
        method="output", trace_method="gauss_newton", loss="kl", samples=8, probes=8, seed=0,
        layers=tuple(
            LayerSensitivity(name=name, weight=name, parameters=size, sensitivity={2: 1.0, 4: 0.1, 8: 0.0})
            for name, size in SIZES.items()
        ),
    )  # fmt: skip
    costs = CostTable(
        model="net.onnx", float_bytes=2000, base=100, functions={},
        layers=tuple(
            LayerCosts(
                name=name, weight=name, op="Conv", parameters=size, macs=size, bits=BITS,
                bytes={b: size * b // 8 for b in BITS}, activation_bits=dict.fromkeys(BITS, 8),
            )
            for name, size in SIZES.items()
        ),
    )  # fmt: skip
    (tmp_path / "sensitivity.json").write_text(table.model_dump_json())
    (tmp_path / "costs.json").write_text(costs.model_dump_json())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *map(str, arguments)])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def test_a_plan_for_people_and_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = run(capsys, folder, "--size", "400", "--pin", "stem=8")
    assert code == 0
    assert "About 380 bytes of 400 allowed" in said
    assert "pinned to 8" in said
    assert "two widths a layer" in said  # what a job may do and this does not
    code, said, _ = run(capsys, folder / "sensitivity.json", "--size", "0.2", "--json")
    assert code == 0
    plan = BitPlan.model_validate(json.loads(said))
    assert plan.bits == {"stem": 8, "body": 4}
    assert plan.optimal


def test_mistakes_are_told_in_the_words_of_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, folder, "--size", "150")
    assert code == 2
    assert "smallest reachable file is 220 bytes" in said
    code, _, said = run(capsys, folder, "--bops", "many")
    assert code == 2
    assert "bit operations" in said
    code, _, said = run(capsys, folder / "nothing", "--size", "0.5")
    assert code == 2
    assert "cannot be read" in said


def test_activations_and_their_peak_are_planned_and_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = CostTable.model_validate_json((folder / "costs.json").read_bytes())
    table = SensitivityTable.model_validate_json((folder / "sensitivity.json").read_bytes())
    widths = (804, 3204)
    layers = tuple(
        layer.model_copy(
            update={
                "bits": widths,
                "bytes": dict.fromkeys(widths, layer.bytes[4]),
                "activation_bits": {804: 8, 3204: 32},
            }
        )
        for layer in costs.layers
    )
    steps = tuple(MemoryStep(node=layer.name, elements={layer.name: 100}) for layer in layers[:1])
    costs = costs.model_copy(update={"layers": layers, "memory": steps})
    rows = tuple(row.model_copy(update={"activation_sensitivity": {8: 0.5, 32: 0.0}}) for row in table.layers)
    (folder / "costs.json").write_text(costs.model_dump_json())
    (folder / "sensitivity.json").write_text(table.model_copy(update={"layers": rows}).model_dump_json())
    code, said, _ = run(capsys, folder, "--size", "0.9", "--peak-memory", "30%")
    assert code == 0
    assert (
        "4 / 8" in said
    )  # 100 elements of 4 bytes are 400, and 30 % of them 120: 8 bits where they are held
    assert "4 / float" in said
    assert "peak memory: 100, at most 120" in said
    code, _, said = run(capsys, folder, "--peak-memory", "99")
    assert code == 2
    assert "smallest reachable is 100" in said
