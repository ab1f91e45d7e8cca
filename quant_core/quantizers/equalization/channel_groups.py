"""Where channels can be scaled without changing what a network computes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor, own_constant
from quant_core.ingest.layer import Layer
from quant_core.ingest.subgraphs import read_inside
from quant_core.quantizers.equalization.channel_group import ChannelGroup, Fold

_PASSING = frozenset({"Relu", "LeakyRelu", "Identity"})
"""Each commutes with a positive factor for each channel, whichever axis that is."""
_POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
"""Each does so for channels on the second axis; along others it pools. So does a Resize of places."""
_NORMALIZING = frozenset({"BatchNormalization", "InstanceNormalization"})
"""Each has a factor and a sum of its own for each channel."""


def channel_groups(
    model: ir.Model,
    layers: Sequence[Layer],
    before: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[ChannelGroup, ...]:
    """Find every place where channels can be scaled.

    Scales fold where all that writes the tensors is a layer, a normalization with factors or a constant, all that reads
    them a layer, and in between lie only operators that commute with positive factors: a pair of layers, or a residual
    stream as a whole (Nagel et al., arXiv:1906.04721, section 4.1). A Clip with an upper bound does not commute, and a
    bound for each channel has no integer kernel, so such tensors are left alone. Elsewhere layers whose input is
    rounded at run time take a product before them (Xiao et al., SmoothQuant, arXiv:2211.10438, section 4), and of a
    Concat those parts are divided that nothing else reads, as what a U-Net puts beside its skips.

    Args:
        model: The normalised graph.
        layers: Its layers.
        before: Names of the layers before which a product may be inserted.
        shapes: Tensor -> its shape in some run.

    Returns:
        Groups in graph order; no tensor and no layer's input is in two of them.
    """
    search = _Search(model, layers, shapes)
    found: list[ChannelGroup] = []
    seen: set[str] = set()
    for layer in layers:
        name = layer.uses[0].input
        value = search.values.get(name)
        if name in seen or value is None or not search.absorbs(layer):
            continue
        group = search.closure(value, layer)
        if group is None:
            readers = tuple(
                other.name
                for other in layers
                if other.name in before and search.absorbs(other) and other.uses[0].input == name
            )
            group = search.taken_in(value, layer, readers) if readers else search.joined(value, layer)
            seen.add(name)
        if group is not None:
            seen.update(group.tensors)
            found.append(group)
    return tuple(found)


def output_groups(
    model: ir.Model,
    layers: Sequence[Layer],
    writing: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[ChannelGroup, ...]:
    """Give what layers write groups of their own, with a product behind it that makes up for the scales.

    Args:
        model: The normalised graph.
        layers: Its layers.
        writing: Names of the layers.
        shapes: Tensor -> its shape in some run.

    Returns:
        Groups in graph order, of those layers whose weights and biases are their own.
    """
    search = _Search(model, layers, shapes)
    found = [search.output(layer) for layer in layers if layer.name in writing]
    return tuple(group for group in found if group is not None)


class _NotFoldableError(Exception):
    """Scales cannot be folded here."""


class _Search:
    def __init__(
        self, model: ir.Model, layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.shapes = shapes
        self.values = {
            str(value.name): value
            for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))
        }
        self.nodes = {str(node.name): node for node in model.graph}
        self.layers = {layer.uses[0].node: layer for layer in layers if len(layer.uses) == 1}
        self.layers_by_name = {layer.name: layer for layer in layers}
        self.order = {layer.name: position for position, layer in enumerate(layers)}
        self.captured = {str(value.name) for node in model.graph for value in read_inside(node)}

    def absorbs(self, layer: Layer) -> bool:
        """Whether factors of the input's channels can be moved into a layer's weight."""
        if len(layer.uses) != 1 or layer.uses[0].operand != 1:
            return False
        node = self.nodes[layer.uses[0].node]
        if layer.op == "MatMul":
            return len(layer.shape) == 2 and own_constant(node.inputs[1]) is not None
        if layer.op == "Gemm":
            return not node.attributes.get_int("transA", 0) and own_constant(node.inputs[1]) is not None
        return layer.op in {"Conv", "ConvTranspose"} and own_constant(node.inputs[1]) is not None

    def closure(self, start: ir.Value, reader: Layer) -> ChannelGroup | None:
        """Collect what must be scaled together with a tensor; None if that is not possible."""
        channels, behind = _inputs(reader), _axes_behind(reader)
        tensors: dict[str, int] = {}
        folds: dict[Fold, None] = {}
        readers: dict[str, None] = {}
        waiting = [(start, behind)]
        try:
            while waiting:
                value, behind = waiting.pop()
                if str(value.name) in tensors:
                    if tensors[str(value.name)] != behind:
                        raise _NotFoldableError
                    continue
                self._check(value, behind, channels)
                tensors[str(value.name)] = behind
                for item in self._written(value, behind, channels):
                    if isinstance(item, Fold):
                        folds[item] = None
                    else:
                        waiting.append(item)
                for found in self._read(value, behind, channels):
                    if isinstance(found, Layer):
                        readers[found.name] = None
                    else:
                        waiting.append(found)
        except _NotFoldableError:
            return None
        order = [str(value) for value in self.values if value in tensors]
        return ChannelGroup(
            tuple(order), channels, tuple(sorted(readers, key=self.order.__getitem__)), tuple(folds)
        )

    def joined(self, value: ir.Value, reader: Layer) -> ChannelGroup | None:
        """A group of the parts of a Concat that fold and that nothing else reads; None if there are none."""
        channels, behind = _inputs(reader), _axes_behind(reader)
        node = value.producer()
        if node is None or node.op_type != "Concat" or node.domain:
            return None
        try:
            self._check(value, behind, channels)
            readers = list(self._read(value, behind, channels))
        except _NotFoldableError:
            return None
        rank = len(self.shapes[str(value.name)])
        if node.attributes.get_int("axis") % rank != rank - 1 - behind:
            return None
        start = 0
        tensors: list[str] = []
        folds: list[Fold] = []
        parts: list[tuple[int, int]] = []
        for operand in node.inputs:
            assert operand is not None
            end = start + self.shapes.get(str(operand.name), (0,) * rank)[-1 - behind]
            part = self._part(operand, behind, end - start, node)
            if part is not None:
                tensors += part[0]
                folds += [replace(fold, start=start) for fold in part[1]]
                parts.append((start, end))
            start = end
        if not parts or not all(isinstance(found, Layer) for found in readers):
            return None
        names = sorted(
            (found.name for found in readers if isinstance(found, Layer)), key=self.order.__getitem__
        )
        return ChannelGroup(tuple(tensors), channels, tuple(names), tuple(folds), parts=tuple(parts))

    def _part(
        self, part: ir.Value, behind: int, channels: int, concat: ir.Node
    ) -> tuple[list[str], list[Fold]] | None:
        """Tensors and constants to divide one part of a Concat by; None where something else would change."""
        tensors: list[str] = []
        folds: list[Fold] = []
        here = part
        try:
            while True:
                users = [node for node, _ in here.uses()]
                if len(users) != 1 or (here is part and users[0] is not concat):
                    return None
                self._check(here, behind, channels)
                tensors.append(str(here.name))
                written = list(self._written(here, behind, channels))
                folds += [item for item in written if isinstance(item, Fold)]
                before = [item for item in written if not isinstance(item, Fold)]
                if not before:
                    return tensors, folds
                ((here, behind),) = before
        except (_NotFoldableError, ValueError):
            return None

    def output(self, layer: Layer) -> ChannelGroup | None:
        """The group of what a layer writes; None if its constants cannot take the scales in."""
        node = self.nodes[layer.uses[0].node]
        behind = _axes_behind(layer)
        name = str(node.outputs[0].name)
        channels = self.shapes[name][-1 - behind] if len(self.shapes.get(name, ())) > behind else 0
        try:
            folds = tuple(self._layer_folds(node, behind, channels))
        except _NotFoldableError:
            return None
        return ChannelGroup((name,), channels, (), folds, behind=True, trailing=behind)

    def taken_in(self, value: ir.Value, reader: Layer, readers: tuple[str, ...]) -> ChannelGroup:
        """A group before some readers, its factors in a product and sums by constants where these read nothing else."""
        channels, behind = _inputs(reader), _axes_behind(reader)
        nodes = {self.layers_by_name[name].uses[0].node for name in readers}
        tensors: list[str] = []
        folds: list[Fold] = []
        here = value
        while (node := here.producer()) is not None and node.op_type in {"Add", "Mul"} and not node.domain:
            constants = [
                given for given in node.inputs if given is not None and constant_tensor(given) is not None
            ]
            outside = here.is_graph_output() or str(here.name) in self.captured
            if outside or len(constants) != 1 or {str(user.name) for user, _ in here.uses()} - nodes:
                break
            if not _spreads(constants[0], behind, channels):
                break
            tensors.append(str(here.name))
            folds.append(Fold(str(constants[0].name), -1 - behind, str(node.name)))
            if node.op_type == "Mul":
                return ChannelGroup(tuple(reversed(tensors)), channels, readers, tuple(folds))
            nodes = {str(node.name)}
            here = next(
                given for given in node.inputs if given is not None and constant_tensor(given) is None
            )
        return ChannelGroup((str(value.name),), channels, readers, (), trailing=behind)

    def _check(self, value: ir.Value, behind: int, channels: int) -> None:
        outside = value.is_graph_input() or value.is_graph_output() or str(value.name) in self.captured
        shape = self.shapes.get(str(value.name), ())
        if outside or len(shape) <= behind or shape[-1 - behind] != channels:
            raise _NotFoldableError

    def _written(self, value: ir.Value, behind: int, channels: int) -> Iterator[Fold | tuple[ir.Value, int]]:
        """What divides a tensor: constants of its producer, or the tensors it comes from."""
        node = value.producer()
        if node is None or node.domain:
            raise _NotFoldableError
        op = node.op_type
        if op in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
            yield from self._layer_folds(node, behind, channels)
        elif op == "LayerNormalization" and behind == 0:
            if node.attributes.get_int("axis", -1) not in {-1, len(self.shapes[str(value.name)]) - 1}:
                raise _NotFoldableError
            for constant in node.inputs[1:]:
                yield _fold(constant, 0, channels)
        elif op in _NORMALIZING and behind == len(self.shapes[str(value.name)]) - 2:
            for constant in node.inputs[1:3]:
                yield _fold(constant, 0, channels)
        elif self._passes(node, value, behind) and len(node.outputs) == 1:
            yield _tensor(node.inputs[0]), behind
        elif op == "Flatten" and behind == 0:
            yield _tensor(node.inputs[0]), self._flattened(node)
        elif op == "Add":
            for operand in node.inputs:
                yield (
                    _fold(operand, behind, channels)
                    if constant_tensor(operand) is not None
                    else (_tensor(operand), behind)
                )
        elif op == "Mul" and any(constant_tensor(operand) is not None for operand in node.inputs):
            yield (
                next(_tensor(operand) for operand in node.inputs if constant_tensor(operand) is None),
                behind,
            )
        else:
            raise _NotFoldableError

    def _layer_folds(self, node: ir.Node, behind: int, channels: int) -> Iterator[Fold]:
        layer = self.layers.get(str(node.name))
        if layer is None or layer.uses[0].operand != 1 or own_constant(node.inputs[1]) is None:
            raise _NotFoldableError
        spatial = _axes_behind(layer)
        transposed = layer.op == "Gemm" and node.attributes.get_int("transB", 0) == 1
        axis = 0 if layer.op == "Conv" or transposed else 1
        if behind != spatial or len(layer.shape) != spatial + 2 or layer.shape[axis] != channels:
            raise _NotFoldableError
        yield Fold(layer.weight, axis)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            yield _fold(node.inputs[2], 0, channels)

    def _read(self, value: ir.Value, behind: int, channels: int) -> Iterator[Layer | tuple[ir.Value, int]]:
        """What takes a tensor: layers, or operators that pass it on."""
        for node, position in value.uses():
            layer = self.layers.get(str(node.name))
            if layer is not None and position == 0 and self.absorbs(layer) and _inputs(layer) == channels:
                yield layer
            elif node.domain or len(node.outputs) != 1:
                raise _NotFoldableError
            elif self._passes(node, value, behind) or node.op_type in {"Add", "Mul"}:
                yield node.outputs[0], behind
            elif node.op_type == "Flatten" and behind == self._flattened(node):
                yield node.outputs[0], 0
            else:
                raise _NotFoldableError

    def _passes(self, node: ir.Node, value: ir.Value, behind: int) -> bool:
        """Whether a node gives each channel of what it reads or writes by itself."""
        second = behind == len(self.shapes[str(value.name)]) - 2
        places = node.op_type in _POOLING or (node.op_type == "Resize" and self._resizes_places(node))
        return node.op_type in _PASSING or (places and second)

    def _resizes_places(self, node: ir.Node) -> bool:
        """Whether a Resize is linear in each channel: it leaves samples and channels alone, and adds no values."""
        if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
            return False
        before, after = (
            self.shapes.get(str(_tensor(end).name), ()) for end in (node.inputs[0], node.outputs[0])
        )
        scales = node.inputs[2] if len(node.inputs) > 2 else None
        given = None if scales is None else constant_tensor(scales)
        if before[:2] != after[:2] or (scales is not None and given is None):
            return False
        axes = node.attributes.get_ints("axes", range(len(before)))
        factors = [] if given is None else given.numpy().ravel().tolist()
        return all(factor == 1 for axis, factor in zip(axes, factors, strict=False) if axis % len(before) < 2)

    def _flattened(self, node: ir.Node) -> int:
        """Number of axes of size 1 behind the channels that a Flatten drops."""
        sizes = self.shapes.get(str(_tensor(node.inputs[0]).name), ())[2:]
        if node.attributes.get_int("axis", 1) != 1 or not sizes or any(size != 1 for size in sizes):
            raise _NotFoldableError
        return len(sizes)


def _inputs(layer: Layer) -> int:
    """Number of channels that a layer reads."""
    if layer.op == "Conv":
        return layer.shape[1] * layer.group
    if layer.op == "Gemm" and layer.axis == 0:
        return layer.shape[1]
    return layer.shape[0]


def _axes_behind(layer: Layer) -> int:
    """Number of axes behind the channels of what a layer reads and writes."""
    return len(layer.shape) - 2 if layer.op in {"Conv", "ConvTranspose"} else 0


def _spreads(value: ir.Value | None, behind: int, channels: int) -> bool:
    """Whether a constant is one number for all, or one for each channel."""
    if value is None or value.const_value is None:
        return False
    shape = [1] * (behind + 1) + list(value.const_value.shape.numpy())
    place = len(shape) - 1 - behind
    others = all(size == 1 for position, size in enumerate(shape) if position != place)
    return others and shape[place] in {1, channels}


def _tensor(value: ir.Value | None) -> ir.Value:
    if value is None or constant_tensor(value) is not None:
        raise _NotFoldableError
    return value


def _fold(value: ir.Value | None, behind: int, channels: int) -> Fold:
    """A constant with one value a channel and `behind` axes after it."""
    tensor = own_constant(value)
    if value is None or tensor is None:
        raise _NotFoldableError
    shape = tensor.shape.numpy()
    axis = len(shape) - 1 - behind
    if axis < 0 or shape[axis] != channels:
        raise _NotFoldableError
    if any(size != 1 for position, size in enumerate(shape) if position != axis):
        raise _NotFoldableError
    return Fold(str(value.name), axis)
