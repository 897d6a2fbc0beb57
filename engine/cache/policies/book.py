"""The policies of a cache directory: said, taken back, and carried out on what is cached already.

What is said stands in the catalog, so that it holds for all processes and for all that comes later. A verb
(``pin``, ``unpin``, ``ttl``) speaks of everything at and below a path: what was said of the same thing deeper
is taken back. ``put`` speaks of one path and leaves the deeper ones as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from forebay.cache.datasets import Attached
from forebay.cache.paths import block_keys
from forebay.cache.policies.policy import NOTHING, Policy, checked
from forebay.cache.policies.rules import Rules
from forebay.cache.tree import Tree
from forebay.errors import PinLimit
from forebay.meta import Catalog, Entries

if TYPE_CHECKING:
    from forebay.store import BlockStore

# What is said of a dataset, by path.
_Said = dict[str, Policy]


class PolicyBook:
    """Reads and writes policies, for one process. Threads: any."""

    def __init__(self, catalog: Catalog, entries: Entries, store: BlockStore, tree: Tree) -> None:
        """Use these, all of one process."""
        self._catalog: Final = catalog
        self._entries: Final = entries
        self._store: Final = store
        self._tree: Final = tree

    def put(self, attached: Attached, path: str, values: Mapping[str, Any]) -> Policy:
        """Say something of a path, None to take it back; return all that is said of it now.

        What is cached is left as it is, but for freshness. Raises: ConfigError (names the field).
        """
        new = checked(values)

        def say(said: _Said) -> None:
            said[path] = new.over(said.get(path, NOTHING).without(*values))

        with self._announced(attached, values):
            return self._change(attached, say)[1].get(path, NOTHING)

    def clear(self, attached: Attached, path: str) -> None:
        """Take back all that is said of a path and of those below it."""

        def forget(said: _Said) -> None:
            for each in list(Rules(said).at_and_below(path)):
                del said[each]

        with self._announced(attached, ("max_age",)):
            self._change(attached, forget)

    def pin(self, attached: Attached, path: str) -> int:
        """Pin all at and below a path, cached now or later; return how many blocks are pinned now.

        Raises: PinLimit (with the figures; nothing was done); StoreBusy; PermissionError.
        """
        # Said first, so that what is admitted meanwhile is pinned as well.
        before, _ = self._change(attached, lambda said: _say_all(said, path, "pin", True))
        try:
            # At once, for all or nothing is to be pinned; without the keys of what an object only claims.
            there = (compress(keys, self._store.contains_many(keys)) for keys in self._keys(attached, path))
            return self._store.pin_many([key for keys in there for key in keys])
        except PinLimit:
            self._change(attached, lambda said: _say_again(said, before, path, "pin"))
            raise

    def unpin(self, attached: Attached, path: str) -> int:
        """Give all at and below a path back to retention; return how many cached blocks that is."""
        self._change(attached, lambda said: _say_all(said, path, "pin", False))
        return sum(map(self._store.unpin_many, self._keys(attached, path)))

    def ttl(self, attached: Attached, path: str, seconds: float | None) -> int:
        """Let all at and below a path expire, what is cached seconds from now; None: never.

        What comes later expires so long after it was admitted. Returns how many cached blocks it concerns.
        Raises: ConfigError (no such time); StoreBusy; PermissionError.
        """
        wanted = checked({"ttl_s": 0.0 if seconds is None else seconds}).ttl_s
        self._change(attached, lambda said: _say_all(said, path, "ttl_s", wanted))
        return sum(self._store.expire_many(keys, seconds) for keys in self._keys(attached, path))

    def _keys(self, attached: Attached, path: str) -> Iterator[list[bytes]]:
        """Yield the keys of all blocks at and below a path that there may be, some at a time."""
        known = self._tree.known_objects(attached, path)
        versions = ((each.path, each.version, each.size) for each in known)
        return block_keys(attached.record.id, versions, self._store.block_bytes)

    def _change(self, attached: Attached, change: Callable[[_Said], None]) -> tuple[_Said, _Said]:
        """Change what is said of a dataset, in one commit; return what was said before and what is now."""
        dataset_id = attached.record.id
        with self._catalog.changing() as transaction:
            transaction.dataset(attached.record.name)
            rows = transaction.policies(dataset_id)
            before = {path: checked(row) for path, row in rows.items()}
            said = dict(before)
            change(said)
            for path in {*rows, *said}:
                row = said.get(path, NOTHING).to_json()
                if row != rows.get(path, {}):
                    transaction.put_policy(dataset_id, path, row)
        self._catalog.back_up()
        return before, said

    def _announced(self, attached: Attached, names: Any) -> AbstractContextManager[None]:
        """Have every process look up anew, if what is said concerns how long look-ups hold."""
        return self._entries.announcing(attached.record.id) if "max_age" in names else nullcontext()


def _say_all(said: _Said, path: str, name: str, value: Any) -> None:
    """Say one thing of all at and below a path; what would hold anyway (no pin, no time) is not said."""
    for each in list(Rules(said).at_and_below(path)):
        said[each] = said[each].without(name)
    if value or getattr(Rules(said).of(path), name):
        said[path] = replace(said.get(path, NOTHING), **{name: value})


def _say_again(said: _Said, before: _Said, path: str, name: str) -> None:
    """Say one thing of all at and below a path as it was said before."""
    for each in {*Rules(said).at_and_below(path), *Rules(before).at_and_below(path)}:
        value = getattr(before.get(each, NOTHING), name)
        said[each] = replace(said.get(each, NOTHING), **{name: value})
