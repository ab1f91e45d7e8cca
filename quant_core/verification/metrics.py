"""The metrics of all outputs of the quantized model beside the float model's, built batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from quant_core.errors import SamplesError
from quant_core.spec import Metrics
from quant_core.verification.answers import Answers, find_correct
from quant_core.verification.differences import Difference
from quant_core.verification.intervals import Interval

Array = NDArray[Any]


@dataclass
class MetricAccumulator:
    """Builds `Metrics` from batches of outputs.

    Attributes:
        classes: Whether the headline's output holds class logits; else it is an embedding or a regression.
        headline: The output that the headline is of; None for the first.
        labelled: Whether labels come with every batch.
        differences: Running comparison by output name.
        answers: Right and wrong answers of both models.
        resized: Outputs that the two models gave in different sizes, as selections may be; they are not compared.
    """

    classes: bool
    headline: str | None = None
    labelled: bool = False
    differences: dict[str, Difference] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    resized: set[str] = field(default_factory=set)

    def add(
        self, reference: Mapping[str, Array], values: Mapping[str, Array], labels: Array | None = None
    ) -> None:
        """Take in one batch.

        Args:
            reference: Output name -> output of the float model.
            values: Output name -> output of the quantized model.
            labels: Integer classes of the batch, if there are labels.

        Raises:
            SamplesError: If the labels do not fit the headline's output.
        """
        for name, expected in reference.items():
            if expected.shape != values[name].shape:
                self.resized.add(name)
            elif expected.dtype.kind in "fiub":  # text outputs carry no noise to measure
                self.differences.setdefault(name, Difference(name)).add(expected, values[name])
        if labels is not None and self.classes:
            first = self.headline or next(iter(reference))
            self.answers.add(*(find_correct(side[first], labels, first) for side in (reference, values)))
        self.labelled = self.labelled or labels is not None

    def result(self) -> Metrics:
        """Close the books.

        Returns:
            The metrics of all batches so far. The headline is `top1` where there are labels and classes,
            `top1_agreement` where there are classes only, else `mean_cosine`.

        Raises:
            SamplesError: If there was nothing to compare.
        """
        found = {name: each for name, each in self.differences.items() if name not in self.resized}
        if not found or self.headline in self.resized:
            raise SamplesError(
                "There was no numeric output of a fixed size to compare.",
                remedy="Give at least one sample and a numeric output.",
            )
        first = found[self.headline] if self.headline else next(iter(found.values()))
        agreement = first.top1_agreement if self.classes else None
        change: Interval | None = None
        if self.answers.judged:
            name, (before, after) = "top1", self.answers.shares
            interval, change = self.answers.interval, self.answers.change
        elif agreement is not None:
            name, before, after, interval = "top1_agreement", 1.0, agreement, first.agreement_interval
        else:
            name, before, after, interval = "mean_cosine", 1.0, first.mean_cosine, first.cosine_interval
        return Metrics(
            name=name,
            float=before,
            quantized=after,
            samples=first.samples,
            labelled=self.labelled,
            sqnr_db=first.sqnr_db,
            top1_agreement=agreement,
            mean_cosine=first.mean_cosine,
            sqnr_db_by_output={key: value.sqnr_db for key, value in found.items()},
            interval=interval,
            change_interval=change,
        )
