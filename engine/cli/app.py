"""The ``forebay`` command: its options, its list of commands, and what becomes of errors.

A command's module is imported when the command is run, so that ``forebay --help`` is quick.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from forebay import __version__
from forebay.cli.interrupt import INTERRUPTED, say_nothing_if_undone
from forebay.cli.session import Session, common_options, logging_to_stderr
from forebay.cli.text import printable
from forebay.errors import (
    ConfigError,
    NotAttached,
    NotFound,
    PinLimit,
    Stale,
    StoreBusy,
    UnderStorageError,
)

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2

# With these a write is refused, and not for want of access rights.
_REFUSALS: Final = (errno.EROFS, errno.EOPNOTSUPP, errno.EEXIST, errno.EXDEV, errno.EDQUOT)

# What writing to a file can come to; errors of tiers and destinations name theirs.
_OUTPUT_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Entry(NamedTuple):
    module: str
    help: str


# The one list of commands. The help stands here too, so that showing it imports nothing.
_COMMANDS: Final = {
    "attach": _Entry("attach", "Attach an under storage as a dataset."),
    "bench": _Entry("bench", "Measure what the tiers give on this machine."),
    "cancel": _Entry("load", "Stop a load for good."),
    "cat": _Entry("cat", "Write objects to standard output."),
    "check": _Entry("check", "Verify the cache, and repair it."),
    "completion": _Entry("completion", "Print the completion script for a shell."),
    "cp": _Entry("cp", "Copy objects to local files."),
    "datasets": _Entry("attach", "List the attached datasets."),
    "detach": _Entry("attach", "Detach a dataset and free what is cached of it."),
    "du": _Entry("du", "Count objects and bytes, and how many are cached."),
    "free": _Entry("free", "Drop cached data, or what is known of objects."),
    "jobs": _Entry("jobs", "List loads, and show one."),
    "load": _Entry("load", "Bring datasets or parts of them into the cache."),
    "locate": _Entry("locate", "Say which hosts have what is cached."),
    "ls": _Entry("ls", "List directories."),
    "manifest": _Entry("manifest", "Make, switch and carry versions of a dataset."),
    "mkdir": _Entry("put", "Make directories."),
    "mount": _Entry("mount", "Show a dataset as files, through the kernel."),
    "mv": _Entry("put", "Rename an object or a directory."),
    "pin": _Entry("policy", "Keep paths from eviction."),
    "policy": _Entry("policy", "Say what holds for paths: what is cached, where and for how long."),
    "put": _Entry("put", "Write local files to the under storage."),
    "quota": _Entry("attach", "Limit what is cached of a dataset."),
    "record": _Entry("record", "Run a command, and record what it reads."),
    "replicas": _Entry("policy", "Have copies on several members of the group."),
    "resume": _Entry("load", "Go on with a load that was interrupted."),
    "rm": _Entry("put", "Remove objects and directories."),
    "schedules": _Entry("schedules", "List the schedules of loads, and remove one."),
    "serve": _Entry("serve", "Serve this host's cache directory to a group."),
    "stat": _Entry("ls", "Describe objects and directories."),
    "status": _Entry("status", "Show what the cache holds and does."),
    "sync": _Entry("free", "Ask the under storage anew what there is."),
    "token": _Entry("token", "Make the tokens that callers show to members of a group."),
    "top": _Entry("top", "Show what goes on, live."),
    "trace": _Entry("record", "List and show traces: what was read, in order."),
    "ttl": _Entry("policy", "Free paths some time after they were cached."),
    "umount": _Entry("mount", "End a mount."),
    "unpin": _Entry("policy", "Let paths be evicted again."),
    "whatif": _Entry("whatif", "Show what a cache of another size would have made of a trace."),
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
    # Known before anything is parsed, for what cannot be parsed is told of in JSON as well.
    session = Session(as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
    if arguments is None:
        _make_output_encodable()
    with logging_to_stderr():
        try:
            result = app.main(arguments, prog_name="forebay", standalone_mode=False, obj=session)
            sys.stdout.flush()
        except SystemExit as end:  # a completion that was asked for has been answered
            return end.code if isinstance(end.code, int) else DONE
        except BrokenPipeError:
            # Whoever read our output has enough of it.
            _discard_output()
            return FAILED
        except (click.Abort, KeyboardInterrupt):
            click.echo("forebay: interrupted", err=True)
            return INTERRUPTED
        except Exception as error:  # noqa: BLE001  (the last resort: told as one line, with -v in full)
            return _fail(error, session)
    return result if isinstance(result, int) else DONE


def _make_output_encodable() -> None:
    """Let what the terminal's encoding does not have be escaped rather than be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is still buffered cannot be written, and must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception, session: Session) -> int:
    say_nothing_if_undone()
    # Before 8.2 click shows the help of a bare `forebay` by itself.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        assert isinstance(error, click.UsageError)
        error.show()
        return WRONG_USAGE
    if isinstance(error, OSError) and is_of_output(error):
        error.filename = "standard output"
        _discard_output()
    complain(error, verbose=session.verbosity > 0, as_json=session.as_json)
    if isinstance(error, click.ClickException):
        return error.exit_code
    return WRONG_USAGE if isinstance(error, ValueError) and _is_ours(error) else FAILED


def is_of_output(error: OSError) -> bool:
    """Say whether it is our own output that cannot be written: then nothing that follows matters."""
    is_nameless = error.filename is None and error.errno in _OUTPUT_ERRNOS
    return is_nameless or isinstance(error, BrokenPipeError)


def complain(error: Exception, *, verbose: bool = False, as_json: bool = False) -> None:
    """Say on standard error, in a line, what failed, where, and what can be done about it."""
    if verbose:
        for line in "".join(traceback.format_exception(error)).splitlines():
            click.echo(printable(line), err=True)
    words, hint = _words(error).removesuffix("."), _hint(error)
    if as_json:
        told: dict[str, Any] = {"kind": type(error).__name__, "message": words, "hint": hint}
        if isinstance(error, OSError) and error.filename is not None:
            told["path"] = str(error.filename)
        click.echo(json.dumps({"error": told}), err=True)
    else:
        click.echo(f"forebay: {printable(words)}{f'; {hint}' if hint else ''}", err=True)


def _words(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if _is_ours(error):
        return str(error) or type(error).__name__
    return f"internal error: {type(error).__name__}: {error}"


def _is_ours(error: Exception) -> bool:
    """Say whether the error is one that is raised on purpose, and not a fault of the program."""
    faults = (KeyError, IndexError, UnicodeError)
    return isinstance(error, OSError | ValueError | LookupError) and not isinstance(error, faults)


def _hint(error: Exception) -> str:
    """Return what can be done, where the error itself does not say it."""
    if isinstance(error, click.UsageError):
        return f"see `{error.ctx.command_path if error.ctx else 'forebay'} --help`"
    if isinstance(error, click.ClickException | ConfigError | NotAttached | PinLimit):
        return ""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        # The words say it all.
        return ""
    hints: tuple[tuple[Any, str], ...] = (
        (StoreBusy, "another process is stopped inside the cache: let it go on, or end it"),
        (PermissionError, "check the credentials (AWS_PROFILE, attach --profile) or access rights"),
        (NotFound, "see what there is with `forebay ls`"),
        (IsADirectoryError, "name an object in it, or use -r where the command has it"),
        (NotADirectoryError, "leave the end of the path away"),
        (Stale, "unless it is being written just now, `forebay sync` asks anew"),
        (UnderStorageError | TimeoutError, "check the URI and --endpoint-url, and that it can be reached"),
    )
    last = "" if _is_ours(error) else "run it again with -v for more"
    return next((hint for kind, hint in hints if isinstance(error, kind)), last)
