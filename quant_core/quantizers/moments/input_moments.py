"""Second moments of what a layer multiplies its weights with: H = mean of x x^T."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch

from quant_core.calibration import RangeWatch, Samples
from quant_core.errors import NonFiniteError
from quant_core.ingest.layer import Layer
from quant_core.processors.side_by_side import side_by_side
from quant_core.quantizers.chance import chance_of
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_columns import input_columns
from quant_core.quantizers.moments.principal_moments import (
    INDEPENDENT_PER_SAMPLE,
    PrincipalMoments,
    few_columns,
    principal_moments,
)
from quant_core.quantizers.moments.read_positions import reads_in_part, run_as_read, seeing_batch
from quant_core.quantizers.moments.rows import rows_shape

_BLOCK = 512
"""Inputs whose products with those before them are made at a time: what lies above the diagonal is copied."""
_STACK_BYTES = 1 << 30
"""Bytes of moments that a stack of matrices may take."""
_PLAIN_EXPONENTS = 40
"""Powers of two up to which moments can be squared and added up in float32."""
_ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Variance relative to the mean square below which an input is constant but for rounding."""


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
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.second.nbytes + self.mean.nbytes)

    @property
    def finite(self) -> bool:
        """Whether no input held NaN, infinity or what float32 cannot square."""
        return bool(torch.isfinite(self.second.diagonal(dim1=1, dim2=2)).all())

    @property
    def independent(self) -> int:
        """Columns that count: columns of one sample overlap or are alike, so at most 16 of each."""
        return min(self.columns, self.samples * INDEPENDENT_PER_SAMPLE)

    def centred(self) -> InputMoments:
        """Take the mean out: the moments of x - E[x].

        Returns:
            The covariance, and a mean of 0. Inputs that hardly vary, as all do over a single column, have exactly none:
            what is left of them is rounding error, of either sign.
        """
        second = torch.baddbmm(self.second, self.mean[:, :, None], self.mean[:, None, :], alpha=-1)
        squares = self.second.diagonal(dim1=1, dim2=2)
        constant = second.diagonal(dim1=1, dim2=2) <= _ROUNDING * squares
        if bool((constant & (squares > 0)).any()):
            second = second.masked_fill(constant[:, :, None] | constant[:, None, :], 0)
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
        # Squares of second moments leave float32 beyond 1e19: quotients are those of H divided by a power of two.
        exponent = torch.frexp(self.second.diagonal(dim1=1, dim2=2).amax(1)).exponent
        unit = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)[:, None, None]
        scaled = self.second if bool((exponent.abs() < _PLAIN_EXPONENTS).all()) else self.second / unit
        diagonal = scaled.diagonal(dim1=1, dim2=2)
        squares = diagonal.square().sum(1)
        products = diagonal.sum(1).square() - squares
        covariances = torch.linalg.matrix_norm(scaled).square() - squares
        intensity = ((1 + products / covariances.clamp_min(1e-30)) / independent).clamp(0, 1)[:, None, None]
        pulled: torch.Tensor = self.second * (1 - intensity)
        pulled.diagonal(dim1=1, dim2=2).copy_(self.second.diagonal(dim1=1, dim2=2))
        return pulled


Moments = InputMoments | PrincipalMoments


def joined(one: Moments, other: Moments) -> Moments:
    """Average the moments of one layer over two sets of samples.

    Args:
        one: Moments.
        other: Moments that were collected to be like those.

    Returns:
        Moments of all samples, each with the same weight.
    """
    if isinstance(one, PrincipalMoments):
        assert isinstance(other, PrincipalMoments)
        return one.joined(other)
    assert isinstance(other, InputMoments)
    return one.joined(other)


def has_moments(layer: Layer) -> bool:
    """Tell whether a layer's output is a product of its weight with input columns.

    Args:
        layer: Any layer.

    Returns:
        True for Conv, Gemm, right-hand MatMul and ungrouped ConvTranspose; not where uses disagree on which axis holds
        the outputs, as of an encoder and a decoder that share a weight, and not for stacks of matrices whose moments,
        one for each, would take more than a gigabyte.
    """
    ops = {use.op for use in layer.uses}
    if len(ops) != 1 or layer.axis is None or any(use.operand != 1 for use in layer.uses):
        return False
    if layer.op == "MatMul" and 4 * math.prod(layer.shape[:-1]) * layer.shape[-2] > _STACK_BYTES:
        return layer.matrices == 1
    return layer.op in {"Conv", "Gemm", "MatMul"} or (layer.op == "ConvTranspose" and layer.group == 1)


def input_moments(
    network: FloatNetwork,
    layers: Sequence[Layer],
    samples: Samples,
    *,
    seed: int,
    on_batch: Callable[[int, int], None] | None = None,
    like: Mapping[str, Moments] | None = None,
    watch: RangeWatch | None = None,
) -> dict[str, Moments]:
    """Average x x^T over samples and positions, a bounded random share of the positions of each batch.

    Rows of a Gemm or MatMul that nothing reads, such as those of padding, do not count (`read_positions.py`): codes
    fitted to them would be worse for the others.

    Args:
        network: The float network.
        layers: Those of its layers for which `has_moments` is true.
        samples: What to run.
        seed: Seed of the choice of positions, which is each layer's own.
        on_batch: Called with samples done and samples in all; may raise to stop.
        like: Layer name -> moments of other samples, which these can be joined with.
        watch: Shown the same runs, which spares it its own; not where rows are told from gradients, a few samples at a
            time.

    Returns:
        Layer name -> moments; of layers with `few_columns` their principal directions.

    Raises:
        NonFiniteError: If a layer's input holds NaN, infinity or what float32 cannot square.
    """
    program, batch_size = network.program, network.batch_size
    nodes = {str(node.name): node for node in network.model.graph}
    chances = {layer.name: chance_of(seed, layer.name) for layer in layers}
    inputs = list(dict.fromkeys(use.input for layer in layers for use in layer.uses))
    sums: dict[str, _Sum | _Columns] = {}
    done = 0
    in_part = reads_in_part(program, layers, samples)
    if in_part and samples.batch is None:
        batch_size = min(batch_size, seeing_batch(layers))
    watch = None if in_part else watch
    wanted = inputs if watch is None else list(dict.fromkeys((*inputs, *watch.tensors)))
    for batch in samples.batches(batch_size):
        feeds = batch.feeds(program.device, fast=True)
        values, read = run_as_read(program, feeds, wanted, layers if in_part else (), batch.count)
        with torch.no_grad():
            if watch is not None:
                watch.add(values)
            for layer in layers:
                share = batch.count / samples.count / len(layer.uses)
                for use in layer.uses:
                    node, rows = nodes[use.node], read.get(use.output)
                    chance = chances[layer.name]
                    columns = input_columns(layer, use, node, values[use.input], rows, share, chance)
                    if layer.name not in sums:
                        expected = round(columns.shape[1] / share)
                        sums[layer.name] = _total(layer, columns, expected, samples.count, like)
                    sums[layer.name].add(columns)
        done += batch.count
        if on_batch is not None:
            on_batch(done, samples.count)
    # The longest first, so that no core waits for the last of them.
    sizes = {layer.name: rows_shape(layer)[2] for layer in layers}
    turns = sorted(sums, key=sizes.__getitem__, reverse=True)
    pieces = side_by_side(lambda name: sums.pop(name).moments(samples.count), turns, program.device)
    with closing(pieces) as totals:
        found: dict[str, Moments] = dict(zip(turns, totals, strict=True))
    for layer in layers:  # of those that NaN has reached, the first is where it came from
        if not found[layer.name].finite:
            raise NonFiniteError(
                "the layer's input holds NaN or infinity, or values whose squares are infinite in float32.",
                remedy="Check that the samples are preprocessed as the model expects.",
                where=layer.name,
            )
    return found


def _total(
    layer: Layer,
    columns: torch.Tensor,
    expected: int,
    samples: int,
    like: Mapping[str, Moments] | None,
) -> _Sum | _Columns:
    """What adds up the columns of a layer, of which there will be as many as are expected."""
    if like is None:
        condensed = few_columns(columns.shape[0], columns.shape[2], expected, samples)
    else:
        condensed = isinstance(like[layer.name], PrincipalMoments)
    return _Columns(_taps(layer)) if condensed else _Sum.of(layer, columns)


def _taps(layer: Layer) -> int:
    return math.prod(layer.shape[2:]) if layer.op == "Conv" else 1


@dataclass(eq=False)
class _Columns:
    """Columns of a layer that has few, inputs by taps of the kernel and then by channels.

    Attributes:
        taps: Taps of the kernel.
        parts: The columns of each batch, `[columns, inputs]`.
    """

    taps: int
    parts: list[torch.Tensor] = field(default_factory=list)

    def add(self, columns: torch.Tensor) -> None:
        self.parts.append(columns[0])

    def moments(self, samples: int) -> PrincipalMoments:
        """Condense, with inputs in the order of the weight: channels, then taps."""
        found = principal_moments(torch.cat(self.parts), samples)
        self.parts.clear()

        def by_channel(values: torch.Tensor) -> torch.Tensor:
            split = values.reshape(-1, self.taps, values.shape[-1] // self.taps)
            return split.transpose(1, 2).reshape(values.shape)

        return replace(
            found, factor=by_channel(found.factor), rest=by_channel(found.rest), mean=by_channel(found.mean)
        )


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
        return cls(columns.new_zeros(groups, inputs, inputs), columns.new_zeros(groups, inputs), _taps(layer))

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
