"""What the engine makes of the zoo's models: `python -m benchmarks.zoo_check [NAME ...]` prints a table.

For each model: parity of `quant_core.executor.run` with onnxruntime on real input, and gradient and Hessian-vector
product of a scalar loss in every float weight at once. The loss is, summed over the float outputs `y`,
`mean(c * y) + mean(y * y) / 2` with fixed `c`, so that no weight that matters drops out by symmetry.

Parity is the largest difference over the scale of the output. `own` is the same between onnxruntime's default and
onnxruntime with optimizations switched off: what single precision leaves open for this model. A model that is int8
already turns such differences into whole steps that grow from layer to layer, so there every node is compared
alone, given what onnxruntime computed for its inputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.zoo import QUANTIZED, RECIPES, zoo_folder
from benchmarks.zoo import prepare as prepare_model
from quant_core.executor import load, run
from quant_core.executor.parity import distance
from quant_core.executor.program import Program
from quant_core.ingest.subgraphs import node_protos
from quant_core.preflight import inspect_model

RUNS, BATCH = 2, 2
TOLERANCE = 1e-4
MODELS = tuple(name for name in RECIPES if name != "cifar10-test")


@dataclass(frozen=True)
class Row:
    """What was found for one model.

    Attributes:
        name: Name in the zoo.
        nodes: Nodes of the main graph and all subgraphs.
        opset: Version of the standard's operators.
        parameters: Numbers in float weights.
        layers: Quantizable layers.
        quantized: Parts that are quantized already.
        parity: Largest difference from onnxruntime over all runs and outputs, or nodes.
        own: Largest difference of onnxruntime from itself without optimizations.
        weights: Float weights.
        constant: Those that only tell shapes, limits or branches, or lie in branches that no run took.
        gradient: Weights with a finite gradient.
        curvature: Weights with a finite Hessian-vector product.
        seconds: Processor time of all of it.
    """

    name: str
    nodes: int
    opset: int
    parameters: int
    layers: int
    quantized: int
    parity: float
    own: float
    weights: int
    constant: tuple[str, ...]
    gradient: int
    curvature: int
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether outputs agree and all weights that can have derivatives have finite ones."""
        differentiable = self.weights - len(self.constant)
        allowed = TOLERANCE if self.name in QUANTIZED else max(TOLERANCE, 2 * self.own)
        return self.parity <= allowed and self.gradient == self.curvature == differentiable


def read_runs(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Read what to feed a model of the zoo.

    Args:
        folder: The model's folder.

    Yields:
        Graph input name -> array: the first two runs of each `runs*.npz`, or two batches from `samples.npz`, of
        two samples where the graph allows it.
    """
    for file in sorted(folder.glob("runs*.npz")):
        with np.load(file) as arrays:
            for index in range(RUNS):
                yield {name: np.asarray(arrays[name][index]) for name in arrays.files}
    if (folder / "samples.npz").exists():
        graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
        inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
        with np.load(folder / "samples.npz") as arrays:
            names = [name for name in arrays.files if name in inputs]
            batch = min(fixed if (fixed := inputs[name][0].dim_value) > 0 else BATCH for name in names)
            for index in range(RUNS):
                yield {name: arrays[name][index * batch :][:batch] for name in names}


def check(name: str, folder: Path) -> Row:
    """Check one model.

    Args:
        name: Name in the zoo.
        folder: Where it lies.

    Returns:
        What was found.
    """
    start = time.process_time()
    path = folder / "model.onnx"
    model = onnx.load(path)
    runs = list(read_runs(folder))
    seen = inspect_model(path)
    compare = _node_parity if name in QUANTIZED else _parity
    found = [compare(model, feeds) for feeds in runs]
    program = load(model)
    nodes = sum(1 for _ in node_protos(model.graph))
    del model
    gradient, curvature = _derivatives(program, runs)
    constant = tuple(key for key in program.weights if key not in gradient)
    return Row(
        name=name,
        nodes=nodes,
        opset=next(
            entry.version for entry in onnx.load(path).opset_import if entry.domain in {"", "ai.onnx"}
        ),
        parameters=sum(weight.numel() for weight in program.weights.values()),
        layers=len(seen.layers),
        quantized=len(seen.quantized_parts),
        parity=max(parity for parity, _ in found),
        own=max(own for _, own in found),
        weights=len(program.weights),
        constant=constant,
        gradient=sum(gradient.values()),
        curvature=sum(curvature.values()),
        seconds=time.process_time() - start,
    )


def loss_of(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The scalar loss described above.

    Args:
        outputs: Tensors by name; those that are no floats are left out.

    Returns:
        A scalar.
    """
    total = torch.zeros(())
    for value in outputs.values():
        if value.is_floating_point() and value.numel():
            weight = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).view(value.shape)
            total = total + ((weight * value).mean() + value.square().mean() / 2).to(total.dtype)
    return total


def _onnxruntime(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], optimize: bool
) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _parity(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[float, float]:
    expected, plain, found = (
        _onnxruntime(model, feeds, True),
        _onnxruntime(model, feeds, False),
        run(model, feeds),
    )
    return (
        max(distance(value, found[name]) for name, value in expected.items()),
        max(distance(value, plain[name]) for name, value in expected.items()),
    )


def _node_parity(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[float, float]:
    """As `_parity`, but with the largest difference of any node given onnxruntime's values for its inputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in present)
    values = feeds | _onnxruntime(opened, feeds, False)
    program = load(model)
    worst = 0.0
    for node in model.graph.node:
        outputs = [name for name in node.output if name]
        given = {name: torch.from_numpy(np.array(values[name])) for name in node.input if name in values}
        with torch.no_grad():
            found = program.evaluate(given, outputs=outputs)
        worst = max(worst, *(distance(values[name], found[name].numpy()) for name in outputs))
    outputs = {name: value for name, value in values.items() if name in present}
    default = _onnxruntime(model, feeds, True)
    return worst, max(distance(value, outputs[name]) for name, value in default.items())


def _derivatives(
    program: Program, runs: list[dict[str, np.ndarray]]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Weight -> whether its gradient, and its Hessian-vector product, is finite in all runs that reach it."""
    gradient: dict[str, bool] = {}
    curvature: dict[str, bool] = {}
    generator = torch.Generator().manual_seed(0)
    for feeds in runs:
        weights = {key: weight.detach().requires_grad_() for key, weight in program.weights.items()}
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in feeds.items()}
        loss = loss_of(program.evaluate(tensors, weights=weights))
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
        reached = {key: slope for key, slope in zip(weights, first, strict=True) if slope is not None}
        along = sum(
            (slope * torch.randn(slope.shape, generator=generator, dtype=slope.dtype)).sum()
            for slope in reached.values()
        )
        # A weight in which the loss is linear has no second derivative in the graph: it is zero.
        second = torch.autograd.grad(along, [weights[key] for key in reached], materialize_grads=True)
        for (key, slope), bend in zip(reached.items(), second, strict=True):
            gradient[key] = gradient.get(key, True) and bool(slope.isfinite().all())
            curvature[key] = curvature.get(key, True) and bool(bend.isfinite().all())
    return gradient, curvature


def main() -> None:
    """Print the table for the models named on the command line, or all that are prepared."""
    parser = argparse.ArgumentParser(description="Check the engine against the zoo's models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all that are prepared")
    parser.add_argument("--all", action="store_true", help="prepare what is missing first")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(MODELS)):
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join(MODELS)}")
    prepared = [name for name in MODELS if given.all or (zoo_folder() / name).exists()]
    torch.set_num_threads(1)
    sizes = f"{'model':<20} {'nodes':>6} {'opset':>5} {'parameters':>11} {'layers':>6} {'int8':>4}"
    print(f"{sizes} {'parity':>8} {'own':>8} {'gradient':>9} {'HVP':>9} {'fixed':>5} {'CPU s':>6}")
    failed = False
    for name in given.names or prepared:
        row = check(name, prepare_model(name))
        failed |= not row.passes
        of = row.weights - len(row.constant)
        sizes = f"{row.nodes:>6} {row.opset:>5} {row.parameters:>11,} {row.layers:>6} {row.quantized:>4}"
        derivatives = f"{f'{row.gradient}/{of}':>9} {f'{row.curvature}/{of}':>9} {len(row.constant):>5}"
        verdict = "" if row.passes else "  FAILS"
        print(
            f"{name:<20} {sizes} {row.parity:>8.1e} {row.own:>8.1e} {derivatives} {row.seconds:>6.1f}{verdict}",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
