"""Layers that nodes of their own stand in for: products rounded as they run, products of blocks, lookups."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from quant_core.codes import QuantizedWeight
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.patterns.nbits import NBITS_DOMAIN, nbits_attributes, write_nbits
from quant_core.export.patterns.weight_patterns import (
    StoredTable,
    product_scale,
    write_int8,
    write_rows,
    write_table,
)
from quant_core.export.writing.file_tensors import FileTensors
from quant_core.ingest.layer import Layer


class LayerPatterns:
    """Writes such layers; a weight that several nodes read is stored once.

    dynamic: DynamicQuantizeLinear, MatMulInteger, Cast, Mul, in the arrangement that onnxruntime fuses to one kernel.
    block: MatMulNBits. gather: the rows of a table of codes that are looked up, times their steps.
    """

    def __init__(
        self, writer: GraphWriter, tensors: FileTensors, weights: Mapping[str, QuantizedWeight]
    ) -> None:
        """Start with no layer written.

        Args:
            writer: Takes the nodes and constants.
            tensors: What the file's nodes read and write.
            weights: Layer name -> codes and scales.
        """
        self._writer = writer
        self._tensors = tensors
        self._weights = weights
        self._rounded: dict[str, tuple[str, str, str]] = {}  # tensor -> codes, scale, zero point
        self._products: dict[str, str] = {}  # layer -> its weight as MatMulInteger reads it
        self._blocks: dict[str, tuple[str, ...]] = {}  # layer -> its weight as MatMulNBits reads it
        self._tables: dict[str, StoredTable] = {}  # layer -> its weight as nodes look rows up in it

    def write_dynamic(self, node: onnx.NodeProto, layer: Layer) -> None:
        """Write a product whose input is rounded as it runs.

        Args:
            node: The float product.
            layer: Its layer.
        """
        writer, weight = self._writer, self._weights[layer.name]
        transpose = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        source = self._tensors.read(node.input[0])
        if source not in self._rounded:
            names = (writer.fresh(), writer.fresh(), writer.fresh())
            writer.node("DynamicQuantizeLinear", [source], names)
            self._rounded[source] = names
        codes, scale, zero_point = self._rounded[source]
        if layer.name not in self._products:
            self._products[layer.name] = write_int8(writer, layer, weight, transpose=transpose)
        product = writer.node(
            "MatMulInteger", [codes, self._products[layer.name], zero_point], name=node.name
        )
        as_float = writer.node("Cast", [product], to=onnx.TensorProto.FLOAT)
        steps = writer.node("Mul", [scale, writer.constant(product_scale(layer, weight))])
        bias, raw = _bias(node), self._tensors.raw_name(node.output[0])
        scaled = writer.node("Mul", [as_float, steps], None if bias else [raw])
        if bias:
            writer.node("Add", [scaled, bias], [raw])
        self._tensors.finish(node.output[0], raw)

    def write_block(self, node: onnx.NodeProto, layer: Layer) -> None:
        """Write a product of blocks.

        Args:
            node: The float product.
            layer: Its layer.
        """
        writer, weight, bias = self._writer, self._weights[layer.name], _bias(node)
        if layer.name not in self._blocks:
            self._blocks[layer.name] = write_nbits(writer, layer, weight)
        raw = self._tensors.raw_name(node.output[0])
        product = writer.node(
            "MatMulNBits",
            [self._tensors.read(node.input[0]), *self._blocks[layer.name]],
            [writer.fresh() if bias else raw],
            name=node.name,
            domain=NBITS_DOMAIN,
            **nbits_attributes(layer, weight),
        )
        if bias:
            writer.node("Add", [product, bias], [raw])
        self._tensors.finish(node.output[0], raw)

    def write_gather(self, node: onnx.NodeProto, layer: Layer) -> None:
        """Write a lookup of rows.

        Args:
            node: The float Gather.
            layer: Its layer.
        """
        writer, weight = self._writer, self._weights[layer.name]
        raw = self._tensors.raw_name(node.output[0])
        if layer.name not in self._tables:
            self._tables[layer.name] = write_table(writer, layer, weight)
        table, indices = self._tables[layer.name], self._tensors.read(node.input[1])
        codes, scale = write_rows(writer, layer, weight, table, indices, node.name)
        writer.node("Mul", [codes, scale], [raw])
        self._tensors.finish(node.output[0], raw)


def _bias(node: onnx.NodeProto) -> str | None:
    has_bias = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
    return str(node.input[2]) if has_bias else None
