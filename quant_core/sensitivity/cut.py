"""How samples are cut into batches, as a value: the same cut gives the same batches in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from quant_core.calibration.padding import Padding
from quant_core.sensitivity.batches import Batch, batch_size, split_batches


@dataclass(frozen=True)
class Cut:
    """How samples are cut.

    Attributes:
        samples: Number of samples.
        sample_bytes: Memory one sample takes during the work.
        seed: Seed of the order.
        fixed: The batch size the graph insists on, or None.
        largest: Most samples in a batch.
        clusters: At least so many batches, where there are samples enough.
        padding: What fills the samples up, if anything.
    """

    samples: int
    sample_bytes: int
    seed: int
    fixed: int | None = None
    largest: int = 32
    clusters: int = 32
    padding: Padding | None = None

    @property
    def size(self) -> int:
        """Samples in the largest batch."""
        padded = self.padding is not None
        return self.fixed or batch_size(
            self.samples, self.sample_bytes, self.largest, self.clusters, padded=padded
        )

    def halved(self) -> Cut | None:
        """Give batches of half the size.

        Returns:
            Another cut, or None where batches cannot be smaller.
        """
        return None if self.fixed or self.size == 1 else replace(self, largest=self.size // 2)

    def with_share(self, share: float) -> Cut:
        """Give batches that take a share of the memory.

        Args:
            share: Above 0, and 1 at most.

        Returns:
            Another cut.
        """
        return self if share == 1 else replace(self, largest=max(1, int(self.size * share)))

    def batches(
        self, feeds: Mapping[str, torch.Tensor], labels: torch.Tensor | None, device: torch.device | str
    ) -> tuple[Batch, ...]:
        """Cut the samples.

        Args:
            feeds: Graph input name -> tensor, first axis samples.
            labels: Class of each sample, or None.
            device: Where the batches shall lie.

        Returns:
            The batches.
        """
        return split_batches(
            feeds,
            labels,
            sample_bytes=self.sample_bytes,
            seed=self.seed,
            device=device,
            fixed=self.fixed,
            largest=self.largest,
            clusters=self.clusters,
            padding=self.padding,
        )
