"""A place where channels can be scaled: the tensors, and what stands around them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """A constant that takes in the scales.

    Attributes:
        name: Initializer.
        axis: Its axis that runs over the channels; counted from the end, below 0, where it is spread.
        spread: A node for which it is spread over the channels, and whose own it then is; else every reader's changes.
        start: The channel of the group that its first one is.
    """

    name: str
    axis: int
    spread: str = ""
    start: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors that carry the same channels, and what stands around them.

    Dividing channel c of every tensor by s_c and multiplying what the readers' weights take from channel c by s_c
    changes nothing in exact arithmetic.

    Attributes:
        tensors: The tensors, all of them divided together.
        channels: Number of channels.
        readers: Names of the layers that read them, whose weights are multiplied.
        folds: Constants of the producers, which are divided; none where a product is inserted before the readers.
        behind: Whether a product by s_c is inserted behind the one tensor, so that no reader changes.
        trailing: Axes that an inserted product has behind the channels.
        parts: First channel, and the one behind the last, of the parts of a Concat that are divided; the others are
            left as they are. Empty where all channels are divided.
    """

    tensors: tuple[str, ...]
    channels: int
    readers: tuple[str, ...]
    folds: tuple[Fold, ...]
    behind: bool = False
    trailing: int = 0
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def inserted(self) -> bool:
        """Whether a product by constants is inserted, before the readers or behind the tensor."""
        return self.behind or not self.folds
