"""Models that give only what they chose, such as class numbers: what they chose it from is measured in its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from quant_core.errors import name_some
from quant_core.export.storage.model_file import file_bytes
from quant_core.ingest import Source
from quant_core.ingest.normalise import UNPACKING_DOMAIN
from quant_core.ingest.shape_inference import infer_types
from quant_core.preparation.scratch import Scratch
from quant_core.spec import Report

_OF_SIZES = frozenset({"Shape", "Size"})
_NAMED = 4


@dataclass(frozen=True, eq=False)
class Scores:
    """Tensors that are outputs while a job runs, and not of the file that it hands out.

    Attributes:
        names: The tensors.
        folder: Where the float model with these outputs lies.
    """

    names: tuple[str, ...]
    folder: Scratch

    @property
    def note(self) -> str:
        """What the user should know."""
        told = name_some([repr(name) for name in self.names], _NAMED)
        return (
            f"no output holds floats: losses are those of {told}, which the outputs are made of; the file has the "
            "outputs of the model."
        )

    def left_out(self, path: Path, report: Report) -> Report:
        """Give a finished file the outputs of the user's model.

        Args:
            path: The file; changed.
            report: What was told of it.

        Returns:
            The same report with the file's bytes.
        """
        proto = onnx.load(path, load_external_data=False)
        kept = [output for output in proto.graph.output if output.name not in self.names]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
        path.write_bytes(proto.SerializeToString())
        size, told = file_bytes(path), report.model
        changed = {"quantized_bytes": size, "ratio": size / told.float_bytes}
        return report.model_copy(update={"model": told.model_copy(update=changed)})


def with_scores(source: Source) -> tuple[Source, Scores | None]:
    """Make outputs of the floats that a model's outputs are chosen from, where none of these holds floats.

    A class number says nothing of how near another class was, and has no gradient: the scores in front of the ArgMax
    tell both.

    Args:
        source: A model as it was read.

    Returns:
        The model as it is measured, in a file of its own, and what it has besides; the model as it is where an output
        holds floats, or none that are computed are found.
    """
    if any(value.dtype is None or value.dtype.is_floating_point() for value in source.model.graph.outputs):
        return source, None
    model = source.model.clone()
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.InlinePass(lambda function: function.domain != UNPACKING_DOMAIN)(model)
    infer_types(model)
    found = chosen_from(model.graph)
    if not found:
        return source, None
    model.graph.outputs.extend(found)
    folder = Scratch()
    path = folder.path / source.path.name
    ir.save(model, path, external_data=f"{path.name}.data")
    scores = Scores(tuple(str(value.name) for value in found), folder)
    return replace(source, model=model, path=path), scores


def chosen_from(graph: ir.Graph) -> list[ir.Value]:
    """Find the floats nearest to the outputs that lead to these by way of integers and truth values alone.

    Args:
        graph: A graph; types are known.

    Returns:
        Floats that a node computes, the nearest in front; sizes of tensors lead nowhere.
    """
    ahead, seen = list(graph.outputs), set[ir.Value]()
    found: dict[ir.Value, None] = {}
    while ahead:
        value = ahead.pop(0)
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if value.dtype is not None and value.dtype.is_floating_point():
            if node.op_type != "Constant":
                found[value] = None
        elif node.op_type not in _OF_SIZES:
            ahead += [each for each in node.inputs if each is not None]
    return list(found)
