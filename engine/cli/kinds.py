"""Kinds of arguments: sizes, times, and datasets and paths, which a shell completes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from forebay.config import parse_bytes
from forebay.errors import ConfigError

if TYPE_CHECKING:
    _SizeType = click.ParamType[int]
    _MomentType = click.ParamType[datetime]
    _TextType = click.ParamType[str]
else:  # the class of older releases takes no parameters
    _SizeType = _MomentType = _TextType = click.ParamType


class Size(_SizeType):
    """Bytes as ``4GiB`` or a number."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        try:
            return parse_bytes(value if isinstance(value, int) else str(value), "a size")
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Moment(_MomentType):
    """A time as ``2026-12-01T03:00``, with or without an offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time."""
        try:
            return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write for example 2026-12-01T03:00", param, ctx)


class DatasetName(_TextType):
    """The name of an attached dataset."""

    name = "dataset"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete from the catalog."""
        from forebay.cli.known import known_datasets

        return [CompletionItem(name) for name in known_datasets(ctx) if name.startswith(incomplete)]


class CachePath(_TextType):
    """A path DATASET/REST/OF/PATH."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete from what is known already, asking no under storage."""
        from forebay.cli.known import known_paths

        return [CompletionItem(path) for path in known_paths(ctx, incomplete)]


SIZE = Size()
MOMENT = Moment()
DATASET = DatasetName()
CACHE_PATH = CachePath()
