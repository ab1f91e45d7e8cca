"""Large tensors that are kept out of the message while it is built, and read from the model when they are written.

A protobuf message copies what is put into it and gives memory back only as a whole; a model of gigabytes would stand in
memory three times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from quant_core.ingest.passes.float_types import STORED_IN_HALF

_LARGE = 1 << 20  # bytes


@dataclass(frozen=True)
class Exported:
    """A quantized model.

    Attributes:
        proto: The model; large tensors that were not quantized are named in it and have no data.
        held_back: Their values by name.
    """

    proto: onnx.ModelProto
    held_back: Mapping[str, ir.TensorProtocol]

    def whole(self) -> onnx.ModelProto:
        """Put all data into the message.

        Returns:
            The message.
        """
        for tensor in self.proto.graph.initializer:
            if tensor.name in self.held_back:
                tensor.raw_data = self.held_back[tensor.name].tobytes()
        return self.proto


def without_large(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Write a model as a message whose large float tensors have no data.

    Args:
        model: The normalised model; left as it is.

    Returns:
        The message, and those tensors by name. A model that came in half precision keeps all its data, which is
        looked at again.
    """
    if model.meta.get(STORED_IN_HALF):
        return ir.to_proto(model), {}
    copy, large = model.clone(), {}
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.nbytes > _LARGE:
            large[name] = tensor
            del copy.graph.initializers[name]
    if not large:
        return ir.to_proto(model), {}
    proto = ir.to_proto(copy)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    ordered = [
        stored[name]
        if name in stored
        else onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=large[name].shape.numpy())
        for name in model.graph.initializers
    ]
    sorted_graph = onnx.GraphProto()
    sorted_graph.initializer.extend(ordered)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(sorted_graph.initializer)
    return proto, large
