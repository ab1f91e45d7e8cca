"""How fast an upload is, and how much memory the service needs for it, against writing and hashing the file locally.

    python -m benchmarks.upload --gigabytes 4

Both are measured in turn, in one run. The local way reads the file, hashes it with SHA-256 and writes a copy; the
upload is one `PUT /uploads/{id}` over loopback to a service of its own, which does the same with what it receives.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

_BLOCK = 2**20


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--gigabytes", type=float, default=1.0)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        source = folder / "source"
        size = int(chosen.gigabytes * 2**30)
        _fill(source, size)
        service, port = _start(folder / "data", size)
        try:
            before = _peak(service.pid)
            ratios = []
            for number in range(chosen.rounds):
                mine, its = time.process_time(), _processor(service.pid)
                local = _locally(source, folder / "copy")
                cost = time.process_time() - mine
                sent = _upload(source, port, f"round-{number}")
                ratios.append(local / sent)
                rate = size / 2**20
                print(
                    f"locally {rate / local:6.0f} MiB/s ({cost:.2f} s of CPU), uploaded {rate / sent:6.0f} MiB/s "
                    f"({_processor(service.pid) - its:.2f} s of CPU of the service), ratio {local / sent:.2f}"
                )
            print(f"median ratio {statistics.median(ratios):.2f} of the local speed, {size / 2**30:g} GiB")
            print(
                f"peak memory of the service {_peak(service.pid) / 2**20:.0f} MiB, {before / 2**20:.0f} before"
            )
        finally:
            service.terminate()
            service.wait(30)


def _fill(path: Path, size: int) -> None:
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(start.to_bytes(8, "little") + block[: min(_BLOCK, size - start) - 8])


def _locally(source: Path, target: Path) -> float:
    started = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        while block := file.read(_BLOCK):
            digest.update(block)
            out.write(block)
    digest.hexdigest()
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def _upload(source: Path, port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600, blocksize=_BLOCK)
    started = time.perf_counter()
    with source.open("rb", buffering=0) as file:
        headers = {"Content-Length": str(source.stat().st_size)}
        connection.request("PUT", f"/uploads/{name}", body=file, headers=headers)
        answer = connection.getresponse()
        said = answer.read()
    seconds = time.perf_counter() - started
    if answer.status != http.client.CREATED:
        raise SystemExit(f"the service answered {answer.status}: {said.decode()}")
    connection.request("DELETE", f"/uploads/{name}")
    connection.getresponse().read()
    connection.close()
    return seconds


def _start(data: Path, size: int) -> tuple[subprocess.Popen[bytes], int]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = os.environ | {"BITWRIGHT_UPLOAD_LIMIT": str(max(size, 4 * 2**30))}
    command = [sys.executable, "-m", "bitwright", "serve", "--port", str(port), "--data-dir", str(data)]
    service = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return service, port
    service.kill()
    raise SystemExit("the service did not start")


def _processor(pid: int) -> float:
    """CPU seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    """The most memory a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
