"""Lines of a worker, read while they are written."""

from __future__ import annotations

import json
from pathlib import Path

from app.executors.messages import Messages, say


def test_each_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    messages = Messages(tmp_path / "messages")
    messages.look()  # nobody has written yet
    assert messages.hand_on() == ((), ())
    step = {"stage": "export", "fraction": 0.5, "message": "half"}
    with messages.file.open("w", buffering=1) as file:
        say(file, "pid", 17)
        say(file, "begun", "now")
        say(file, "progress", step)
        say(file, "waits", step | {"message": "for a place"})
        say(file, "checkpoint", "one")
        outcome = json.dumps({"outcome": {"state": "canceled"}})
        file.write(outcome[:9])
        file.flush()
        messages.look()
        messages.look()
        steps, checkpoints = messages.hand_on()
        assert [each.message for each in steps] == ["half", "for a place"]
        assert (checkpoints, messages.pid, messages.said) == (("one",), 17, None)
        file.write(outcome[9:] + "\n")
        say(file, "checkpoint", "two")
    messages.look()
    assert messages.hand_on() == ((), ("two",))
    assert messages.said is not None
    assert messages.said.state == "canceled"
    assert messages.hand_on() == ((), ())
