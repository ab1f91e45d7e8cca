"""The nets whose latency is measured: known shapes with random weights, for speed depends on shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.recipes.plain_nets import MobileNetV2
from benchmarks.recipes.torch_export import export
from benchmarks.speed.resnet18 import ResNet18

TOKENS, VOCABULARY = 128, 1000
_SAMPLES = 16


class Layer(nn.Module):
    """One layer of BERT (Devlin et al., 2019), attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """N x L x width to the same; additive mask N x 1 x 1 x L."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = self.norm1(self.out(mixed) + x)
        return self.norm2(self.down(nn.functional.gelu(self.up(x))) + x)


class Encoder(nn.Module):
    """Token table, places, layers, mean over the tokens."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(torch.randn(TOKENS, width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Token numbers and mask N x L to N x width."""
        mask = (1 - attention.to(torch.float32))[:, None, None, :] * -10000.0
        x = self.norm(self.tokens(ids) + self.places)
        for layer in self.layers:
            x = layer(x, mask)
        return x.mean(1)


@dataclass(frozen=True)
class Net:
    """A net.

    Attributes:
        make: Builds the module.
        title: What it is.
        transformer: Heads and width where it is one.
        side: Pixels of an image's side.
    """

    make: Callable[[], nn.Module]
    title: str
    transformer: tuple[int, int] | None = None
    side: int = 224


NETS = {
    "resnet18": Net(ResNet18, "ResNet-18, 224 x 224"),
    "resnet18-64": Net(ResNet18, "ResNet-18, 64 x 64", side=64),
    "mobilenet-v2": Net(MobileNetV2, "MobileNetV2, 224 x 224"),
    "bert-base": Net(
        lambda: Encoder(768, 12, 4),
        "BERT-base's layer (768 wide, 12 heads) four times, 128 tokens",
        (12, 768),
    ),
    "minilm": Net(
        lambda: Encoder(384, 12, 6), "MiniLM-L6 (384 wide, 12 heads, 6 layers), 128 tokens", (12, 384)
    ),
}


def prepare(net: Net, folder: Path) -> tuple[Path, Path]:
    """Export a net with an open batch and write samples for it, or find both.

    Args:
        net: The net.
        folder: Where they are kept.

    Returns:
        The model and the samples.
    """
    model, samples = folder / "float.onnx", folder / "samples.npz"
    if not (model.exists() and samples.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        feeds = _feeds(net)
        module = net.make().eval()
        _settle(module, feeds)
        batch = Dim("batch", min=1, max=1024)
        export(
            module,
            tuple(torch.from_numpy(array[:2]) for array in feeds.values()),
            model,
            inputs=list(feeds),
            output="output",
            dynamic=tuple({0: batch} for _ in feeds),
        )
        np.savez(samples, **feeds)
    return model, samples


def _feeds(net: Net) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(0)
    if net.transformer is None:
        return {"input": random.standard_normal((_SAMPLES, 3, net.side, net.side), np.float32)}
    return {
        "input_ids": random.integers(0, VOCABULARY, (_SAMPLES, TOKENS)),
        "attention_mask": np.ones((_SAMPLES, TOKENS), np.int64),
    }


@torch.no_grad()
def _settle(module: nn.Module, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
    """Take the statistics of batch norms from the samples, so that values stay in bounds as after training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
            part.momentum = None
    module(*(torch.from_numpy(array) for array in feeds.values()))
    module.eval()
