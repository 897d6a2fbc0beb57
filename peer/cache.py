"""A cache that is part of a group: the verbs that concern all members go to all of them.

Reads go through its remote, as with any ``Cache``. A path is pinned at every member, a load is divided among
them. In a process that was forked these verbs raise, for there gRPC does not work; reads do.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, cast

from forebay.cache import Cache, LoadJob
from forebay.cache.paths import split_path
from forebay.peer.fanout.everyone import Answers, Everyone, apply, locate
from forebay.peer.fanout.load import GroupLoad
from forebay.peer.fanout.names import NameList
from forebay.peer.group import Group
from forebay.peer.settings.follower import Follower
from forebay.peer.settings.local import LocalSettings

if TYPE_CHECKING:
    from forebay.cache.loads.filelist import FileList
    from forebay.cache.loads.load import LoadRequest
    from forebay.cache.policies.policy import Policy


class GroupCache(Cache):
    """A cache whose remote is a ``Group``. All else is as in ``Cache``.

    A client takes over the datasets, policies and manifests of the members, and goes on doing so.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open it as a ``Cache``; a client may wait for its group, as ``Follower.start`` says."""
        super().__init__(*arguments, **options)
        self._follower: Follower | None = None
        group = self._remote
        if isinstance(group, Group) and group.role == "client" and not options.get("read_only"):
            self._follower = _follower_of(self, group)
            self._follower.start()

    def close(self) -> None:
        """Close, as ``Cache.close``."""
        if self._follower is not None:
            self._follower.stop()
        super().close()

    def pin(self, path: str) -> int:
        """Pin at every member; return how many cached blocks that is in all. Raises: as ``Cache.pin``.

        Where one refuses it the others have it pinned; the error names who refused.
        """
        return self._count("pin", path)

    def unpin(self, path: str) -> int:
        """Unpin at every member; return how many cached blocks that is in all."""
        return self._count("unpin", path)

    def ttl(self, path: str, seconds: float | None) -> int:
        """Let it expire at every member; return how many cached blocks that concerns in all."""
        return self._count("ttl", path, seconds=seconds)

    def free(self, path: str, *, data: bool = True, metadata: bool = False) -> None:
        """Free at every member, and what this host has of it."""
        self._apply("free", path, data=data, metadata=metadata).raise_first()
        super().free(path, data=data, metadata=metadata)

    def replicas(self, path: str, at_least: int, at_most: int | None = None) -> Policy:
        """Have each block lie on so many members. As ``Cache.replicas``."""
        said = super().replicas(path, at_least, at_most)
        self._apply("replicas", path, at_least=at_least, at_most=at_most).raise_first()
        return said

    def locate(self, path: str) -> dict[str, float]:
        """Return by host which share of the bytes at and below a path its member has, those with none apart.

        With replicas the shares are more than 1 together.
        """
        return locate(self._everyone, *split_path(path), self.usage(path).bytes)

    def _begin_load(
        self, request: LoadRequest, files: FileList | None, replicas: int | None, *, start: bool
    ) -> LoadJob:
        """Have every member load its share; a rate limit is that of all together.

        It is no job of any one host, and nothing resumes it: load again, and what is cached is skipped.
        Raises: as ``Cache.load``; ValueError (manifest, share, start=False: they are for one host); OSError
        (no member answers).
        """
        given = {"manifest": request.manifest, "share": request.share, "start=False": not start or None}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: not with a group, whose members all load; it is for one host")
        if replicas is not None:
            self.replicas(request.target, replicas)
        listed = self._runtime().loads.listed(request, files)
        return GroupLoad(self._everyone, request, None if listed is None else NameList(listed))

    @property
    def _everyone(self) -> Everyone:
        return cast(Everyone, self._remote)

    def _count(self, verb: str, path: str, **arguments: Any) -> int:
        answers = self._apply(verb, path, **arguments)
        answers.raise_first()
        return sum(answers.results.values())

    def _apply(self, verb: str, path: str, **arguments: Any) -> Answers:
        # A bad path, or a dataset that is not attached, is told of here.
        self._runtime().locate(path)
        return apply(self._everyone, verb, path, **arguments)


def _follower_of(cache: GroupCache, group: Group) -> Follower:
    """Make what takes settings over for a cache, by the verbs of this host alone, while it is used."""
    used = weakref.ref(cache)

    def local() -> LocalSettings | None:
        found = used()
        return None if found is None else LocalSettings(cast(Cache, super(GroupCache, found)))

    return Follower(group, cache.settings_folder, local)
