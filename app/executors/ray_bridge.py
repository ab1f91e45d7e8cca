"""The process between a service and a Ray cluster: what Ray does to its drivers is not done to the service.

It reads JSON lines from its standard input (the terms, then what to submit and what to cancel), and writes to its
standard output what the cluster has room for. When the input ends without a word, as it does when the service is
killed, it leaves what runs to the next attempts; told to close, it ends all of it first.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from typing import TextIO

import ray

from app.executors.ray_attempt import BROKEN, NAMESPACE, Attempt, Terms
from app.executors.ray_task import decode

_log = logging.getLogger("bitwright.ray")

_ROOM_SECONDS = 0.5
_CLOSE_SECONDS = 15.0


def main() -> None:
    """Serve a service until its end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints what it sees happen in the cluster
    told = json.loads(sys.stdin.readline())
    terms = Terms(**told["terms"])
    asked_for: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    connected = threading.Event()
    threading.Thread(target=_listen, args=(asked_for, connected), daemon=True).start()
    ray.init(address=told["address"], namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    connected.set()
    threading.Thread(target=_tell_room, args=(terms, answers), daemon=True).start()
    attempts: dict[str, Attempt] = {}
    closing = False
    for line in iter(asked_for.get, None):
        asked = json.loads(line)
        if "submit" in asked:
            attempt = Attempt(decode(asked["submit"]), asked["gpus"], terms)
            attempts[attempt.name] = attempt
            attempt.start()
        elif "cancel" in asked and asked["cancel"] in attempts:
            attempts[asked["cancel"]].stop.set()
        elif "close" in asked:
            closing = True
        attempts = {name: attempt for name, attempt in attempts.items() if attempt.is_alive()}
    if closing:
        _end(tuple(attempts.values()))
    os._exit(0)  # attempts are still followed; what they follow outlives this process


def _listen(asked_for: queue.SimpleQueue[str | None], connected: threading.Event) -> None:
    for line in sys.stdin:
        asked_for.put(line)
    if not connected.is_set():  # Ray tries for minutes, for nobody now
        os._exit(0)
    asked_for.put(None)


def _end(attempts: tuple[Attempt, ...]) -> None:
    for attempt in attempts:
        attempt.stop.set()
    deadline = time.monotonic() + _CLOSE_SECONDS
    for attempt in attempts:
        attempt.join(max(0.0, deadline - time.monotonic()))


def _tell_room(terms: Terms, answers: TextIO) -> None:
    try:
        while True:
            total, free = ray.cluster_resources(), ray.available_resources()
            room = {
                name: {"gpus": int(of.get("GPU", 0)), "cpus": int(of.get("CPU", 0) / terms.cpus)}
                for name, of in (("total", total), ("free", free))
            }
            answers.write(json.dumps(room) + "\n")
            time.sleep(_ROOM_SECONDS)
    except BrokenPipeError:  # the service is gone
        return
    except Exception:
        _log.exception("the way to the cluster is broken")
        os._exit(BROKEN)


if __name__ == "__main__":
    main()
