"""The cache over under storages: joins the block store, the metadata, the under storages and the peers.

The only layer that does. surface/ has the verbs that a user calls, joined in cache.py; runtime.py makes
the parts, one set a process; the rest is one module for each idea, with packages for loads, manifests and
what is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.cache.attach import RETENTIONS, WRITE_MODES
from forebay.cache.cache import Cache
from forebay.cache.datasets import Attached
from forebay.cache.file import CachedFile
from forebay.cache.loads.load import LoadJob
from forebay.cache.manifests.manage import ManifestStatus
from forebay.cache.node_file import NodeFile
from forebay.cache.nodes import ROOT_INODE, TRANSIENT_INODE_FIRST, Figures, Node, Nodes, State
from forebay.cache.policies.policy import NAMES as POLICY_FIELDS
from forebay.cache.prefetch import Prefetcher
from forebay.cache.record.part import Access
from forebay.cache.record.traces import Trace, TraceStatus
from forebay.cache.serving import Serving
from forebay.cache.status import FileStatus, SyncReport
from forebay.cache.usage import Usage
from forebay.cache.workers import Workers
from forebay.cache.writes.draft import Draft
from forebay.cache.writes.file import WritableFile
from forebay.cache.writes.node_writer import NodeWriter
from forebay.meta import Entry

if TYPE_CHECKING:
    # What reads return; the store itself is imported when a cache is opened.
    from forebay.cache._snapshot import Snapshot as Snapshot
    from forebay.store import View as View

__all__ = [
    "POLICY_FIELDS",
    "RETENTIONS",
    "ROOT_INODE",
    "TRANSIENT_INODE_FIRST",
    "WRITE_MODES",
    "Access",
    "Attached",
    "Cache",
    "CachedFile",
    "Draft",
    "Entry",
    "Figures",
    "FileStatus",
    "LoadJob",
    "ManifestStatus",
    "Node",
    "NodeFile",
    "NodeWriter",
    "Nodes",
    "Prefetcher",
    "Serving",
    "State",
    "SyncReport",
    "Trace",
    "TraceStatus",
    "Usage",
    "Workers",
    "WritableFile",
]
