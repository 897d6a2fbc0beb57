"""docs/cli.md against the commands, options and settings that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from forebay.cli.app import app
from forebay.settings import SETTINGS

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
CHAPTERS = ("What all commands have", "Settings")


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Context]]:
    """Yield every command with its name as it is typed."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner.command_path.removeprefix("forebay "), inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


COMMANDS = dict(commands(app, click.Context(app, info_name="forebay")))
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}


def listed_options(section: str) -> set[str]:
    """Return the options in the first column of a section's table, without what they take."""
    rows = re.findall(r"^\| (`-[^|]*)\|", section, flags=re.MULTILINE)
    return {option.split()[0] for row in rows for option in re.findall(r"`([^`]*)`", row)}


def own_options(command: click.Command) -> set[str]:
    """Return the options of a command that not every command has."""
    shared = {opt for parameter in app.params for opt in parameter.opts}
    found = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    own = [option for option in found if not shared.issuperset(option.opts)]
    return {opt for option in own for opt in (*option.opts, *option.secondary_opts)}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert list(SECTIONS) == [*CHAPTERS, *COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_options_and_example(name: str) -> None:
    section, context = SECTIONS[name], COMMANDS[name]
    usage = " ".join(context.command.get_usage(context).split()).removeprefix("Usage: ")
    assert f"\n`{usage}`\n" in section
    assert listed_options(section) == own_options(context.command)
    assert f"\n```\n$ forebay {name}" in section


def test_options_that_all_commands_have() -> None:
    shared = {opt for parameter in app.params for opt in parameter.opts} - {"--version"}
    assert listed_options(SECTIONS["What all commands have"]) == shared
    for name, context in COMMANDS.items():
        opts = {opt for parameter in context.command.params for opt in parameter.opts}
        assert shared <= opts, name


def test_examples_are_good_usage() -> None:
    lines = re.findall(r"^\$ (forebay [^|>\n]*)", PAGE, flags=re.MULTILINE)
    assert len(lines) >= len(COMMANDS)
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = COMMANDS[name].command
        # Parsing alone refuses unknown options, wrong values and missing arguments.
        command.make_context(name, arguments, parent=click.Context(app, info_name="forebay"))


def test_settings() -> None:
    rows = re.findall(r"^\| (`[a-z_][^|]*)\|", SECTIONS["Settings"], flags=re.MULTILINE)
    assert [key for row in rows for key in re.findall(r"`([^`]*)`", row)] == [s.key for s in SETTINGS]
