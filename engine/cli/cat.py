"""``cat``."""

from __future__ import annotations

import sys
from typing import Final

import click

from forebay.cache import Cache
from forebay.cli.each import for_each
from forebay.cli.kinds import CACHE_PATH, SIZE
from forebay.cli.session import Session, common_options, pass_session
from forebay.config import MIB

_PART_BYTES: Final = 4 * MIB


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@click.option("--offset", type=SIZE, default=0, metavar="SIZE", help="Begin that far into each object. [0]")
@click.option("--length", type=SIZE, metavar="SIZE", help="Write so many bytes of each at most. [all]")
@pass_session
def cat(session: Session, paths: tuple[str, ...], offset: int, length: int | None) -> int:
    """Write the bytes of each PATH to standard output, through the cache.

    All bytes of an object are of one version: if it changes meanwhile, that is an error.
    """
    with session.open_cache() as cache:
        return for_each(paths, session, lambda path: _write(cache, path, offset, length))


def _write(cache: Cache, path: str, offset: int, length: int | None) -> None:
    """Write one object in parts, so that its size does not matter."""
    output = sys.stdout.buffer
    buffer = memoryview(bytearray(_PART_BYTES if length is None else min(length, _PART_BYTES)))
    left = length
    with cache.open(path) as file:
        file.seek(offset)
        while left is None or left > 0:
            count = file.readinto(buffer if left is None else buffer[:left])
            if count == 0:
                break
            output.write(buffer[:count])
            left = None if left is None else left - count
    output.flush()
