"""`make demo`: a service, the demo model sent through the client, a table of before and after.

The service runs in a folder of its own that is gone at the end; the results stay in `demo-out`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bitwright import BitwrightError, Client, ServiceUnreachableError
from bitwright.cli.tables import print_summary, standard_output

DATA = Path(__file__).parent / "data"
START_SECONDS = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: The command line; by default that of the process.

    Returns:
        The exit code: 0 if everything worked.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--model", type=Path, default=DATA / "resnet20_cifar10.onnx")
    parser.add_argument("--data", type=Path, default=DATA / "cifar10_calibration.npz")
    parser.add_argument("--size", default="0.18", help="ratio of the float file, or bytes such as 200KB")
    parser.add_argument("--bits", default=None, help="candidate weight bits, such as 2,4,8")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args(arguments)
    console = standard_output()
    try:
        with service(console) as url, Client(url) as client:
            console.print(
                f"Sending {options.model.name} with a budget of {options.size} to {url}", highlight=False
            )
            job = client.quantize(options.model, data=options.data, size=options.size, bits=options.bits)
            job.wait(progress=True)
            folder = job.download(options.out)
            print_summary(job.report(), console)
    except BitwrightError as error:
        console.print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    console.print(f"The model is {folder / 'model.onnx'}", highlight=False, soft_wrap=True)
    console.print(
        f"The report is {folder / 'report.html'}: open it in a browser.", highlight=False, soft_wrap=True
    )
    return 0


@contextmanager
def service(console: Console) -> Iterator[str]:
    """Run a service on a free port in a temporary folder.

    Args:
        console: Where to say so.

    Yields:
        Its address, once it answers.
    """
    with tempfile.TemporaryDirectory(prefix="bitwright-demo-") as folder:
        log = Path(folder) / "service.log"
        command = [
            sys.executable,
            "-m",
            "bitwright",
            "serve",
            "--port",
            "0",
            "--data-dir",
            f"{folder}/data",
        ]
        console.print("Starting a service: bitwright serve", highlight=False)
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                yield _await(process, log)
            finally:
                process.terminate()


def _await(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the service tells, once it answers there."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url := "".join(re.findall(r"listening on (http:\S+),", log.read_text()))):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BitwrightError(f"The service did not start:\n{log.read_text()}")
        time.sleep(0.1)
    return url


def _answers(url: str) -> bool:
    if not url:
        return False
    with Client(url, retries=0) as client:
        try:
            client.health()
        except ServiceUnreachableError:
            return False
        return True


if __name__ == "__main__":
    sys.exit(main())
