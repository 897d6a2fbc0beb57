"""Settings as messages: an item, and behind a manifest's its listing in parts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Final, Protocol, Self

from forebay.errors import ConfigError
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.settings.exchange import SettingsExchange, Taken
from forebay.peer.settings.items import MANIFEST, Item, canonical, check_told, checked, parse_content

PART_BYTES: Final = 1 << 20
# All listings of one exchange together, on disk: 40 million objects of 100 bytes.
LISTING_BYTES_MAX: Final = 4 << 30
_ITEMS_MAX: Final = 1_000_000


class Taker(Protocol):
    """Whoever takes over what members have newer."""

    def summary(self) -> dict[str, tuple[int, str]]:
        """Return the versions that are known, by key."""
        ...

    def take(self, items: Iterable[Item], listings: Mapping[str, IO[bytes]]) -> Taken:
        """Make those hold that are newer; listings are those of manifests, by key, at their beginning."""
        ...


def summary_of(known: Mapping[str, tuple[int, str]]) -> pb.SettingsSummary:
    """Write what is known as a message."""
    return pb.SettingsSummary(
        known=[
            pb.SettingVersion(key=key, version=version, writer=writer)
            for key, (version, writer) in known.items()
        ]
    )


def parse_summary(message: pb.SettingsSummary) -> dict[str, tuple[int, str]]:
    """Read what somebody knows. Raises: ConfigError (too much of it)."""
    if len(message.known) > _ITEMS_MAX:
        raise ConfigError(f"{len(message.known)} settings are more than {_ITEMS_MAX}")
    return {each.key: (each.version, each.writer) for each in message.known}


def messages_of(exchange: SettingsExchange, items: Iterable[Item]) -> Iterator[pb.Setting]:
    """Write items as messages. A manifest that is gone meanwhile is left out."""
    for item in items:
        version = pb.SettingVersion(key=item.key, version=item.version, writer=item.writer)
        if item.content is None:
            yield pb.Setting(version=version, is_deleted=True, is_last=True)
            continue
        content = canonical(item.content)
        if item.kind != MANIFEST:
            yield pb.Setting(version=version, content=content, is_last=True)
            continue
        with tempfile.TemporaryFile() as spool:
            try:
                exchange.write_listing(item, spool)
            except (LookupError, OSError):
                continue
            spool.seek(0)
            yield pb.Setting(version=version, content=content)
            while part := spool.read(PART_BYTES):
                yield pb.Setting(part=part)
            yield pb.Setting(is_last=True)


class Incoming:
    """Settings as they come, with listings on disk; a context manager that removes them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._items: Final[list[Item]] = []
        self._listings: Final[dict[str, IO[bytes]]] = {}
        self._open: Final = ExitStack()
        self._current: Item | None = None
        self._listing_bytes = 0

    def add(self, message: pb.Setting) -> None:
        """Take the next message. Raises: ConfigError (says what is wrong with it); OSError (disk full)."""
        if self._current is None:
            self._begin(message)
        if message.part:
            self._add_part(message.part)
        if message.is_last:
            assert self._current is not None
            self._items.append(self._current)
            self._current = None

    def take(self, taker: Taker) -> Taken:
        """Make what came whole hold here."""
        for listing in self._listings.values():
            listing.seek(0)
        return taker.take(self._items, self._listings)

    def _begin(self, message: pb.Setting) -> None:
        version = message.version
        content = None if message.is_deleted else parse_content(version.key, message.content)
        item = checked(version.key, version.version, version.writer, content)
        check_told(item, time.time())
        self._current = item
        if len(self._items) >= _ITEMS_MAX:
            raise ConfigError(f"more than {_ITEMS_MAX} settings come in one call")

    def _add_part(self, part: bytes) -> None:
        assert self._current is not None
        if self._current.kind != MANIFEST:
            raise ConfigError(f"setting {self._current.key!r}: only a manifest has a listing")
        self._listing_bytes += len(part)
        if self._listing_bytes > LISTING_BYTES_MAX:
            raise ConfigError(f"listings of more than {LISTING_BYTES_MAX} bytes come in one call")
        listing = self._listings.get(self._current.key)
        if listing is None:
            listing = self._listings[self._current.key] = self._new_spool()
        listing.write(part)

    def _new_spool(self) -> IO[bytes]:
        spool = tempfile.TemporaryFile()  # noqa: SIM115  (closed with all others)
        return self._open.enter_context(spool)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the listings."""
        self._open.close()
