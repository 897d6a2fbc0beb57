"""``cat``."""

from __future__ import annotations

import sys
from typing import Final

import click

from forebay.cache import Cache
from forebay.cli.each import for_each
from forebay.cli.session import Session, common_options, pass_session
from forebay.config import MIB

_PART_BYTES: Final = 16 * MIB


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@pass_session
def cat(session: Session, paths: tuple[str, ...]) -> int:
    """Write the bytes of each PATH to standard output, through the cache."""
    with session.open_cache() as cache:
        return for_each(paths, session, lambda path: _write(cache, path))


def _write(cache: Cache, path: str) -> None:
    """Write one object in parts, so that its size does not matter."""
    output = sys.stdout.buffer
    offset = 0
    while True:
        with cache.read(path, offset, _PART_BYTES) as view:
            output.write(memoryview(view))
            written = len(view)
        offset += written
        if written < _PART_BYTES:
            break
    output.flush()
