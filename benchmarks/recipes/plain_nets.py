"""Well-known networks as plain torch modules, to compare the executor with."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A ResNet basic block (He et al., 2016): two 3x3 convolutions, and a projection where the width changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.second = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))
            if fan_in != fan_out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps N x C x H x W."""
        y = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """He et al. 2016 for CIFAR-10: three stages of three residual blocks, 16 to 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        blocks = [Residual(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images N x 3 x 32 x 32 to logits N x 10."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def _convolution(fan_in: int, fan_out: int, kernel: int, stride: int = 1, group: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2, groups=group, bias=False),
        nn.BatchNorm2d(fan_out),
    ]


class Inverted(nn.Module):
    """Expand, filter each channel, project; a shortcut where sizes agree."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = fan_in * expand
        parts = [*_convolution(fan_in, wide, 1), nn.ReLU6()] if expand > 1 else []
        parts += [*_convolution(wide, wide, 3, stride, wide), nn.ReLU6(), *_convolution(wide, fan_out, 1)]
        self.body = nn.Sequential(*parts)
        self.plain = stride == 1 and fan_in == fan_out

    def forward(self, x: Tensor) -> Tensor:
        """Maps N x C x H x W."""
        return x + self.body(x) if self.plain else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, Table 2, width 1."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
        width = 32
        for expand, channels, count, stride in (
            *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
            *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
        ):
            for index in range(count):
                layers.append(Inverted(width, channels, stride if index == 0 else 1, expand))
                width = channels
        self.features = nn.Sequential(*layers, *_convolution(width, 1280, 1), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images N x 3 x 224 x 224 to logits N x 1000."""
        return self.head(self.features(x).mean((2, 3)))


class Tagger(nn.Module):
    """Embedding, LSTM in both directions, a score for each of the tags at each word."""

    def __init__(self, words: int = 1000, width: int = 64, hidden: int = 64, tags: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps word numbers N x L to scores N x L x tags."""
        return self.head(self.lstm(self.embedding(ids))[0])
