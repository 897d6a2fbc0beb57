"""The record of an attachment, made from what a user gave and checked before anything is asked."""

from __future__ import annotations

import grp
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from forebay.cache.paths import check_dataset_name
from forebay.config import nearest, parse_bytes
from forebay.errors import ConfigError
from forebay.meta import Dataset
from forebay.remote import LocalCopy

RETENTIONS: Final = ("epoch", "s3fifo", "lru")
WRITE_MODES: Final = ("through", "cache_through")
LOCAL_COPIES: Final = get_args(LocalCopy)


def dataset_record(
    name: str,
    uri: str,
    *,
    max_age: float | None,
    negative_ttl: float,
    retention: str,
    manifest_only: bool = False,
    writable: bool = False,
    write_mode: str = "through",
    quota: int | str | None = None,
    local_copy: str | None = None,
    options: Mapping[str, Any],
) -> Dataset:
    """Return the record, without an id. Raises: ConfigError."""
    check_dataset_name(name)
    if local_copy is not None:
        _one_of(LOCAL_COPIES, local_copy, "local_copy")
    if writable and manifest_only:
        raise ConfigError("writable: not with manifest_only: what a manifest lists never changes")
    return Dataset(
        name=name,
        uri=_plain_uri(uri),
        max_age=None if max_age is None else _seconds(max_age, "max_age", "None (immutable) nor seconds"),
        negative_ttl=_seconds(negative_ttl, "negative_ttl", "0 (not remembered) nor seconds"),
        retention=_one_of(RETENTIONS, retention, "retention"),
        writable=_truth(writable, "writable"),
        write_mode=_one_of(WRITE_MODES, write_mode, "write_mode"),
        options=options,
        manifest_only=_truth(manifest_only, "manifest_only"),
        quota_bytes=quota_bytes_of(quota),
        local_copy=local_copy,
    )


def quota_bytes_of(quota: int | str | None) -> int | None:
    """Return what may be cached of a dataset, None: no limit. Raises: ConfigError."""
    return None if quota is None else parse_bytes(quota, "quota")


def group_id(group: str | int | None) -> int | None:
    """Return the id of a group given by name or id. Raises: ConfigError (no such group)."""
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"shared_group: there is no group {group!r}") from None


def _plain_uri(uri: str) -> str:
    """Take the slash off the end, so that one place has one URI."""
    stripped = uri.rstrip("/")
    return stripped if "://" in stripped else uri


def _seconds(value: object, what: str, kinds: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{what}: {value!r} is neither {kinds}, 0 or more")
    return float(value)


def _truth(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{what}: {value!r} is neither True nor False")
    return value


def _one_of(choices: Sequence[str], value: str, what: str) -> str:
    if value not in choices:
        known = ", ".join(choices)
        raise ConfigError(f"{what}: {value!r} is unknown{nearest(str(value), choices)}; there are {known}")
    return value
