"""How `--help` reads: options under headings, whole sentences, and an example."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

ARGUMENTS = "Arguments"
OPTIONS = "Options"
COMMANDS = "Commands"


class _Example:
    epilog: str | None

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        """Write the example as it is typed, line by line.

        Args:
            _ctx: The call.
            formatter: Where to write.
        """
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class SectionedCommand(_Example, TyperCommand):
    """A command whose options stand under the headings that they name, with an example at the end."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name arguments as they are explained.

        Args:
            ctx: The call.

        Returns:
            What stands behind the command's name.
        """
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, heading by heading.

        Args:
            ctx: The call.
            formatter: Where to write.
        """
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                sections.setdefault(ARGUMENTS, []).append((parameter.metavar or record[0], record[1]))
            else:
                heading = getattr(parameter, "rich_help_panel", None) or OPTIONS
                sections.setdefault(heading, []).append(record)
        _write(sections, formatter)


class SectionedGroup(_Example, TyperGroup):
    """Commands under the headings that they name, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, heading by heading.

        Args:
            ctx: The call.
            formatter: Where to write.
        """
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                heading = getattr(command, "rich_help_panel", None)
                said = command.get_short_help_str(limit=1000)
                sections.setdefault(heading if isinstance(heading, str) else COMMANDS, []).append(
                    (name, said)
                )
        _write(sections, formatter)


def _write(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for heading, records in sections.items():
        with formatter.section(heading):
            formatter.write_dl(records)
