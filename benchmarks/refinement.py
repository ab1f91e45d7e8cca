"""Does refining a plan by measurement help on images it did not see? `python -m benchmarks.refinement`.

ResNet-20 on CIFAR-10: the plan solved from scores, the widest uniform plan, and the plan refined around itself, once
as a job would and once without its two conditions. Losses (KL to float, weights rounded, activations float) on the
128 scoring samples and on 2,000 test images (`python -m benchmarks.zoo` fetches them).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.zoo import zoo_folder
from quant_core.allocation.plan_bits import plan_bits
from quant_core.allocation.plan_problem import PlanProblem
from quant_core.calibration import Samples, split_samples
from quant_core.preparation import prepare
from quant_core.preparation.pricing import price
from quant_core.quantizers.rounding.round_weights import RoundedWeights
from quant_core.scoring.rounded import apart, round_candidates
from quant_core.scoring.score import score
from quant_core.sensitivity import split_batches
from quant_core.spec import QuantizeSpec
from quant_core.trials import PlanMeter, largest_uniform, refine
from quant_core.trials.settle import misled

DATA = Path(__file__).parent / "data"
SIZES = (0.09, 0.10, 0.11, 0.13, 0.18)
TEST_IMAGES = 2000


def main() -> None:
    """Print one row a size."""
    spec = QuantizeSpec(workers=1)
    job = prepare(DATA / "resnet20_cifar10.onnx", DATA / "cifar10_calibration.npz", spec)
    calibration, _ = split_samples(job.samples, spec.held_back, spec.seed)
    seen, unseen = apart(calibration, spec)
    rounded = round_candidates(job, seen, spec, _quiet)
    scored = score(job, unseen, rounded, spec, _quiet)
    costs = price(job, spec)
    problem = PlanProblem.of(scored.table, costs)

    def meter(samples: Samples, weights: RoundedWeights) -> PlanMeter:
        feeds = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
        batches = split_batches(feeds, None, sample_bytes=1 << 20, seed=0, clusters=1)
        return PlanMeter(job.program, job.layers, scored.objective, batches, weights)

    with np.load(zoo_folder() / "cifar10-test" / "samples.npz") as data:
        test = meter(
            Samples({"input": data["input"][:TEST_IMAGES]}), round_candidates(job, calibration, spec, _quiet)
        )
    near = meter(unseen, rounded)
    print("size  predicted  measured            | on test: uniform  plan     refined  always refined")
    for size in SIZES:
        limits = {"bytes": float(int(size * costs.float_bytes))}
        plan = plan_bits(problem, limits).bits
        uniform = largest_uniform(problem, limits)
        found = near.loss(plan)
        always, _ = refine(problem, plan, limits, near, rounds=3, on_progress=_quiet, sure=0.0)
        refined = plan
        if misled(problem.loss(plan), found):
            refined, _ = refine(problem, plan, limits, near, rounds=3, on_progress=_quiet)
        beside = "".join(f"{test.loss(bits).mean:.5f}" for _, bits in uniform)
        print(
            f"{size:4}  {problem.loss(plan):9.5f}  {found.mean:.5f} +- {found.stderr:.5f} | {beside:>16}  "
            f"{test.loss(plan).mean:.5f}  {test.loss(refined).mean:.5f}  {test.loss(always).mean:.5f}",
            flush=True,
        )


def _quiet(fraction: float, message: str) -> None:
    del fraction, message


if __name__ == "__main__":
    main()
