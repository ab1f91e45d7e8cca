"""What the study measures, each step kept in a file so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.sensitivity_study.setting import BITS, Setting
from quant_core.allocation import Problem, solve
from quant_core.sensitivity import ompq_importance, output
from quant_core.sensitivity.findings import Findings
from quant_core.sensitivity.methods import METHODS
from quant_core.spec import SensitivityMethod

AVERAGES = (3, 4)
_CHUNK = 20
_PAGE = resource.getpagesize()


@dataclass(frozen=True, eq=False)
class Truth:
    """Measured loss increases.

    Attributes:
        increase: One layer at a time, layers x bit-widths.
        plans: Random plans, plans x layers: positions in `BITS`.
        losses: Their loss increase.
        uniform: Average bits -> loss increase of that width everywhere.
    """

    increase: np.ndarray
    plans: np.ndarray
    losses: np.ndarray
    uniform: dict[int, float]


@dataclass(frozen=True)
class Cost:
    """What a method took.

    Attributes:
        seconds: Processor time.
        megabytes: Memory beyond what the model and its rounded weights hold, at its peak.
        samples: Samples it used.
        stopped: Why it ended.
    """

    seconds: float
    megabytes: float
    samples: int
    stopped: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method says.

    Attributes:
        score: Layers x bit-widths.
        pairs: Layers x bit-widths x layers x bit-widths, or None for a method without interactions.
        trusted: The same, shrunk by their errors, to search plans with.
        cost: What it took.
    """

    score: np.ndarray
    pairs: np.ndarray | None
    trusted: np.ndarray | None
    cost: Cost

    def plan(self, choice: np.ndarray) -> float:
        """Predict the loss increase of a whole plan.

        Args:
            choice: Position of each layer's width.

        Returns:
            The sum of the scores, and of the pairs where there are any.
        """
        index = np.arange(len(choice))
        alone = self.score[index, choice].sum()
        both = 0.0 if self.pairs is None else self.pairs[index, choice][:, index, choice].sum() / 2
        return float(alone + both)


def measure_truth(setting: Setting, count: int, folder: Path) -> Truth:
    """Measure single layers, random plans and uniform bits on samples that no method sees.

    Each random plan draws a mix of widths first, so that plans range from mild to harsh, then every layer's width
    from that mix.

    Args:
        setting: The model.
        count: Number of random plans.
        folder: Keeps what was measured.

    Returns:
        The measurements.
    """
    layers = len(setting.job.layers)
    path = folder / "single.npy"
    if not path.exists():
        job = setting.job
        found = output(job.program, job.layers, setting.objective, setting.batches, setting.weights)
        np.save(path, found.increase)
    increase = np.load(path)
    plans = np.stack([_random_plan(number, layers) for number in range(count)])
    path = folder / "plans.npy"
    losses = list(np.load(path)) if path.exists() else []
    while len(losses) < count:
        losses += [setting.plan_loss(plan) for plan in plans[len(losses) : len(losses) + _CHUNK]]
        np.save(path, np.array(losses))
    uniform = {bits: _kept(folder, setting, np.full(layers, BITS.index(bits))) for bits in AVERAGES}
    return Truth(increase, plans, np.array(losses[:count]), uniform)


def run_method(setting: Setting, name: SensitivityMethod, seconds: float, folder: Path) -> Prediction:
    """Score with one method, or find that done.

    Args:
        setting: The model.
        name: The method.
        seconds: About how long it may take.
        folder: Keeps the scores.

    Returns:
        What the method says.
    """
    path = folder / f"method-{name}.npz"
    if not path.exists():
        question = setting.question(name, seconds)
        assert question.norms.size  # part of every trace score, and of none of their costs
        found, seconds, megabytes = _costs(lambda: METHODS[name](question))
        tables = {"score": _score(found)}
        if found.interactions is not None:
            tables |= {"pairs": found.interactions.pairs, "trusted": found.interactions.trusted_pairs}
        cost = Cost(seconds, megabytes, found.samples, found.stopped)
        np.savez(path, allow_pickle=False, cost=json.dumps(asdict(cost)), **tables)
    with np.load(path, allow_pickle=False) as file:
        return Prediction(
            score=file["score"],
            pairs=file.get("pairs"),
            trusted=file.get("trusted"),
            cost=Cost(**json.loads(str(file["cost"]))),
        )


def _score(found: Findings) -> np.ndarray:
    if found.score is not None:
        return found.score
    # OMPQ says what a bit is worth, not what a width costs: the more worth, the lower the loss.
    assert found.similarity is not None
    return -ompq_importance(found.similarity)[:, None] * np.array(BITS)


def chosen_losses(setting: Setting, prediction: Prediction, folder: Path) -> dict[int, float]:
    """Measure the plans that a method would choose.

    Args:
        setting: The model.
        prediction: What the method says.
        folder: Keeps what was measured.

    Returns:
        Average bits a weight -> loss increase of the best plan by that method within it.
    """
    sizes = np.array([layer.parameters for layer in setting.job.layers], dtype=np.float64)
    bits = sizes[:, None] * np.array(BITS)
    found = {}
    for average in AVERAGES:
        problem = Problem(
            prediction.score,
            {"bits": bits},
            {"bits": float(average * sizes.sum())},
            allowed=np.isfinite(prediction.score),
            interactions=prediction.trusted,
        )
        found[average] = _kept(folder, setting, np.array(solve(problem, time_limit=60).choice))
    return found


def _random_plan(number: int, layers: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.choice(len(BITS), size=layers, p=rng.dirichlet(np.ones(len(BITS))))


def _kept(folder: Path, setting: Setting, choice: np.ndarray) -> float:
    # Methods often choose the same plan; it is measured once.
    path = folder / "chosen.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    key = "".join(str(BITS[k]) for k in choice)
    if key not in known:
        known[key] = setting.plan_loss(choice)
        path.write_text(json.dumps(known, indent=1))
    return known[key]


def _costs(work: Callable[[], Findings]) -> tuple[Findings, float, float]:
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
    return result, seconds, (peak - before) / (1 << 20)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
