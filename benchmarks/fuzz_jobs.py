"""Ask for jobs of all kinds on small nets: `python -m benchmarks.fuzz_jobs --count 200 --seed 0`.

Requests, weights and samples are drawn: options that few combine, weights that are zero, constant or far apart, samples
that are copies or reach to 1e4. Every job must end in a file, or in a refusal that is the user's own. A file must keep
its budget and give finite outputs, and its report must read back as it was.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper, parser
from pydantic import ValidationError

from benchmarks.recipes.fuzz_seeds import handmade
from quant_core.artifacts import MODEL, REPORT_JSON
from quant_core.errors import UserError
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec, Report

Array = npt.NDArray[Any]

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
TEXTS: Mapping[str, tuple[str, Mapping[str, tuple[int, ...]]]] = {
    "perceptron": (
        """g (float[n, 12] x) => (float[n, 5] y) {
            a = Gemm(x, w1, b1)  r = Relu(a)  y = Gemm<transB = 1>(r, w2)
        }""",
        {"w1": (12, 24), "b1": (24,), "w2": (5, 24)},
    ),
    "convolutions": (
        """g (float[n, 3, 12, 12] x) => (float[n, 6] y) {
            a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, b1)  r = Relu(a)
            d = Conv<pads = [1, 1, 1, 1], group = 16>(r, w2)  h = HardSwish(d)
            s = Add(h, r)  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm(f, w3, b3)
        }""",
        {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "w3": (16, 6), "b3": (6,)},
    ),
    "decoder": (
        """g (float[n, 8] x) => (float[n, 2, 10, 10] y) {
            a = Gemm(x, w1)  shape = Constant<value_ints = [0, 8, 5, 5]>()  m = Reshape(a, shape)
            u = ConvTranspose<strides = [2, 2]>(m, w2)  l = LeakyRelu<alpha = 0.1>(u)
            c = Conv<pads = [1, 1, 1, 1]>(l, w3)  y = Tanh(c)
        }""",
        {"w1": (8, 200), "w2": (8, 8, 2, 2), "w3": (2, 8, 3, 3)},
    ),
}

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "size": (0.3, 0.5, 0.7, 1),
    "effective_bits": (2.5, 3, 4, 6, 8),
    "bops": ("3%", "30%"),
    "peak_memory": ("30%", "60%"),
    "max_drop": ("sqnr>=20dB", "cosine>=0.95", "loss<=0.1"),
    "bits": ([2, 3, 4, 8], [8], [3, 5, 6], [4, 8, "float"]),
    "activation_bits": (16, "float", [8, 16], [8, "float"]),
    "activation_range": ("minmax", "mse", "output", "entropy", "percentile"),
    "float_islands": (0, 0.15, 1),
    "follow": (False,),
    "mix_channels": (False, True),
    "trellis": (True,),
    "target": ("portable", "tensorrt", "ort-cuda"),
    "held_back": (0.1, 0.5),
    "sensitivity": ("gauss_newton", "hawq_v2", "interaction", "fisher", "kfac", "pqi"),
    "loss": ("squared_error", "kl", "cross_entropy"),
    "effort": ("fast", "best"),
    "rounding": ("nearest", "gptq", "foem", "adaround", "reconstruction", "brecq"),
    "sparse": ("auto", 0.01),
    "granularity": ("tensor", "block"),
    "symmetric": (False,),
    "equalize": ("none", "all"),
    "bias_correction": (False,),
}
BUDGETS = ("size", "effective_bits", "bops", "peak_memory", "max_drop")
COUNTS = (4, 6, 12, 24, 40)


@dataclass(frozen=True, eq=False)
class Case:
    """One job.

    Attributes:
        net: Name of the net.
        model: It, with the weights that were drawn.
        samples: Arrays by input name, and labels where drawn.
        request: What is asked for.
    """

    net: str
    model: onnx.ModelProto
    samples: Mapping[str, Array]
    request: Mapping[str, Any]


def draw(seed: int, index: int) -> Case:
    """Draw one case.

    Args:
        seed: Seed of the run.
        index: Number of the case.

    Returns:
        The case, the same for the same numbers.
    """
    rng = np.random.default_rng([seed, index])
    nets = {name: _net(*made, rng) for name, made in TEXTS.items()}
    nets["transformer"] = handmade()["transformer"]
    name = str(rng.choice(list(nets)))
    model = nets[name]
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim:
            tensor.CopyFrom(numpy_helper.from_array(_spoiled(array, rng), tensor.name))
    count = int(rng.choice(COUNTS))
    samples: dict[str, Array] = {}
    for value in model.graph.input:
        declared = value.type.tensor_type
        free = {"n": count, "t": 7}
        shape = [size.dim_value or free[size.dim_param] for size in declared.shape.dim]
        drawn = rng.standard_normal(shape).astype(np.float32)
        integer = declared.elem_type == onnx.TensorProto.INT64
        samples[value.name] = rng.integers(0, 20, shape) if integer else _spoiled(drawn, rng)
    classes = model.graph.output[0].type.tensor_type.shape.dim
    if len(classes) == 2 and rng.random() < 0.5:
        samples["labels"] = rng.integers(0, classes[1].dim_value, count)
    return Case(name, model, samples, _request(rng))


def judge(case: Case, folder: Path) -> str:
    """Run one job.

    Args:
        case: The job.
        folder: Where its files go.

    Returns:
        `made`, the kind of a refusal, or a finding, which starts with `FINDING`.
    """
    model, data, out = folder / "net.onnx", folder / "samples.npz", folder / "out"
    onnx.save(case.model, model)
    np.savez(data, allow_pickle=False, **case.samples)
    spec = QuantizeSpec.model_validate(case.request)
    try:
        report = quantize(model, data, spec, out)
    except UserError as error:
        return type(error).__name__
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"FINDING {type(error).__name__}: {error} at {Path(place.filename).name}:{place.lineno}"
    limit = spec.budget.limit_bytes(report.model.float_bytes)
    size = (out / MODEL).stat().st_size
    if limit is not None and size > limit:
        return f"FINDING {size} bytes, where {limit} were allowed"
    if Report.model_validate_json((out / REPORT_JSON).read_text(encoding="utf-8")) != report:
        return "FINDING the report does not read back as it was"
    if spec.target in {"ort-cpu", "portable"}:
        session = ort.InferenceSession(out / MODEL, providers=["CPUExecutionProvider"])
        inputs = {name: array for name, array in case.samples.items() if name != "labels"}
        if not all(np.isfinite(values).all() for values in session.run(None, inputs)):
            return "FINDING outputs that are not finite"
    return "made"


def main() -> int:
    """Run the cases and tell how they ended.

    Returns:
        0 if every job ended as it should.
    """
    options = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_jobs", description=__doc__)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first case")
    asked = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ended: collections.Counter[str] = collections.Counter()
    for index in range(asked.first, asked.first + asked.count):
        case = draw(asked.seed, index)
        with tempfile.TemporaryDirectory() as folder:
            found = judge(case, Path(folder))
        ended[found.split()[0]] += 1
        if found.startswith("FINDING"):
            print(f"#{index} {case.net} {dict(case.request)}: {found}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in ended.most_common()))
    return int(bool(ended["FINDING"]))


def _net(text: str, shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> onnx.ModelProto:
    model = parser.parse_model(HEAD + text)
    for name, shape in shapes.items():
        weight = rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return model


def _spoiled(array: Array, rng: np.random.Generator) -> Array:
    """Seven in eighteen arrays are made unlike any that is trained or measured."""
    array = array.copy()
    match rng.integers(18):
        case 0:
            array *= np.float32(10.0 ** rng.uniform(-5, 4))
        case 1:
            array[:] = 0
        case 2:
            array[:] = array[:1]
        case 3:
            array[1:] = 0
        case 4:
            array[0] *= np.float32(1e4)
        case 5:
            array += np.float32(100)
        case 6:
            array.flat[rng.integers(array.size)] = 1e3
    return array


def _request(rng: np.random.Generator) -> Mapping[str, Any]:
    """Draw up to five options that go together, a budget among them."""
    while True:
        fields = [str(name) for name in rng.choice(list(OPTIONS), rng.integers(1, 6), replace=False)]
        if not set(fields) & set(BUDGETS):
            fields.append("size")
        request = {name: OPTIONS[name][rng.integers(len(OPTIONS[name]))] for name in fields}
        request |= {"device": "cpu", "seed": int(rng.integers(3))}
        try:
            QuantizeSpec.model_validate(request)
        except ValidationError:
            continue
        return request


if __name__ == "__main__":
    raise SystemExit(main())
