"""A Ray cluster of our own on loopback: plain processes, each node at an address of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "a-token-for-tests-and-nothing-else-0123456789"
_MEMORY = 100 * 2**20
_QUIET = ["--disable-usage-stats", "--include-log-monitor", "false", "--block"]


@dataclass
class Node:
    """The processes of one machine of the cluster."""

    process: subprocess.Popen[bytes]

    def processes(self) -> set[int]:
        """Everything that was started there and did not leave its session."""
        return {pid for pid in _pids() if _session(pid) == self.process.pid}

    def kill(self) -> None:
        """End all of it at once, as when the power fails."""
        pids = self.processes()
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)
        self.process.wait()

    def freeze(self) -> set[int]:
        """Stop all of it, as when its network fails; gives what was stopped."""
        pids = self.processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids


@dataclass
class RayCluster:
    """A head, and whatever joins it."""

    folder: Path
    path: str
    address: str = ""
    nodes: list[Node] = field(default_factory=list)
    _place: socket.socket = field(default_factory=socket.socket)

    @property
    def temporary(self) -> Path:
        """Where its processes put what is theirs alone."""
        return self.folder / "temporary"

    def start(self, *, cpus: int, gpus: int = 0) -> Node:
        """Start a node; it is the head where there is none."""
        alive = any(node.process.poll() is None for node in self.nodes)
        host = f"127.0.0.{len(self.nodes) + 2}"  # Ray takes 127.0.0.1 for the machine's address elsewhere
        if not alive:
            if not self.address:
                # Bound and never listened at: nobody else is given the port, and Ray may listen all the same.
                self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._place.bind((host, 0))
                self.address = f"{host}:{self._place.getsockname()[1]}"
            host = self.address.partition(":")[0]
            role = ["--head", "--port", self.address.rpartition(":")[2], "--temp-dir", str(self.folder)]
            role += ["--include-dashboard", "false"]
        else:
            role = ["--address", self.address]
        resources = ["--num-cpus", str(cpus), "--num-gpus", str(gpus), "--object-store-memory", str(_MEMORY)]
        with (self.folder / f"node{len(self.nodes)}.log").open("wb") as log:
            ray = Path(sys.executable).parent / "ray"
            process = subprocess.Popen(
                [str(ray), "start", "--node-ip-address", host, *role, *resources, *_QUIET],
                env=environment(self.path, self.temporary),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        node = Node(process)
        self.nodes.append(node)
        deadline = time.monotonic() + 900
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.1)
        return node


def environment(path: str, temporary: Path) -> dict[str, str]:
    """What `ray start` is given: enough to run, the token, and nothing of ours."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        "TMPDIR": str(temporary),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_task_oom_retries": "0",
        "RAY_memory_usage_threshold": "0.99",
    }


@contextmanager
def ray_cluster(path: Path) -> Iterator[RayCluster]:
    """A cluster without nodes; all that are started end with it.

    Args:
        path: Where its machines find the fake engine.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: it holds sockets
    cluster = RayCluster(folder, str(path))
    cluster.temporary.mkdir()
    try:
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.kill()
        cluster._place.close()
        shutil.rmtree(folder, ignore_errors=True)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _session(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None
