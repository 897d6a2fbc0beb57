"""One bad path among many is told of and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from forebay.cache.paths import split_path
from forebay.cli.app import DONE, FAILED, complain, is_of_output
from forebay.cli.session import Session

if TYPE_CHECKING:
    from forebay.cache import Cache, FileStatus


class Failures:
    """Tells of what fails, and remembers that something did. For one thread."""

    def __init__(self, session: Session) -> None:
        """Tell in the way that the session asks for."""
        self._session = session
        self.code = DONE

    def tell(self, error: OSError | LookupError) -> None:
        """Say it on standard error. Raises: the error itself, if it is that our output cannot be written."""
        if isinstance(error, OSError) and is_of_output(error):
            raise error
        complain(error, verbose=self._session.verbosity > 0, as_json=self._session.as_json)
        self.code = FAILED


def for_each(
    paths: Sequence[str],
    session: Session,
    action: Callable[[str], object],
    failures: Failures | None = None,
) -> int:
    """Run the action for each path and return the exit code, which failures has a part in.

    What fails for one path (OSError, NotAttached) is said on standard error. Raises: ValueError (one of the
    paths is malformed: nothing was done); OSError (our output cannot be written).
    """
    failures = Failures(session) if failures is None else failures
    for path in paths:
        if path:
            split_path(path)
    for path in paths:
        try:
            action(path)
        except (OSError, LookupError) as error:
            failures.tell(error)
    return failures.code


def below(cache: Cache, found: Iterable[FileStatus], failures: Failures) -> Iterator[FileStatus]:
    """Yield what was found and everything below, each directory before what lies in it, in order of names.

    A directory that cannot be listed is told of. Raises: what iterating over found raises.
    """
    waiting = [iter(found)]
    while waiting:
        status = next(waiting[-1], None)
        if status is None:
            waiting.pop()
            continue
        yield status
        if status.is_dir:
            try:
                waiting.append(iter(cache.scandir(status.path)))
            except OSError as error:
                failures.tell(error)
