"""Time our trace estimators beside PyHessian and curvlinops: `python -m benchmarks.sensitivity_speed`.

All see the same trained network of ResNet-18's shape (64 x 64 inputs, 10 classes, batch norms folded), the same 16
images and the same number of threads, and take their probes in turn. A method that needs t seconds a probe, whose
probes of a layer have the coefficient of variation c, needs `t * (c / 0.05)^2` seconds until that layer's trace has 5 %
standard error; nobody waits for that here, it is extrapolated from the probes that were taken, and c itself is known to
about `1 / sqrt(2 * probes)`.

`--workers N` compares one process with several instead: the same probes, one thread each, beside what the machine
gives to as many independent copies of the one process.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.contestants import Contestant, Ours, curvlinops, loss_of, pyhessian
from benchmarks.speed.processes import compare_workers
from benchmarks.speed.resnet18 import trained

BATCH = 16
TARGET = 0.05


def main() -> None:
    """Run the comparison that is asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="threads of every method")
    parser.add_argument(
        "--probes", type=int, default=12, help="probes of the slow methods; fast ones take more"
    )
    parser.add_argument("--batch", type=int, default=0, help="which 16 images; the probes' seeds go with it")
    parser.add_argument("--workers", type=int, help="compare one process with this many")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "bitwright" / "speed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net, path, images, classes = trained(options.cache)
    loss, accuracy = loss_of(net, images, classes)
    print(f"cross entropy {loss:.3f}, accuracy {accuracy:.1%} on {len(images)} unseen digits")
    first = BATCH * options.batch
    if first + BATCH > len(images):
        parser.error(f"there are {len(images) // BATCH} batches")
    images, classes = images[first : first + BATCH], classes[first : first + BATCH]
    names = [name for name, weight in net.named_parameters() if weight.dim() > 1]
    ours = Ours.read(path, names, images)
    if options.workers:
        compare_workers(ours, path, options.workers)
        return
    exact, wall, cpu = ours.exact()
    contestants = [
        *ours.contestants(10 * options.probes, options.batch),
        *pyhessian(net, images, classes, options.probes, options.batch),
        *curvlinops(net, images, classes, options.probes, options.batch),
    ]
    _race(contestants)
    _report(contestants, exact, wall, cpu, options.threads)


def _race(contestants: list[Contestant]) -> None:
    """Let the methods take their probes in turn, so that what else the machine does meets all of them."""
    for contestant in contestants:
        contestant.probe()  # memory and kernels are set up here
    rounds = max(contestant.probes for contestant in contestants)
    for number in range(rounds):
        for contestant in contestants:
            if number * contestant.probes // rounds != (number + 1) * contestant.probes // rounds:
                contestant.step()


def _report(contestants: list[Contestant], exact: np.ndarray, wall: float, cpu: float, threads: int) -> None:
    print(f"\n{threads} thread(s) of {os.cpu_count()}; load {os.getloadavg()[0]:.1f}; {len(exact)} layers\n")
    head = f"{'method':<42}{'probes':>7}{'s/probe':>9}{'CPU s':>8}{'to 5 %: median':>16}{'worst':>11}{'CPU median':>12}"
    print(head)
    print("-" * len(head))
    needed: dict[str, float] = {}
    for c in contestants:
        table = np.array(c.estimates)
        variation = table.std(axis=0, ddof=1) / np.abs(exact)
        probes = (variation / TARGET) ** 2
        t, spent = float(np.median(c.seconds)), float(np.median(c.cpu))
        needed[c.name] = spent * float(np.median(probes))
        median, worst = t * np.median(probes), t * probes.max()
        print(
            f"{c.name:<42}{len(table):>7}{t:>9.3f}{spent:>8.3f}{median:>14.1f} s{worst:>9.1f} s"
            f"{needed[c.name]:>10.1f} s"
        )
    print(
        f"{'ours: gauss_newton, exact':<42}{'':>7}{'':>9}{'':>8}{wall:>14.1f} s{wall:>9.1f} s{cpu:>10.1f} s"
    )
    own = needed["ours: gauss_newton"]
    hessian = min(needed[c.name] for c in contestants if c.kind == "hessian")
    block = min(needed[c.name] for c in contestants if c.kind == "hessian" and "joint" not in c.name)
    newton = min(needed[c.name] for c in contestants if c.kind == "gauss_newton")
    print(
        "\nProcessor seconds until the median layer is known to 5 %, by the best of the others over ours:"
        f"\n  one block of the Hessian a product {block / own:8.1f} x"
        f"\n  any estimate of the Hessian        {hessian / own:8.1f} x"
        f"\n  Gauss-Newton of curvlinops         {newton / own:8.1f} x"
    )
    print("\nMean of each method over the exact Gauss-Newton trace, median layer, with its standard error:")
    for c in contestants:
        table = np.array(c.estimates) / exact
        error = table.std(axis=0, ddof=1) / len(table) ** 0.5
        print(f"  {c.name:<42}{np.median(table.mean(axis=0)):7.3f} ± {np.median(error):.3f}")


if __name__ == "__main__":
    main()
