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
from forebay.meta import Entry, Metadata, find_version

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
    except (OSError, ValueError, LookupError) as error:
        _log.debug("nothing to offer: %s", error)
        return []


def _labels(metadata: Metadata, with_versions: bool) -> list[str]:
    """Return what a path may begin with."""
    datasets, manifests, _ = metadata.catalog.contents()
    labels = list(datasets)
    if with_versions:
        for dataset in datasets.values():
            labels += [f"{dataset.name}@{version}" for version in manifests.get(dataset.id, ())]
    return sorted(labels)


def _children(metadata: Metadata, label: str, directory: str) -> list[Entry]:
    name, mark, version = label.partition("@")
    datasets, manifests, _ = metadata.catalog.contents()
    record = datasets.get(name)
    if record is None:
        return []
    if not mark and record.manifest is None:
        return [] if record.manifest_only else metadata.entries.children(record.id, directory)
    listed = find_version(record, manifests.get(record.id, {}), version or record.manifest or "")
    return metadata.manifests.open(listed).children(directory) or []


def _matching(metadata: Metadata, incomplete: str) -> list[str]:
    directory, slash, name = incomplete.rpartition("/")
    if not slash:
        return [f"{label}/" for label in _labels(metadata, "@" in name) if label.startswith(name)]
    label, _, rest = directory.partition("/")
    paths = (
        f"{label}/{entry.path}{'/' if entry.is_dir else ''}" for entry in _children(metadata, label, rest)
    )
    return sorted(path for path in paths if path.startswith(incomplete) and _PLAIN.fullmatch(path))[
        :_OFFERED_MAX
    ]
