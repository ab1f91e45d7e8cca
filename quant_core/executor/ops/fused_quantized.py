"""Quantized operators of onnxruntime's own domain: dequantize, compute in float, quantize again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quant_core.executor.dtypes import Kind, kind_of
from quant_core.executor.node import Node
from quant_core.executor.ops.quantization import RANGES, along, dequantize_linear, quantize, quantize_linear
from quant_core.executor.registry import Kernel, operator

DOMAIN = "com.microsoft"

operator("QuantizeLinear", domain=DOMAIN, note="straight-through")(quantize_linear)
operator("DequantizeLinear", domain=DOMAIN)(dequantize_linear)


def _real(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    values = x.to(scale.dtype)
    values = values if zero is None else values - along(zero.to(scale.dtype), x, axis, 0)
    return values * along(scale, x, axis, 0)


def _codes(y: Tensor, scale: Tensor, zero: Tensor | None, kind: Kind) -> Tensor:
    return quantize(y, scale, None if zero is None else zero.to(scale.dtype), kind)


@operator("QLinearAdd", "QLinearMul", domain=DOMAIN, note="straight-through")
def _qlinear_binary(node: Node) -> Kernel:
    function = torch.add if node.op == "QLinearAdd" else torch.mul

    def kernel(*arguments: Any) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = arguments[:7]
        y_zero = arguments[7] if len(arguments) > 7 else None
        kind = node.kind(0) or kind_of(a.dtype)
        return _codes(
            function(_real(a, a_scale, a_zero, 0), _real(b, b_scale, b_zero, 0)), y_scale, y_zero, kind
        )

    return kernel


@operator("QLinearSigmoid", "QLinearLeakyRelu", domain=DOMAIN, note="straight-through")
def _qlinear_unary(node: Node) -> Kernel:
    alpha = node.float("alpha", 0.01)

    def kernel(
        x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Any = None
    ) -> Tensor:
        real = _real(x, x_scale, x_zero, 0)
        y = torch.sigmoid(real) if node.op == "QLinearSigmoid" else functional.leaky_relu(real, alpha)
        return _codes(y, y_scale, y_zero, node.kind(0) or kind_of(x.dtype))

    return kernel


@operator("QLinearGlobalAveragePool", domain=DOMAIN, note="straight-through")
def _qlinear_global_average(node: Node) -> Kernel:
    last = node.flag("channels_last")

    def kernel(
        x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Any = None
    ) -> Tensor:
        axes = list(range(1, x.dim() - 1)) if last else list(range(2, x.dim()))
        mean = _real(x, x_scale, x_zero, 0).mean(axes, keepdim=True)
        return _codes(mean, y_scale, y_zero, node.kind(0) or kind_of(x.dtype))

    return kernel


@operator("QLinearConcat", domain=DOMAIN, note="straight-through")
def _qlinear_concat(node: Node) -> Kernel:
    axis = node.int("axis")

    def kernel(y_scale: Tensor, y_zero: Tensor, *inputs: Tensor) -> Tensor:
        triples = zip(inputs[0::3], inputs[1::3], inputs[2::3], strict=True)
        parts = [_real(x, scale, zero, 0) for x, scale, zero in triples]
        return _codes(torch.cat(parts, axis), y_scale, y_zero, node.kind(1) or kind_of(y_zero.dtype))

    return kernel


@operator("QGemm", domain=DOMAIN, note="straight-through")
def _qgemm(node: Node) -> Kernel:
    alpha, flip_a, flip_b = node.float("alpha", 1.0), node.flag("transA"), node.flag("transB")

    def kernel(*arguments: Any) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero = arguments[:6]
        bias, y_scale, y_zero = (*arguments[6:], None, None, None)[:3]
        left, right = _real(a, a_scale, a_zero, 0), _real(b, b_scale, b_zero, 0 if flip_b else 1)
        y = (left.t() if flip_a else left) @ (right.t() if flip_b else right)
        if bias is not None:
            y = y + bias.to(y.dtype) * a_scale * b_scale
        y = y if alpha == 1 else y * alpha
        return y if y_scale is None else _codes(y, y_scale, y_zero, node.kind(0) or kind_of(a.dtype))

    return kernel


@operator("MatMulIntegerToFloat", domain=DOMAIN)
def _matmul_integer_to_float(_node: Node) -> Kernel:
    def kernel(*arguments: Any) -> Tensor:
        a, b, a_scale, b_scale = arguments[:4]
        a_zero, b_zero, bias = (*arguments[4:], None, None, None)[:3]
        y = _real(a, a_scale, a_zero, a.dim() - 2) @ _real(b, b_scale, b_zero, b.dim() - 1)
        return y if bias is None else y + bias

    return kernel


@operator("DynamicQuantizeMatMul", domain=DOMAIN, note="straight-through")
def _dynamic_quantize_matmul(_node: Node) -> Kernel:
    low, high = RANGES[Kind.UINT8]

    def kernel(a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Any = None, bias: Any = None) -> Tensor:
        least, most = torch.clamp(a.amin(), max=0), torch.clamp(a.amax(), min=0)
        scale = (most - least) / (high - low)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = torch.clamp(torch.round(-least / scale), low, high).detach()
        real = (quantize(a, scale, zero, Kind.UINT8) - zero) * scale
        y = real @ _real(b, b_scale, b_zero, b.dim() - 1)
        return y if bias is None else y + bias

    return kernel
