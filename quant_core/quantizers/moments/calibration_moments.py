"""Input moments of a network's layers over calibration samples, as rounding asks for them, one group after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from quant_core.calibration import RangeWatch, Samples
from quant_core.ingest.layer import Layer
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.moments.input_moments import InputMoments, Moments, input_moments, joined
from quant_core.quantizers.moments.read_positions import seeing_batch
from quant_core.quantizers.moments.table_moments import table_moments


@dataclass(eq=False)
class KeptMoments:
    """Moments that are needed again when more samples join.

    Attributes:
        limit: Most bytes that are held.
        held: Moments by layer.
    """

    limit: int = 1 << 29
    held: dict[str, Moments] = field(default_factory=dict)

    def find(self, layers: Sequence[Layer]) -> dict[str, Moments]:
        """Give what is held of some layers.

        Args:
            layers: The layers.

        Returns:
            Layer name -> moments.
        """
        return {layer.name: self.held[layer.name] for layer in layers if layer.name in self.held}

    def keep(self, moments: Mapping[str, Moments]) -> None:
        """Hold as many as there is room for.

        Args:
            moments: Layer name -> moments.
        """
        room = self.limit - sum(held.nbytes for held in self.held.values())
        for name, found in moments.items():
            if name not in self.held and found.nbytes <= room:
                self.held[name] = found
                room -= found.nbytes


@dataclass(eq=False)
class CalibrationMoments:
    """What layers multiply over calibration samples, and over more that join them.

    Attributes:
        network: The float network.
        samples: Calibration samples.
        seed: Seed of the choice of positions, and of signs for tables.
        more: Samples beyond those.
        kept: Where input moments of `samples` are found, or left for the next time.
        watch: Shown the first run over `samples` that moments are taken from, if there is one.
    """

    network: FloatNetwork
    samples: Samples
    seed: int
    more: Samples | None = None
    kept: KeptMoments = field(default_factory=lambda: KeptMoments(limit=0))
    watch: RangeWatch | None = None

    def of(self, layers: Sequence[Layer], on_batch: Callable[[int, int], None]) -> dict[str, Moments]:
        """Give the input moments of some layers over all samples there are.

        Args:
            layers: Layers for which `has_moments` is true.
            on_batch: Called with samples done and samples in all; may raise to stop.

        Returns:
            Layer name -> moments.

        Raises:
            NonFiniteError: If a layer's input holds NaN, infinity or what float32 cannot square.
        """
        moments = self.kept.find(layers)
        lacking = [layer for layer in layers if layer.name not in moments]
        if lacking:
            moments |= input_moments(
                self.network, lacking, self.samples, seed=self.seed, on_batch=on_batch, watch=self.watch
            )
            self.watch = None
        self.kept.keep(moments)
        if self.more is None:
            return moments
        others = input_moments(
            self.network, layers, self.more, seed=self.seed, on_batch=on_batch, like=moments
        )
        return {name: joined(moments[name], found) for name, found in others.items()}

    def of_tables(self, layers: Sequence[Layer]) -> dict[str, InputMoments]:
        """Give what takes the place of input moments for tables, over `samples` alone.

        Args:
            layers: Layers for which `is_table` is true.

        Returns:
            Layer name -> moments; tables are left out that no output depends on smoothly.
        """
        size = self.network.batch_size
        if not self.samples.batch:
            size = min(size, seeing_batch(self.network.layers))
        return table_moments(self.network.program, layers, self.samples, batch_size=size, seed=self.seed)
