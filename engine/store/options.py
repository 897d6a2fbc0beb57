"""Options of a block store: checked once, in Python, before anything is opened."""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from forebay.config import (
    BLOCK_BYTES_DEFAULT,
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    MIB,
    Tier,
    check_platform,
    nearest,
    parse_bytes,
    validate_tiers,
)
from forebay.errors import ConfigError

CHECKSUMS: Final = ("none", "load", "read")
DISK_VIEWS: Final = ("copy", "map")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What BlockStore takes beside path and tiers; `forebay.store.BlockStore` documents each."""

    checksum: str = "load"
    disk_views: str = "copy"
    block_bytes: int | str = BLOCK_BYTES_DEFAULT
    max_held_bytes: int | str | None = None
    stall_timeout_s: float = 5.0
    rows: int = 1024
    shared_group: int | str | None = None
    read_only: bool = False
    reshape: bool = False
    maintainer: bool = True
    promote_bytes_per_second: int | str = 256 * MIB

    @property
    def group_id(self) -> int | None:
        """The number of the shared group."""
        if self.shared_group is None or isinstance(self.shared_group, int):
            return self.shared_group
        try:
            return grp.getgrnam(self.shared_group).gr_gid
        except KeyError:
            raise ConfigError(f"shared_group: no group {self.shared_group!r} on this host") from None


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    """The same, in numbers."""

    checksum: str
    disk_views: str
    block_bytes: int
    max_held_bytes: int
    stall_timeout_s: float
    rows: int
    group_id: int | None
    read_only: bool
    reshape: bool
    maintainer: bool
    promote_bytes_per_second: int


def _one_of(name: str, value: object, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(known)}")
    return value


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{name}: {value!r} is not a number from {least:g} to {most:g}")
    return value


def _check(options: StoreOptions) -> CheckedOptions:
    block_bytes = parse_bytes(options.block_bytes, "block_bytes")
    if not BLOCK_BYTES_MIN <= block_bytes <= BLOCK_BYTES_MAX or block_bytes & (block_bytes - 1):
        raise ConfigError(f"block_bytes: {options.block_bytes!r} is not a power of two from 64 KiB to 64 MiB")
    held = 0 if options.max_held_bytes is None else parse_bytes(options.max_held_bytes, "max_held_bytes")
    return CheckedOptions(
        checksum=_one_of("checksum", options.checksum, CHECKSUMS),
        disk_views=_one_of("disk_views", options.disk_views, DISK_VIEWS),
        block_bytes=block_bytes,
        max_held_bytes=held,
        stall_timeout_s=_number("stall_timeout_s", options.stall_timeout_s, 0.1, 3600),
        rows=int(_number("rows", options.rows, 2, 4096)),
        group_id=options.group_id,
        read_only=options.read_only,
        reshape=options.reshape,
        maintainer=options.maintainer,
        promote_bytes_per_second=parse_bytes(options.promote_bytes_per_second, "promote_bytes_per_second"),
    )


def store_options(
    path: str | os.PathLike[str], tiers: Sequence[Tier] | None, options: Mapping[str, Any]
) -> tuple[str, tuple[Tier, ...] | None, CheckedOptions]:
    """Check what a store is opened with.

    Returns the absolute path, the tiers fastest first (None: the remembered ones) and the options.
    Raises: ConfigError (an unknown option with its nearest match, a value out of range, tiers that
    overlap, a platform that cannot hold a store).
    """
    check_platform()
    known = [field.name for field in fields(StoreOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"unknown option {name!r}{nearest(name, known)}; options are {', '.join(known)}"
            )
    folder = os.path.abspath(os.path.expanduser(os.fspath(path)))
    return folder, None if tiers is None else validate_tiers(tiers), _check(StoreOptions(**options))
