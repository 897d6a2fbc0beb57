"""What a trace becomes: for each dataset a manifest of the objects that were read, in the order of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from forebay.cache.datasets import VERSION_MARK, Attached
from forebay.cache.lookup import Lookup
from forebay.cache.manifests.manage import Manifests, ManifestStatus
from forebay.cache.record.traces import Trace
from forebay.meta import Entry

# Of what was read again within so many objects no second look-up is made.
_REMEMBERED_MAX = 65_536
_PAGE = 1_000


def create_manifests(
    trace: Trace,
    manifests: Manifests,
    lookup: Lookup,
    locate: Callable[[str], tuple[Attached, str]],
) -> list[ManifestStatus]:
    """Make a manifest of the trace's name for each dataset of which it has objects that are still known.

    Nobody is asked: sizes and versions are those that are known now. Memory does not grow with the trace.
    Raises: ConfigError (one of the datasets has a manifest of that name); as Manifests.build; OSError,
    ValueError (the trace cannot be read).
    """
    made = []
    for name in sorted(
        {access.path.partition("/")[0].partition(VERSION_MARK)[0] for access in trace.accesses()}
    ):
        entries = _entries(trace, name, lookup, locate)
        first = list(islice(entries, _PAGE))
        if not first:
            continue
        with manifests.build(manifests.dataset(name), trace.name, f"trace {trace.name}") as building:
            building.add(first)
            while page := list(islice(entries, _PAGE)):
                building.add(page)
            building.add_order((path for _, path in _reads(trace, name)), as_read=True)
            made.append(building.publish())
    return made


def _entries(
    trace: Trace, name: str, lookup: Lookup, locate: Callable[[str], tuple[Attached, str]]
) -> Iterator[Entry]:
    """Yield what is known of the objects of a dataset, some of them more than once."""
    for full_path, _ in _reads(trace, name):
        try:
            entry = lookup.known(*locate(full_path))
        except (OSError, LookupError):
            # Detached, or a version that is no more.
            continue
        if entry is not None:
            yield entry


def _reads(trace: Trace, name: str) -> Iterator[tuple[str, str]]:
    """Yield the full path and the path in the dataset of what was read, without what came just before."""
    seen: set[str] = set()
    for access in trace.accesses():
        label, _, path = access.path.partition("/")
        if label.partition(VERSION_MARK)[0] != name or access.path in seen:
            continue
        if len(seen) >= _REMEMBERED_MAX:
            seen.clear()
        seen.add(access.path)
        yield access.path, path
