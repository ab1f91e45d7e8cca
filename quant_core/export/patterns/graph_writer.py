"""A graph under construction, and the codes of weights in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.codes import NarrowChannels, QuantizedWeight
from quant_core.codes.number_formats import Minifloat
from quant_core.codes.outliers import EXCESS_BITS, Outliers, to_pairs
from quant_core.errors import InternalError
from quant_core.export.storage.functions import DOMAIN
from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.export.storage.packing import Plane, pack, pack_bits
from quant_core.export.storage.unpacking import Storage
from quant_core.spec.width import NARROW, OUTLIERS, TRELLIS

_MINIFLOATS: dict[Minifloat, int] = {
    "e4m3": onnx.TensorProto.FLOAT8E4M3FN,
    "e5m2": onnx.TensorProto.FLOAT8E5M2,
    "e2m1": onnx.TensorProto.FLOAT4E2M1,
}


class GraphWriter(GraphNodes):
    """Collects nodes and initializers, codes of weights among them."""

    def __init__(self, taken: Iterable[str], storage: Storage, *, halves: bool = False) -> None:
        """Start an empty graph.

        Args:
            taken: Names that are in use already.
            storage: How packed codes lie in the file.
            halves: Whether constants that float16 holds exactly are stored so.
        """
        super().__init__(taken, halves=halves)
        self._storage = storage
        self._widths: set[int] = set()

    @property
    def functions(self) -> list[onnx.FunctionProto]:
        """Functions the nodes call."""
        return self._storage.functions(self._widths)

    def pack(self, codes: npt.NDArray[np.int8], bits: int) -> tuple[Plane, ...]:
        """Lay codes out as stored tensors.

        Args:
            codes: The codes.
            bits: Their width.

        Returns:
            One or two planes.
        """
        return pack(codes, bits)

    def stored_typed(
        self, name: str, codes: npt.NDArray[np.int8], bits: int, element: Minifloat | None = None
    ) -> str:
        """Store codes in ONNX's own type of that width, to be read as they are.

        Args:
            name: Name of the stored tensor.
            codes: The codes.
            bits: 2, 4 or 8.
            element: Minifloat that the codes are; integers if None.

        Returns:
            The name.

        Raises:
            InternalError: If ONNX has no such type.
        """
        planes = self.pack(codes, bits)
        if len(planes) > 1:
            raise InternalError(f"ONNX has no type of {bits} bits for {name}")
        return self.store(name, replace(planes[0], dtype=_MINIFLOATS[element]) if element else planes[0])

    def stored_codes(self, name: str, codes: npt.NDArray[np.int8], bits: int) -> str:
        """Store codes packed and append what turns them into int8; onnxruntime folds that when it loads the file.

        Args:
            name: Name of the first stored tensor.
            codes: The codes.
            bits: Their width.

        Returns:
            Name of the int8 tensor.
        """
        self._widths.add(bits)
        return self._storage.write(self, name, self.pack(codes, bits), bits, codes.shape)

    def add_outliers(self, dense: str, weight: QuantizedWeight, outliers: Outliers) -> str:
        """Store what outliers add to dense codes and append what adds it; onnxruntime folds that at load.

        Args:
            dense: Name of the int8 tensor of the dense codes, which lie as the weight does.
            weight: All codes.
            outliers: Where the outliers are.

        Returns:
            Name of the int8 tensor.
        """
        self._widths.add(OUTLIERS)
        gaps, excess = to_pairs((weight.codes - weight.dense_codes()).reshape(-1), outliers.pairs)
        stored = self.store(self.fresh(), Plane("", onnx.TensorProto.UINT8, gaps.shape, gaps.tobytes()))
        planes = self.pack(excess, EXCESS_BITS)
        return self._storage.write_outliers(self, dense, stored, planes, weight.codes.shape)

    def add_trellis(self, dense: str, weight: QuantizedWeight) -> str:
        """Append what gives the values that the stored codes of a trellis stand for; that folds at load.

        Args:
            dense: Name of the int8 tensor of the stored codes, which lie as the weight does.
            weight: All values, channels along one axis.

        Returns:
            Name of the int8 tensor.

        Raises:
            InternalError: If channels do not lie along one axis.
        """
        if not isinstance(weight.axis, int):
            raise InternalError("paths of a trellis run along one axis, and a weight has none")
        self._widths.add(TRELLIS)
        return self._storage.write_trellis(self, dense, weight.codes.shape, weight.axis)

    def stored_channels(self, name: str, weight: QuantizedWeight, narrow: NarrowChannels) -> str:
        """Store channels of two widths, each in their own, and append what puts them in order; that folds at load.

        Args:
            name: Name of the first stored tensor.
            weight: All codes, channels along one axis.
            narrow: Which channels take fewer bits.

        Returns:
            Name of the int8 tensor.

        Raises:
            InternalError: If channels do not lie along one axis.
        """
        axis = weight.axis
        if not isinstance(axis, int):
            raise InternalError(f"channels of {name} have two widths and no axis of their own")
        self._widths.add(NARROW)
        wide = ~narrow.channels
        parts = [
            self.stored_codes(part, np.compress(channels, weight.codes, axis), bits)
            for part, channels, bits in (
                (name, wide, weight.bits),
                (self.fresh(), narrow.channels, narrow.bits),
            )
        ]
        data = pack_bits(wide.astype(np.uint8), 2).tobytes()
        which = self.store(self.fresh(), Plane("", onnx.TensorProto.UINT2, wide.shape, data))
        return self.node("Channels", [*parts, which], domain=DOMAIN, axis=axis)
