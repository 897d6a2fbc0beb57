"""One thing that all members have alike, with the version that decides which of two is the newer.

A dataset, a manifest, which manifest a dataset shows, or what policies say of one path. Its key is text; its
content is plain data, None for what was taken away, which is remembered so that a member that was away does
not bring it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forebay.errors import ConfigError

DATASET: Final = "dataset"
MANIFEST: Final = "manifest"
SHOWN: Final = "shown"
POLICY: Final = "policy"
# How many parts the key of a kind has.
_PARTS: Final = {DATASET: 2, MANIFEST: 3, SHOWN: 2, POLICY: 3}

CONTENT_BYTES_MAX: Final = 1 << 20
_KEY_CHARACTERS_MAX: Final = 512
_VERSION_MAX: Final = (1 << 63) - 1
# A setting that is changed a million times a second since 1970 has fewer versions; the first summand is for
# hosts whose clocks are wrong.
_VERSIONS_AT_FIRST: Final = 1 << 40
_VERSIONS_A_SECOND: Final = 1 << 20

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A thing as it was at one version; writer is the member that said so."""

    key: str
    version: int
    writer: str
    content: Content | None

    @property
    def kind(self) -> str:
        """What it is: the first part of the key."""
        return self.key.partition("/")[0]

    @property
    def dataset(self) -> str:
        """The name of the dataset that it concerns."""
        return self.key.split("/", 2)[1]

    @property
    def turn(self) -> int:
        """Its place among several that come together: what others need comes before them, and goes last."""
        if self.content is None:
            return {SHOWN: 2, POLICY: 3, MANIFEST: 4, DATASET: 5}[self.kind]
        return {DATASET: 0, MANIFEST: 1, SHOWN: 2, POLICY: 3}[self.kind]

    @property
    def order(self) -> tuple[int, str]:
        """What decides between two of one key: the greater wins, at every member alike."""
        return self.version, self.writer

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        content = None if self.content is None else dict(self.content)
        return {"key": self.key, "version": self.version, "writer": self.writer, "content": content}

    @classmethod
    def from_json(cls, value: object) -> Item:
        """Make what ``to_json`` gave. Raises: ConfigError (says what is wrong)."""
        if not isinstance(value, dict) or value.keys() != {"key", "version", "writer", "content"}:
            raise ConfigError("a setting is an object of key, version, writer and content")
        return checked(**value)


def checked(key: object, version: object, writer: object, content: object) -> Item:
    """Make an item of what somebody else said. Raises: ConfigError."""
    if not isinstance(key, str) or not 0 < len(key) <= _KEY_CHARACTERS_MAX:
        raise ConfigError(f"the key of a setting has 1 to {_KEY_CHARACTERS_MAX} characters")
    parts = key.split("/")
    if len(parts) != _PARTS.get(parts[0]) or not all(parts):
        raise ConfigError(
            f"setting {key!r}: not dataset/NAME, shown/NAME, policy/NAME/PATH or manifest/NAME/VERSION"
        )
    if isinstance(version, bool) or not isinstance(version, int) or not 0 < version <= _VERSION_MAX:
        raise ConfigError(f"setting {key!r}: version {version!r} is no number from 1 on")
    if not isinstance(writer, str) or not writer:
        raise ConfigError(f"setting {key!r}: nobody is named as its writer")
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"setting {key!r}: its content is no JSON object")
    return Item(key, version, writer, content)


def check_told(item: Item, now_s: float) -> None:
    """Hold the version that another host tells of to what may be at a time, in seconds since 1970.

    What is let pass can be surpassed a moment later; a greatest version of all could not, and whoever told it
    would have the last word for good. Raises: ConfigError.
    """
    most = _VERSIONS_AT_FIRST + int(max(now_s, 0.0) * _VERSIONS_A_SECOND)
    if item.version > most:
        raise ConfigError(f"setting {item.key!r}: version {item.version} cannot be yet, at most {most}")


def canonical(content: Content | None) -> bytes:
    """Return content as JSON, the same for the same content."""
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def parse_content(key: str, text: bytes) -> Content:
    """Read what ``canonical`` wrote. Raises: ConfigError (too long, no JSON object)."""
    if len(text) > CONTENT_BYTES_MAX:
        raise ConfigError(f"setting {key!r}: {len(text)} bytes are more than {CONTENT_BYTES_MAX}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"setting {key!r}: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"setting {key!r}: its content is no JSON object")
    return content
