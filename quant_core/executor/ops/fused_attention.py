"""Attention operators of onnxruntime's own domain."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quant_core.executor.node import Node
from quant_core.executor.ops.attention import (
    blocked_bias,
    join_biases,
    masked_softmax,
    merge_heads,
    rotate,
    split_heads,
)
from quant_core.executor.registry import Kernel, operator

DOMAIN = "com.microsoft"


def _mask_bias(mask: Tensor, batch: int, queries: int, keys: int, fill: float, dtype: torch.dtype) -> Tensor:
    """A bias from any of the mask forms onnxruntime takes: end positions, start and end positions, or 0/1 masks."""
    place = torch.arange(keys, device=mask.device)
    if mask.dim() == 1:
        ends = mask[:batch].reshape(-1, 1, 1, 1)
        seen = place < ends
        if mask.numel() == 2 * batch:
            seen = seen & (place >= mask[batch:].reshape(-1, 1, 1, 1))
    elif mask.dim() == 2:
        seen = (mask > 0).reshape(batch, 1, 1, -1)
    elif mask.dim() == 3:
        seen = (mask > 0).unsqueeze(1)
    else:
        # A square mask of the longest possible sequence: the rows of these queries, the columns of these keys.
        seen = (mask > 0)[:, :, keys - queries : keys, :keys]
    return torch.where(seen, 0.0, fill).to(dtype)


def _causal(queries: int, keys: int, fill: float, like: Tensor) -> Tensor:
    row = torch.arange(queries, device=like.device).unsqueeze(1) + keys - queries
    return torch.where(torch.arange(keys, device=like.device) <= row, 0.0, fill).to(like.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1]))
    return masked_softmax(scores, bias) @ v


def _bias(
    q: Tensor, keys: int, mask: Tensor | None, extra: Tensor | None, causal: bool, fill: float
) -> Tensor | None:
    """All that is added to the scores of batch x heads x queries x size against so many keys."""
    queries = q.shape[2]
    return join_biases(
        None if mask is None else _mask_bias(mask, q.shape[0], queries, keys, fill, q.dtype),
        _causal(queries, keys, fill, q) if causal else None,
        extra,
    )


@operator("Attention", domain=DOMAIN, note="all mask forms, past and present; rotary embedding excluded")
def packed_attention(node: Node) -> Kernel:
    """The kernel of an attention that projects its input to queries, keys and values itself."""
    heads, causal = node.int("num_heads"), node.flag("unidirectional")
    sizes, scale, fill = (
        node.ints("qkv_hidden_sizes"),
        node.float("scale"),
        node.float("mask_filter_value", -10000.0),
    )
    if node.flag("do_rotary"):
        raise node.invalid("with do_rotary is not supported; use GroupQueryAttention or RotaryEmbedding.")

    def kernel(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        past: Tensor | None = None,
        extra: Tensor | None = None,
        *_: Any,
    ) -> Any:
        projected = x @ weight if bias is None else x @ weight + bias
        parts = torch.split(projected, list(sizes) if sizes else projected.shape[-1] // 3, -1)
        q, k, v = (split_heads(part, heads) for part in parts)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = merge_heads(_attend(q, k, v, _bias(q, k.shape[2], mask, extra, causal, fill), scale))
        return (y, torch.stack([k, v])) if node.wants(1) else y

    return kernel


@operator("MultiHeadAttention", domain=DOMAIN)
def _multi_head(node: Node) -> Kernel:
    heads, causal = node.int("num_heads"), node.flag("unidirectional")
    scale, fill = node.float("scale"), node.float("mask_filter_value", -10000.0)

    def kernel(
        q: Tensor,
        k: Tensor | None = None,
        v: Tensor | None = None,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        extra: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        *_: Any,
    ) -> Any:
        if q.dim() == 5:
            q, k, v = (part.transpose(1, 2) for part in q.unbind(3))
        elif k is None:
            raise ValueError("a key is needed unless it is packed with the query")
        elif k.dim() == 5:
            k, v = (part.transpose(1, 2) for part in k.unbind(3))
            q = split_heads(q, heads)
        else:
            if v is None:
                raise ValueError("a value is needed unless it is packed with the key")
            q = split_heads(q, heads)
            k, v = (part if part.dim() == 4 else split_heads(part, heads) for part in (k, v))
        if bias is not None:
            at = [part.shape[1] * part.shape[3] for part in (q, k, v)]
            q, k, v = (
                part + piece.reshape(1, heads, 1, -1)
                for part, piece in zip((q, k, v), torch.split(bias, at), strict=True)
            )
        if past_key is not None and past_value is not None:
            k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
        y = merge_heads(_attend(q, k, v, _bias(q, k.shape[2], mask, extra, causal, fill), scale))
        return (y, k, v) if len(node.wanted) > 1 else y

    return kernel


def _rotary(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor, interleaved: bool) -> Tensor:
    """Rotates batch x heads x length x size by the angles of positions batch x length."""
    return rotate(x, cos[places].unsqueeze(1), sin[places].unsqueeze(1), interleaved)


@operator("RotaryEmbedding", domain=DOMAIN)
def _rotary_embedding(node: Node) -> Kernel:
    heads, size = node.int("num_heads", 0), node.int("rotary_embedding_dim", 0)
    interleaved = node.flag("interleaved")

    def kernel(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        flat = x.dim() == 3
        per_head = x.shape[-1] // heads if heads and size else 2 * cos.shape[-1]
        split = split_heads(x, x.shape[-1] // per_head) if flat else x
        places = positions.long()
        if places.numel() == 1:
            places = places.reshape(1, 1) + torch.arange(split.shape[2], device=x.device)
        turned = _rotary(split, cos, sin, places, interleaved)
        return merge_heads(turned) if flat else turned

    return kernel


def _present(past: Tensor | None, new: Tensor, before: Tensor, size: int) -> Tensor:
    """The cache of `size` places: the past up to `before`, then the new tokens, then zeros."""
    held = new if past is None else torch.cat([past, new], 2)
    buffer = 0 if past is None else past.shape[2]
    place = torch.arange(size, device=new.device)
    fresh = place - before.reshape(-1, 1)
    index = torch.where(fresh < 0, place, buffer + fresh.clamp(max=new.shape[2] - 1))
    gathered = held.gather(2, index.reshape(-1, 1, size, 1).expand(-1, new.shape[1], -1, new.shape[3]))
    return torch.where((fresh < new.shape[2]).reshape(-1, 1, size, 1), gathered, 0)


def _in_sight(q: Tensor, keys: int, before: Tensor, window: int) -> Tensor:
    """Which places of the cache each query may see: none behind its own, and only the last ones of a window."""
    row = before.reshape(-1, 1, 1, 1) + torch.arange(q.shape[2], device=q.device).reshape(-1, 1)
    column = torch.arange(keys, device=q.device)
    seen = column <= row
    return seen & (column > row - window) if window > 0 else seen


def _shares_beside_idle(scores: Tensor, bias: Tensor | None, idle: Tensor) -> Tensor:
    """The softmax with one more key, of scores `idle` by head, that carries no value."""
    column = idle.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
    wider = None if bias is None else functional.pad(bias, (0, 1))
    return masked_softmax(torch.cat([scores, column], -1), wider)[..., :-1]


@operator("GroupQueryAttention", domain=DOMAIN, note="float caches; batches of different lengths")
def _group_query(node: Node) -> Kernel:
    heads, kv_heads = node.int("num_heads"), node.int("kv_num_heads")
    scale, cap, window = node.float("scale"), node.float("softcap", 0.0), node.int("local_window_size", -1)
    rotary, interleaved, smooth = (
        node.flag("do_rotary"),
        node.flag("rotary_interleaved"),
        node.flag("smooth_softmax"),
    )

    def turned(
        q: Tensor, k: Tensor, before: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        places = before.reshape(-1, 1) + torch.arange(q.shape[2], device=q.device)
        places = places if positions is None else positions.long()
        places = places.clamp(max=cos.shape[0] - 1)
        return _rotary(q, cos, sin, places, interleaved), _rotary(k, cos, sin, places, interleaved)

    def shares_of(scores: Tensor, bias: Tensor | None, sink: Tensor | None) -> Tensor:
        if sink is None and not smooth:
            return masked_softmax(scores, bias)
        idle = torch.zeros(heads, device=scores.device, dtype=scores.dtype) if sink is None else sink
        return _shares_beside_idle(scores, bias, idle)

    def kernel(
        q: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        past_key: Tensor | None,
        past_value: Tensor | None,
        lengths: Tensor,
        total: Tensor,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
        positions: Tensor | None = None,
        extra: Tensor | None = None,
        sink: Tensor | None = None,
        *_: Any,
    ) -> Any:
        if k is None or v is None:
            size = q.shape[-1] // (heads + 2 * kv_heads)
            q, k, v = torch.split(q, [heads * size, kv_heads * size, kv_heads * size], -1)
        q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
        before = (lengths.reshape(-1).long() + 1 - q.shape[2]).clamp(min=0)
        if rotary and cos is not None and sin is not None:
            q, k = turned(q, k, before, cos, sin, positions)
        size = max(int(total), 0 if past_key is None else past_key.shape[2])
        keys, values = _present(past_key, k, before, size), _present(past_value, v, before, size)
        repeat = heads // kv_heads
        wide_keys, wide_values = keys.repeat_interleave(repeat, 1), values.repeat_interleave(repeat, 1)
        scores = q @ wide_keys.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1]))
        if cap > 0:
            scores = torch.tanh(scores / cap) * cap
        seen = blocked_bias(_in_sight(q, size, before, window), q.dtype)
        bias = join_biases(seen, None if extra is None else extra[..., :size])
        y = merge_heads(shares_of(scores, bias, sink) @ wide_values)
        return (y, keys, values) if len(node.wanted) > 1 else y

    return kernel
