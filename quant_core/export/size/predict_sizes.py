"""File sizes before the file exists: bytes of each layer at each width, and of all the rest."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from google.protobuf.message import Message

from quant_core.allocation.file_costs import FileCosts
from quant_core.codes import ActivationGrid, CorrectedBias, QuantizedWeight, channel_count
from quant_core.codes.outliers import Outliers, pairs_for
from quant_core.export.kernels.input_layout import AS_IT_IS, InputLayout, input_layout
from quant_core.export.patterns.block_patterns import write_blocks
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.patterns.nbits import NBITS_DOMAIN, nbits_attributes, write_nbits
from quant_core.export.patterns.weight_patterns import (
    product_scale,
    write_float,
    write_int8,
    write_qdq,
    write_rows,
    write_table,
)
from quant_core.export.place import layer_form, place
from quant_core.export.placement.forms import Form
from quant_core.export.storage.graph_nodes import ConstantKey
from quant_core.export.storage.half_types import SUFFIX, cast, half_type, half_types
from quant_core.export.storage.model_file import model_bytes
from quant_core.export.storage.packing import Plane, blank_planes, plane_bytes
from quant_core.export.storage.unpacking import Storage
from quant_core.export.targets.ort_cpu import ORT_CPU
from quant_core.export.targets.target import Target
from quant_core.export.writing.exporter import export_parts
from quant_core.ingest.added_bias import added_bias
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer
from quant_core.spec import FLOAT_BITS, WeightGrid, WeightOptions
from quant_core.spec.bits import WIDE_BITS
from quant_core.spec.width import functions_of, sparse_of, weight_of

_DEFAULT = WeightOptions()
_NAMES = 36
"""Names given before; later ones have two letters, as most have in a file with many nodes a layer."""
_ZERO_POINT = 14
"""Most bytes of a constant of one number of 8 or 16 bits, as a field of the graph, under a name of four letters."""
_MASK = 8
"""Most numbers that a shape, or a mask of the bits of a byte, has."""


def predict_sizes(
    model: ir.Model,
    layers: Sequence[Layer],
    candidates: Mapping[str, Collection[int]],
    activation_bits: int,
    target: Target = ORT_CPU,
    options: WeightOptions = _DEFAULT,
) -> FileCosts:
    """Measure the stored form of every layer at every candidate width.

    Args:
        model: The normalised float model.
        layers: Its layers.
        candidates: Layer name -> widths it may be given, without bits of activations; 32 is float.
        activation_bits: 8, or 32 for float activations.
        target: The runtime.
        options: Says which grid weights of each width are rounded to.

    Returns:
        Predicted bytes of any plan.
    """
    counter = _Counter(model, activation_bits, target, options)
    sizes = counter.sizes(layers, candidates)
    reference = {name: min(choices) for name, choices in candidates.items()}  # integers where allowed
    placement = place(model, layers, reference, activation_bits, target, options)
    weights = {
        layer.name: replace(
            _zeros(layer, bits, options.grid(bits), index), bias=_corrected(layer, model, options)
        )
        for index, layer in enumerate(layers)
        if (bits := reference[layer.name]) != FLOAT_BITS
    }
    # Distinct scales, as calibration will give: equal constants are stored once.
    grids = {
        name: ActivationGrid(
            float(np.float32(1 + i / 1024)),
            0,
            WIDE_BITS if name in placement.wide else 8,
            "e4m3" if target.float8 else None,
        )
        for i, name in enumerate(placement.points)
    }
    widths = {key for choices in candidates.values() for width in choices for key in functions_of(width)}
    functions = {
        key: sum(map(_field_bytes, target.storage.functions({key})))
        + sum(counter.shared.get(key, {}).values())
        for key in widths
    }
    functions = {key: size for key, size in functions.items() if size}
    file = export_parts(model, layers, weights, placement, grids, target)
    keys = frozenset().union(*map(functions_of, reference.values()))
    used = sum(functions.get(key, 0) for key in keys)
    base = model_bytes(file) - used - sum(sizes[name][bits] for name, bits in reference.items())
    # Equal ones are one constant, and all are here.
    values = {grid.bits: 1 << grid.bits for grid in grids.values() if grid.element is None}
    zero_points = sum(
        _ZERO_POINT * min(values[bits], sum(grid.bits == bits for grid in grids.values())) for bits in values
    )
    return FileCosts(base=base, layers=sizes, functions=functions, zero_points=zero_points)


@dataclass
class _Counter:
    """Counts what layers take, and apart from them the constants that layers of one width have in common.

    Attributes:
        model: The model that holds their float weights.
        activation_bits: 8, or 32 for float activations.
        target: The runtime.
        options: Says which grid weights of each width are rounded to.
        shared: Bits -> constant -> its bytes, once a file.
    """

    model: ir.Model
    activation_bits: int
    target: Target
    options: WeightOptions
    shared: dict[int, dict[ConstantKey, int]] = field(default_factory=dict)

    def sizes(
        self, layers: Sequence[Layer], candidates: Mapping[str, Collection[int]]
    ) -> dict[str, dict[int, int]]:
        """Layer name -> width -> bytes of its stored weight, scales and unpacking nodes."""
        sizes: dict[str, dict[int, int]] = {}
        shapes: set[ConstantKey] = set()
        for layer in layers:
            sizes[layer.name] = {}
            seen: set[ConstantKey] = set()
            for width in candidates[layer.name]:
                sizes[layer.name][width], constants = self._layer(layer, width, shapes)
                seen |= constants
            shapes |= seen  # of a later layer of the same shape they are there already
        return sizes

    def _layer(self, layer: Layer, width: int, shapes: set[ConstantKey]) -> tuple[int, set[ConstantKey]]:
        bits = weight_of(width)
        grid = self.options.grid(bits)
        form = layer_form(layer, self.model, bits, self.activation_bits, self.target, self.options)
        if form == "float":
            return _float_bytes(layer, self.model), set()
        apart = self.target.storage.shares_constants
        writer = _SizeWriter((), self.target.storage, halves=self.target.halves, names=_NAMES if apart else 0)
        layout = input_layout(layer, self.model) if self.target.lays_out_inputs else AS_IT_IS
        _write(writer, layer, _zeros(layer, width, grid), form, self.target, layout)
        if not apart:
            return writer.bytes(), set()
        few, lists = writer.unpacking_constants()
        self.shared.setdefault(bits, {}).update(few)
        there = sum(few.values()) + sum(size for key, size in lists.items() if key in shapes)
        return writer.bytes() - there, set(lists)


def _float_bytes(layer: Layer, model: ir.Model) -> int:
    tensor = stored_tensor(model, layer.weight)
    named = len(layer.weight) + 8 + 2 * len(layer.shape)
    if half_type(tensor.numpy(), half_types(model, halves=False)) is None:
        return tensor.nbytes + named
    stored = layer.weight + SUFFIX
    return tensor.nbytes // 2 + named + len(SUFFIX) + _field_bytes(cast(stored, layer.weight))


def _write(
    writer: GraphWriter,
    layer: Layer,
    weight: QuantizedWeight,
    form: Form,
    target: Target,
    layout: InputLayout,
) -> None:
    if form == "static":
        write_qdq(writer, layer, weight, layout)
    elif form == "dynamic":
        write_int8(writer, layer, weight)
        writer.constant(product_scale(layer, weight))
        writer.node("Cast", ["0"], to=1)
        for _ in layer.uses:
            writer.node("Mul", ["00", "00"], ["00"])
            writer.node("Mul", ["00", "00"], [layer.outputs[0]])
    elif form == "block":
        names, attributes = write_nbits(writer, layer, weight), nbits_attributes(layer, weight)
        for use in layer.uses:
            writer.node(
                "MatMulNBits", ["00", *names], ["00"], name=use.node, domain=NBITS_DOMAIN, **attributes
            )
    elif form == "gather":
        table = write_table(writer, layer, weight)
        for use in layer.uses:
            write_rows(writer, layer, weight, table, "00", use.node)
    elif target.blocks:
        write_blocks(writer, layer, weight)
    else:
        write_float(writer, layer, weight)


class _SizeWriter(GraphWriter):
    """A writer that counts the bytes of codes and never makes them."""

    def __init__(self, taken: Iterable[str], storage: Storage, *, halves: bool, names: int = 0) -> None:
        super().__init__(taken, storage, halves=halves)
        self._counter = names
        self._raw: list[int] = []

    def pack(self, codes: npt.NDArray[np.int8], bits: int) -> tuple[Plane, ...]:
        """Lay codes out without their data.

        Args:
            codes: The codes.
            bits: Their width.

        Returns:
            One or two planes.
        """
        self._raw += plane_bytes(codes.size, bits)
        return blank_planes(codes.shape, bits)

    def unpacking_constants(self) -> tuple[dict[ConstantKey, int], dict[ConstantKey, int]]:
        """Tell what other layers' codes are unpacked with as well.

        Returns:
            Numbers and masks, then lists of integers such as shapes: constant -> bytes in a file.
        """
        tensors = {tensor.name: tensor for tensor in self.initializers}
        few: dict[ConstantKey, int] = {}
        lists: dict[ConstantKey, int] = {}
        for key, name in self._constants.items():
            dtype, shape, _ = key
            kind, count = np.dtype(dtype), math.prod(shape)
            if kind.kind in "iu" and count <= _MASK:
                is_list = kind.itemsize > 1 and count > 1
                (lists if is_list else few)[key] = _field_bytes(tensors[name])
        return few, lists

    def bytes(self) -> int:
        """Add up what has been written.

        Returns:
            Bytes in a file.
        """
        blank = [tensor for tensor in self.initializers if tensor.raw_data == b""]
        written = [tensor for tensor in self.initializers if tensor.raw_data != b""]
        total = sum(map(_field_bytes, (*self.nodes, *written)))
        for tensor, raw in zip(blank, self._raw, strict=True):
            # The field of the data has a length of its own; an empty one is written as two bytes.
            total += _field(tensor.ByteSize() - 2 + _field(raw))
        return total


def _zeros(layer: Layer, width: int, grid: WeightGrid, index: int = 0) -> QuantizedWeight:
    axis = layer.step_axis(grid)
    channels = channel_count(layer.shape, axis)
    shape: tuple[int, ...] = () if axis is None else (channels,)
    if grid.block is not None:
        shape = channels, -(-layer.parameters // max(1, channels * grid.block))
    share = sparse_of(width)
    # Scales that no other layer and no activation has, for equal constants would be stored once, and that float16 holds
    # as it will theirs.
    step = np.float32((1 + index % 1024 / 1024) * 2.0 ** (1 + index // 1024 % 8))
    if grid.format != "int":
        step = np.nextafter(step, np.float32(np.inf))
    return QuantizedWeight(
        codes=np.zeros(layer.shape, dtype=np.int8),
        scale=np.full(shape, step, dtype=np.float32),
        axis=axis,
        bits=weight_of(width),
        zero_point=None if grid.symmetric else np.zeros(shape, dtype=np.int8),
        block_size=grid.block,
        format=grid.format,
        tensor_scale=float(step) if grid.format == "nvfp4" else None,
        outliers=Outliers(np.zeros(0, dtype=np.int64), pairs_for(share, layer.parameters)) if share else None,
    )


def _corrected(layer: Layer, model: ir.Model, options: WeightOptions) -> CorrectedBias | None:
    """The bias as rounding leaves it, of all that matters here: in float16 where that holds it."""
    if options.by_value or not options.bias_correction or any(use.operand != 1 for use in layer.uses):
        return None
    bias = added_bias(model, layer)
    if bias is None or bias.const_value is None:
        return None
    return CorrectedBias.stored(str(bias.name), bias.const_value.numpy())


def _field_bytes(message: Message) -> int:
    """Bytes of a message as a repeated field: tag, length, content."""
    return _field(message.ByteSize())


def _field(size: int) -> int:
    return size + 1 + max(1, -(-size.bit_length() // 7))
