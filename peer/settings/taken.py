"""What a client takes over of the settings of its group, in which it has no say.

What somebody said at the client itself stays: a dataset that was attached there in another way, with the
manifests of that name, or a policy. It counts as the client's own for as long as it is neither what was taken
over nor what members have. Pins are for members: a client's copies are the first to go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import IO, Final

from forebay.peer.settings.book import Book
from forebay.peer.settings.exchange import Taken
from forebay.peer.settings.items import DATASET, MANIFEST, POLICY, SHOWN, Content, Item, canonical
from forebay.peer.settings.local import LocalSettings

_log = logging.getLogger(__name__)

FILE_NAME: Final = "client-settings.json"

_PIN: Final = "pin"


class Aside:
    """What one process has left as it is at its client, and why; that is told once, and asked for no more."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.commit: int | None = None
        self.versions: Final[dict[str, tuple[int, str]]] = {}
        self.told: Final[dict[str, str]] = {}

    def tell(self, key: str, reason: str) -> None:
        """Log why a setting does not hold here, once."""
        if self.told.get(key) != reason:
            self.told[key] = reason
            _log.warning("setting %s of the group does not hold here: %s", key, reason)


class TakenSettings:
    """The settings of a client. For one pull, by one process of the cache directory at a time."""

    def __init__(self, local: LocalSettings, folder: str, aside: Aside) -> None:
        """Go by what was taken over before, which lies in a folder. Raises: ConfigError (it is damaged)."""
        self._local: Final = local
        self._book: Final = Book(folder, "client", file_name=FILE_NAME)
        self._aside: Final = aside
        if aside.commit != local.commit():
            # What was the client's own may be so no more.
            aside.versions.clear()

    def summary(self) -> dict[str, tuple[int, str]]:
        """Return the versions that are known here, by key."""
        return {key: item.order for key, item in self._book.items().items()} | self._aside.versions

    def take(self, items: Iterable[Item], listings: Mapping[str, IO[bytes]]) -> Taken:
        """Make those hold here that are newer, and not about what is the client's own."""
        newer = sorted(filter(self._book.is_newer, items), key=lambda item: item.turn)
        if not newer:
            return Taken()
        present = self._local.read()
        coming = {item.key: item for item in newer}
        count, refused = 0, {}
        datasets: set[str] = set()
        for item in newer:
            if self._is_own(item, present, coming):
                self._aside.versions[item.key] = item.order
                continue
            taken = _without_pin(item)
            if item.kind == DATASET:
                datasets.add(item.dataset)
            try:
                if self._local.replaces(item):
                    # First: what goes with the dataset is to be told again, should this end here.
                    self._book.forget_missing(item.dataset, {})
                self._local.apply(taken, listings.get(item.key))
                self._book.take(taken)
                count += 1
            except (OSError, ValueError, LookupError) as error:
                refused[item.key] = f"{type(error).__name__}: {error}"
                self._aside.tell(item.key, refused[item.key])
        if datasets:
            self._forget_missing(datasets)
        self._aside.commit = self._local.commit()
        return Taken(count, refused)

    def _forget_missing(self, datasets: Iterable[str]) -> None:
        """Have members tell again what went with a dataset that was detached here or shows something else."""
        present = self._local.read()
        for dataset in datasets:
            self._book.forget_missing(dataset, present)

    def _is_own(self, item: Item, present: Mapping[str, Content], coming: Mapping[str, Item]) -> bool:
        if self._differs(item.key, present, coming):
            return True
        of_dataset = f"{DATASET}/{item.dataset}"
        return item.kind in (MANIFEST, SHOWN) and self._differs(of_dataset, present, coming)

    def _differs(self, key: str, present: Mapping[str, Content], coming: Mapping[str, Item]) -> bool:
        """Say whether there is something here that is neither what was taken over nor what comes."""
        here = present.get(key)
        if here is None:
            return False
        known = (self._book.get(key), coming.get(key))
        said = [canonical(item.content) for item in known if item is not None]
        return canonical(here) not in said


def _without_pin(item: Item) -> Item:
    said = None if item.content is None else item.content.get("policy")
    if item.kind != POLICY or item.content is None or not isinstance(said, dict):
        return item
    policy = {name: value for name, value in said.items() if name != _PIN}
    return replace(item, content={**item.content, "policy": policy})
