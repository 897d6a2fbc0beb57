"""What the options that every command has say, and the cache that they name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from forebay.config import Tier, default_cache_dir, is_new, load_settings
from forebay.errors import ConfigError

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
    as_json: bool = False
    verbosity: int = 0

    def open_cache(self, *, make: bool = False) -> Cache:
        """Open the cache that options, environment or configuration name.

        make: make it if it is new; otherwise that is an error, for nobody means to list an empty cache.
        Raises: ConfigError.
        """
        from forebay.cache import Cache

        settings = load_settings(self.config)
        cache_dir = os.path.abspath(self.cache_dir or settings.cache_dir or default_cache_dir())
        if not make and is_new(cache_dir):
            raise ConfigError(
                f"{cache_dir}: no cache lies here; begin one with `forebay attach NAME URI`, or name another "
                "with --cache-dir or FOREBAY_CACHE_DIR"
            )
        return Cache(cache_dir, self.tiers or settings.tiers)


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


def _keep_verbosity(context: click.Context, parameter: click.Parameter, value: int) -> None:
    _keep(context, parameter, value)
    if value:
        level = _LOG_LEVELS[min(value, len(_LOG_LEVELS) - 1)]
        logging.basicConfig(level=level, format="forebay: %(levelname)s: %(name)s: %(message)s", force=True)


_OPTIONS: Final = (
    click.option(
        "--cache-dir",
        metavar="DIR",
        expose_value=False,
        callback=_keep,
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
        help="A TOML file with these settings [FOREBAY_CONFIG].",
    ),
    click.option("--json", "as_json", is_flag=True, expose_value=False, callback=_keep, help="Print JSON."),
    click.option(
        "-v",
        "--verbose",
        "verbosity",
        count=True,
        expose_value=False,
        callback=_keep_verbosity,
        help="Log more; twice for more still.",
    ),
)
