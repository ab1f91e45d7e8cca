"""Time of whole jobs, stage by stage, beside what NVIDIA ModelOpt's `auto_quantize` takes for its search alone.

    pip install --no-deps --target ~/.cache/bitwright/modelopt -r benchmarks/peers/modelopt.txt
    python -m benchmarks.job_time
    python -m benchmarks.job_time --models resnet18 minilm --effort fast --threads 1

ResNet-18 for 1,000 classes on 32 images of 224 x 224: photographs of the zoo and their mirror images, random weights
under batch norms with the statistics of these images. Ours goes from the float file to the verified file and its
report; ModelOpt's search chooses bits for each layer by gradients over the same images and writes no file: among 4 and
8 bits, among the six widths that ours chooses from, and between two formats that it has names for. Each runs in a
process of its own with the same number of threads; what importing takes is not counted on either side. On a machine
with other work only processor seconds mean anything.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo import zoo_folder

_SIZES = {"resnet18": 0.15, "resnet20": 0.18, "efficientnet-lite0": 0.20, "minilm": 0.25}
_IMAGES, _BATCH, _CLASSES = 32, 8, 1000
_SEARCHED: Mapping[str, tuple[tuple[int | str, ...], float]] = {
    "modelopt-two": ((4, 8), 6.0),
    "modelopt-six": ((2, 3, 4, 5, 6, 8), 4.8),
    # Its own default, NVFP4 and FP8, needs a GPU.
    "modelopt-named": (("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG"), 4.8),
}  # widths of channels or names of formats, and bits on average


def main() -> None:
    """Run the jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="*", default=[*_SIZES], choices=[*_SIZES])
    parser.add_argument("--effort", default="balanced", choices=["fast", "balanced", "best"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-modelopt", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(
            json.dumps(_CHILDREN[arguments.child](arguments.models[0], arguments.effort, arguments.threads))
        )
        return
    print(
        f"{arguments.threads} threads on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, effort "
        f"{arguments.effort}; wall / processor seconds"
    )
    for model in arguments.models:
        made = _files(model)
        ours = _run("ours", model, arguments)
        stages = ", ".join(f"{name} {wall:.1f} / {cpu:.1f}" for name, (wall, cpu) in ours["stages"].items())
        print(f"{model} ({made.name}): {ours['wall']:.1f} / {ours['cpu']:.1f}; {stages}")
        print(f"  {ours['bytes']:,} bytes, {ours['sqnr']:.1f} dB, {ours['memory'] >> 20} MB at most")
        if model == "resnet18" and not arguments.no_modelopt:
            for child, (formats, bits) in _SEARCHED.items():
                theirs = _run(child, model, arguments)
                ratio = ours["wall"] / theirs["wall"], ours["cpu"] / theirs["cpu"]
                print(
                    f"  ModelOpt's search alone, {', '.join(map(str, formats))}, {bits} bits on average: "
                    f"{theirs['wall']:.1f} / {theirs['cpu']:.1f}; our whole job takes {ratio[0]:.2f} / "
                    f"{ratio[1]:.2f} of it"
                )


def _run(child: str, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    threads = str(arguments.threads)
    command = [sys.executable, "-m", "benchmarks.job_time", "--child", child, "--models", model]
    command += ["--effort", arguments.effort, "--threads", threads]
    environment = os.environ | {"OMP_NUM_THREADS": threads, "ORT_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _ours(model: str, effort: str, threads: int) -> dict[str, Any]:
    import torch

    from quant_core.pipeline import quantize
    from quant_core.spec import Progress, QuantizeSpec

    torch.set_num_threads(threads)
    folder = _files(model)
    stages: dict[str, tuple[float, float]] = {}
    stage, wall, cpu = "ingest", time.perf_counter(), time.process_time()

    def told(progress: Progress) -> None:
        nonlocal stage, wall, cpu
        now, spent = (time.perf_counter(), time.process_time()), stages.get(stage, (0.0, 0.0))
        stages[stage] = (spent[0] + now[0] - wall, spent[1] + now[1] - cpu)
        stage, wall, cpu = progress.stage, *now

    spec = QuantizeSpec.model_validate({"size": _SIZES[model], "effort": effort})
    with tempfile.TemporaryDirectory() as out:
        began, begun = time.perf_counter(), time.process_time()
        report = quantize(folder / "model.onnx", folder / "samples.npz", spec, Path(out) / "job", told)
        whole = time.perf_counter() - began, time.process_time() - begun
    return {
        "wall": whole[0],
        "cpu": whole[1],
        "stages": stages,
        "bytes": report.model.quantized_bytes,
        "sqnr": report.metrics.sqnr_db,
        "memory": report.peak_memory_bytes,
    }


def _modelopt(child: str, model: str, _: str, threads: int) -> dict[str, Any]:
    import torch

    place = zoo_folder().parent / "modelopt"
    if not place.exists():
        raise ModuleNotFoundError(
            f"ModelOpt is not installed: pip install --no-deps --target {place} "
            "-r benchmarks/peers/modelopt.txt"
        )
    sys.path.insert(
        0, str(place)
    )  # holds neither torch nor numpy, and an older antlr4 than other packages want
    import modelopt.torch.quantization as mtq

    torch.set_num_threads(threads)
    folder = _files(model)
    net = _resnet18()
    net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    images = torch.from_numpy(np.load(folder / "samples.npz")["input"])
    wanted, bits = _SEARCHED[child]
    formats = [getattr(mtq, each) if isinstance(each, str) else _by_channel(each) for each in wanted]
    batches = list(torch.split(images, _BATCH))
    wall, cpu = time.perf_counter(), time.process_time()
    mtq.auto_quantize(
        net.eval(),
        constraints={"effective_bits": bits},
        quantization_formats=formats,
        data_loader=batches,
        forward_step=lambda module, batch: module(batch),
        loss_func=lambda found, _: torch.nn.functional.cross_entropy(found, found.detach().argmax(1)),
        num_calib_steps=len(batches),
        num_score_steps=len(batches),
        verbose=False,
    )
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _by_channel(width: int) -> dict[str, Any]:
    """Weights of so many bits and a scale for each channel, activations of 8, as ModelOpt asks for a format."""
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": width, "axis": 0}},
            {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
        ],
        "algorithm": "max",
    }


_CHILDREN: dict[str, Callable[[str, str, int], dict[str, Any]]] = {"ours": _ours} | {
    child: functools.partial(_modelopt, child) for child in _SEARCHED
}


def _files(model: str) -> Path:
    """Folder with `model.onnx` and `samples.npz`."""
    if model != "resnet18":
        return zoo_folder() / model
    folder = zoo_folder().parent / "job_time"
    if not (folder / "model.onnx").exists():
        _make(folder)
    return folder


def _resnet18() -> Any:
    from torch import nn

    from benchmarks.speed.resnet18 import ResNet18

    net = ResNet18()
    net.fc = nn.Linear(512, _CLASSES)
    return net


def _make(folder: Path) -> None:
    import torch
    from torch import nn

    from benchmarks.recipes.torch_export import export

    folder.mkdir(parents=True, exist_ok=True)
    photographs = np.load(zoo_folder() / "efficientnet-lite0" / "samples.npz")
    images = torch.from_numpy(photographs["input"])
    images = torch.cat([images, images.flip(3)])[:_IMAGES].contiguous()
    torch.manual_seed(0)
    net = _resnet18()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all that is seen
    with torch.no_grad():
        net.train()(images)
    net.eval()
    torch.save(net.state_dict(), folder / "weights.pt")
    np.savez(folder / "samples.npz", input=images.numpy())
    batch = torch.export.Dim("batch", min=1, max=4096)
    path = folder / "model.onnx"
    export(net, (images[:2],), path, inputs=["input"], output="logits", dynamic=({0: batch},))


if __name__ == "__main__":
    main()
