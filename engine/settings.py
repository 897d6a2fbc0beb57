"""Settings from a TOML file and from the environment: the one table of keys, and what is refused.

A setting given in the call or on the command line wins over its environment variable, that over the file
(``--config`` or ``FOREBAY_CONFIG`` names it), that over the default. The variable of a key is ``FOREBAY_``
and the key in capitals. There is no setting for a secret: a file that holds one is refused, and the value is
not shown. Ranges are checked by who uses the value.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from forebay.config import Tier, nearest, parse_bytes, validate_tiers
from forebay.errors import ConfigError

ENV_CONFIG: Final = "FOREBAY_CONFIG"

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_SECRET_WORDS: Final = ("secret", "token", "password", "passwd", "credential", "access_key", "api_key")
# Keys with such a word that hold the name of a file.
_REFERENCES: Final = ("token_file", "token_keys_file", "token_revoked_file")
_SECRET_VALUE: Final = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN|://[^/\s@]*@|\bfb1\.[A-Za-z0-9_-]+\."
)


class Setting(NamedTuple):
    """One key, and what reads its value: called with the place it stands at, for errors, and the value."""

    key: str
    read: Callable[[str, object], Any]

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"FOREBAY_{self.key.upper()}"


@dataclass(frozen=True)
class Settings:
    """What was set; None, or absent from options, where nothing was.

    options are those of ``forebay.open``.
    """

    cache_dir: str | None = None
    tiers: tuple[Tier, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def load_settings(
    config_file: str | None = None,
    environ: Mapping[str, str] | None = None,
    given: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Read the TOML file, the environment and the given texts, the later winning over the earlier.

    config_file, or else FOREBAY_CONFIG, names the file; without either none is read. given is from the
    command line, key to text. Empty variables are as good as none, and variables of no setting are left
    alone: a container's environment holds some that only look like ours.
    Raises: ConfigError (file unreadable or no TOML, an unknown key, a value of the wrong kind, a secret;
    says where and which key).
    """
    environ = os.environ if environ is None else environ
    name = config_file or environ.get(ENV_CONFIG)
    values = _read_file(os.path.expanduser(name)) if name else {}
    for setting in SETTINGS:
        if text := environ.get(setting.variable):
            values[setting.key] = setting.read(setting.variable, text)
    _refuse_unknown(given, "")
    for setting in SETTINGS:
        if setting.key in given:
            values[setting.key] = setting.read(setting.key, given[setting.key])
    return Settings(values.pop("cache_dir", None), values.pop("tiers", None), values)


def _read_file(name: str) -> dict[str, Any]:
    try:
        with open(name, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
    for key in _secrets(table):
        raise ConfigError(
            f"{name}: {key}: a secret; take it out, and give credentials by reference: the environment, "
            "a profile (attach --profile) or the machine's role"
        )
    _refuse_unknown(table, f"{name}: ")
    return {
        setting.key: setting.read(f"{name}: {setting.key}", table[setting.key])
        for setting in SETTINGS
        if setting.key in table
    }


def _secrets(value: object, key: str = "") -> Iterator[str]:
    """Yield the keys, with dots, that by their name or their value hold a secret."""
    last = key.rpartition(".")[2].lower().replace("-", "_")
    by_name = any(word in last for word in _SECRET_WORDS) and key not in _REFERENCES
    if by_name or (isinstance(value, str) and _SECRET_VALUE.search(value)):
        yield key
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, key)


def _refuse_unknown(table: Iterable[str], where: str, known: Sequence[str] | None = None) -> None:
    known = [setting.key for setting in SETTINGS] if known is None else known
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}unknown key {key!r}{nearest(key, known)}; keys are {', '.join(known)}")


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{where}: expected text, got {_kind(value)}")
    return value


def _local(kind: str) -> Callable[[str, object], str]:
    def read(where: str, value: object) -> str:
        text = _text(where, value)
        if "://" in text:
            raise ConfigError(f"{where}: expected a local {kind}, got a URL")
        return os.path.expanduser(text)

    return read


def _reference(where: str, value: object) -> str:
    """Read the name of a file with a secret or certificate in it; for a token also ``env:NAME``."""
    text = _text(where, value)
    if _SECRET_VALUE.search(text):
        raise ConfigError(f"{where}: expected the name of a file, got what belongs into one")
    return _local("file")(where, text)


def _size(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ConfigError(f"{where}: expected a size such as '4GiB', got {_kind(value)}")
    return parse_bytes(value, where)


def _count(where: str, value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where}: expected a whole number, got {_kind(value)}")
    return value


def _seconds(where: str, value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: expected seconds, got {_kind(value)}")
    return float(value)


def _flag(where: str, value: object) -> bool:
    text = value.lower() if isinstance(value, str) else ""
    if isinstance(value, bool) or text in (*_TRUE, *_FALSE):
        return value is True or text in _TRUE
    raise ConfigError(f"{where}: expected true or false, got {_kind(value)}")


def _group(where: str, value: object) -> int | str:
    """Read a group's name or number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _text(where, value)
    return int(text) if text.isdecimal() else text


def _one_of(*choices: str) -> Callable[[str, object], str]:
    def read(where: str, value: object) -> str:
        text = _text(where, value)
        if text not in choices:
            raise ConfigError(
                f"{where}: {text!r} is unknown{nearest(text, choices)}; there are {', '.join(choices)}"
            )
        return text

    return read


def _kind(value: object) -> str:
    """Name the kind of a value: the value itself may be what nobody should see."""
    names = {bool: "true or false", str: "other text", int: "a number", float: "a number", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a table")


def _texts(where: str, value: object) -> tuple[str, ...]:
    """Read a list of texts, or one text with commas between them."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of texts, got {_kind(value)}")
    return tuple(_text(where, each) for each in value)


def _tiers(where: str, value: object) -> tuple[Tier, ...]:
    """Read tables, or the text form: PATH:QUOTA[:MEDIUM] with commas between them."""
    try:
        if isinstance(value, str):
            return validate_tiers(Tier.parse(part.strip()) for part in value.split(",") if part.strip())
        if not isinstance(value, list) or not all(isinstance(table, Mapping) for table in value):
            raise ConfigError("expected tables, written as [[tiers]] with path and quota below")
        return validate_tiers(_tier(table) for table in value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _tier(table: Mapping[str, Any]) -> Tier:
    _refuse_unknown(table, "", [field.name for field in fields(Tier)])
    for key in ("path", "quota"):
        if key not in table:
            raise ConfigError(f"{key} is missing in one of the tables")
    return Tier(**table)


# The one list of keys; docs/cli.md and deploy/forebay.toml.example say what they mean.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("cache_dir", _local("directory")),
    Setting("prices", _local("file")),
    Setting("tiers", _tiers),
    Setting("checksum", _one_of("none", "load", "read")),
    Setting("disk_views", _one_of("copy", "map")),
    Setting("block_bytes", _size),
    Setting("max_held_bytes", _size),
    Setting("max_read_bytes", _size),
    Setting("max_recent_bytes", _size),
    Setting("record", _text),
    Setting("staging_dir", _local("directory")),
    Setting("staging_max", _size),
    Setting("fetch_threads", _count),
    Setting("in_flight_max", _count),
    Setting("fetch_memory", _size),
    Setting("readahead_max", _size),
    Setting("stall_timeout_s", _seconds),
    Setting("rows", _count),
    Setting("shared_group", _group),
    Setting("tls_cert_file", _reference),
    Setting("tls_key_file", _reference),
    Setting("tls_ca_file", _reference),
    Setting("tls_mutual", _flag),
    Setting("token_file", _reference),
    Setting("token_keys_file", _reference),
    Setting("token_revoked_file", _reference),
    Setting("insecure", _flag),
    Setting("read_only", _flag),
    Setting("maintainer", _flag),
    Setting("promote_bytes_per_second", _size),
    Setting("group", _text),
    Setting("peers", _texts),
    Setting("role", _one_of("client", "member")),
    Setting("replica_rate_limit", _size),
)
