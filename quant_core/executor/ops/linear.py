"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.executor.node import Node
from quant_core.executor.registry import Kernel, direct, operator

direct("MatMul", torch.matmul)
direct("Det", torch.linalg.det)


def gemm(node: Node) -> Kernel:
    """The kernel of a general matrix product, alpha * A B + beta * C."""
    alpha, beta = node.float("alpha", 1.0), node.float("beta", 1.0)
    flip_a, flip_b = node.flag("transA"), node.flag("transB")

    def product(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if flip_a else a
        b = b.t() if flip_b else b
        if c is None or c.numel() == 0:
            return torch.mm(a, b) if alpha == 1 else torch.mm(a, b) * alpha
        if not a.is_floating_point():
            return torch.mm(a, b) * int(alpha) + c * int(beta)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return product


@operator("Gemm")
def _gemm(node: Node) -> Kernel:
    return gemm(node)


@operator("Einsum")
def _einsum(node: Node) -> Kernel:
    equation = node.string("equation").replace(" ", "")
    if not equation:
        raise node.invalid("has no equation.")
    return lambda *tensors: torch.einsum(equation, *tensors)
