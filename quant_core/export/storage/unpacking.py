"""How packed codes lie in a file, and the nodes that make them int8 again."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx

from quant_core.export.storage.functions import (
    DOMAIN,
    channels_function,
    outliers_function,
    trellis_function,
    unpack_function,
)
from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.export.storage.packing import Plane
from quant_core.spec.width import NARROW, OUTLIERS, TRELLIS


class Storage(Protocol):
    """One way to store codes of every width."""

    @property
    def shares_constants(self) -> bool:
        """Whether layers of one width are unpacked with the same constants, each stored once a file."""
        ...

    def write(
        self, writer: GraphNodes, name: str, planes: Sequence[Plane], bits: int, shape: Sequence[int]
    ) -> str:
        """Store the planes of one tensor and append what turns them into int8.

        Args:
            writer: Where to write.
            name: Name of the tensor.
            planes: Its planes, the low one first.
            bits: Width of the codes.
            shape: Shape of the codes.

        Returns:
            Name of the int8 tensor.
        """
        ...

    def write_outliers(
        self, writer: GraphNodes, dense: str, gaps: str, excess: Sequence[Plane], shape: Sequence[int]
    ) -> str:
        """Store what outliers add and append what adds it.

        Args:
            writer: Where to write.
            dense: Name of the int8 tensor of the dense codes.
            gaps: Name of the uint8 distances.
            excess: The plane of 4-bit excesses, as many as distances.
            shape: Shape of the codes.

        Returns:
            Name of the int8 tensor.
        """
        ...

    def write_trellis(self, writer: GraphNodes, dense: str, shape: Sequence[int], axis: int) -> str:
        """Append what gives the values that trellis codes stand for.

        Args:
            writer: Where to write.
            dense: Name of the int8 tensor of the stored codes.
            shape: Shape of the codes.
            axis: Axis of the outputs, along which paths run.

        Returns:
            Name of the int8 tensor.
        """
        ...

    def functions(self, widths: Collection[int]) -> list[onnx.FunctionProto]:
        """List the functions that some widths need, stored once a file.

        Args:
            widths: Bits in use, `OUTLIERS` and `TRELLIS` where there are any, and `NARROW` where channels have widths
                of their own.

        Returns:
            The functions, by rising width.
        """
        ...


@dataclass(frozen=True)
class LocalFunctions:
    """ONNX's own types of 2, 4 and 8 bits; planes of other widths are put together by functions of the file.

    Attributes:
        shares_constants: False: they lie in the functions.
    """

    shares_constants: bool = False

    def write(
        self, writer: GraphNodes, name: str, planes: Sequence[Plane], bits: int, shape: Sequence[int]
    ) -> str:
        """Store planes in types of their own width."""
        names = [writer.store(name + plane.suffix, plane) for plane in planes]
        if bits == 8:
            return names[0]
        if len(planes) == 1:
            return writer.node("Cast", names, to=onnx.TensorProto.INT8)
        attributes: dict[str, Any] = (
            {} if bits == 6 else {"shape": list(planes[0].dims), "size": [math.prod(shape)]}
        )
        return writer.node(f"Unpack{bits}", names, domain=DOMAIN, **attributes)

    def write_outliers(
        self,
        writer: GraphNodes,
        dense: str,
        gaps: str,
        excess: Sequence[Plane],
        shape: Sequence[int],  # noqa: ARG002
    ) -> str:
        """Store excesses in 4-bit integers; a function of the file adds them."""
        stored = writer.store(writer.fresh(), excess[0])
        return writer.node("Outliers", [dense, gaps, stored], domain=DOMAIN)

    def write_trellis(self, writer: GraphNodes, dense: str, shape: Sequence[int], axis: int) -> str:  # noqa: ARG002
        """Append the function of the file that decodes."""
        along: dict[str, Any] = {"axes": [axis]} if axis else {}
        return writer.node("Trellis", [dense], domain=DOMAIN, **along)

    def functions(self, widths: Collection[int]) -> list[onnx.FunctionProto]:
        """List the functions that put planes together, add outliers and decode trellises."""
        unpacking = [unpack_function(bits) for bits in sorted({3, 5, 6}.intersection(widths))]
        kept_apart = [outliers_function()] if OUTLIERS in widths else []
        ordered = [channels_function()] if NARROW in widths else []
        return [*unpacking, *kept_apart, *ordered, *([trellis_function()] if TRELLIS in widths else [])]
