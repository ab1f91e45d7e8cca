"""Attention, written out so that second derivatives exist (torch's fused kernels have none)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quant_core.executor.node import Node
from quant_core.executor.registry import Kernel, operator


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Batch x length x (heads * size) -> batch x heads x length x size."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Batch x heads x length x size -> batch x length x (heads * size)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def masked_softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax over the last axis of scores plus bias; a row that is masked everywhere gives zeros, not NaN.

    Args:
        scores: ... x queries x keys.
        bias: Broadcastable to the scores; minus infinity masks.

    Returns:
        Probabilities of the shape of the scores.
    """
    if bias is None:
        return torch.softmax(scores, -1)
    blocked = bias == -torch.inf
    # Replaced before the addition: a score that is not finite must not reach the gradient of a masked place.
    total = torch.where(
        blocked, torch.full((), -torch.inf, dtype=scores.dtype, device=scores.device), scores + bias
    )
    empty = blocked.all(-1, keepdim=True)
    return torch.where(empty, 0, torch.softmax(torch.where(empty, 0, total), -1))


def blocked_bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a place may be seen, minus infinity elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)


def join_biases(*biases: Tensor | None) -> Tensor | None:
    """The sum of those biases that are there; None without any."""
    total: Tensor | None = None
    for bias in biases:
        if bias is not None:
            total = bias if total is None else total + bias
    return total


def _mask_bias(mask: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """A bias from a mask of truth values or numbers; keys behind its end are masked."""
    bias = blocked_bias(mask, dtype) if mask.dtype == torch.bool else mask
    missing = keys - bias.shape[-1]
    return functional.pad(bias, (0, missing), value=-torch.inf) if missing > 0 else bias


def _allowed(q: Tensor, keys: int, offset: Tensor | int, left: int, right: int) -> Tensor:
    """Which keys each query may see when it may look `left` back and `right` ahead; negative bounds are open."""
    row = torch.arange(q.shape[2], device=q.device).unsqueeze(1)
    row = row + (offset.reshape(-1, 1, 1, 1) if isinstance(offset, Tensor) else offset)
    gap = row - torch.arange(keys, device=q.device)
    seen = torch.ones_like(gap, dtype=torch.bool)
    if left >= 0:
        seen = seen & (gap <= left)
    if right >= 0:
        seen = seen & (-gap <= right)
    return seen


@operator("Attention", note="all masks, caches and windows; rows masked everywhere give zeros")
def _attention(node: Node) -> Kernel:
    heads, kv_heads = node.int("q_num_heads"), node.int("kv_num_heads")
    stated, cap, mode = node.float("scale"), node.float("softcap", 0.0), node.int("qk_matmul_output_mode", 0)
    left, right = node.int("left_window_size", -1), node.int("right_window_size", -1)
    right = 0 if node.flag("is_causal") else right
    precision = node.int("softmax_precision")

    def bias_of(
        q: Tensor, keys: int, mask: Tensor | None, past: int | None, lengths: Tensor | None
    ) -> Tensor | None:
        offset: Tensor | int = past or 0
        if past is None and lengths is not None:
            offset = lengths.reshape(-1) - q.shape[2]
        bounded = left >= 0 or right >= 0
        held = None if lengths is None else torch.arange(keys, device=q.device) < lengths.reshape(-1, 1, 1, 1)
        return join_biases(
            None if mask is None else _mask_bias(mask, keys, q.dtype),
            blocked_bias(_allowed(q, keys, offset, left, right), q.dtype) if bounded else None,
            None if held is None else blocked_bias(held, q.dtype),
        )

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        flat = q.dim() == 3
        if flat:
            q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
        past = None if past_key is None else past_key.shape[2]
        k = k if past_key is None else torch.cat([past_key, k], 2)
        v = v if past_value is None else torch.cat([past_value, v], 2)
        present = (k, v)
        repeat = q.shape[1] // k.shape[1]
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scale = math.sqrt(1 / math.sqrt(q.shape[-1]) if stated is None else stated)
        products = (q * scale) @ (k * scale).transpose(-1, -2)
        scores = torch.tanh(products / cap) * cap if cap > 0 else products
        bias = bias_of(q, k.shape[2], mask, past, lengths)
        wide = node.carrier(precision) if precision is not None else scores.dtype
        shares = masked_softmax(scores.to(wide), None if bias is None else bias.to(wide)).to(scores.dtype)
        y = shares @ v
        y = merge_heads(y) if flat else y
        if len(node.wanted) <= 1:
            return y
        if mode == 2 and bias is not None:
            scores = scores + bias
        return (y, *present, {1: scores, 2: scores, 3: shares}.get(mode, products))

    return attend


@operator("FlexAttention", domain="ai.onnx.preview")
def _flex_attention(node: Node) -> Kernel:
    stated = node.float("scale")
    score, share = node.bodies.get("score_mod"), node.bodies.get("prob_mod")

    def attend(q: Tensor, k: Tensor, v: Tensor, *captured: Any) -> Tensor:
        arguments = (q, k, v, *captured)
        repeat = q.shape[1] // k.shape[1]
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if stated is None else stated)
        if score is not None:
            (scores,) = score((scores,), arguments)
        shares = torch.softmax(scores, -1)
        if share is not None:
            (shares,) = share((shares,), arguments)
        return shares @ v

    return attend


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotates pairs of features by angles (Su et al., RoFormer, arXiv:2104.09864, eq. 34).

    Args:
        x: ... x size.
        cos: Broadcastable to ... x rotated / 2.
        sin: As `cos`.
        interleaved: Pairs are neighbours; otherwise they lie half the rotated size apart.

    Returns:
        Tensor of the shape of `x`; features beyond the rotated ones are unchanged.
    """
    size = 2 * cos.shape[-1]
    head, tail = x[..., :size], x[..., size:]
    first, second = (head[..., 0::2], head[..., 1::2]) if interleaved else head.chunk(2, -1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    pairs = (real, imaginary)
    turned = torch.stack(pairs, -1).reshape(head.shape) if interleaved else torch.cat(pairs, -1)
    return torch.cat([turned, tail], -1) if tail.shape[-1] else turned


@operator("RotaryEmbedding")
def _rotary(node: Node) -> Kernel:
    heads, size = node.int("num_heads", 0), node.int("rotary_embedding_dim", 0)
    interleaved = node.flag("interleaved")

    def embed(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
        flat = x.dim() == 3
        split = split_heads(x, heads) if flat else x
        if positions is not None:
            cos, sin = cos[positions.to(torch.int64)], sin[positions.to(torch.int64)]
        half = (size or split.shape[-1]) // 2
        if cos.shape[-1] != half or sin.shape[-1] != half:
            raise ValueError(f"the angle tables have {cos.shape[-1]} columns but {half} are rotated")
        turned = rotate(split, cos.unsqueeze(1), sin.unsqueeze(1), interleaved)
        return merge_heads(turned) if flat else turned

    return embed
