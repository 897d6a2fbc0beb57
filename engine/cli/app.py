"""The ``forebay`` command: its options, its list of commands, and what becomes of errors.

A command's module is imported when the command is run, so that ``forebay --help`` is quick.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

import click

from forebay import __version__
from forebay.cli.session import Session, common_options
from forebay.cli.text import printable
from forebay.errors import ConfigError, NotAttached

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2


class _Entry(NamedTuple):
    module: str
    help: str


# The one list of commands. The help stands here too, so that showing it imports nothing.
_COMMANDS: Final = {
    "attach": _Entry("attach", "Attach an under storage as a dataset."),
    "cat": _Entry("cat", "Write objects to standard output."),
    "check": _Entry("check", "Verify the cache, and repair it."),
    "datasets": _Entry("attach", "List the attached datasets."),
    "detach": _Entry("attach", "Detach a dataset and free what is cached of it."),
    "ls": _Entry("ls", "List directories."),
    "stat": _Entry("ls", "Describe objects and directories."),
    "status": _Entry("status", "Show what the cache holds and does."),
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"forebay.cli.{entry.module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
@click.version_option(__version__, prog_name="forebay")
def app() -> None:
    """A local cache for training data that many processes share without a daemon.

    Paths are DATASET/REST/OF/PATH. The options may stand before or behind the command.
    """


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return the exit code, having said on standard error what went wrong."""
    session = Session()
    try:
        result = app.main(arguments, prog_name="forebay", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is still buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("forebay: interrupted", err=True)
        return FAILED
    except (OSError, LookupError, ValueError) as error:
        complain(error, verbose=session.verbosity > 0)
        return WRONG_USAGE if isinstance(error, ValueError) else FAILED
    return result if isinstance(result, int) else DONE


def complain(error: Exception, *, verbose: bool = False) -> None:
    """Say on standard error what failed, where, and what can be done about it."""
    if verbose:
        traceback.print_exception(error)
    hint = _hint(error)
    click.echo(f"forebay: {printable(_words(error))}" + (f"\n  {hint}" if hint else ""), err=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _hint(error: Exception) -> str:
    if isinstance(error, ConfigError | NotAttached):
        return ""
    if isinstance(error, PermissionError):
        return "check the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, attach --profile) and what they allow"
    if isinstance(error, FileNotFoundError):
        return "see what there is with `forebay ls`"
    if isinstance(error, OSError):
        return "check that the under storage can be reached: `forebay datasets` shows where it is"
    return ""
