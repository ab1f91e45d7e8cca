"""Second moments of what a layer multiplies its weights with: H = mean of x x^T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.ingest.layer import Layer, Use

_FEWEST_COLUMNS = 4096
_MOST_COLUMNS = 16384
_INDEPENDENT_PER_SAMPLE = 16


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Moments of one layer's input columns.

    Attributes:
        second: Mean of x x^T, `[groups, inputs, inputs]`.
        mean: Mean of x, `[groups, inputs]`.
        columns: Number of columns averaged.
        samples: Number of samples they came from.
    """

    second: torch.Tensor
    mean: torch.Tensor
    columns: int
    samples: int

    def centred(self) -> InputMoments:
        """Take the mean out: the moments of x - E[x].

        Returns:
            The covariance, and a mean of 0.
        """
        outer = self.mean[:, :, None] * self.mean[:, None, :]
        return replace(self, second=self.second - outer, mean=torch.zeros_like(self.mean))

    def shrunk(self) -> torch.Tensor:
        """Pull H towards its diagonal by as much as its off-diagonal entries are noise.

        `(1 - a) H + a diag(H)` with `a = (1 + sum_{i!=j} H_ii H_jj / sum_{i!=j} H_ij^2) / n`, the intensity of Ledoit
        and Wolf (2004) under Gaussian columns. Columns of one sample overlap, so n counts at most 16 of each.

        Returns:
            `[groups, inputs, inputs]`.
        """
        independent = min(self.columns, self.samples * _INDEPENDENT_PER_SAMPLE)
        diagonal = self.second.diagonal(dim1=1, dim2=2)
        squares = diagonal.square().sum(1)
        products = diagonal.sum(1).square() - squares
        covariances = self.second.square().sum((1, 2)) - squares
        intensity = ((1 + products / covariances.clamp_min(1e-30)) / independent).clamp(0, 1)[:, None, None]
        return (1 - intensity) * self.second + intensity * torch.diag_embed(diagonal)


def has_moments(layer: Layer) -> bool:
    """Tell whether a layer's output is a product of its weight with input columns.

    Args:
        layer: Any layer.

    Returns:
        True for Conv, Gemm, right-hand MatMul and ungrouped ConvTranspose.
    """
    ops = {use.op for use in layer.uses}
    if len(ops) != 1 or (
        layer.op == "MatMul" and (len(layer.shape) != 2 or any(u.operand != 1 for u in layer.uses))
    ):
        return False
    return layer.op in {"Conv", "Gemm", "MatMul"} or (layer.op == "ConvTranspose" and layer.group == 1)


def input_moments(
    program: Program,
    model: ir.Model,
    layers: Sequence[Layer],
    samples: Samples,
    *,
    batch_size: int,
    device: str,
    seed: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, InputMoments]:
    """Average x x^T over samples and positions, a bounded random share of the positions of each batch.

    Args:
        program: The float program.
        model: The graph it was compiled from.
        layers: Layers for which `has_moments` is true.
        samples: What to run.
        batch_size: Samples a run.
        device: Where the program computes.
        seed: Seed of the choice of positions.
        on_batch: Called with samples done and samples in all; may raise to stop.

    Returns:
        Layer name -> moments.

    Raises:
        NonFiniteError: If a layer's input holds NaN or infinity.
    """
    nodes = {str(node.name): node for node in model.graph}
    generator = torch.Generator().manual_seed(seed)
    inputs = list(dict.fromkeys(use.input for layer in layers for use in layer.uses))
    sums: dict[str, InputMoments] = {}
    done = 0
    for batch in samples.batches(batch_size):
        feeds = {name: torch.from_numpy(array).to(device) for name, array in batch.inputs.items()}
        with torch.no_grad():
            values = feeds | program.evaluate(feeds, outputs=[name for name in inputs if name not in feeds])
            for layer in layers:
                share = batch.count / samples.count / len(layer.uses)
                for use in layer.uses:
                    columns = _columns(layer, use, nodes[use.node], values[use.input], share, generator)
                    _add(sums, layer.name, columns, samples.count)
        done += batch.count
        if on_batch is not None:
            on_batch(done, samples.count)
    for name, total in sums.items():
        if not bool(torch.isfinite(total.second).all()):
            raise NonFiniteError(
                "the layer's input holds NaN or infinity.",
                remedy="Check the samples and the model.",
                where=name,
            )
    return {
        name: InputMoments(
            total.second / total.columns, total.mean / total.columns, total.columns, total.samples
        )
        for name, total in sums.items()
    }


def _add(sums: dict[str, InputMoments], name: str, columns: torch.Tensor, samples: int) -> None:
    second = columns.transpose(1, 2) @ columns
    mean = columns.sum(1)
    if name in sums:
        before = sums[name]
        sums[name] = InputMoments(
            before.second + second, before.mean + mean, before.columns + columns.shape[1], samples
        )
    else:
        sums[name] = InputMoments(second, mean, columns.shape[1], samples)


def _columns(
    layer: Layer, use: Use, node: ir.Node, x: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Input columns `[groups, positions, inputs]`."""
    if layer.op == "Conv":
        return _convolution_columns(layer, node, x, share, generator)
    if layer.op == "ConvTranspose":
        x = x.movedim(1, -1)
    elif use.op == "Gemm" and _is_transposed(node):
        x = x.T
    rows = x.reshape(-1, x.shape[-1])
    wanted = _wanted(rows.shape[1], share)
    if len(rows) > wanted:
        rows = rows[torch.randint(len(rows), (wanted,), generator=generator).to(x.device)]
    return rows[None]


def _is_transposed(node: ir.Node) -> bool:
    transposed: int = node.attributes.get_int("transA", 0)
    return transposed != 0


def _convolution_columns(
    layer: Layer, node: ir.Node, x: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    kernel = layer.shape[2:]
    spatial = len(kernel)
    strides = list(node.attributes.get_ints("strides", [1] * spatial))
    dilations = list(node.attributes.get_ints("dilations", [1] * spatial))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    x = torch.nn.functional.pad(x, _padding(node, x.shape[2:], reach, strides))
    for axis in range(spatial):
        x = x.unfold(2 + axis, reach[axis], strides[axis])
    for axis in range(spatial):  # drop what lies between dilated taps
        taps = torch.arange(0, reach[axis], dilations[axis], device=x.device)
        x = x if dilations[axis] == 1 else x.index_select(2 + spatial + axis, taps)
    sizes = (x.shape[0], *x.shape[2 : 2 + spatial])
    count = 1
    for size in sizes:
        count *= size
    inputs = layer.shape[1] * int(torch.tensor(kernel).prod())
    wanted = min(count, _wanted(inputs, share))
    picked = (
        torch.arange(count) if wanted == count else torch.randint(count, (wanted,), generator=generator)
    ).to(x.device)
    where = torch.unravel_index(picked, sizes)
    columns = x.movedim(1, 1 + spatial)[where]  # positions, channels, kernel
    return columns.reshape(wanted, layer.group, inputs).transpose(0, 1)


def _padding(node: ir.Node, shape: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Padding in torch's order, last axis first."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    spatial = len(shape)
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        pairs = []
        for size, r, s in zip(shape, reach, strides, strict=True):
            total = max(0, (-(-size // s) - 1) * s + r - size)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if mode == "SAME_UPPER" else (large, small))
    else:
        pads = (
            [0] * 2 * spatial
            if mode == "VALID"
            else list(node.attributes.get_ints("pads", [0] * 2 * spatial))
        )
        pairs = list(zip(pads[:spatial], pads[spatial:], strict=True))
    return [amount for pair in reversed(pairs) for amount in pair]


def _wanted(inputs: int, share: float) -> int:
    return max(1, round(share * min(_MOST_COLUMNS, max(_FEWEST_COLUMNS, 8 * inputs))))
