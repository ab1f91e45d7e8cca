"""The same request twenty times, on one process and on two, and the search for an accuracy band on ResNet-20."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.calibration import Samples
from quant_core.pipeline import quantize
from quant_core.sensitivity import Objective, Term
from quant_core.spec import QuantizeSpec
from quant_core.trials import Judge
from tests.networks import network

DATA = Path(__file__).parents[2] / "benchmarks" / "data"
RESNET = DATA / "resnet20_cifar10.onnx"


@pytest.mark.slow
def test_twenty_plans_in_a_row_are_the_same_on_one_and_on_two_processes(tmp_path):
    rng = np.random.default_rng(0)
    sizes = (6, 9, 9, 9, 9, 5)
    names = [f"w{i}" for i in range(len(sizes) - 1)]
    text, read = "", "x"
    for i, name in enumerate(names):
        text += f" a{i} = MatMul({read}, {name}) h{i} = Relu(a{i})"
        read = f"h{i}"
    model = network(
        f"net (float[n, 6] x) => (float[n, 5] y) {{ {text} y = Identity({read}) }}",
        {
            name: rng.normal(size=shape) / np.sqrt(shape[0])
            for name, shape in zip(names, itertools.pairwise(sizes), strict=True)
        },
    )
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(48, 6)).astype(np.float32))
    plans, files, tables = [], set(), set()
    for run in range(20):
        for workers in (1, 2) if run % 5 == 0 else (1,):  # two take 18 times as long, to start
            spec = QuantizeSpec.model_validate({"effective_bits": 4.6, "workers": workers, "seed": 3})
            out = tmp_path / f"{run}-{workers}"
            plans.append(quantize(tmp_path / "net.onnx", tmp_path / "x.npz", spec, out).plan)
            files.add((out / "model.onnx").read_bytes())
            tables.add((out / "sensitivity.json").read_bytes())
    assert len(plans) == 24
    assert all(plan == plans[0] for plan in plans)
    assert len(files) == 1
    assert len(tables) == 1
    assert len(set(plans[0].bits.values())) > 1  # a plan that had to choose


@pytest.mark.slow
def test_a_search_on_resnet20_ends_where_images_it_did_not_see_agree_with_the_band(tmp_path):
    with np.load(DATA / "cifar10_calibration.npz") as full:
        images, labels = full["input"], full["labels"]
    np.savez(tmp_path / "given.npz", input=images[:384], labels=labels[:384])
    spec = QuantizeSpec.model_validate(
        {"max_drop": "cosine>=0.99", "held_back": 1 / 3, "bits": [2, 3, 4, 6, 8], "workers": 1}
    )
    report = quantize(RESNET, tmp_path / "given.npz", spec, tmp_path / "out")
    assert report.band.met
    assert len(report.band.evaluations) <= 8
    assert report.model.quantized_bytes < 0.25 * report.model.float_bytes
    judge = Judge(
        spec.budget.max_drop,
        RESNET,
        Samples({"input": images[384:]}),
        Objective((Term("logits", "logits", "kl"),)),
        64,
        0,
    )
    unseen = judge.judge(tmp_path / "out" / "model.onnx")
    # A search ends at the edge of the band, so its value on 128 others lies to either side; `benchmarks.band` has more.
    assert unseen.high >= 0.99, unseen
