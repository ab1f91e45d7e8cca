"""Does a search end inside its accuracy band on samples it never saw? `python -m benchmarks.band resnet20 minilm`.

ResNet-20: the first 6,000 images of CIFAR-10's test set are given to the job, two thirds held back (2,000 judge, 2,000
are left for the report), and the other 4,000 are measured on afterwards; for a cosine, 384 and 9,616. MiniLM: 192
sentences, half of them held back, and 64 others. EfficientNet-Lite0: 160 images of CIFAR-10 enlarged, half of them held
back, and 96 others. `python -m benchmarks.zoo` fetches what they take. CPU seconds are those of one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.sensitivity_study.fresh import enlarged
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
        samples: Folder of its samples, or what gives them from the zoo's folder.
        band: The band.
        given: Samples that the job gets; the rest is measured on.
        held_back: Share of them that decides nothing but the search.
        objective: What the first output holds.
    """

    model: str
    samples: str | Callable[[Path], Mapping[str, np.ndarray]]
    band: str
    given: int
    held_back: float
    objective: Objective


CASES = {
    "resnet20": Case(
        "resnet20",
        "cifar10-test",
        "0.5%",
        6000,
        2 / 3,
        Objective((Term("logits", "logits", "cross_entropy"),)),
    ),
    "resnet20-cosine": Case("resnet20", "cifar10-test", "cosine>=0.99", 384, 1 / 3, Objective(())),
    "minilm": Case("minilm", "minilm", "cosine>=0.99", 192, 1 / 2, Objective(())),
    "minilm-sqnr": Case("minilm", "minilm", "sqnr>=17dB", 192, 1 / 2, Objective(())),
    "efficientnet-lite0": Case("efficientnet-lite0", enlarged, "cosine>=0.99", 160, 1 / 2, Objective(())),
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
    if isinstance(case.samples, str):
        with np.load(zoo_folder() / case.samples / "samples.npz") as file:
            arrays = {key: file[key] for key in file.files}
    else:
        arrays = dict(case.samples(zoo_folder()))
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
            f"({chosen.low:.4f} to {chosen.high:.4f}), bound {chosen.bound:.4f}, "
            f"{'met' if report.band.met else 'NOT MET'}; "
            f"on samples never given {unseen.value:.4f} ({unseen.low:.4f} to {unseen.high:.4f}), "
            f"{'inside' if report.band.band.holds(unseen.value) else 'OUTSIDE'}; "
            f"{time.process_time() - start:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
