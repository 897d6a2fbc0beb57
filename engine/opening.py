"""Opening a cache: settings, the cache directory, and the group of peers if there is one.

The only place that joins a cache with its peers; nothing of theirs is imported where no group is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from forebay.cache import Cache
from forebay.config import BLOCK_BYTES_DEFAULT, Tier, check_platform, default_cache_dir, nearest
from forebay.errors import ConfigError
from forebay.settings import SETTINGS, load_settings

if TYPE_CHECKING:
    from forebay.peer.security.options import SecurityOptions
    from forebay.remote import Remote

ROLES: Final = ("client", "member")

# Options of the group and not of the cache: who it is, how it is asked, and the fields of SecurityOptions.
_GROUP: Final = ("group", "peers", "role")
_ASKING: Final = ("copies", "peer_timeout_s")
# Of the member that `forebay serve` makes of a host.
_SERVING: Final = ("replica_rate_limit",)
_SECURITY: Final = (
    "tls_cert_file",
    "tls_key_file",
    "tls_ca_file",
    "tls_mutual",
    "token_file",
    "token_keys_file",
    "token_revoked_file",
    "insecure",
)


def open(
    path: str | os.PathLike[str] | None = None,
    tiers: Iterable[Tier] | None = None,
    *,
    config_file: str | None = None,
    group: str | None = None,
    peers: str | Sequence[str] | None = None,
    role: str | None = None,
    **options: Any,
) -> Cache:
    """Open a cache directory; what is not given comes from the environment, the TOML file or a default.

    Without a path it is $XDG_CACHE_HOME/forebay, or /var/cache/forebay for root. group: the group of hosts
    that this one reads through. peers: addresses of members of it, HOST:PORT. role: member, of a host that
    runs `forebay serve` for it, or client (default). options are those of Cache and, for the group,
    copies (members that hold each block, 1), peer_timeout_s (silence after which the next is asked, 2),
    tls_ca_file, tls_cert_file, tls_key_file, token_file and insecure. Raises: ConfigError.
    """
    check_platform()
    settings = load_settings(config_file)
    named = {"group": group, "peers": peers, "role": role}
    given = {name: value for name, value in named.items() if value is not None}
    return open_configured(
        path or settings.cache_dir or default_cache_dir(),
        settings.tiers if tiers is None else tiers,
        {**settings.options, **given, **options},
    )


def option_names() -> list[str]:
    """Name the options of ``open`` that can be said in plain values, its path (cache_dir) among them."""
    settings = [setting.key for setting in SETTINGS if setting.key not in _SERVING]
    return sorted([*settings, *_ASKING, "config_file"])


def open_configured(
    path: str | os.PathLike[str], tiers: Iterable[Tier] | None, options: Mapping[str, Any]
) -> Cache:
    """Open a cache directory with options as ``open`` and settings have them. Raises: ConfigError."""
    own = cache_options(options)
    if options.get("group") is not None and own.get("remote") is not None:
        raise ConfigError("group: not together with a remote of one's own")
    remote = remote_of(path, options)
    if remote is None:
        return Cache(path, tiers, **own)
    kind: type[Cache] = import_module("forebay.peer.cache").GroupCache
    try:
        return kind(path, tiers, **{**own, "remote": remote})
    except BaseException:
        remote.close()
        raise


def cache_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are Cache's own: all but those of the group."""
    others = (*_GROUP, *_ASKING, *_SERVING, *_SECURITY)
    return {name: value for name, value in options.items() if name not in others}


def remote_of(path: str | os.PathLike[str], options: Mapping[str, Any]) -> Remote | None:
    """Return the group that the options name, None where they name none. Raises: ConfigError."""
    group, peers = options.get("group"), _addresses(options.get("peers"))
    role = options.get("role", ROLES[0])
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise ConfigError(f"role: {role!r} is unknown{nearest(str(role), ROLES)}; there are {known}")
    if group is None:
        if peers:
            raise ConfigError("peers: give the name of their group as well (group)")
        return None
    if not isinstance(group, str) or not group:
        raise ConfigError(f"group: {group!r} is no name")
    if not peers:
        raise ConfigError(f"group {group!r}: give the address of a member at least (peers)")
    asking = {name: options[name] for name in _ASKING if options.get(name) is not None}
    try:
        make = import_module("forebay.peer.group").Group
        security = security_options(options)
    except ImportError as error:
        raise ConfigError(
            f"group {group!r}: peers need more: pip install 'forebay[server]' ({error})"
        ) from error
    remote: Remote = make(
        group=group,
        peers=peers,
        role=role,
        cache_dir=os.path.abspath(os.path.expanduser(path)),
        block_bytes=options.get("block_bytes", BLOCK_BYTES_DEFAULT),
        security=security,
        **asking,
    )
    return remote


def security_options(options: Mapping[str, Any]) -> SecurityOptions:
    """Return what the options say of TLS and tokens. Raises: ConfigError."""
    security = {name: options[name] for name in _SECURITY if options.get(name) is not None}
    made: SecurityOptions = import_module("forebay.peer.security.options").SecurityOptions(**security)
    return made


def _addresses(peers: object) -> list[str]:
    """Return addresses, which may be given as one text with commas between them. Raises: ConfigError."""
    if peers is None:
        return []
    found = peers.split(",") if isinstance(peers, str) else peers
    if not isinstance(found, Sequence) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f"peers: expected addresses of members, HOST:PORT, got {type(peers).__name__}")
    return [each.strip() for each in found if each.strip()]
