"""Answering: what a member of a group tells its peers."""

from __future__ import annotations

from forebay.cache.serving import Serving
from forebay.cache.surface.base import CacheBase
from forebay.remote import Remote


class Answering(CacheBase):
    """The verbs for serving peers."""

    def serving(self, owner_side: Remote | None = None) -> Serving:
        """Return what answers peers from this process; it asks nobody but the under storage.

        owner_side: who is asked for blocks before that, after the ring has changed.
        """
        return Serving(self._runtime(), owner_side)

    def settings_commit(self) -> int:
        """Return a number that stays while nobody changes datasets, policies or manifests."""
        return self._runtime().metadata.catalog.last_commit()
