"""What `--help` says, page by page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bitwright.cli.app import app


def _pages(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _pages(one, (*words, name))


PAGES = list(_pages(get_command(app)))


def _said(words: tuple[str, ...]) -> str:
    ended = CliRunner().invoke(app, [*words, "--help"], terminal_width=80, prog_name="bitwright")
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.mark.parametrize(("words", "command"), PAGES, ids=[" ".join(words) or "-" for words, _ in PAGES])
def test_every_page_is_whole_and_names_what_to_write(words: tuple[str, ...], command: Any) -> None:
    said = _said(words)
    short = CliRunner().invoke(app, [*words, "-h"], terminal_width=80, prog_name="bitwright")
    assert short.output == said
    assert "..." not in said.replace("[ARGS]...", "")  # no sentence is cut off
    assert re.findall(r"<\w+[^>]*>", said) == []  # SIZE, not <str>
    assert "{" not in said
    assert [p.name for p in command.params if p.name not in ("help", "json") and not p.help] == []


def test_options_stand_under_headings_in_the_order_a_newcomer_needs_them() -> None:
    said = _said(("quantize",))
    headings = [
        "Arguments:",
        "Options:",
        "Budgets",
        "What may be chosen:",
        "Single layers",
        "How sensitivities are measured:",
        "How weights and activations are rounded",
        "Example:",
    ]
    places = [said.index(f"\n{heading}") for heading in headings]
    assert places == sorted(places)
    assert places[2] < said.index("--size") < places[3]
    assert said.index("--data") < said.index("--out DIR") < places[2]
    assert _said(("submit",)).count("--url") == 1


def test_commands_stand_under_what_they_are_for() -> None:
    said = _said(())
    assert said.index("  quantize  ") < said.index("Look at a model") < said.index("  inspect ")
    assert said.index("Have it done by a service") < said.index("  submit ") < said.index("Run a service")


@pytest.mark.parametrize("command", [one for _, one in PAGES if one.epilog], ids=lambda one: one.name)
def test_examples_hold_commands_and_options_that_exist(command: Any) -> None:
    known = {words[0]: page for words, page in PAGES if len(words) == 1}
    for line in command.epilog.splitlines():
        first, name, *rest = shlex.split(line.replace("export BITWRIGHT_URL=", "bitwright wait "))
        assert first == "bitwright"
        given = [word for word in rest if word.startswith("--")]
        assert set(given) <= {option for parameter in known[name].params for option in parameter.opts}
