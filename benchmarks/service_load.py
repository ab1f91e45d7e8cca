"""Small jobs from many clients while workers and services are killed: `python -m benchmarks.service_load`.

Two services share one database and one storage. After every few jobs a worker process, or a whole service that answers,
is killed with SIGKILL; services are started again. (By jobs, not by seconds: on a busy machine a service would be
killed before it has started, and nothing would be learned.) Jobs are those of the tests' stand-in for the engine, so
that what is measured is the service. Fails unless every job ends exactly once, none is lost and none was queued twice.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

FAKES = Path(__file__).parents[1] / "tests" / "app" / "fakes"
ENDS = {"succeeded", "failed", "canceled"}


@dataclass
class Service:
    """A service process at a fixed address, which may be killed and started again."""

    folder: Path
    environment: dict[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it."""
        with (self.folder.parent / f"{self.port}.log").open("ab") as log:
            address = ["--port", str(self.port), "--data-dir", str(self.folder), "--devices", "cpu"]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bitwright", "serve", *address],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def answers(self) -> bool:
        """Whether it takes jobs."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def children(self) -> list[int]:
        """Processes that it started."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                if parent == self.process.pid:
                    found.append(int(entry.name))
        return found


@dataclass
class Tally:
    """What the clients saw.

    Attributes:
        looks: Seconds of each `GET /jobs/{id}` that was answered.
        ended: Jobs that were seen to have ended.
        unanswered: Requests that met a dead service.
        kills: How often what was killed.
    """

    looks: list[float] = field(default_factory=list)
    ended: int = 0
    unanswered: int = 0
    kills: collections.Counter[str] = field(default_factory=collections.Counter)


def samples() -> bytes:
    """A sample file that the stand-in does not read."""
    buffer = io.BytesIO()
    np.savez(buffer, input=np.zeros((4, 3), np.float32))
    return buffer.getvalue()


def run_job(services: list[Service], number: int, data: bytes, tally: Tally, done: threading.Event) -> str:
    """Send one job until a service has taken it, and look at it until it has ended.

    Args:
        services: Where to send it, at random.
        number: Number of the job.
        data: Its samples.
        tally: Told of every look.
        done: Set where all is given up.

    Returns:
        The job's id; empty if it was given up.
    """
    key, rng = uuid.uuid4().hex, random.Random(number)  # noqa: S311 - no secret
    job_id: str | None = None
    with httpx.Client(timeout=60, trust_env=False) as http:
        while not done.is_set():
            url = rng.choice(services).url
            try:
                if job_id is None:
                    files = {"model": ("m.onnx", b"\x08\x0a a small model"), "data": ("d.npz", data)}
                    answer = http.post(f"{url}/quantize", files=files, headers={"Idempotency-Key": key})
                    if answer.status_code == 202:
                        job_id = answer.json()["id"]
                    continue
                started = time.perf_counter()
                answer = http.get(f"{url}/jobs/{job_id}")
                tally.looks.append(time.perf_counter() - started)
                if answer.is_success and answer.json()["state"] in ENDS:
                    tally.ended += 1
                    return job_id
            except httpx.TransportError:
                tally.unanswered += 1
            done.wait(rng.uniform(0.5, 1.5))
    return ""


def kill_at_random(services: list[Service], every: float, done: threading.Event, tally: Tally) -> None:
    """Kill workers and services until all is done; what died is started again.

    Args:
        services: The services.
        every: Jobs that end between two kills, on average.
        done: Set at the end.
        tally: Tells how many jobs have ended; told of every kill.
    """
    rng = random.Random(0)  # noqa: S311 - no secret
    due = 0.0
    while not done.wait(rng.uniform(0.1, 1.0)):
        service = rng.choice(services)
        if tally.ended < due or not service.answers():
            continue
        due = tally.ended + rng.uniform(0.5, 1.5) * every
        assert service.process is not None
        children = service.children()
        if rng.random() < 0.25:
            service.process.kill()
            service.process.wait()
            tally.kills["services"] += 1
            service.start()
        elif children:
            try:
                os.kill(rng.choice(children), signal.SIGKILL)
                tally.kills["workers"] += 1
            except ProcessLookupError:
                continue


def verdict(service: Service, ids: list[str]) -> collections.Counter[str]:
    """Check that every job ended exactly once.

    Args:
        service: A service that answers.
        ids: The jobs that clients were given.

    Returns:
        How many jobs by state and attempts.

    Raises:
        SystemExit: If a job was lost, or ended more than once or not at all.
    """
    found: collections.Counter[str] = collections.Counter()
    with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
        total = http.get("/jobs", params={"limit": 1}).json()["total"]
        if total != len(ids) or len(set(ids)) != len(ids):
            raise SystemExit(f"{len(ids)} jobs were sent, {len(set(ids))} are different, {total} are there")
        for job_id in ids:
            job = http.get(f"/jobs/{job_id}").json()
            lines = http.get(f"/jobs/{job_id}/events").text.splitlines()
            states = [json.loads(line[5:]).get("state") for line in lines if line.startswith("data:")]
            if sum(state in ENDS for state in states) != 1 or job["state"] not in ENDS:
                raise SystemExit(f"job {job_id} went through {states}")
            has_model = http.get(f"/jobs/{job_id}/model").is_success
            if has_model != (job["state"] == "succeeded"):
                raise SystemExit(
                    f"job {job_id} {job['state']}, and its model is {'' if has_model else 'not '}there"
                )
            found[f"{job['state']} in attempt {job['attempt']}"] += 1
    return found


def main() -> None:
    """Run the load and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--every", type=float, default=8.0, help="jobs between two kills, on average")
    parser.add_argument("--database-url", default="", help="PostgreSQL; SQLite by default")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bitwright-load-") as name:
        folder = Path(name) / "data"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{FAKES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            **{f"BITWRIGHT_{part}": "fake_engine:validate" for part in ("VALIDATOR", "ANALYSIS_VALIDATOR")},
            "BITWRIGHT_ENGINE": "fake_engine:quantize",
            "BITWRIGHT_ANALYZER": "fake_engine:analyze",
            "BITWRIGHT_DATABASE_URL": chosen.database_url,
            "BITWRIGHT_LEASE_SECONDS": "10",
            "BITWRIGHT_RENEW_SECONDS": "1",
            "BITWRIGHT_MAX_INTERRUPTIONS": "20",
        }
        services = [Service(folder, environment, _free_port()) for _ in range(2)]
        for service in services:
            service.start()
        _wait_for(services)
        tally, done, data = Tally(), threading.Event(), samples()
        killer = threading.Thread(target=kill_at_random, args=(services, chosen.every, done, tally))
        started = time.monotonic()
        try:
            killer.start()
            with ThreadPoolExecutor(chosen.clients) as clients:
                sent = [clients.submit(run_job, services, n, data, tally, done) for n in range(chosen.jobs)]
                try:
                    ids = [future.result() for future in sent]
                except BaseException:
                    done.set()  # or the clients would wait for ever
                    raise
            seconds = time.monotonic() - started
            done.set()
            killer.join()
            _wait_for(services)
            found = verdict(services[0], ids)
        finally:
            done.set()
            killer.join()
            for service in services:
                assert service.process is not None
                service.process.kill()
                service.process.wait()
    looks = sorted(tally.looks)
    print(
        f"{chosen.jobs} jobs from {chosen.clients} clients in {seconds:.0f} s; every job ended exactly once"
    )
    print(f"killed: {dict(tally.kills)}; requests that met a dead service: {tally.unanswered}")
    print("; ".join(f"{count} {what}" for what, count in sorted(found.items())))
    print(
        f"GET /jobs/{{id}}: {len(looks)} answers, median {1000 * statistics.median(looks):.1f} ms, "
        f"99th percentile {1000 * looks[int(0.99 * (len(looks) - 1))]:.1f} ms"
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_for(services: list[Service]) -> None:
    deadline = time.monotonic() + 120
    while not all(service.answers() for service in services):
        if time.monotonic() > deadline:
            raise SystemExit("the services do not start; see their logs")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
