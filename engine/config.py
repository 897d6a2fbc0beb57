"""Configuration: sizes, tiers, defaults, and whether this machine can hold a store.

Every check here raises ConfigError with what is wrong, where it stands and what would be right. Nothing in
this module touches a cache directory; what files and environment say is read by ``forebay.settings``.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, get_args

from forebay.errors import ConfigError

Medium = Literal["MEM", "SSD", "HDD"]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# The folder within a cache directory that this version reads and writes.
FORMAT_FOLDER: Final = "v1"

BLOCK_BYTES_DEFAULT: Final = 4 * MIB
BLOCK_BYTES_MIN: Final = 64 * KIB
BLOCK_BYTES_MAX: Final = 64 * MIB
READ_BYTES_MAX_DEFAULT: Final = GIB
STAGING_BYTES_MAX_DEFAULT: Final = 16 * GIB

KERNEL_MIN: Final = (5, 14)
PYTHON_MIN: Final = (3, 11)
MACHINES: Final = ("x86_64", "aarch64")

MEDIA: Final[tuple[Medium, ...]] = get_args(Medium)
_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_UNITS: Final[Mapping[str, int]] = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("", 1024), ("IB", 1024), ("B", 1000))
}

# Defaults take a modest part of the machine: the default tiers must never be why something else fails.
_MEM_TIER_BYTES_MAX: Final = GIB
_MEM_TIER_BYTES_MIN: Final = 64 * MIB
_MEM_TIER_SHARE: Final = 0.125
_SSD_TIER_BYTES_MAX: Final = 64 * GIB
_SSD_TIER_SHARE: Final = 0.5
_SHM: Final = Path("/dev/shm")


def parse_bytes(value: int | str, what: str = "a size") -> int:
    """Turn ``"4GiB"``, ``"500MB"``, ``"64K"`` or a number into bytes.

    KiB, MiB, ... and bare K, M, ... are powers of 1024, KB, MB, ... powers of 1000, as in coreutils; what
    names the setting in errors.
    Raises: ConfigError (not a size, negative, or not a whole number of bytes).
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ConfigError(f"{what}: {value!r} is no size; write a number of bytes or for example '4GiB'")
    if isinstance(value, int):
        if value < 0:
            raise ConfigError(f"{what}: {value} is negative")
        return value
    match = _SIZE.fullmatch(value)
    scale = _UNITS.get(match[2].upper()) if match else None
    if match is None or scale is None:
        raise ConfigError(
            f"{what}: {value!r} is no size; write for example '4GiB', '500MB' or a number of bytes"
        )
    size_bytes = Fraction(match[1]) * scale
    if size_bytes.denominator != 1:
        raise ConfigError(f"{what}: {value!r} is no whole number of bytes")
    return size_bytes.numerator


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the most similar known word, nothing if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


@dataclass(frozen=True)
class Tier:
    """One directory in which cached bytes lie; several of one medium form one level.

    quota is what it may hold at most, in bytes or as ``"4GiB"``, and is bytes once the tier is made; high
    and low are the watermarks, as shares of the quota; path is made absolute.
    Raises: ConfigError (no size or zero, unknown medium, watermarks out of order).
    """

    path: str
    quota: int | str
    medium: Medium = "SSD"
    high: float = 0.95
    low: float = 0.90

    def __post_init__(self) -> None:
        """Check every field and bring it into its one form."""
        raw_path = _text(self.path, "a tier's path")
        if not raw_path or "\0" in raw_path:
            raise ConfigError(f"a tier's path: {raw_path!r} names no directory")
        where = f"tier {raw_path}"
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(raw_path)))
        object.__setattr__(self, "quota", parse_bytes(self.quota, f"{where}: quota"))
        object.__setattr__(self, "medium", _medium(self.medium, where))
        object.__setattr__(self, "high", _share(self.high, f"{where}: high"))
        object.__setattr__(self, "low", _share(self.low, f"{where}: low"))
        if self.quota == 0:
            raise ConfigError(f"{where}: quota is zero; give it room or leave the tier out")
        if self.low > self.high:
            raise ConfigError(f"{where}: low watermark {self.low} is above high watermark {self.high}")

    @property
    def quota_bytes(self) -> int:
        """The quota in bytes."""
        return parse_bytes(self.quota)

    @classmethod
    def parse(cls, text: str) -> Tier:
        """Make a tier from ``PATH:QUOTA[:MEDIUM]``, as on the command line and in FOREBAY_TIERS.

        The path itself may hold colons. Raises: ConfigError.
        """
        path, *values = text.rsplit(":", 2)
        if len(values) == 2 and not _is_size(values[0]):
            path, *values = text.rsplit(":", 1)
        if not path or not values:
            example = "/nvme/forebay:200GiB:SSD"
            raise ConfigError(f"tier {text!r}: write PATH:QUOTA or PATH:QUOTA:MEDIUM, for example {example}")
        return cls(path, values[0], _medium(values[1], f"tier {path}") if len(values) == 2 else "SSD")


def _is_size(text: str) -> bool:
    try:
        parse_bytes(text)
    except ConfigError:
        return False
    return True


def _text(value: object, what: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(f"{what}: expected text, got {value!r}")
    return value


def _medium(value: object, where: str) -> Medium:
    upper = value.strip().upper() if isinstance(value, str) else ""
    for medium in MEDIA:
        if upper == medium:
            return medium
    raise ConfigError(
        f"{where}: unknown medium {value!r}{nearest(upper, MEDIA)}; media are {', '.join(MEDIA)}"
    )


def _share(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"{what}: {value!r} is no share; write a number above 0 and up to 1")
    return float(value)


def validate_tiers(tiers: Iterable[Tier]) -> tuple[Tier, ...]:
    """Check tiers against each other and return them fastest medium first, otherwise in the order given.

    Raises: ConfigError (none at all, or two directories that are the same or lie in one another).
    """
    ordered = sorted(tiers, key=lambda tier: MEDIA.index(tier.medium))
    if not ordered:
        raise ConfigError("no tiers: give at least one directory with a quota")
    real_paths = [(os.path.realpath(tier.path), tier) for tier in ordered]
    for position, (real_path, tier) in enumerate(real_paths):
        for other_real_path, other in real_paths[position + 1 :]:
            if os.path.commonpath((real_path, other_real_path)) in (real_path, other_real_path):
                raise ConfigError(
                    f"tiers {tier.path} and {other.path} overlap; give each a directory of its own"
                )
    return tuple(ordered)


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Return the cache directory to use when none is named: XDG's, for root /var/cache/forebay."""
    if os.geteuid() == 0:
        return "/var/cache/forebay"
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says that a relative value is to be ignored.
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "forebay")


def is_new(cache_dir: str) -> bool:
    """Say whether a cache directory remembers no tiers yet, as far as can be seen from outside."""
    return not os.path.exists(os.path.join(cache_dir, FORMAT_FOLDER, "index"))


def default_tiers(cache_dir: str) -> tuple[Tier, ...]:
    """Return the tiers of a new cache for which none were named.

    Memory: an eighth of what /dev/shm has free, 1 GiB at most, left out where that is under 64 MiB. Disk:
    half of what is free under the cache directory, 64 GiB at most. Asks file systems for their free space;
    makes nothing.
    Raises: ConfigError (no free space at all).
    """
    tiers = []
    mem_bytes = min(int(_free_bytes(_SHM) * _MEM_TIER_SHARE), _MEM_TIER_BYTES_MAX)
    if mem_bytes >= _MEM_TIER_BYTES_MIN:
        label = hashlib.blake2b(os.fsencode(os.path.realpath(cache_dir)), digest_size=6).hexdigest()
        tiers.append(Tier(str(_SHM / f"forebay-{os.geteuid()}-{label}"), mem_bytes, "MEM"))
    ssd_bytes = min(
        int(_free_bytes(_existing_parent(Path(cache_dir))) * _SSD_TIER_SHARE), _SSD_TIER_BYTES_MAX
    )
    if ssd_bytes > 0:
        tiers.append(Tier(os.path.join(cache_dir, "tier"), ssd_bytes, "SSD"))
    if not tiers:
        raise ConfigError(
            f"no room for a cache: {cache_dir} and {_SHM} have no free space; name tiers yourself"
        )
    return tuple(tiers)


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _free_bytes(path: Path) -> int:
    """Return what an unprivileged process may still write there, 0 where there is no such directory."""
    try:
        stats = os.statvfs(path)
    except OSError:
        return 0
    return stats.f_bavail * stats.f_frsize


def check_platform() -> None:
    """Check that this machine and interpreter can hold a store.

    Raises: ConfigError naming what is needed and what was found.
    """
    found = (
        f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )
    needs = []
    if sys.platform != "linux" or _kernel_version(platform.release()) < KERNEL_MIN:
        needs.append(f"Linux {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or newer")
    if platform.machine() not in MACHINES or sys.maxsize <= 1 << 32 or sys.byteorder != "little":
        needs.append("a 64-bit x86-64 or arm64 machine")
    if platform.python_implementation() != "CPython" or sys.version_info[:2] < PYTHON_MIN:
        needs.append(f"CPython {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or newer")
    if needs:
        raise ConfigError(f"forebay's store needs {' and '.join(needs)}; this is {found}")


def _kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a release such as ``6.18.44-generic``, (0, 0) of any other form."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
