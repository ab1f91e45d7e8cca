"""Nodes of a graph under construction in order, constants stored once, names that are short and free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from quant_core.export.storage.half_types import half_type, in_half
from quant_core.export.storage.packing import Plane

ConstantKey = tuple[str, tuple[int, ...], bytes]
"""Type, shape and content of a constant."""


class GraphNodes:
    """Collects nodes and initializers.

    Attributes:
        nodes: Nodes in execution order.
        initializers: Stored tensors.
    """

    def __init__(self, taken: Iterable[str], *, halves: bool = False) -> None:
        """Start an empty graph.

        Args:
            taken: Names that are in use already.
            halves: Whether constants that float16 holds exactly are stored so.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._taken = set(taken)
        self._constants: dict[ConstantKey, str] = {}
        self._halves = halves
        self._counter = 0

    def fresh(self) -> str:
        """Make a name that nothing else bears.

        Returns:
            The name, as short as can be.
        """
        while True:
            name = np.base_repr(self._counter, 36).lower()
            self._counter += 1
            if name not in self._taken:
                self._taken.add(name)
                return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str] | None = None,
        *,
        name: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node.

        Args:
            op: Operator type.
            inputs: Input names.
            outputs: Output names; by default one fresh name.
            name: Node name.
            **attributes: Attributes.

        Returns:
            The first output's name.
        """
        outputs = outputs if outputs is not None else [self.fresh()]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Store a small tensor, or find the one with the same content.

        Args:
            value: The tensor.

        Returns:
            The initializer's name.
        """
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = self.fresh()
            stored = half_type(value, ("float16",)) if self._halves else None
            if stored is None:
                self.initializers.append(numpy_helper.from_array(value, name))
            else:
                self.initializers.append(in_half(value, name, stored))
                name = self.node("Cast", [name], to=onnx.TensorProto.FLOAT)
            self._constants[key] = name
        return self._constants[key]

    def float8_zero(self) -> str:
        """Store the zero point that tells QuantizeLinear to write E4M3 numbers, or find it.

        Returns:
            The initializer's name.
        """
        key = ("e4m3", (), b"\0")
        if key not in self._constants:
            plane = Plane("", onnx.TensorProto.FLOAT8E4M3FN, (), b"\0")
            self._constants[key] = self.store(self.fresh(), plane)
        return self._constants[key]

    def store(self, name: str, plane: Plane) -> str:
        """Store one plane of codes.

        Args:
            name: Its name: that of the weight, and the plane's suffix where it has one.
            plane: The plane.

        Returns:
            The name; a longer one where something else bears the suffixed one already.
        """
        while plane.suffix and name in self._taken:
            name += "_"
        self._taken.add(name)
        self.initializers.append(
            onnx.TensorProto(name=name, data_type=plane.dtype, dims=plane.dims, raw_data=plane.data)
        )
        return name
