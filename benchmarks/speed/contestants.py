"""Ways to estimate the Hessian's trace in every layer, each as a function that gives one more estimate."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from quant_core.executor import Program, compile_model
from quant_core.ingest import Layer, find_layers, normalise, read_model
from quant_core.sensitivity import Batch, Objective, Term, gauss_newton, gauss_newton_exact, hawq_v2

Floats = npt.NDArray[np.float64]


@dataclass(eq=False)
class Contestant:
    """One method.

    Attributes:
        name: What the table calls it.
        kind: `ours`, `hessian` or `gauss_newton` of the others; `joint` where layers share one probe.
        probe: Gives one unbiased estimate of every layer's trace.
        probes: How many are taken.
        estimates: What came, one row a probe.
        seconds: Seconds of each probe.
        cpu: Processor seconds of each probe.
    """

    name: str
    kind: str
    probe: Callable[[], Floats]
    probes: int
    estimates: list[Floats] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def step(self) -> None:
        """Take one probe and time it."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.estimates.append(self.probe())
        self.cpu.append(time.process_time() - cpu)
        self.seconds.append(time.perf_counter() - wall)


@dataclass(frozen=True, eq=False)
class Ours:
    """The network as our estimators take it.

    Attributes:
        program: The compiled ONNX file.
        layers: Its layers, in the order of the module's parameters.
        objective: The divergence from the model's own output.
        batch: The samples.
    """

    program: Program
    layers: tuple[Layer, ...]
    objective: Objective
    batch: Batch

    @classmethod
    def read(cls, path: Path, names: list[str], images: torch.Tensor) -> Ours:
        """Read the ONNX file.

        Args:
            path: The file.
            names: The module's weights, which the file has under the same names.
            images: The samples.

        Returns:
            The network.
        """
        model = normalise(read_model(path).model)
        objective = Objective((Term("logits", "logits", "kl"),))
        by_weight = {layer.weight: layer for layer in find_layers(model)}
        return cls(
            compile_model(model),
            tuple(by_weight[name] for name in names),
            objective,
            Batch({"input": images.contiguous(memory_format=torch.channels_last)}, None, len(images)),
        )

    def contestants(self, probes: int, seed: int) -> Iterator[Contestant]:
        """Give our estimators.

        Args:
            probes: Probes of the cheap one.
            seed: Seed of the probes.

        Yields:
            Gauss-Newton and Hutchinson, one probe at a time.
        """
        for name, estimator, count in (
            ("gauss_newton", gauss_newton, probes),
            ("hawq_v2 (joint)", hawq_v2, max(4, probes // 8)),
        ):
            taken = iter(range(seed << 20, (seed + 1) << 20))

            def probe(estimator: Callable[..., object] = estimator, taken: Iterator[int] = taken) -> Floats:
                found = estimator(
                    self.program, self.layers, self.objective, [self.batch], seed=next(taken), max_probes=1
                )
                trace: Floats = found.trace  # type: ignore[attr-defined]
                return trace

            yield Contestant(f"ours: {name}", "ours", probe, count)

    def exact(self) -> tuple[Floats, float, float]:
        """Compute the Gauss-Newton traces of these samples exactly.

        Returns:
            Traces, seconds and processor seconds.
        """
        rows = {name: tensor.split(1) for name, tensor in self.batch.feeds.items()}
        singles = [
            Batch({name: parts[n] for name, parts in rows.items()}, None, 1) for n in range(self.batch.size)
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        found = gauss_newton_exact(self.program, self.layers, self.objective, singles)
        return found.trace, time.perf_counter() - wall, time.process_time() - cpu


def pyhessian(
    net: nn.Module, images: torch.Tensor, classes: torch.Tensor, probes: int, seed: int
) -> Iterator[Contestant]:
    """Use PyHessian's products: its own joint probe read off layer by layer, and one product for each layer.

    PyHessian's `trace` adds the layers up and so gives none of them; its products do.

    Args:
        net: The network.
        images: The samples.
        classes: Their classes.
        probes: Probes of each.
        seed: Seed of the probes.

    Yields:
        Both.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps a graph in .grad, which torch warns of
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product

        held = hessian(net, nn.CrossEntropyLoss(), data=(images, classes), cuda=False)
    params, grads = held.params, held.gradsH
    weights = [i for i, p in enumerate(params) if p.dim() > 1]
    generator = torch.Generator().manual_seed(2 * seed + 1)

    def signs() -> list[torch.Tensor]:
        return [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in params]

    def joint() -> Floats:
        v = signs()
        products = hessian_vector_product(grads, params, v)
        return np.array([float((v[i] * products[i]).sum()) for i in weights])

    def blocks() -> Floats:
        v = signs()
        each = [hessian_vector_product([grads[i]], [params[i]], [v[i]])[0] for i in weights]
        return np.array([float((v[i] * hv).sum()) for i, hv in zip(weights, each, strict=True)])

    yield Contestant("PyHessian: Hutchinson, joint", "hessian", joint, probes)
    yield Contestant("PyHessian: Hutchinson, a layer at a time", "hessian", blocks, max(4, probes // 2))


def curvlinops(
    net: nn.Module, images: torch.Tensor, classes: torch.Tensor, probes: int, seed: int
) -> Iterator[Contestant]:
    """Use curvlinops' operators on all weights at once; its Hessian also block-diagonal, which its GGN cannot be.

    Args:
        net: The network.
        images: The samples.
        classes: Their classes.
        probes: Probes of each Hessian; the Gauss-Newton matrix gets twice as many.
        seed: Seed of the probes.

    Yields:
        One contestant for each operator.
    """
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    named = {name: p for name, p in net.named_parameters() if p.dim() > 1}
    params = list(named.values())
    generator = torch.Generator().manual_seed(2 * seed + 2)

    operators: Mapping[str, tuple[type, str, bool, int]] = {
        "Hessian, joint": (HessianLinearOperator, "hessian", False, probes),
        "Hessian, block-diagonal": (HessianLinearOperator, "hessian", True, max(4, probes // 2)),
        "Gauss-Newton, joint": (GGNLinearOperator, "gauss_newton", False, 2 * probes),
    }
    for name, (kind, family, blocks, count) in operators.items():
        operator = kind(
            net,
            nn.CrossEntropyLoss(),
            params,
            [(images, classes)],
            check_deterministic=False,
            block_sizes=[1] * len(params) if blocks else None,
        )

        def probe(operator: object = operator) -> Floats:
            v = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in params]
            products = operator @ v  # type: ignore[operator]
            return np.array([float((a * b).sum()) for a, b in zip(v, products, strict=True)])

        yield Contestant(f"curvlinops: {name}", family, probe, count)


def loss_of(net: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> tuple[float, float]:
    """Tell how well the network is trained.

    Args:
        net: The network.
        images: Images.
        classes: Their classes.

    Returns:
        Cross entropy and accuracy.
    """
    with torch.no_grad():
        logits = net(images)
    right = (logits.argmax(1) == classes).float().mean()
    return float(cross_entropy(logits, classes)), float(right)
