"""A service that ended without a word is noticed by the others of its machine, a living one is left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from app.jobs import presence
from app.jobs.presence import Presence


def test_nobody_is_taken_for_dead_before_it_has_locked_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, seen = Presence(tmp_path), []
    lock = presence._lock

    def looked_at(file: IO[bytes]) -> bool:
        if len(seen) == 0:
            seen.append(())
            seen[0] = old.dead()
        return lock(file)

    monkeypatch.setattr(presence, "_lock", looked_at)
    new = Presence(tmp_path)
    assert seen == [()]
    assert old.dead() == new.dead() == ()
    for made in (old, new):
        made.leave()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_half_made_or_half_removed_go_after_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = Presence(tmp_path)
    (tmp_path / f".{living.folder.name}0").mkdir()  # of one that was killed before it was seen
    gone = Presence(tmp_path)
    (gone.folder / "file").touch()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        gone.leave()
    left = [folder for folder in tmp_path.iterdir() if folder != living.folder]
    assert len(left) == 2
    living.tidy()
    assert all(folder.exists() for folder in left)  # it could be at work
    for folder in left:
        os.utime(folder, (0, 0))
    assert living.dead() == ()
    living.tidy()
    assert list(tmp_path.iterdir()) == [living.folder]
    living.leave()


def test_only_the_dead_are_found_and_buried(tmp_path: Path) -> None:
    one, two = Presence(tmp_path), Presence(tmp_path)
    assert one.holder != two.holder
    assert one.dead() == two.dead() == ()
    code = "import os, sys; from pathlib import Path; from app.jobs.presence import Presence\n"
    code += "made = Presence(Path(sys.argv[1])); print(made.holder, flush=True); os._exit(9)"
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root, check=False
    )
    gone = run.stdout.strip()
    assert one.dead() == two.dead() == (gone,)
    (tmp_path / "another-host+1+abc").mkdir()
    (tmp_path / "another-host+1+abc" / "lock").touch()
    assert one.dead() == (gone,)  # of other machines nothing is known
    one.bury(gone)
    assert two.dead() == ()
    one.leave()
    assert two.dead() == ()
    assert not one.folder.exists()
    two.leave()
