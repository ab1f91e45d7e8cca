"""Small nets of seven well-known designs in plain torch, to see what exporters make of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.recipes.plain_nets import Residual


class ResNet(nn.Sequential):
    """Stem with max pooling, three residual blocks, mean, classifier."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            Residual(8, 8, 1),
            Residual(8, 16, 2),
            Residual(16, 24, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 10),
        )


class Inverted(nn.Module):
    """A MobileNetV3 block (Howard et al., 2019): widen, filter each channel, weigh channels, narrow."""

    def __init__(self, inward: int, wide: int, outward: int, stride: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.widen = nn.Sequential(nn.Conv2d(inward, wide, 1, bias=False), nn.BatchNorm2d(wide), act())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 5, stride, 2, groups=wide, bias=False), nn.BatchNorm2d(wide), act()
        )
        self.squeeze, self.excite = nn.Conv2d(wide, wide // 4, 1), nn.Conv2d(wide // 4, wide, 1)
        self.narrow = nn.Sequential(nn.Conv2d(wide, outward, 1, bias=False), nn.BatchNorm2d(outward))
        self.same = stride == 1 and inward == outward

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in and out."""
        inner = self.depthwise(self.widen(x))
        weight = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(inner, 1)))
        inner = self.narrow(inner * functional.hardsigmoid(self.excite(weight)))
        return x + inner if self.same else inner


class MobileNetV3(nn.Sequential):
    """Stem, three blocks, head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()),
            Inverted(8, 16, 8, 1, nn.ReLU),
            Inverted(8, 24, 12, 2, nn.Hardswish),
            Inverted(12, 32, 12, 1, nn.Hardswish),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 32),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(32, 10),
        )


class Attention(nn.Module):
    """Attention with one projection for query, key and value, through torch's fused call."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """N x L x C in and out."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Attention and feed forward, each behind a layer norm and around a residual."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """N x L x C in and out."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.places = nn.Parameter(torch.randn(1, 17, 24))
        self.blocks = nn.Sequential(Transformer(24, 3), Transformer(24, 3))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x 32 x 32 to N x 10."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class Window(nn.Module):
    """A Swin block (Liu et al., 2021): attention in windows, shifted or not, with a bias for each distance."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) / 10)
        grid = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij")).flatten(1)
        apart = grid[:, :, None] - grid[:, None] + window - 1
        self.register_buffer("distance", apart[0] * (2 * window - 1) + apart[1])
        region = torch.zeros(1, side, side, 1)
        cuts = (
            slice(0, -window),
            slice(-window, -shift or None),
            slice(-shift, None) if shift else slice(0, 0),
        )
        for number, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            region[:, rows, columns] = number
        regions = self.split(region).squeeze(-1)
        self.register_buffer("mask", (regions[:, None] != regions[:, :, None]).float()[:, None] * -100)

    def split(self, x: Tensor) -> Tensor:
        """Cut into windows: N x H x W x C to (N windows) x (window window) x C."""
        n, height, width, channels = x.shape
        step = self.window
        x = x.reshape(n, height // step, step, width // step, step, channels)
        return x.transpose(2, 3).reshape(-1, step * step, channels)

    def forward(self, x: Tensor) -> Tensor:
        """N x H x W x C in and out."""
        n, height, width, channels = x.shape
        step, turn = self.window, (self.shift, self.shift)
        windows = self.split(torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2)))
        query, key, value = (
            self.qkv(windows)
            .reshape(-1, step * step, 3, self.heads, channels // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        scores = query @ key.transpose(-1, -2) * (channels // self.heads) ** -0.5
        scores = scores + self.bias[self.distance].permute(2, 0, 1)
        masked = scores.reshape(n, -1, self.heads, step * step, step * step) + self.mask
        mixed = masked.softmax(-1).flatten(0, 1) @ value
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        mixed = mixed.reshape(n, height // step, width // step, step, step, channels).transpose(2, 3)
        x = x + torch.roll(mixed.reshape(n, height, width, channels), turn, (1, 2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Swin(nn.Module):
    """Two stages of plain and shifted windows with patches merged in between."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.stage1 = nn.Sequential(Window(16, 2, 8, 4, 0), Window(16, 2, 8, 4, 2))
        self.merge = nn.Linear(64, 24, bias=False)
        self.stage2 = Window(24, 3, 4, 4, 0)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x 32 x 32 to N x 10."""
        x = self.stage1(self.patches(x).permute(0, 2, 3, 1))
        parts = (x[:, row::2, column::2] for column in (0, 1) for row in (0, 1))
        x = self.stage2(self.merge(torch.cat(tuple(parts), dim=-1)))
        return self.head(self.norm(x).mean((1, 2)))


class ConvNeXtBlock(nn.Module):
    """Wide depthwise filter, norm over channels, two layers, learned scale (Liu et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in and out."""
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.scale * self.down(functional.gelu(self.up(inner)))
        return x + inner.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Stem, two stages of one block, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.block1, self.block2 = ConvNeXtBlock(12), ConvNeXtBlock(24)
        self.halve_norm, self.halve = nn.LayerNorm(12), nn.Conv2d(12, 24, 2, 2)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x 32 x 32 to N x 10."""
        x = self.stem_norm(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.halve_norm(self.block1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.norm(self.block2(self.halve(x)).mean((2, 3))))


class Decoder(nn.Module):
    """A GPT-2-like decoder (Radford et al., 2019) whose table serves at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(64, 24), nn.Embedding(16, 24)
        self.blocks = nn.Sequential(Transformer(24, 3, causal=True), Transformer(24, 3, causal=True))
        self.norm = nn.LayerNorm(24)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers N x L to logits N x L x 64."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


class Tagger(nn.Module):
    """Tags a sentence with a two-layer, two-way LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(64, 12)
        self.lstm = nn.LSTM(12, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers N x L to scores N x L x 7."""
        return self.head(self.lstm(self.tokens(tokens))[0])


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNet,
    "mobilenetv3": MobileNetV3,
    "vit": ViT,
    "swin": Swin,
    "convnext": ConvNeXt,
    "gpt": Decoder,
    "lstm-tagger": Tagger,
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Make a net and an input for it.

    Args:
        name: One of `ARCHITECTURES`.
        seed: Seeds weights and input.

    Returns:
        The net in evaluation mode, with statistics and affine weights of norms as after training; a batch of two.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ARCHITECTURES[name]().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        words = name in {"gpt", "lstm-tagger"}
        return net, torch.randint(0, 64, (2, 12)) if words else torch.randn(2, 3, 32, 32)
