"""Does a search end inside its accuracy band on samples it never saw? `python -m benchmarks.band resnet20 minilm`.

ResNet-20: the first 1,024 images of CIFAR-10's test set are given to the job, half of them held back (256 judge, 256
are left for the report), and the other 8,976 are measured on afterwards. MiniLM: 192 sentences, a third held back,
and 64 others. `python -m benchmarks.zoo` fetches both. CPU seconds are those of one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.zoo import zoo_folder
from quant_core.calibration import Samples
from quant_core.pipeline import quantize
from quant_core.sensitivity import Objective, Term
from quant_core.spec import AccuracyBand, QuantizeSpec, Report
from quant_core.trials import Judge
from quant_core.trials.judge import Verdict


@dataclass(frozen=True)
class Case:
    """One search.

    Attributes:
        model: Folder of the model in the zoo.
        samples: Folder of its samples.
        band: The band.
        given: Samples that the job gets; the rest is measured on.
        held_back: Share of them that decides nothing but the search.
        objective: What the first output holds.
    """

    model: str
    samples: str
    band: str
    given: int
    held_back: float
    objective: Objective


CASES = {
    "resnet20": Case(
        "resnet20", "cifar10-test", "0.5%", 1024, 0.5, Objective((Term("logits", "logits", "cross_entropy"),))
    ),
    "minilm": Case("minilm", "minilm", "cosine>=0.99", 192, 1 / 3, Objective(())),
}


def search(name: str, **options: object) -> tuple[Report, Verdict]:
    """Search for the smallest file inside the band of a case, and judge it on samples that the job never had.

    Args:
        name: One of `CASES`.
        options: More fields of the request.

    Returns:
        The job's report, and the verdict.
    """
    case = CASES[name]
    model = zoo_folder() / case.model / "model.onnx"
    with np.load(zoo_folder() / case.samples / "samples.npz") as file:
        arrays = {key: file[key] for key in file.files}
    asked = {"max_drop": case.band, "held_back": case.held_back, "workers": 1} | options
    spec = QuantizeSpec.model_validate(asked)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "given.npz"
        np.savez(data, **{key: array[: case.given] for key, array in arrays.items()})
        report = quantize(model, data, spec, Path(folder) / "out")
        rest = {key: array[case.given :] for key, array in arrays.items()}
        labels = rest.pop("labels", None)
        objective = case.objective if case.objective.terms else _embedding(report)
        assert spec.budget.max_drop is not None
        judge = _judge(spec.budget.max_drop, model, Samples(rest, labels), objective)
        return report, judge.judge(Path(folder) / "out" / "model.onnx")


def _embedding(report: Report) -> Objective:
    output = next(iter(report.metrics.sqnr_db_by_output))
    return Objective((Term(output, output, "squared_error"),))


def _judge(band: AccuracyBand, model: Path, samples: Samples, objective: Objective) -> Judge:
    return Judge(band, model, samples, objective, 64, 0)


def main() -> None:
    """Print one line a search."""
    for name in sys.argv[1:] or list(CASES):
        start = time.process_time()
        report, unseen = search(name)
        assert report.band is not None
        chosen = report.band.evaluations[report.band.chosen]
        print(
            f"{name}: {report.band.band}: {report.model.quantized_bytes:,} bytes after "
            f"{len(report.band.evaluations)} evaluations; on {report.band.samples} judging samples {chosen.value:.4f} "
            f"({chosen.low:.4f} to {chosen.high:.4f}); on samples never given {unseen.value:.4f} "
            f"({unseen.low:.4f} to {unseen.high:.4f}), {'inside' if unseen.inside else 'OUTSIDE'}; "
            f"{time.process_time() - start:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
