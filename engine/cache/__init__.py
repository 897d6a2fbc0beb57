"""The cache over under storages: joins the block store, the metadata, the under storages and the peers.

The only layer that does. surface/ has the verbs that a user calls, joined in cache.py; runtime.py makes
the parts, one set a process; the rest is one module for each idea, with the loads in a package of their own.
"""

from __future__ import annotations

from forebay.cache.attach import RETENTIONS
from forebay.cache.cache import Cache, open
from forebay.cache.file import CachedFile
from forebay.cache.loads.load import LoadJob
from forebay.cache.manifests.manage import ManifestStatus
from forebay.cache.status import FileStatus, SyncReport
from forebay.cache.usage import Usage

__all__ = [
    "RETENTIONS",
    "Cache",
    "CachedFile",
    "FileStatus",
    "LoadJob",
    "ManifestStatus",
    "SyncReport",
    "Usage",
    "open",
]
