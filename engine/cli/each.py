"""One bad path among many is told of and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forebay.cli.app import DONE, FAILED, complain
from forebay.cli.session import Session


def for_each(paths: Iterable[str], session: Session, action: Callable[[str], object]) -> int:
    """Run the action for each path and return the exit code.

    What fails for one path (OSError, NotAttached) is said on standard error. Raises: ValueError (a
    malformed path is wrong usage); BrokenPipeError (nobody reads our output).
    """
    code = DONE
    for path in paths:
        try:
            action(path)
        except BrokenPipeError:
            raise
        except (OSError, LookupError) as error:
            complain(error, verbose=session.verbosity > 0)
            code = FAILED
    return code
