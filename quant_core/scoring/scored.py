"""The sensitivities of a job as they are kept and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from quant_core.artifacts import INTERACTIONS, SENSITIVITY
from quant_core.codes import QuantizedWeight
from quant_core.errors import SpecError
from quant_core.preparation import Prepared
from quant_core.sensitivity import Objective, Spectrum
from quant_core.sensitivity.estimators.interaction import Interactions
from quant_core.sensitivity.table import Answer
from quant_core.spec import SensitivityTable
from quant_core.written_files import place_of, read_written


@dataclass(frozen=True, eq=False)
class Scored:
    """The sensitivities of a job.

    Attributes:
        objective: The loss.
        answer: The table, and what belongs to pairs of layers.
        warnings: What a user should know.
        spectra: Name -> eigenvalue density, where it was asked for.
    """

    objective: Objective
    answer: Answer
    warnings: tuple[str, ...]
    spectra: Mapping[str, Spectrum] = field(default_factory=dict)

    @property
    def table(self) -> SensitivityTable:
        """The table."""
        return self.answer.table

    def with_activations(self, costs: Mapping[str, Mapping[int, float]]) -> Scored:
        """Note what bits of activations cost in loss.

        Args:
            costs: Layer name -> bits -> loss increase.

        Returns:
            The same with them in the table.
        """
        rows = tuple(
            row.model_copy(update={"activation_sensitivity": dict(costs[row.name])})
            if row.name in costs
            else row
            for row in self.table.layers
        )
        table = self.table.model_copy(update={"layers": rows})
        return replace(self, answer=replace(self.answer, table=table))

    def with_outliers(self, rounded: Mapping[str, Mapping[int, QuantizedWeight]]) -> Scored:
        """Note what layers lose with outliers kept apart, by how much less their outputs change.

        Args:
            rounded: Layer name -> width -> codes.

        Returns:
            The same with such widths in the table, where there are any.
        """
        rows = []
        for row in self.table.layers:
            found = {
                width: row.sensitivity[weight.bits] * weight.outliers.left
                for width, weight in rounded[row.name].items()
                if weight.outliers is not None and weight.bits in row.sensitivity
            }
            rows.append(row.model_copy(update={"sparse_sensitivity": found or None}))
        table = self.table.model_copy(update={"layers": tuple(rows)})
        return replace(self, answer=replace(self.answer, table=table))

    def scaled_for(self, bits: float) -> Scored:
        """Note the mean bits of weights that channels were scaled for.

        Args:
            bits: The bits.

        Returns:
            The same with them in the table.
        """
        table = self.table.model_copy(update={"equalized_bits": bits})
        return replace(self, answer=replace(self.answer, table=table))

    def write(self, folder: Path, name: str = SENSITIVITY) -> None:
        """Write the table, and beside it what belongs to pairs of layers.

        Args:
            folder: Where to.
            name: Name of the table's file.
        """
        (folder / name).write_text(self.table.model_dump_json(indent=1))
        if self.answer.interactions is not None:
            self.answer.interactions.save(folder / INTERACTIONS)
        elif self.answer.similarity is not None:
            names = np.array([layer.name for layer in self.table.layers])
            np.savez_compressed(folder / INTERACTIONS, layers=names, similarity=self.answer.similarity)


def equalized_bits(folder: Path) -> float | None:
    """Look for what the sensitivities of an earlier job hold.

    Args:
        folder: The earlier job's folder.

    Returns:
        Mean bits of weights that channels were scaled for before it rounded; None where they were not.
    """
    table, _ = read_tables(folder)
    return table.equalized_bits


def read_tables(folder: Path) -> tuple[SensitivityTable, Interactions | None]:
    """Read what a job wrote.

    Args:
        folder: The job's folder.

    Returns:
        The table, and what belongs to pairs of layers if the scores came with it.

    Raises:
        SpecError: If there is no table.
    """
    remedy = "Name the folder that a quantization of this model wrote."
    table = read_written(SensitivityTable, folder / SENSITIVITY, "a quantization", remedy)
    if table.method != "interaction" or table.interactions is None:
        return table, None
    path = folder / table.interactions
    try:
        return table, Interactions.load(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is not what a quantization of this version writes"
        raise SpecError(f"it cannot be read ({reason}).", remedy=remedy, where=place_of(path)) from error


def check_reuse(folder: Path, job: Prepared, scored_as: str) -> None:
    """Refuse sensitivities of an earlier job that cannot be taken, before anything is rounded.

    Args:
        folder: The earlier job's folder.
        job: This one, prepared.
        scored_as: The rounding and the grids that it asks for.

    Raises:
        SpecError: If there is no table, or it belongs to another model, other weights or samples, or another rounding.
    """
    table, _ = read_tables(folder)
    same_layers = [(row.name, row.parameters) for row in table.layers] == [
        (layer.name, layer.parameters) for layer in job.layers
    ]
    same = {
        "layers": same_layers,
        "weights": not same_layers or table.weights in {None, job.source.weights},
        "samples": not same_layers or table.data in {None, job.samples.digest},
        "rounding": table.rounding in {None, scored_as},
    }
    refuse_other([name for name, equal in same.items() if not equal], folder)


def refuse_other(different: Sequence[str], folder: Path) -> None:
    """Refuse sensitivities that were estimated otherwise.

    Args:
        different: What is different; nothing is refused where nothing is.
        folder: The earlier job's folder.

    Raises:
        SpecError: If anything is.
    """
    if different:
        raise SpecError(
            f"these sensitivities were estimated with other {' and '.join(different)}.",
            remedy="Give and ask for what they were estimated with, or estimate them again.",
            where=place_of(folder / SENSITIVITY),
        )
