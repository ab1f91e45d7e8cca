"""Read an ONNX file: recognise it, parse it, check it. Nothing in it is executed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from quant_core.errors import ModelError
from quant_core.ingest.reading.already_quantized import refuse_quantized
from quant_core.ingest.reading.external_data import check_external_data
from quant_core.ingest.reading.file_kind import EXPORT_REMEDY, foreign_kind
from quant_core.ingest.reading.finite_weights import check_finite_weights
from quant_core.ingest.reading.lean_parse import attach_own_data, read_skeleton
from quant_core.ingest.reading.node_order import sort_nodes
from quant_core.ingest.reading.quantized_parts import QuantizedPart, find_quantized_parts
from quant_core.ingest.reading.structure import check_specification, check_structure
from quant_core.ingest.reading.tensor_size import check_tensor_sizes
from quant_core.ingest.reading.weights_digest import weights_digest
from quant_core.named_files import require_model_file

MAX_PROTOBUF_BYTES = 2**31 - 1
# Every ONNX file in use begins with the field `ir_version` or, from some exporters, the producer's name.
_FIRST_FIELDS = (0x08, 0x12)


@dataclass(frozen=True)
class Source:
    """A float model as it was given, checked and unchanged.

    Attributes:
        model: The graph; large tensors in external files are mapped, not loaded.
        path: Where it was read from.
        file_bytes: Bytes of the file and of every external data file it refers to.
        quantized_parts: What is quantized in it already.
        whole_runs: Whether `model` and the file at `path` have an axis more in front of every input and output than the
            user's file, so that each sample is a run of it.
    """

    model: ir.Model
    path: Path
    file_bytes: int
    quantized_parts: tuple[QuantizedPart, ...] = ()
    whole_runs: bool = False

    @cached_property
    def weights(self) -> str:
        """SHA-256 of its stored float tensors."""
        return weights_digest(self.model)


def read_model(path: Path, quantized_parts: Literal["refuse", "keep"] = "refuse") -> Source:
    """Read and check an ONNX model.

    Args:
        path: A binary ONNX file; external data is looked for in the same folder.
        quantized_parts: Whether a model that is quantized in part is refused.

    Returns:
        The model with its size.

    Raises:
        ModelError: If the file is missing, is not ONNX, is damaged, breaks the specification, or refers to
            external data that is missing or outside its folder.
        AlreadyQuantizedError: If it holds quantized weights or operators and these are refused.
        UnsupportedOperatorError: If it holds operators that onnxruntime does not know.
    """
    path = Path(path)
    proto, size = _parse(path)
    check_structure(proto, path)
    check_tensor_sizes(proto, str(path))
    external_bytes = check_external_data(proto, path)
    parts = find_quantized_parts(proto)
    if quantized_parts == "refuse":
        refuse_quantized(parts, str(path))
    # By path only where files beside the model must be seen: the checker holds what it reads three times over.
    if not external_bytes:
        sort_nodes(proto.graph)
    check_specification(path, proto, by_path=bool(external_bytes))
    model = _deserialize(proto, path)
    attach_own_data(model, path)
    check_finite_weights(model, str(path))
    return Source(model=model, path=path, file_bytes=size + external_bytes, quantized_parts=parts)


def _parse(path: Path) -> tuple[onnx.ModelProto, int]:
    require_model_file(path)
    size = path.stat().st_size
    if size == 0:
        raise ModelError("the file is empty.", remedy=EXPORT_REMEDY, where=str(path))
    with path.open("rb") as stream:
        head = stream.read(512)
    kind = foreign_kind(path, head)
    if kind is not None:
        raise ModelError(f"this is {kind}, not an ONNX file.", remedy=EXPORT_REMEDY, where=str(path))
    if size > MAX_PROTOBUF_BYTES:
        raise ModelError(
            f"the file has {size} bytes; an ONNX file may have at most {MAX_PROTOBUF_BYTES}.",
            remedy="Save the weights as external data beside it.",
            where=str(path),
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(read_skeleton(path) or path.read_bytes())
    except DecodeError as error:
        if head[0] in _FIRST_FIELDS:
            message, remedy = "the ONNX file is cut short or damaged.", "Copy or export it again."
        else:
            message, remedy = "this is not an ONNX file.", EXPORT_REMEDY
        raise ModelError(message, remedy=remedy, where=str(path)) from error
    return proto, size


def _deserialize(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        # The checker accepts some contradictions, such as one name for two tensors, that a graph cannot hold.
        raise ModelError(
            f"the graph contradicts itself: {error}",
            remedy="The file is damaged or was written wrongly; export the model again.",
            where=str(path),
        ) from error
    # An empty base folder would switch off onnx_ir's own path checks, so it is made absolute.
    folder = str(path.parent.resolve())
    ir.external_data.set_base_dir(model.graph, folder)
    for function in model.functions.values():
        ir.external_data.set_base_dir(function.graph, folder)
    return model
