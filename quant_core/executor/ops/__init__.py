"""One file per operator family; importing this package registers all of them."""

from quant_core.executor.ops import (
    activation,
    arithmetic,
    casting,
    convolution,
    creation,
    indexing,
    linear,
    logic,
    normalization,
    pooling,
    reduction,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "casting",
    "convolution",
    "creation",
    "indexing",
    "linear",
    "logic",
    "normalization",
    "pooling",
    "reduction",
    "shape",
]
