"""Policies: what is kept, for how long, where, and what is not."""

from __future__ import annotations

from typing import Any

from forebay.cache.policies.policy import Policy
from forebay.cache.surface.base import CacheBase


class Policies(CacheBase):
    """The verbs for policies. Each holds for every process, and for what is cached later."""

    def pin(self, path: str) -> int:
        """Keep all at and below a path from eviction; return how many cached blocks that is now.

        Blocks that are admitted later are pinned as they come, as far as the limit lets them. Saying it again
        changes nothing. Blocking: about half a second for 100,000 files.
        Raises: PinLimit (above 80 % of a tier: gives the figures, and nothing is pinned); StoreBusy.
        """
        runtime = self._runtime()
        return runtime.policies.pin(*runtime.locate(path))

    def unpin(self, path: str) -> int:
        """Give all at and below a path back to retention; return how many cached blocks that is."""
        runtime = self._runtime()
        return runtime.policies.unpin(*runtime.locate(path))

    def ttl(self, path: str, seconds: float | None) -> int:
        """Free all at and below a path so long after it was cached; None: never.

        What is cached already has seconds from now. The under storage is not touched. Returns how many cached
        blocks it concerns. Raises: ConfigError (a negative time); StoreBusy.
        """
        runtime = self._runtime()
        return runtime.policies.ttl(*runtime.locate(path), seconds)

    def replicas(self, path: str, at_least: int, at_most: int | None = None) -> Policy:
        """Have each block at and below a path lie on so many members of the group; return what is said now.

        Copies are made in the background. at_most: no more than that where data is read often; None: as many
        as at_least. Where there is no group, or fewer members, it holds as far as it can. Raises: ConfigError
        (no such numbers).
        """
        at_most = at_least if at_most is None else at_most
        return self.set_policy(path, replicas_at_least=at_least, replicas_at_most=at_most)

    def set_policy(self, path: str, **fields: Any) -> Policy:
        """Say something of a path and all below it, None to take it back; return what is said of it now.

        pin; skip: cache nothing; read_bytes_max: cache only what reads of at most so many bytes ask for (and
        what loads bring); ttl_s; max_age: seconds, or "immutable"; retention; medium: the tier that is tried
        first; replicas_at_least, replicas_at_most: as for ``replicas``. Of each the deepest word holds. What
        is cached already stays as it is.
        Raises: ConfigError (names the field and what it takes).
        """
        runtime = self._runtime()
        return runtime.policies.put(*runtime.locate(path), fields)

    def clear_policy(self, path: str) -> None:
        """Take back all that is said of a path and of those below it."""
        runtime = self._runtime()
        runtime.policies.clear(*runtime.locate(path))

    def policies(self, path: str) -> dict[str, Policy]:
        """Return all that is said at and below a path, by path."""
        attached, rest = self._runtime().locate(path)
        name, rules = attached.record.name, attached.rules
        found = sorted(rules.at_and_below(rest))
        return {f"{name}/{each}" if each else name: rules.policies[each] for each in found}

    def policy(self, path: str) -> Policy:
        """Return what holds for a path, by all that is said of it and further up."""
        attached, rest = self._runtime().locate(path)
        return attached.rules.of(rest)
