"""The model around the nodes that an exporter wrote: what of the float model they still need, functions, versions."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.patterns.nbits import NBITS_DOMAIN
from quant_core.export.storage.functions import DOMAIN
from quant_core.export.targets.target import Target
from quant_core.export.writing.opset import opset_of
from quant_core.ingest.subgraphs import names_inside
from quant_core.version import __version__

_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}


def assemble(
    proto: onnx.ModelProto,
    writer: GraphWriter,
    initializers: Mapping[str, onnx.TensorProto],
    target: Target,
) -> onnx.ModelProto:
    """Put the quantized model together.

    Args:
        proto: The float model, at the opset of the result; its inputs, outputs, metadata and functions stay.
        writer: The nodes, and the tensors and functions that belong to them.
        initializers: Name -> float tensor; those that a node still reads or that are outputs are kept.
        target: The runtime.

    Returns:
        The model.
    """
    old = proto.graph
    graph = onnx.GraphProto(name=old.name, doc_string=old.doc_string)
    graph.input.extend(old.input)
    graph.output.extend(old.output)
    graph.node.extend(writer.nodes)
    used = {name for node in writer.nodes for name in node.input} | {output.name for output in old.output}
    used |= names_inside(writer.nodes)
    written = {tensor.name for tensor in writer.initializers}
    graph.initializer.extend(
        tensor for name, tensor in initializers.items() if name in used and name not in written
    )
    graph.initializer.extend(writer.initializers)
    model = onnx.ModelProto(graph=graph, producer_name="bitwright", producer_version=__version__)
    model.doc_string, model.domain, model.model_version = proto.doc_string, proto.domain, proto.model_version
    model.metadata_props.extend(proto.metadata_props)
    _add_functions(model, proto, writer)
    version = _IR_VERSIONS.get(opset_of(proto), 13)
    model.ir_version = version if target.exact_opset else max(proto.ir_version, version)
    return model


def _add_functions(model: onnx.ModelProto, proto: onnx.ModelProto, writer: GraphWriter) -> None:
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    held = {(function.domain, function.name) for function in proto.functions}
    for function in writer.functions:
        if (function.domain, function.name) not in held:
            # The checker wants one version of an operator throughout a file.
            function.opset_import[0].version = opset_of(proto)
            model.functions.append(function)
    needed = [DOMAIN] if writer.functions else []
    needed += [NBITS_DOMAIN] if any(node.domain == NBITS_DOMAIN for node in writer.nodes) else []
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(onnx.helper.make_opsetid(name, 1) for name in needed if name not in known)
