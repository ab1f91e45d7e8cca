"""Second moments of what a layer multiplies its weights with: H = mean of x x^T."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir
import torch

from quant_core.calibration import Samples
from quant_core.errors import NonFiniteError
from quant_core.executor import Program
from quant_core.executor.layout import fast_layout
from quant_core.ingest.layer import Layer, Use
from quant_core.quantizers.read_positions import reads_in_part, run_and_see, seeing_batch

_FEWEST_COLUMNS = 4096
_MOST_COLUMNS = 16384
_INDEPENDENT_PER_SAMPLE = 16
_BLOCK = 512


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

    @property
    def independent(self) -> int:
        """Columns that count: columns of one sample overlap or are alike, so at most 16 of each."""
        return min(self.columns, self.samples * _INDEPENDENT_PER_SAMPLE)

    def centred(self) -> InputMoments:
        """Take the mean out: the moments of x - E[x].

        Returns:
            The covariance, and a mean of 0.
        """
        second = torch.baddbmm(self.second, self.mean[:, :, None], self.mean[:, None, :], alpha=-1)
        return replace(self, second=second, mean=torch.zeros_like(self.mean))

    def joined(self, other: InputMoments) -> InputMoments:
        """Average with the moments of other samples.

        Args:
            other: Moments of the same layer.

        Returns:
            Moments of all samples, each with the same weight.
        """
        samples = self.samples + other.samples
        share = other.samples / samples
        return InputMoments(
            self.second.lerp(other.second, share),
            self.mean.lerp(other.mean, share),
            self.columns + other.columns,
            samples,
        )

    def shrunk(self) -> torch.Tensor:
        """Pull H towards its diagonal by as much as its off-diagonal entries are noise.

        `(1 - a) H + a diag(H)` with `a = (1 + sum_{i!=j} H_ii H_jj / sum_{i!=j} H_ij^2) / n`, the intensity of Ledoit
        and Wolf (2004) under Gaussian columns. Columns of one sample overlap, so n counts at most 16 of each.

        Returns:
            `[groups, inputs, inputs]`.
        """
        independent = self.independent
        diagonal = self.second.diagonal(dim1=1, dim2=2)
        squares = diagonal.square().sum(1)
        products = diagonal.sum(1).square() - squares
        covariances = torch.linalg.matrix_norm(self.second).square() - squares
        intensity = ((1 + products / covariances.clamp_min(1e-30)) / independent).clamp(0, 1)[:, None, None]
        pulled: torch.Tensor = self.second * (1 - intensity)
        pulled.diagonal(dim1=1, dim2=2).copy_(diagonal)
        return pulled


@dataclass(eq=False)
class KeptMoments:
    """Moments that are needed again when more samples join.

    Attributes:
        limit: Most bytes that are held.
        held: Moments by layer.
    """

    limit: int = 1 << 29
    held: dict[str, InputMoments] = field(default_factory=dict)

    def find(self, layers: Sequence[Layer]) -> dict[str, InputMoments]:
        """Give what is held of some layers.

        Args:
            layers: The layers.

        Returns:
            Layer name -> moments.
        """
        return {layer.name: self.held[layer.name] for layer in layers if layer.name in self.held}

    def keep(self, moments: Mapping[str, InputMoments]) -> None:
        """Hold as many as there is room for.

        Args:
            moments: Layer name -> moments.
        """
        room = self.limit - sum(held.second.nbytes for held in self.held.values())
        for name, found in moments.items():
            if name not in self.held and found.second.nbytes <= room:
                self.held[name] = found
                room -= found.second.nbytes


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

    Rows of a Gemm or MatMul that nothing reads, such as those of padding, do not count (`read_positions.py`): codes
    fitted to them would be worse for the others.

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
    sums: dict[str, _Sum] = {}
    done = 0
    in_part = reads_in_part(program, layers, samples, device)
    if in_part and samples.batch is None:
        batch_size = min(batch_size, seeing_batch(layers))
    for batch in samples.batches(batch_size):
        feeds = {
            name: fast_layout(torch.from_numpy(array).to(device)) for name, array in batch.inputs.items()
        }
        values, read = _run(program, feeds, inputs, layers if in_part else (), batch.count)
        with torch.no_grad():
            for layer in layers:
                share = batch.count / samples.count / len(layer.uses)
                for use in layer.uses:
                    node, rows = nodes[use.node], read.get(use.output)
                    columns = _columns(layer, use, node, values[use.input], rows, share, generator)
                    sums.setdefault(layer.name, _Sum.of(layer, columns)).add(columns)
        done += batch.count
        if on_batch is not None:
            on_batch(done, samples.count)
    found = {name: total.moments(samples.count) for name, total in sums.items()}
    for name, moments in found.items():
        if not bool(torch.isfinite(moments.second.diagonal(dim1=1, dim2=2)).all()):
            raise NonFiniteError(
                "the layer's input holds NaN or infinity.",
                remedy="Check the samples and the model.",
                where=name,
            )
    return found


@dataclass(eq=False)
class _Sum:
    """Sums over columns, inputs by taps of the kernel and then by channels, as they lie in memory.

    Attributes:
        second: `[groups, inputs, inputs]`, up to the diagonal alone, block by block.
        first: `[groups, inputs]`.
        taps: Taps of the kernel.
        columns: How many were added.
    """

    second: torch.Tensor
    first: torch.Tensor
    taps: int
    columns: int = 0

    @classmethod
    def of(cls, layer: Layer, columns: torch.Tensor) -> _Sum:
        groups, _, inputs = columns.shape
        taps = math.prod(layer.shape[2:]) if layer.op == "Conv" else 1
        return cls(columns.new_zeros(groups, inputs, inputs), columns.new_zeros(groups, inputs), taps)

    def add(self, columns: torch.Tensor) -> None:
        inputs = columns.shape[2]
        for start in range(0, inputs, _BLOCK):
            stop = min(start + _BLOCK, inputs)
            self.second[:, start:stop, :stop] += (
                columns[:, :, start:stop].transpose(1, 2) @ columns[:, :, :stop]
            )
        self.first += columns.sum(1)
        self.columns += columns.shape[1]

    def moments(self, samples: int) -> InputMoments:
        """Average, with the upper half filled in and inputs in the order of the weight: channels, then taps."""
        groups, inputs = self.first.shape
        for start in range(_BLOCK, inputs, _BLOCK):
            stop = min(start + _BLOCK, inputs)
            self.second[:, :start, start:stop] = self.second[:, start:stop, :start].transpose(1, 2)
        second, first = self.second.div_(self.columns), self.first / self.columns
        if self.taps > 1:
            shape = (groups, self.taps, inputs // self.taps)
            second = second.view(*shape, *shape[1:]).permute(0, 2, 1, 4, 3).reshape(groups, inputs, inputs)
            first = first.view(shape).transpose(1, 2).reshape(groups, inputs)
        return InputMoments(second, first, self.columns, samples)


def _run(
    program: Program,
    feeds: Mapping[str, torch.Tensor],
    inputs: Sequence[str],
    layers: Sequence[Layer],
    samples: int,
) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """What layers read, and which rows of it count where layers are given that may compute some in vain."""
    if layers:
        run = run_and_see(program, feeds, inputs, layers, samples)
        return run.values, run.read
    with torch.no_grad():
        lacking = [name for name in inputs if name not in feeds]
        return {**feeds, **program.evaluate(feeds, outputs=lacking)}, {}


def _columns(
    layer: Layer,
    use: Use,
    node: ir.Node,
    x: torch.Tensor,
    read: torch.Tensor | None,
    share: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Input columns `[groups, positions, inputs]`; those of a kernel by taps, then by channels."""
    if layer.op == "Conv":
        return _convolution_columns(layer, node, x, share, generator)
    if layer.op == "ConvTranspose":
        x = x.movedim(1, -1)
    elif use.op == "Gemm" and _is_transposed(node):
        x = x.T
    rows = x.reshape(-1, x.shape[-1])
    if read is not None:
        rows = rows[read]
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
    x = x.movedim(1, -1).contiguous()  # all channels of a place in one piece
    places = [(size - r) // s + 1 for size, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    count = math.prod((len(x), *places))
    inputs = layer.shape[1] * math.prod(kernel)
    wanted = min(count, _wanted(inputs, share))
    picked = (
        torch.arange(count) if wanted == count else torch.randint(count, (wanted,), generator=generator)
    ).to(x.device)
    image, *place = torch.unravel_index(picked, (len(x), *places))
    rows = x.view(-1, x.shape[-1])
    taps = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        at = image
        for axis in range(spatial):
            at = at * x.shape[1 + axis] + (place[axis] * strides[axis] + tap[axis] * dilations[axis])
        taps.append(rows.index_select(0, at))
    if layer.group == 1:
        return torch.cat(taps, dim=1)[None]
    split = torch.stack(taps, dim=1).view(wanted, len(taps), layer.group, -1)
    return split.permute(2, 0, 1, 3).reshape(layer.group, wanted, inputs)


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
