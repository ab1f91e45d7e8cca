"""Latency tables, and a plan under a latency budget."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.errors import SpecError
from quant_core.preparation import prepare
from quant_core.preparation.pricing import price
from quant_core.profiling import profile
from quant_core.spec import LatencyTable, LayerLatency, LayerSensitivity, QuantizeSpec, SensitivityTable
from quant_core.spec.latency import FormLatency
from quant_core.verification import measure_latency
from tests.networks import network

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
MODEL = DATA / "resnet20_cifar10.onnx"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "few.npz"
    with np.load(DATA / "cifar10_calibration.npz") as full:
        np.savez(path, input=full["input"][:16])
    return path


@pytest.fixture(scope="module")
def table(samples):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quant_core.profiling.measure_latency", partial(measure_latency, pairs=5))
        return profile(MODEL, samples, QuantizeSpec(), runs=5)


def test_layers_and_rest_make_up_a_run(table):
    assert len(table.layers) == 22
    assert [row.form for row in table.layers] == ["weight_only"] + ["static"] * 21
    assert all(row.float_ms > 0 and row.integer_ms > 0 for row in table.layers)
    # The two are measured at different times on a machine that may be shared: this is about units, a thousand apart.
    whole = sum(row.float_ms for row in table.layers) + table.float_rest
    assert 1 / 30 < whole / table.float_total < 30
    assert LatencyTable.model_validate_json(table.model_dump_json()) == table


def test_a_latency_budget_buys_float_layers_where_they_are_cheap(samples):
    job = prepare(MODEL, samples, QuantizeSpec.model_validate({"size": 10**8, "bits": "8,float"}))
    layers = [
        {
            "name": layer.name,
            "form": "static",
            "float_ms": 1.0 + i,
            "float_spread": 0.0,
            "integer_ms": 1.0,
            "integer_spread": 0.0,
        }
        for i, layer in enumerate(job.layers)
    ]
    made = LatencyTable(
        model="net.onnx", target="ort-cpu", threads=1, batch=1, runs=9, activation_bits=8, float_rest=0,
        integer_rest=0, float_total=1, integer_total=1, layers=layers,
    )  # fmt: skip
    spec = QuantizeSpec.model_validate({"latency": "28ms", "bits": "8,float", "latency_table": made})
    costs = price(job, spec)
    scores = SensitivityTable(
        method="output", trace_method=None, loss="kl", samples=1, probes=0, seed=0,
        layers=[
            LayerSensitivity(
                name=layer.name, weight=layer.weight, parameters=layer.parameters, sensitivity={8: 1.0, 32: 0.0}
            )
            for layer in job.layers
        ],
    )  # fmt: skip
    plan = plan_bits(PlanProblem.of(scores, costs), {"latency": 28.0})
    # 22 ms in integers; 6 ms more pay for float at 0, 1, 2 and 3 ms extra.
    assert [layer.bits for layer in plan.layers] == [32] * 4 + [8] * 18
    assert plan.costs["latency"] == pytest.approx(28)
    # A layer that a rule keeps on float activations takes its float time at any width.
    last = replace(job.layers[-1], activation_bits=32)
    told = price(replace(job, layers=(*job.layers[:-1], last)), spec).layers
    assert (told[-1].latency, told[-2].latency) == ({8: 22.0, 32: 22.0}, {8: 1.0, 32: 21.0})
    other = made.model_copy(update={"layers": made.layers[1:]})
    with pytest.raises(SpecError, match="measured on"):
        price(job, spec.model_copy(update={"latency_table": other}))
    dynamic = [row.model_copy(update={"form": "dynamic"}) for row in made.layers]
    with pytest.raises(
        SpecError, match=r"would run as static at \d bits, and the table has its times as dynamic, float"
    ):
        price(job, spec.model_copy(update={"latency_table": made.model_copy(update={"layers": dynamic})}))
    for change, told in (
        ({"activation_bits": 32}, "with float activations, and 8"),
        ({"target": "x"}, "for x"),
    ):
        other = made.model_copy(update=change)
        with pytest.raises(SpecError, match=told) as refused:
            price(job, spec.model_copy(update={"latency_table": other}))
        assert "bitwright profile" in str(refused.value)
    blocks = {"latency_table": made.model_copy(update={"block_size": 64})}
    price(job, spec.model_copy(update=blocks))  # channels have no blocks
    with pytest.raises(SpecError, match="blocks have 64 weights, and blocks of 32"):
        price(job, spec.model_copy(update=blocks | {"granularity": "block"}))


def test_the_peak_of_resnet20_is_three_maps_of_its_first_stage(samples):
    spec = QuantizeSpec.model_validate({"size": 10**8, "bits": "8,float"})
    costs = price(prepare(MODEL, samples, spec), spec)
    # An addition holds two maps of 16 x 32 x 32 and writes the third.
    assert costs.float_peak_memory == 3 * 16 * 32 * 32 * 4
    assert len(costs.memory) < 30


def test_a_latency_budget_needs_a_table():
    with pytest.raises(ValidationError, match="bitwright profile"):
        QuantizeSpec.model_validate({"latency": "2ms"})


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """Two products, of which blocks of 32 fit the first alone: the second has a 3-dimensional weight."""
    folder = tmp_path_factory.mktemp("matrices")
    rng = np.random.default_rng(0)
    net = network(
        "g (float[n,4,64] x) => (float[n,4,8] y) { a = MatMul(x, w1) h = Relu(a) y = MatMul(h, w2) }",
        {
            name: rng.standard_normal(shape).astype(np.float32) / 8
            for name, shape in {"w1": (64, 96), "w2": (1, 96, 8)}.items()
        },
    )
    onnx.save(net, folder / "m.onnx")
    np.savez(folder / "s.npz", x=rng.standard_normal((16, 4, 64)).astype(np.float32))
    return folder


def test_layers_are_timed_in_every_form_that_a_request_can_give_them(matrices):
    found = profile(matrices / "m.onnx", matrices / "s.npz", QuantizeSpec(), runs=5)
    first, second = found.layers
    assert [(other.form, other.bits) for other in first.others] == [
        ("weight_only", None), ("block", 2), ("block", 4), ("block", 8)
    ]  # fmt: skip
    assert {other.form for other in second.others} == {"weight_only"}
    assert all(other.ms > 0 and other.spread >= 0 for other in first.others)
    assert [(file.form, file.bits) for file in found.others] == [
        (other.form, other.bits) for other in first.others
    ]
    assert found.block_size == 32
    assert LatencyTable.model_validate_json(found.model_dump_json()) == found
    assert (first.find("block", 4), first.find(first.form, 3)) == (first.others[2].ms, first.integer_ms)
    assert (first.find("block", 3), first.find("float", 32)) == (None, first.float_ms)
    assert found.rest({"block", "float"}) == found.others[1].rest
    assert (found.rest({"float"}), found.rest({first.form})) == (found.float_rest, found.integer_rest)


def test_the_plan_takes_the_width_whose_kernel_for_blocks_is_fast_enough(matrices):
    asked = {"bits": "2,4,8", "granularity": "block", "size": 10**8}
    job = prepare(matrices / "m.onnx", matrices / "s.npz", QuantizeSpec.model_validate(asked))
    times = {2: 3.0, 4: 1.0, 8: 2.0}
    rows = [
        LayerLatency(
            name=layer.name, form="dynamic", float_ms=9.0, float_spread=0.0, integer_ms=5.0, integer_spread=0.0,
            others=tuple(FormLatency(form="block", bits=b, ms=ms, spread=0.0) for b, ms in times.items()),
        )
        for layer in job.layers
    ]  # fmt: skip
    table = LatencyTable(
        model="m.onnx", target="ort-cpu", threads=1, batch=1, runs=9, activation_bits=8, float_rest=0,
        integer_rest=0, float_total=1, integer_total=1, block_size=32, layers=rows,
    )  # fmt: skip
    spec = QuantizeSpec.model_validate(asked | {"latency": "10.5ms", "latency_table": table})
    first, second = price(job, spec).layers
    assert first.latency == times
    assert second.latency == {2: 9.0, 4: 9.0, 8: 9.0}  # no blocks: unpacked at load, as fast as float
    scores = SensitivityTable(
        method="output", trace_method=None, loss="kl", samples=1, probes=0, seed=0,
        layers=[
            LayerSensitivity(
                name=row.name, weight=row.weight, parameters=row.parameters, sensitivity={2: 3.0, 4: 1.0, 8: 0.0}
            )
            for row in (first, second)
        ],
    )  # fmt: skip
    plan = plan_bits(PlanProblem.of(scores, price(job, spec)), {"latency": 10.5})
    # 8 bits would take 2 + 9 ms, 2 bits 3 + 9: only 4 bits keep the limit, whatever they lose.
    assert [layer.bits for layer in plan.layers] == [4, 8]
    other = spec.model_copy(update={"block_size": 64})
    with pytest.raises(SpecError, match="its blocks have 32 weights"):
        price(job, other)


@pytest.mark.parametrize(("slow", "disturbed"), [(1.0, False), (30.0, True)])
def test_layers_that_add_up_to_more_than_the_run_tell_of_a_busy_machine(slow, disturbed):
    row = {"name": "a", "form": "static", "float_spread": 0.0, "integer_ms": 0.5, "integer_spread": 0.0}
    table = LatencyTable(
        model="m.onnx", target="ort-cpu", threads=1, batch=1, runs=9, activation_bits=8, float_rest=0,
        integer_rest=0, float_total=1.4, integer_total=0.9, layers=[LayerLatency(float_ms=slow, **row)],
    )  # fmt: skip
    assert table.disturbed is disturbed
