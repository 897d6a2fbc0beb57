"""What a shell is offered while a command is typed: datasets and paths, from the metadata alone.

Neither the store nor an under storage is touched. Completion must never disturb the line that is being
typed: whatever is wrong, nothing is offered.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import Final

import click

from forebay.cli.session import Session
from forebay.config import FORMAT_FOLDER, is_new
from forebay.meta import Metadata

_log = logging.getLogger(__name__)

_OFFERED_MAX: Final = 1_000
# Shells put what is offered into the line as it is: a name that they would read as more is left out.
_PLAIN: Final = re.compile(r"[\w./@%+=:,-]*")


def known_datasets(context: click.Context) -> list[str]:
    """Return the names of the attached datasets."""
    return _ask(context, lambda metadata: sorted(metadata.catalog.datasets()))


def known_paths(context: click.Context, incomplete: str) -> list[str]:
    """Return the known paths that begin so; directories end with a slash.

    Where a directory is the only one, what lies in it is returned too, so that the shell goes on in it
    instead of taking it for the whole.
    """

    def look(metadata: Metadata) -> list[str]:
        found = _matching(metadata, incomplete)
        if len(found) == 1 and found[0].endswith("/"):
            found += _matching(metadata, found[0])
        return found

    return _ask(context, look)


def _ask(context: click.Context, look: Callable[[Metadata], list[str]]) -> list[str]:
    """Return what look finds in the cache that the line so far names."""
    session = context.find_object(Session) or Session()
    try:
        settings, folder = session.settings(), session.folder()
        if is_new(folder):
            return []
        meta_folder = os.path.join(folder, FORMAT_FOLDER, "meta")
        with Metadata(meta_folder, read_only=bool(settings.options.get("read_only"))) as metadata:
            return look(metadata)
    except (OSError, ValueError) as error:
        _log.debug("nothing to offer: %s", error)
        return []


def _matching(metadata: Metadata, incomplete: str) -> list[str]:
    directory, slash, name = incomplete.rpartition("/")
    if not slash:
        return [f"{dataset}/" for dataset in sorted(metadata.catalog.datasets()) if dataset.startswith(name)]
    dataset, _, rest = directory.partition("/")
    record = metadata.catalog.datasets().get(dataset)
    if record is None:
        return []
    paths = (
        f"{dataset}/{entry.path}{'/' if entry.is_dir else ''}"
        for entry in metadata.entries.children(record.id, rest)
    )
    return sorted(path for path in paths if path.startswith(incomplete) and _PLAIN.fullmatch(path))[
        :_OFFERED_MAX
    ]
