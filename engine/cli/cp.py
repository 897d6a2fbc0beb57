"""``cp``: objects to local files."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from forebay.cache import Cache, FileStatus
from forebay.cli.each import Failures, below, for_each
from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.progress import Advance, progress_of
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable, size_text
from forebay.config import MIB
from forebay.errors import Stale, under_storage_error

_PART_BYTES: Final = 4 * MIB
_COPIES_AT_ONCE: Final = 8


@click.command()
@common_options
@click.argument("sources", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with everything below them.")
@pass_session
def cp(session: Session, sources: tuple[str, ...], target: Path, recursive: bool) -> int:
    """Copy each PATH to the local file or folder TARGET, through the cache.

    A file appears under its name only when it is complete: written under another name beside it, its size
    compared with the object's, then renamed over what was there. All its bytes are of one version.
    """
    if len(sources) > 1 and not target.is_dir():
        raise click.UsageError(f"{printable(str(target))} is not a folder, and there are several paths")
    failures = Failures(session)
    with session.open_cache() as cache:
        copies: dict[Path, FileStatus] = {}

        def add(source: str) -> None:
            for path, status in _plan(cache, source, target, failures if recursive else None):
                if path in copies:
                    words = f"would lie where {copies[path].path} is to lie"
                    failures.tell(FileExistsError(errno.EEXIST, words, status.path))
                else:
                    copies[path] = status

        for_each(sources, session, add, failures)
        total_bytes = sum(status.size for status in copies.values())
        with progress_of("copying", total_bytes, quiet=session.as_json) as advance:
            copied = _Copier(cache, advance).copy_all(copies, failures)
    copied_bytes = sum(status.size for _, status in copied)
    if session.as_json:
        done = [{"path": status.path, "target": str(path), "bytes": status.size} for path, status in copied]
        echo_json({"copied": done, "files": len(copied), "bytes": copied_bytes})
    else:
        click.echo(f"copied {len(copied)} files, {size_text(copied_bytes)}", err=True)
    return failures.code


def _plan(
    cache: Cache, source: str, target: Path, failures: Failures | None
) -> Iterator[tuple[Path, FileStatus]]:
    """Yield what is to lie where for one source; nothing is made yet. failures None: no directories."""
    status = cache.stat(source)
    inside = target / status.name if target.is_dir() else target
    if not status.is_dir:
        yield inside, status
    elif failures is None:
        raise IsADirectoryError(errno.EISDIR, "is a directory", source)
    else:
        for lower in below(cache, cache.scandir(status.path), failures):
            if not lower.is_dir:
                yield inside / lower.path[len(status.path) + 1 :], lower


class _Copier:
    """Copies objects side by side, each complete or not at all."""

    def __init__(self, cache: Cache, advance: Advance) -> None:
        self._cache: Final = cache
        self._advance: Final = advance
        self._partial_lock: Final = threading.Lock()
        self._partial: Final[set[Path]] = set()

    def copy_all(self, copies: dict[Path, FileStatus], failures: Failures) -> list[tuple[Path, FileStatus]]:
        """Copy and return what was copied; what was not is told of."""
        copied: list[tuple[Path, FileStatus]] = []
        with undone_if_interrupted(self._drop_all), ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            futures = {path: pool.submit(self._copy, path, status) for path, status in copies.items()}
            for path, future in futures.items():
                try:
                    future.result()
                    copied.append((path, copies[path]))
                except (OSError, LookupError) as error:
                    failures.tell(error)
        return copied

    def _copy(self, target: Path, status: FileStatus) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._written_beside(target) as output:
            try:
                self._fill(output, status)
            except Stale:
                # It changed under the reader: from the beginning, once, in the new version.
                os.truncate(output, 0)
                os.lseek(output, 0, os.SEEK_SET)
                self._fill(output, status)

    def _fill(self, output: int, status: FileStatus) -> None:
        """Write the object's bytes, all of one version, and hold their number to its size."""
        buffer = memoryview(bytearray(min(_PART_BYTES, status.size + 1)))
        written = 0
        with self._cache.open(status.path) as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            while count := source.readinto(buffer):
                _write_all(output, buffer[:count])
                written += count
                self._advance(count)
        if not written == size == os.fstat(output).st_size:
            raise under_storage_error(status.path, f"{written} bytes came, the object has {size}")

    @contextmanager
    def _written_beside(self, target: Path) -> Iterator[int]:
        """Give a new file that takes the target's name in the end, or is gone if that does not come."""
        hidden = target.with_name(f".forebay-{secrets.token_hex(8)}.partial")
        try:
            with self._partial_lock:
                output = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self._partial.add(hidden)
            try:
                yield output
            finally:
                os.close(output)
            with self._partial_lock:
                hidden.replace(target)
                self._partial.discard(hidden)
        except OSError as error:
            if error.filename in (None, str(hidden)):
                error.filename, error.filename2 = str(target), None
            raise
        finally:
            if hidden in self._partial:
                hidden.unlink(missing_ok=True)
                self._partial.discard(hidden)

    def _drop_all(self) -> None:
        """Remove what is not complete, for good: the lock is kept, so nothing new begins."""
        self._partial_lock.acquire()
        for hidden in self._partial:
            hidden.unlink(missing_ok=True)


def _write_all(output: int, data: memoryview) -> None:
    while data:
        data = data[os.write(output, data) :]
