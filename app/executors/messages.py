"""What a worker tells of one attempt: JSON lines in a file, which outlive whoever wrote them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from app.executors.protocol import Outcome
from quant_core.spec import Progress


@dataclass
class Messages:
    """A file of messages, as far as it was read.

    Attributes:
        file: The file; it need not be there yet.
        read: Bytes that were read.
        steps: What was read and not yet handed on.
        checkpoints: Likewise.
        pid: The process, once it said so.
        said: How the attempt ended, in the worker's own words.
    """

    file: Path
    read: int = 0
    steps: list[Progress] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    pid: int | None = None
    said: Outcome | None = None

    def look(self) -> None:
        """Read what was written since the last look."""
        with contextlib.suppress(FileNotFoundError), self.file.open("rb") as lines:
            lines.seek(self.read)
            for line in lines:
                if not line.endswith(b"\n"):  # still being written
                    break
                self.read += len(line)
                message = json.loads(line)
                if step := message.get("progress") or message.get("waits"):
                    self.steps.append(Progress.model_validate(step))
                elif "checkpoint" in message:
                    self.checkpoints.append(message["checkpoint"])
                elif "pid" in message:
                    self.pid = message["pid"]
                elif "outcome" in message:
                    self.said = Outcome.model_validate(message["outcome"])

    def hand_on(self) -> tuple[tuple[Progress, ...], tuple[str, ...]]:
        """Give what was read and not yet given.

        Returns:
            Steps and names of checkpoints.
        """
        steps, self.steps = tuple(self.steps), []
        checkpoints, self.checkpoints = tuple(self.checkpoints), []
        return steps, checkpoints


def say(messages: TextIO, kind: str, content: object) -> None:
    """Write one message.

    Args:
        messages: The file, buffered by lines.
        kind: `pid`, `progress`, `checkpoint` or `outcome`; from a cluster also `begun` and `waits`.
        content: What JSON can hold.
    """
    messages.write(json.dumps({kind: content}) + "\n")
