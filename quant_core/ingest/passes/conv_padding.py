"""Let convolutions pad their input themselves, and compute no places that are then cut off."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor

_CHANNELS_END = 2
"""Axes of samples and channels, before those of places."""

_ENDLESS = 2**31 - 1
"""From here on the end of a Slice stands for that of its axis."""

_Pads = tuple[list[int], list[int]]
"""What is added before the first and behind the last place of each axis."""


class PadInConvolutions(ir.passes.InPlacePass):
    """Fold a Pad of zeros in front of convolutions, and a Slice of places behind one, into their own padding.

    Causal convolutions are written so: `Conv(Pad(x, p, 0)) = Conv_p(x)` (WaveNet: van den Oord et al.,
    arXiv:1609.03499), or padded at both ends and cut at the end of time, `Conv_{p,p}(x)[:-p] = Conv_{p,0}(x)` (TCN: Bai
    et al., arXiv:1803.01271). With a stride of s, c places that are cut off stand for c s of padding. Kernels then have
    no copy to make, and an activation function behind the Slice is the convolution's own.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, once constants are initializers."""
        modified = False
        for node in list(model.graph):
            if node.domain:
                continue
            if node.op_type == "Pad":
                modified |= _padded_themselves(node)
            elif node.op_type == "Slice":
                modified |= _cut_itself(node)
        return ir.passes.PassResult(model, modified=modified)


def _padded_themselves(pad: ir.Node) -> bool:
    """Drop a Pad whose readers are all convolutions that can take it over."""
    source, padded = pad.inputs[0], pad.outputs[0]
    readers = [node for node, place in padded.uses() if place == 0 and _convolves(node)]
    if source is None or not readers or padded.is_graph_output() or len(readers) < len(padded.uses()):
        return False
    rank = len(_weight_shape(readers[0]))
    added = _zeros_added(pad, rank)
    if added is None or any(len(_weight_shape(reader)) != rank for reader in readers):
        return False
    for reader in readers:
        begins, ends = _pads(reader)
        _set_pads(reader, _sums(begins, added[0]), _sums(ends, added[1]))
        reader.replace_input_with(0, source)
    assert pad.graph is not None
    pad.graph.remove(pad, safe=True)
    return True


def _cut_itself(cut: ir.Node) -> bool:
    """Drop a Slice of places that a convolution had padded for."""
    made = cut.inputs[0]
    node = None if made is None else made.producer()
    if made is None or node is None or not _convolves(node):
        return False
    if made.is_graph_output() or len(made.uses()) > 1:
        return False
    rank = len(_weight_shape(node))
    places, (begins, ends) = _cut_off(cut, rank), _pads(node)
    if places is None:
        return False
    strides = node.attributes.get_ints("strides", [1] * (rank - _CHANNELS_END))
    fewer = [[-count * step for count, step in zip(side, strides, strict=True)] for side in places]
    begins, ends = _sums(begins, fewer[0]), _sums(ends, fewer[1])
    if min(*begins, *ends) < 0:
        return False
    _set_pads(node, begins, ends)
    old = cut.outputs[0]
    made.type, made.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    name = old.name
    assert cut.graph is not None
    cut.graph.remove(cut, safe=True)
    made.name = name
    return True


def _convolves(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.domain or len(_weight_shape(node)) <= _CHANNELS_END:
        return False
    return node.attributes.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"}


def _weight_shape(conv: ir.Node) -> Sequence[int]:
    weight = conv.inputs[1]
    held = None if weight is None else weight.const_value
    return () if held is None else held.shape.numpy()


def _pads(conv: ir.Node) -> _Pads:
    axes = len(_weight_shape(conv)) - _CHANNELS_END
    pads = list(conv.attributes.get_ints("pads", [0] * (2 * axes)))
    return pads[:axes], pads[axes:]


def _set_pads(conv: ir.Node, begins: Sequence[int], ends: Sequence[int]) -> None:
    conv.attributes.pop("auto_pad", None)
    conv.attributes["pads"] = ir.AttrInt64s("pads", [*begins, *ends])


def _sums(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _zeros_added(pad: ir.Node, rank: int) -> _Pads | None:
    """How many zeros a Pad adds at both ends of each axis of places; None where that is not known or not all."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    value = _constants(pad, 2)
    if value is None or any(value):
        return None
    pads, axes = _constants(pad, 1), _constants(pad, 3)
    if not pads or axes is None:
        return None
    axes = axes or list(range(rank))
    if len(pads) != 2 * len(axes):
        return None
    half = len(axes)
    return _of_places(axes, pads[:half], pads[half:], rank)


def _cut_off(cut: ir.Node, rank: int) -> _Pads | None:
    """How many places a Slice leaves out at both ends of each axis; None where that is not known or not all."""
    starts, ends, axes, steps = (_constants(cut, place) for place in range(1, 5))
    if not starts or not ends or axes is None or steps is None or any(step != 1 for step in steps):
        return None
    # Ends are counted from the last place on: from the first on they cut off what the length leaves.
    if any(end >= 0 and end < _ENDLESS for end in ends):
        return None
    behind = [0 if end >= _ENDLESS else -end for end in ends]
    return _of_places(axes or list(range(len(starts))), starts, behind, rank)


def _of_places(axes: Sequence[int], begins: Sequence[int], ends: Sequence[int], rank: int) -> _Pads | None:
    before, behind = [0] * rank, [0] * rank
    for axis, begin, end in zip(axes, begins, ends, strict=True):
        before[axis % rank] += begin
        behind[axis % rank] += end
    if min(*before, *behind) < 0 or any((*before[:_CHANNELS_END], *behind[:_CHANNELS_END])):
        return None
    return before[_CHANNELS_END:], behind[_CHANNELS_END:]


def _constants(node: ir.Node, place: int) -> list[int] | None:
    """Constants that a node reads; none where it is left out, None where it is computed."""
    if place >= len(node.inputs) or node.inputs[place] is None:
        return []
    held = constant_tensor(node.inputs[place])
    return None if held is None else held.numpy().reshape(-1).tolist()
