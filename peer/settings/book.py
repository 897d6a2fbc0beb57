"""The book of settings: the newest version of each that a member knows, on disk.

A file in the cache directory, written anew and renamed into place. It is what lets a member tell, after it
was away, which of its settings others have changed since, and which were changed here by whoever opened the
cache without a member. Damage is an error that names the file; without the file a member begins with what it
has, and what others have newer wins.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from forebay.durable import sync_folder
from forebay.errors import ConfigError
from forebay.peer.settings.items import Content, Item, canonical

FILE_NAME: Final = "settings.json"

_FORMAT: Final = 1
_FILE_MODE: Final = 0o600


class Book:
    """The versions that one member knows. Threads: any; one process at a time."""

    def __init__(self, folder: str | os.PathLike[str], writer: str, *, file_name: str = FILE_NAME) -> None:
        """Read the book of a folder, or begin one; writer is this member's id.

        Raises: ConfigError (damaged: names the file and the cure); OSError.
        """
        self._path: Final = Path(folder, file_name)
        self._writer: Final = writer
        self._lock: Final = threading.Lock()
        self._items: Final[dict[str, Item]] = {item.key: item for item in self._read()}

    def items(self) -> dict[str, Item]:
        """Return all by key, those that were taken away among them."""
        with self._lock:
            return dict(self._items)

    def get(self, key: str) -> Item | None:
        """Return one."""
        return self._items.get(key)

    def is_newer(self, item: Item) -> bool:
        """Say whether an item is newer than what is known of its key."""
        known = self._items.get(item.key)
        return known is None or item.order > known.order

    def take(self, item: Item) -> None:
        """Note an item that is newer, once it holds here. Raises: OSError."""
        with self._lock:
            if self.is_newer(item):
                self._items[item.key] = item
                self._write()

    def note(self, present: Mapping[str, Content]) -> list[Item]:
        """Note what there is here; what differs from the book was changed here, and is returned.

        Each gets a version above all that are known of its key. Raises: OSError.
        """
        with self._lock:
            changed = list(self._changes(present))
            self._items.update((item.key, item) for item in changed)
            if changed:
                self._write()
            return changed

    def forget_missing(self, dataset: str, present: Mapping[str, Content]) -> None:
        """Forget what of a dataset is not here though nobody took it away, so that others tell it again.

        Raises: OSError.
        """
        with self._lock:
            missing = [
                key
                for key, known in self._items.items()
                if known.dataset == dataset and known.content is not None and key not in present
            ]
            for key in missing:
                del self._items[key]
            if missing:
                self._write()

    def newer_than(self, known: Mapping[str, tuple[int, str]]) -> list[Item]:
        """Return what somebody who knows these versions has yet to be told."""
        return [
            item for key, item in sorted(self.items().items()) if key not in known or item.order > known[key]
        ]

    def _changes(self, present: Mapping[str, Content]) -> Iterator[Item]:
        for key, content in present.items():
            known = self._items.get(key)
            if known is None or known.content is None or canonical(known.content) != canonical(content):
                yield Item(key, self._next(known), self._writer, content)
        for key, known in self._items.items():
            if known.content is not None and key not in present:
                yield Item(key, self._next(known), self._writer, None)

    def _next(self, known: Item | None) -> int:
        return 1 if known is None else known.version + 1

    def _read(self) -> Iterable[Item]:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            value = json.loads(text)
            if not isinstance(value, dict) or value.get("format") != _FORMAT:
                raise ConfigError(f"not of format {_FORMAT}")
            return [Item.from_json(item) for item in value["items"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path}: damaged: {error}; remove it, and the settings of the other members hold here"
            ) from error

    def _write(self) -> None:
        value = {"format": _FORMAT, "items": [item.to_json() for _, item in sorted(self._items.items())]}
        beside = self._path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(descriptor)
        beside.rename(self._path)
        sync_folder(self._path.parent)
