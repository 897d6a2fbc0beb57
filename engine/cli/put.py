"""``put``, ``rm``, ``mv`` and ``mkdir``: changes of the under storage, through the cache."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click

from forebay.cache import Cache, FileStatus
from forebay.cli.each import Failures, for_each
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.progress import progress_of
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable, size_text
from forebay.config import MIB
from forebay.errors import NotFound

_PUTS_AT_ONCE: Final = 8
_PIECE_BYTES: Final = MIB
_STANDARD_INPUT: Final = Path("-")


@click.command()
@common_options
@click.argument("files", nargs=-1, required=True, metavar="LOCAL...", type=click.Path(path_type=Path))
@click.argument("target", metavar="PATH", type=CACHE_PATH)
@click.option("-r", "--recursive", is_flag=True, help="Put folders with everything below them.")
@click.option("-x", "--exclusive", is_flag=True, help="Only what is not there yet; the rest fails.")
@pass_session
def put(session: Session, files: tuple[Path, ...], target: str, recursive: bool, exclusive: bool) -> int:
    """Write the files LOCAL to PATH in a dataset that is attached to be written.

    Into PATH if it is a directory or ends in a slash, else as PATH itself; ``-`` is standard input. Each file
    is at the under storage as a whole, or not at all.
    """
    failures = Failures(session)
    with session.open_cache() as cache:
        is_directory = _is_directory(cache, target)
        if not is_directory and len(files) > 1:
            raise click.UsageError(f"{printable(target)} is not a directory, and there are several files")
        puts: dict[str, Path] = {}
        for file in files:
            for path, local in _plan(file, target, failures, into=is_directory, recursive=recursive):
                if path in puts:
                    words = f"would lie where {puts[path]} is to lie"
                    failures.tell(FileExistsError(errno.EEXIST, words, str(local)))
                else:
                    puts[path] = local
        done = _put_all(cache, puts, failures, exclusive=exclusive, quiet=session.as_json)
    total_bytes = sum(status.size for _, status in done)
    if session.as_json:
        found = [
            {"local": str(local), "path": status.path, "bytes": status.size, "version": status.version}
            for local, status in done
        ]
        echo_json({"put": found, "files": len(done), "bytes": total_bytes})
    else:
        click.echo(f"put {len(done)} files, {size_text(total_bytes)}", err=True)
    return failures.code


def _is_directory(cache: Cache, target: str) -> bool:
    if target.endswith("/"):
        return True
    try:
        return cache.stat(target).is_dir
    except NotFound:
        return False


def _plan(
    file: Path, target: str, failures: Failures, *, into: bool, recursive: bool
) -> Iterator[tuple[str, Path]]:
    """Yield where each file is to go. What cannot be put is told of."""
    if file == _STANDARD_INPUT:
        if into:
            raise click.UsageError("standard input has no name: give the path of the object")
        yield target, file
        return
    inside = f"{target.rstrip('/')}/{file.absolute().name}" if into else target
    if not file.is_dir():
        yield inside, file
    elif not recursive:
        failures.tell(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file)))
    else:
        for folder, _, names in os.walk(file, onerror=failures.tell):
            for name in sorted(names):
                local = Path(folder, name)
                yield f"{inside}/{local.relative_to(file).as_posix()}", local


def _put_all(
    cache: Cache, puts: dict[str, Path], failures: Failures, *, exclusive: bool, quiet: bool
) -> list[tuple[Path, FileStatus]]:
    """Put side by side, and return what was put; what was not is told of."""
    done: list[tuple[Path, FileStatus]] = []
    total_bytes = sum(_size_of(local) for local in puts.values())
    with (
        progress_of("putting", total_bytes, quiet=quiet) as advance,
        ThreadPoolExecutor(_PUTS_AT_ONCE) as pool,
    ):

        def put_one(path: str, local: Path) -> FileStatus:
            status = _put(cache, path, local, exclusive=exclusive)
            advance(status.size)
            return status

        futures = {path: pool.submit(put_one, path, local) for path, local in puts.items()}
        for path, future in futures.items():
            try:
                done.append((puts[path], future.result()))
            except (OSError, LookupError) as error:
                failures.tell(error)
    return done


def _put(cache: Cache, path: str, local: Path, *, exclusive: bool) -> FileStatus:
    if local != _STANDARD_INPUT:
        return cache.put(path, local, exclusive=exclusive)
    with cache.open(path, "xb" if exclusive else "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _PIECE_BYTES)
    return cache.stat(path)


def _size_of(local: Path) -> int:
    try:
        return local.stat().st_size
    except OSError:
        # Told of when it is opened.
        return 0


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with everything below them.")
@pass_session
def rm(session: Session, paths: tuple[str, ...], recursive: bool) -> int:
    """Remove each PATH, an object or an empty directory, from the under storage. There is no way back."""
    with session.open_cache() as cache:
        return _change(session, paths, "removed", lambda path: cache.delete(path, recursive=recursive))


@click.command()
@common_options
@click.argument("path", type=CACHE_PATH)
@click.argument("target", type=CACHE_PATH)
@pass_session
def mv(session: Session, path: str, target: str) -> None:
    """Rename the object or directory PATH to TARGET, in the same dataset; an object at TARGET is replaced.

    One act on file://. Elsewhere objects are copied by the storage and then deleted, those of a directory one
    by one: interrupted, it lies in part here and in part there, and the same command goes on.
    """
    with session.open_cache() as cache:
        cache.rename(path, target)
    if session.as_json:
        echo_json({"path": path, "target": target})
    else:
        click.echo(f"renamed {printable(path)} to {printable(target)}")


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@pass_session
def mkdir(session: Session, paths: tuple[str, ...]) -> int:
    """Make the directory PATH and those above it; one that is there is as good."""
    with session.open_cache() as cache:
        return _change(session, paths, "made", cache.mkdir)


def _change(session: Session, paths: tuple[str, ...], what: str, act: Any) -> int:
    """Do it to each path, say what was done, and return the exit code."""
    done: list[str] = []

    def act_on(path: str) -> None:
        act(path)
        done.append(path)

    code = for_each(paths, session, act_on)
    if session.as_json:
        echo_json([{"path": path} for path in done])
    else:
        for path in done:
            click.echo(f"{what} {printable(path)}")
    return code
