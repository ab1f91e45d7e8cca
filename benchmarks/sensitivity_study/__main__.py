"""Compare the sensitivity methods: `python -m benchmarks.sensitivity_study [--models ...] [--methods ...] [--quick]`.

For every model: GPTQ weights at 2, 3, 4, 6 and 8 bits; loss increases of single layers, of random plans and of the
plans that each method chooses, all measured on samples that the methods do not see. Everything is kept in the folder
`sensitivity-study` of the zoo's cache; `--fresh` starts over. The tables go to the screen, and the plans of the models
asked for to `docs/sensitivity_study.svg` where the methods that it shows are among those asked for.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from benchmarks.sensitivity_study.drawing import SHOWN, draw
from benchmarks.sensitivity_study.measurements import chosen_losses, measure_truth, run_method
from benchmarks.sensitivity_study.results import Result, print_table
from benchmarks.sensitivity_study.setting import SUBJECTS, prepare_setting
from benchmarks.zoo import zoo_folder
from quant_core.sensitivity.methods import METHODS

PICTURE = Path("docs/sensitivity_study.svg")
PLANS, FEW_PLANS = 200, 40
LONGEST = 300


def study(model: str, methods: list[str], plans: int, seconds: float, folder: Path) -> list[Result]:
    """Study one model.

    Args:
        model: One of `SUBJECTS`.
        methods: Names of methods.
        plans: Number of random plans.
        seconds: About how long a method may take.
        folder: Keeps intermediate results.

    Returns:
        One result a method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    setting = prepare_setting(SUBJECTS[model], folder)
    truth = measure_truth(setting, plans, folder)
    results = []
    for name in methods:
        prediction = run_method(setting, name, seconds, folder)
        chosen = chosen_losses(setting, prediction, folder)
        results.append(Result(model, name, truth, prediction, chosen))
        print(f"{model}: {name} took {prediction.cost.seconds:.1f} s", flush=True)
    return results


def main() -> None:
    """Run the study, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="Compare the sensitivity methods on real models.")
    parser.add_argument("--models", default=",".join(SUBJECTS), help="names, with commas between them")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas between them")
    parser.add_argument("--quick", action="store_true", help=f"{FEW_PLANS} random plans instead of {PLANS}")
    parser.add_argument(
        "--seconds", type=float, default=LONGEST, help=f"about how long a method may take; {LONGEST}"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    asked = parser.parse_args()
    models, methods = asked.models.split(","), asked.methods.split(",")
    if unknown := sorted(set(models) - set(SUBJECTS)) + sorted(set(methods) - set(METHODS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*SUBJECTS, *METHODS])}")
    torch.set_num_threads(1)
    kept = zoo_folder() / "sensitivity-study"
    results = []
    for model in models:
        folder = kept / SUBJECTS[model].key
        if asked.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        found = study(model, methods, FEW_PLANS if asked.quick else PLANS, asked.seconds, folder)
        print_table(found)
        results += found
    if set(SHOWN) <= set(methods):
        PICTURE.write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    main()
