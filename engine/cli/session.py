"""What the options that every command has say, and the cache that they name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from forebay.cli.text import printable
from forebay.config import Tier, default_cache_dir, is_new
from forebay.errors import ConfigError
from forebay.settings import Settings, load_settings

if TYPE_CHECKING:
    from forebay.cache import Cache

_F = TypeVar("_F", bound=Callable[..., Any])

_LOG_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass
class Session:
    """The common options of one command line, those before and those behind the command together."""

    cache_dir: str | None = None
    config: str | None = None
    tiers: tuple[Tier, ...] | None = None
    given: dict[str, str] = field(default_factory=dict)
    as_json: bool = False
    verbosity: int = 0

    def settings(self) -> Settings:
        """Return what options, environment and file say together. Raises: ConfigError."""
        found = load_settings(self.config, given=self.given)
        return Settings(self.cache_dir or found.cache_dir, self.tiers or found.tiers, found.options)

    def folder(self) -> str:
        """Return the cache directory that is meant, whether or not there is one. Raises: ConfigError."""
        return os.path.abspath(self.settings().cache_dir or default_cache_dir())

    def open_cache(self, *, make: bool = False) -> Cache:
        """Open the cache that options, environment or configuration name.

        make: make it if it is new; otherwise that is an error, for nobody means to list an empty cache. A
        client of a group may begin anywhere: what is attached it has from the members.
        Raises: ConfigError.
        """
        from forebay.opening import open_configured

        settings, folder = self.settings(), self.folder()
        is_client = settings.options.get("group") is not None and settings.options.get("role") != "member"
        if not make and not is_client and is_new(folder):
            raise ConfigError(
                f"{folder}: no cache lies here; begin one with `forebay attach NAME URI`, or name another "
                "with --cache-dir or FOREBAY_CACHE_DIR"
            )
        return open_configured(folder, settings.tiers, settings.options)


class _Formatter(logging.Formatter):
    """One line a record, whatever names are in it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Show forebay's log, from the level that -v names, and no library's: theirs may hold credentials."""
    log = logging.getLogger("forebay")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("forebay: %(levelname)s: %(name)s: %(message)s"))
    # With a handler at the root, what libraries log does not go to standard error for want of one.
    quiet = logging.NullHandler()
    level = log.level
    log.addHandler(handler)
    logging.getLogger().addHandler(quiet)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        logging.getLogger().removeHandler(quiet)


pass_session = click.make_pass_decorator(Session, ensure=True)


def common_options(command: _F) -> _F:
    """Give a command the options that every command has; they go into the Session."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put a given option into the session; what is not given leaves it as it is."""
    session = context.ensure_object(Session)
    if value:
        setattr(session, str(parameter.name), value)


def _keep_tiers(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    _keep(context, parameter, tuple(Tier.parse(text) for text in value))


def _keep_given(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    for text in value:
        key, equals, setting = text.partition("=")
        if not equals:
            raise click.BadParameter("write KEY=VALUE", ctx=context, param=parameter)
        context.ensure_object(Session).given[key] = setting


def _keep_verbosity(context: click.Context, parameter: click.Parameter, value: int) -> None:
    _keep(context, parameter, value)
    if value:
        logging.getLogger("forebay").setLevel(_LOG_LEVELS[min(value, len(_LOG_LEVELS) - 1)])


_OPTIONS: Final = (
    click.option(
        "--cache-dir",
        metavar="DIR",
        expose_value=False,
        callback=_keep,
        type=click.Path(file_okay=False),
        help="The cache directory [FOREBAY_CACHE_DIR].",
    ),
    click.option(
        "--tier",
        "tiers",
        metavar="PATH:QUOTA[:MEDIUM]",
        multiple=True,
        expose_value=False,
        callback=_keep_tiers,
        help="A tier of a new cache, MEM, SSD or HDD; may be given several times [FOREBAY_TIERS].",
    ),
    click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        type=click.Path(),
        help="A TOML file with settings [FOREBAY_CONFIG].",
    ),
    click.option(
        "--set",
        "given",
        metavar="KEY=VALUE",
        multiple=True,
        expose_value=False,
        callback=_keep_given,
        help="A setting, in place of the file's or the environment's; may be given several times.",
    ),
    click.option("--json", "as_json", is_flag=True, expose_value=False, callback=_keep, help="Print JSON."),
    click.option(
        "-v",
        "--verbose",
        "verbosity",
        count=True,
        expose_value=False,
        callback=_keep_verbosity,
        help="Log more, and show tracebacks; twice for more still.",
    ),
)
