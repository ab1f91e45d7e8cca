"""The quantized network in float arithmetic: what the exported file should compute, said independently of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from quant_core.codes import ActivationGrid, QuantizedWeight
from quant_core.executor import Program, compile_model
from quant_core.executor.layout import fast_layout
from quant_core.ingest.layer import Layer
from quant_core.quantizers.grids.activation import block_fake_quantize, dynamic_fake_quantize, fake_quantize

_TAP_SUFFIX = "@dynamic"

Rounding = Callable[[torch.Tensor], torch.Tensor]

Visit = Callable[[torch.Tensor], Mapping[str, npt.NDArray[np.float32]]]
"""A tensor as it is read -> initializers that all nodes behind it take from now on."""


class Simulation:
    """A network with rounded weights and activations.

    Attributes:
        model: The normalised float model.
        layers: Its layers.
        codes: Layer name -> codes and scales.
        grids: Tensor name -> 8-bit grid, for every statically rounded tensor.
        program: The float program, with a named tap before every dynamically rounded layer.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: Sequence[Layer],
        weights: Mapping[str, QuantizedWeight],
        grids: Mapping[str, ActivationGrid],
        dynamic: Collection[str],
        *,
        blocks: Mapping[str, int] = MappingProxyType({}),
        device: str | torch.device = "cpu",
    ) -> None:
        """Prepare the network.

        Args:
            model: The normalised float model; left as it is.
            layers: Its layers.
            weights: Layer name -> codes and scales.
            grids: Tensor name -> 8-bit grid, for every statically rounded tensor.
            dynamic: Names of the layers whose input is rounded to the range it happens to have.
            blocks: Layer name -> block size, where the input is rounded row by row and block by block.
            device: Where to compute.
        """
        self.model, self.layers, self.codes, self.grids = model, tuple(layers), weights, grids
        self._suffixes = {name: _block_suffix(size) for name, size in blocks.items()}
        self._suffixes |= dict.fromkeys(dynamic, _TAP_SUFFIX)
        tapped, taps = insert_taps(model, [layer for layer in layers if layer.name in dynamic])
        self._replace: dict[str, Callable[[torch.Tensor], torch.Tensor]] = dict.fromkeys(
            taps, dynamic_fake_quantize
        )
        for size in sorted(set(blocks.values())):
            within = [layer for layer in layers if blocks.get(layer.name) == size]
            tapped, taps = insert_taps(tapped, within, _block_suffix(size))
            self._replace |= dict.fromkeys(taps, partial(block_fake_quantize, size=size))
        self.program: Program = compile_model(tapped, device=device)
        self._device = device
        self._weights = {
            name: torch.from_numpy(np.array(values)).to(device)
            for layer in layers
            if layer.name in weights
            for name, values in weights[layer.name].stand_ins(layer.weight).items()
        }
        self._replace |= {name: partial(fake_quantize, grid=grid) for name, grid in grids.items()}

    @property
    def rounding(self) -> Mapping[str, Callable[[torch.Tensor], torch.Tensor]]:
        """Tensor of `program` -> how it is rounded."""
        return MappingProxyType(self._replace)

    def with_biases(self, biases: Mapping[str, npt.NDArray[np.float32]]) -> Simulation:
        """Give the same network with other biases; program and weights are shared.

        Args:
            biases: Initializer name -> values.

        Returns:
            The network.
        """
        other = copy(self)
        moved = {name: torch.from_numpy(np.array(values)).to(self._device) for name, values in biases.items()}
        other._weights = self._weights | moved
        return other

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Initializer -> what stands in for it."""
        return MappingProxyType(self._weights)

    def rounding_of(self, samples: int) -> Mapping[str, Rounding]:
        """Say how tensors are rounded where samples run together.

        Args:
            samples: Samples in the batch.

        Returns:
            Tensor of `program` -> how it is rounded: where to the range it happens to have, each sample as if alone.
        """
        return {
            name: partial(dynamic_fake_quantize, samples=samples) if hook is dynamic_fake_quantize else hook
            for name, hook in self._replace.items()
        }

    def run(self, feeds: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
        """Run one batch.

        Args:
            feeds: Graph input name -> array.

        Returns:
            Graph output name -> array.
        """
        return self.tensors(feeds, self.program.outputs)

    def tensors(
        self,
        feeds: Mapping[str, npt.NDArray[np.generic]],
        names: Collection[str],
        *,
        settled: bool = False,
        before: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType({}),
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Compute any tensors of the network.

        Args:
            feeds: Name -> array; may name interior tensors, and what lies before them is then not computed.
            names: The tensors wanted.
            settled: Whether what is fed lies on its grid already.
            before: Name -> function applied to that tensor before it is rounded.

        Returns:
            Name -> array.
        """
        hooks = {name: hook for name, hook in self._replace.items() if not (settled and name in feeds)}
        hooks |= {name: _in_turn(first, hooks.get(name)) for name, first in before.items()}
        tensors = {
            name: fast_layout(torch.from_numpy(np.ascontiguousarray(array)).to(self._device))
            for name, array in feeds.items()
        }
        with torch.no_grad():
            values = self.program.evaluate(tensors, names, weights=self._weights, replace=hooks)
        return {name: value.cpu().numpy() for name, value in values.items()}

    def input_of(self, layer: Layer) -> str:
        """Name what a layer reads.

        Args:
            layer: A layer.

        Returns:
            A tensor of `program`, rounded for this layer if it rounds its input as it runs.
        """
        return layer.uses[0].input + self._suffixes.get(layer.name, "")

    def revise(
        self,
        feeds: Mapping[str, npt.NDArray[np.generic]],
        visits: Mapping[str, Sequence[Visit]],
        samples: int,
    ) -> None:
        """Run one batch, and change weights and biases while it runs.

        Inputs that are rounded to the range they happen to have are so sample by sample, as if each had come alone.

        Args:
            feeds: Graph input name -> array.
            visits: Tensor -> what is called with it once it is known and rounded, in turn; what that gives replaces
                weights and biases of layers with codes for good.
            samples: Samples in the batch.
        """
        replace = self.rounding_of(samples)

        def seen(value: torch.Tensor, rounds: Rounding | None, several: Sequence[Visit]) -> torch.Tensor:
            value = value if rounds is None else rounds(value)
            for visit in several:
                for name, values in visit(value).items():
                    self._weights[name].copy_(torch.from_numpy(values))
            return value

        hooks = dict(replace) | {
            name: partial(seen, rounds=replace.get(name), several=several) for name, several in visits.items()
        }
        tensors = {
            name: fast_layout(torch.from_numpy(np.ascontiguousarray(array)).to(self._device))
            for name, array in feeds.items()
        }
        with torch.no_grad():
            self.program.evaluate(tensors, weights=self._weights, replace=hooks)


def _in_turn(
    first: Callable[[torch.Tensor], torch.Tensor], then: Callable[[torch.Tensor], torch.Tensor] | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    return first if then is None else lambda value: then(first(value))


def _block_suffix(size: int) -> str:
    return f"@block{size}"


def dynamic_tap(tensor: str) -> str:
    """Name what a layer reads that rounds its input as it runs.

    Args:
        tensor: What it reads in the float graph.

    Returns:
        The name that it has in a simulation's program.
    """
    return tensor + _TAP_SUFFIX


def insert_taps(
    model: ir.Model, layers: Sequence[Layer], suffix: str = _TAP_SUFFIX
) -> tuple[ir.Model, tuple[str, ...]]:
    """Give the inputs of some layers names of their own, so that they can be rounded for those layers alone.

    Args:
        model: A model; left as it is.
        layers: Layers whose activation input gets a tap.
        suffix: Added to the name of what they read.

    Returns:
        A copy with an Identity before those layers, and the taps' names.
    """
    copy = model.clone()
    readers = {use.node for layer in layers for use in layer.uses}
    taps: dict[str, ir.Value] = {}
    for node in list(copy.graph):
        if node.name not in readers:
            continue
        source = node.inputs[0]
        assert source is not None
        name = f"{source.name}{suffix}"
        if name not in taps:
            tap = ir.node(
                "Identity", [source], outputs=[ir.Value(name=name, type=source.type, shape=source.shape)]
            )
            copy.graph.insert_before(node, tap)
            taps[name] = tap.outputs[0]
        node.replace_input_with(0, taps[name])
    return copy, tuple(taps)
