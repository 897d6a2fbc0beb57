"""How the under storage differs from a manifest: what a sync tells where a manifest is shown.

Nothing that is shown changes by it; a new manifest does that.
"""

from __future__ import annotations

from forebay.cache.datasets import Attached
from forebay.cache.status import SyncReport
from forebay.errors import NotFound
from forebay.meta import Entry, Manifest


def compare(attached: Attached, manifest: Manifest, path: str) -> SyncReport:
    """Ask the under storage now about all that the manifest lists at or below a path.

    What is not listed is not asked for. Raises: NotFound (the path is not listed); as UnderStorage.stat and
    walk.
    """
    if attached.listed is None:
        # A dataset that shows no more than a manifest, and has none.
        if path:
            raise attached.not_listed(path)
        return SyncReport()
    if path:
        entry = manifest.find(path)
        if entry is None:
            raise attached.not_listed(path)
        if not entry.is_dir:
            return _compare_object(attached, entry)
    return _compare_below(attached, manifest, path)


def _compare_object(attached: Attached, entry: Entry) -> SyncReport:
    try:
        info = attached.storage.stat(entry.path)
    except NotFound:
        return SyncReport(removed=1)
    return SyncReport(removed=1) if info.is_dir else SyncReport(changed=info.version != entry.version)


def _compare_below(attached: Attached, manifest: Manifest, path: str) -> SyncReport:
    listed_count = sum(len(page) for page in manifest.pages(path))
    added = changed = known = 0
    try:
        for page in attached.storage.walk(path):
            for info in page:
                entry = manifest.find(info.path)
                if entry is None or entry.is_dir:
                    added += 1
                else:
                    known += 1
                    changed += entry.version != info.version
    except NotFound:
        # Where there is no such directory any more, nothing is left of what was listed in it.
        if not path or known or added:
            raise
    return SyncReport(added, changed, listed_count - known)
