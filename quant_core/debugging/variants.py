"""Variants of a quantized file, run beside its float model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quant_core.debugging.case import Case
from quant_core.errors import ModelError
from quant_core.ingest import Layer
from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.verification import Difference, open_session, run_batches, sqnr_db
from quant_core.verification.float_twins import FloatTwins


class Outputs:
    """How far all outputs are from the float net's, each in shares of its own size.

    Attributes:
        parts: Output name -> its difference; outputs of another shape, such as what a selection found, are left out.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.parts = {name: Difference(name) for name in names}

    def add(self, expected: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]) -> None:
        """Count a batch.

        Args:
            expected: Output name -> what the float net gives.
            values: Output name -> what is given instead.
        """
        for name in list(self.parts):
            if expected[name].shape == values[name].shape:
                self.parts[name].add(expected[name], values[name])
            else:
                del self.parts[name]

    @property
    def noise(self) -> float:
        """Mean share of squared error."""
        shares = [
            part.noise / part.signal if part.signal else float(part.noise > 0) for part in self.parts.values()
        ]
        return sum(shares) / max(len(shares), 1)

    @property
    def sqnr_db(self) -> float:
        """Signal-to-noise ratio of all outputs together, in decibels."""
        return sqnr_db(1.0, self.noise)

    def gain_db(self, base: Outputs) -> float:
        """Decibels gained over a base, in the outputs that both have."""
        common = Outputs([])
        common.parts = {name: part for name, part in base.parts.items() if name in self.parts}
        return self.sqnr_db - common.sqnr_db


class Variants:
    """Runs of the float model and of variants of the quantized file, on the same samples."""

    def __init__(self, case: Case, twins: FloatTwins) -> None:
        self.case, self.twins = case, twins
        outputs = case.model.graph.outputs
        self.outputs = [
            str(value.name) for value in outputs if value.dtype and value.dtype.is_floating_point()
        ]
        if not self.outputs:
            raise ModelError(
                "no output holds floats, so nothing can be compared.", remedy="Give scores out as well."
            )
        self.weights: dict[str, NDArray[np.floating]] = {
            layer.weight: stored_tensor(case.model, layer.weight).numpy() for layer in case.layers
        }
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Variants:
        self._float = Path(self._folder.name) / "float.onnx"
        ir.save(self.case.model, self._float, external_data="float.data")  # no message holds 2 GiB
        self._references = [dict(values) for _, values in self._run_float([])]
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def everything(self) -> tuple[Outputs, dict[str, Difference | None], dict[str, Difference]]:
        """Compare the outputs, and at every layer: quantized with float, and the stored weight with the float one.

        Returns:
            The outputs; by layer quantized with float, None where the file computes other places or rows, such as those
            that rounding sends an expert; by layer its stored weight with the float one.
        """
        triples = {layer.name: self.twins.results(layer) for layer in self.twins.found}
        base = Outputs(self.outputs)
        gathered: dict[str, Difference | None] = {name: Difference(name) for name in triples}
        own = {name: Difference(name) for name in triples}
        inner = [plain for uses in triples.values() for plain, _, _ in uses]
        pairs = zip(self._run_float(inner), self._run(self.twins.beside(self.weights)), strict=True)
        for (_, expected), (_, values) in pairs:
            base.add(expected, values)
            for name, uses in triples.items():
                for plain, result, twin in uses:
                    so_far = gathered[name]
                    if so_far is None or expected[plain].shape != values[result].shape:
                        gathered[name] = None
                    else:
                        so_far.add(expected[plain], values[result])
                    own[name].add(values[twin], values[result])
        return base, gathered, own

    def output_with(self, layer: Layer, weight: NDArray[np.floating]) -> Outputs:
        """Compare the outputs where one layer has another weight."""
        difference = Outputs(self.outputs)
        runs = self._run(self.twins.instead(layer, weight))
        for expected, (_, values) in zip(self._references, runs, strict=True):
            difference.add(expected, values)
        return difference

    def _run_float(self, inner: Sequence[str]) -> Any:
        proto = onnx.load(self._float, load_external_data=False)
        known = {output.name for output in proto.graph.output}
        for name in dict.fromkeys(inner):
            if name not in known:
                proto.graph.output.append(
                    onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                )
        path = Path(self._folder.name) / "inner.onnx"
        onnx.save(proto, path)
        return run_batches(open_session(path), self.case.samples.inputs, self._batch())

    def _run(self, proto: onnx.ModelProto) -> Any:
        # Beside the file, where its external data is found.
        with tempfile.NamedTemporaryFile(dir=self.case.path.parent, prefix=".debug-", suffix=".onnx") as file:
            file.write(proto.SerializeToString())
            file.flush()
            session = open_session(Path(file.name), literal=True)
        return run_batches(session, self.case.samples.inputs, self._batch())

    def _batch(self) -> int:
        return self.case.samples.batch or min(self.case.samples.count, 8)
