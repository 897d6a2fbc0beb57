"""What a request asks for: its path, decoded once, and its parameters, each held to what it may be."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

PREFIX: Final = b"/webhdfs/v1"

_PARAMETERS_MAX: Final = 64
_USER_CHARACTERS_MAX: Final = 255
_NUMBER_MAX: Final = (1 << 63) - 1


def path_of(raw_path: bytes) -> str:
    """Return the path in the file system that the path of a URL names.

    A slash in a name cannot be told from one between names, so none is encoded. Raises: ValueError.
    """
    encoded = raw_path.removeprefix(PREFIX)
    if b"%2f" in encoded.lower():
        raise ValueError(f"path {encoded.decode('ascii', 'replace')!r} has an encoded slash in it")
    return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape") or "/"


class Query:
    """The parameters of one request, whose names are not told apart by case. Raises: ValueError, from all."""

    def __init__(self, query: bytes) -> None:
        """Read the query string of a URL."""
        pairs = parse_qsl(
            query.decode("ascii", "replace"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=_PARAMETERS_MAX,
        )
        self._values: Final = {name.lower(): value for name, value in reversed(pairs)}

    @property
    def op(self) -> str:
        """The operation, in capitals."""
        return self.text("op").upper()

    @property
    def user(self) -> str | None:
        """Who the client says he is: that identifies him, and proves nothing."""
        user = self._values.get("doas") or self._values.get("user.name") or None
        if user is not None and (
            len(user) > _USER_CHARACTERS_MAX or "/" in user or not user.isprintable() or user in (".", "..")
        ):
            raise ValueError(f"user {user[:80]!r} is no name of a user")
        return user

    def excluded(self) -> frozenset[str]:
        """Return excludedatanodes: HOST:PORT or HOST of whom the client found to fail, in small letters."""
        named = self.text("excludedatanodes", "").lower().split(",")
        return frozenset(each.strip() for each in named if each.strip())

    def text(self, name: str, default: str | None = None) -> str:
        """Return a parameter; one without a default has to be there."""
        value = self._values.get(name, default)
        if value is None or (value == "" and default is None):
            raise ValueError(f"parameter {name!r} is missing")
        return value

    def number(self, name: str, default: int | None = None) -> int | None:
        """Return a parameter that is a whole number from 0 to 2**63 - 1, a default where it is not there."""
        value = self._values.get(name)
        if value is None or value in ("", "null"):
            return default
        if not (value.isascii() and value.isdigit()) or int(value[:20]) > _NUMBER_MAX or len(value) > 20:
            raise ValueError(f"parameter {name!r} is {value[:80]!r}; expected a whole number from 0 on")
        return int(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a parameter that is true or false."""
        value = self._values.get(name, "").lower()
        if value in ("", "null"):
            return default
        if value not in ("true", "false"):
            raise ValueError(f"parameter {name!r} is {value[:80]!r}; expected true or false")
        return value == "true"

    def times(self) -> tuple[int, int]:
        """Return modificationtime and accesstime, -1 for what is to stay."""
        return self._time("modificationtime"), self._time("accesstime")

    def _time(self, name: str) -> int:
        if self._values.get(name, "-1") == "-1":
            return -1
        return self.number(name) or 0
