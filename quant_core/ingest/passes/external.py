"""Let tensors in external files look like tensors of the model, so that it can be written anywhere."""

from __future__ import annotations

import onnx_ir as ir


class AttachExternalData(ir.passes.InPlacePass):
    """Replace references to external files by the arrays themselves, mapped from the file and not copied."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Attach in place, in subgraphs and constants too.

        Args:
            model: A model whose external files have been checked.

        Returns:
            The same model.
        """
        modified = False
        for graph in model.graphs():
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = _attached(value.const_value)
                    modified = True
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and isinstance(
                    attribute.value, ir.ExternalTensor
                ):
                    node.attributes[name] = ir.AttrTensor(name, _attached(attribute.value))
                    modified = True
        return ir.passes.PassResult(model, modified=modified)


def _attached(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
