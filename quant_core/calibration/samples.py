"""Sample inputs, with labels where the user has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from quant_core.calibration.padding import Padding
from quant_core.executor.layout import fast_layout


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples of every graph input.

    Attributes:
        inputs: Graph input name -> array whose first axis counts the N samples.
        labels: Class numbers, int64, N; None where the user gave none.
        batch: Number of samples the graph demands per run, or None where it takes any number.
        padding: What fills samples up to one length and is left out of every batch, if anything.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    batch: int | None = None
    padding: Padding | None = None

    @property
    def count(self) -> int:
        """Number of samples N."""
        return len(next(iter(self.inputs.values())))

    @property
    def distinct(self) -> int:
        """Number of samples when copies are counted once."""
        return len(
            {tuple(hash(row.tobytes()) for row in rows) for rows in zip(*self.inputs.values(), strict=True)}
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of names, types, shapes and values, labels included."""
        digest = hashlib.sha256()
        labels = {} if self.labels is None else {"": self.labels}
        for name, array in sorted({**self.inputs, **labels}.items()):
            digest.update(f"{name}\0{array.dtype} {[*array.shape]}\0".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def unit(self) -> int:
        """Samples that stay together: as many as the graph demands per run, or 1."""
        return self.batch or 1

    def take(self, indices: np.ndarray) -> Samples:
        """Pick samples.

        Args:
            indices: Positions, in the order wanted.

        Returns:
            New samples holding copies of those rows.
        """
        return replace(
            self,
            inputs={name: array[indices] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[indices],
        )

    def units(self, places: np.ndarray) -> Samples:
        """Pick samples that stay together.

        Args:
            places: Positions counted in units, in the order wanted.

        Returns:
            New samples holding copies of the rows of those units.
        """
        return self.take((places[:, None] * self.unit + np.arange(self.unit)).reshape(-1))

    def first(self, count: int) -> Samples:
        """Take samples from the beginning.

        Args:
            count: How many at most.

        Returns:
            As many whole units as that holds, and at least one.
        """
        return self.units(np.arange(self._units(count)))

    def spread(self, count: int) -> Samples:
        """Take samples from all over, evenly and in order.

        Args:
            count: How many at most.

        Returns:
            As many whole units as that holds, and at least one.
        """
        groups = self._units(count)
        return self.units(np.arange(groups) * (self.count // self.unit) // groups)

    def _units(self, count: int) -> int:
        return max(1, min(count, self.count) // self.unit)

    def feeds(self, device: str | torch.device = "cpu", *, fast: bool = False) -> dict[str, torch.Tensor]:
        """Give the inputs as tensors.

        Args:
            device: Where they are wanted.
            fast: Whether images have their channels last in memory, as `fast_layout` lays them out.

        Returns:
            Graph input name -> tensor.
        """
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for name, array in self.inputs.items()
        }
        return {name: fast_layout(tensor) for name, tensor in tensors.items()} if fast else tensors

    def classes(self, device: str | torch.device = "cpu") -> torch.Tensor | None:
        """Give the labels as a tensor.

        Args:
            device: Where it is wanted.

        Returns:
            Class of each sample, `[N]`; None where there are no labels.
        """
        return None if self.labels is None else torch.from_numpy(self.labels).to(device)

    def joined(self, other: Samples) -> Samples:
        """Put others of the same kind and length behind these.

        Args:
            other: The others.

        Returns:
            New samples holding copies of both.
        """
        mine, others = self.labels, other.labels
        return replace(
            self,
            inputs={name: np.concatenate([array, other.inputs[name]]) for name, array in self.inputs.items()},
            labels=None if mine is None or others is None else np.concatenate([mine, others]),
        )

    def shortened(self) -> Samples:
        """Leave out what is padding in all samples.

        Returns:
            The same samples, as long as the longest of them.
        """
        return self if self.padding is None else replace(self, inputs=self.padding.shorten(self.inputs))

    def batches(self, size: int) -> Iterator[Samples]:
        """Go through all samples in order.

        Args:
            size: Samples per batch; where the graph demands a number, that number is used instead.

        Yields:
            Consecutive samples, views where nothing is padding; the last may be fewer unless the graph demands a
            number.
        """
        step = self.batch or size
        for start in range(0, self.count, step):
            rows = slice(start, start + step)
            part = replace(
                self,
                inputs={name: array[rows] for name, array in self.inputs.items()},
                labels=None if self.labels is None else self.labels[rows],
            )
            yield part.shortened()
