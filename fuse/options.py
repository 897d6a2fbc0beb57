"""The options of a mount, as they stand behind -o and in fstab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from forebay.config import nearest
from forebay.errors import ConfigError

# What mount(8), fstab and systemd say of any file system, and is theirs to see to.
_OF_OTHERS: Final = frozenset(
    {"_netdev", "auto", "defaults", "group", "noauto", "nofail", "nouser", "owner", "user", "users"}
)
# What every mount is, whether it is said or not: it has no devices, no set-user-id bits and no access times.
_ALWAYS: Final = frozenset(
    {
        *("nodev", "nosuid", "diratime", "lazytime", "nodiratime", "nolazytime", "norelatime"),
        *("nostrictatime", "relatime", "strictatime"),
    }
)
_NEVER: Final = frozenset({"dev", "suid"})
_OF_OTHERS_PREFIXES: Final = ("x-", "comment=", "user=")
_ID_MAX: Final = (1 << 32) - 2
_MODE_MAX: Final = 0o777


@dataclass(frozen=True)
class MountOptions:
    """How a mount is made and what its files look like.

    uid, gid: who owns what is shown, None: whoever mounts. fmask and dmask are the permission bits that files
    and directories do not have, as of vfat; umask says both. show_control: list the folder .forebay. The rest
    is the kernel's: no_exec, no programs are run; no_atime; sync, each write is followed by an fsync.
    """

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    fmask: int = 0o133
    dmask: int = 0o022
    show_control: bool = False
    no_exec: bool = False
    no_atime: bool = False
    sync: bool = False

    def with_text(self, text: str) -> MountOptions:
        """Return these with what a text such as ``ro,uid=1000`` says. Raises: ConfigError."""
        changes: dict[str, Any] = {}
        for word in filter(None, text.split(",")):
            key, equals, value = word.partition("=")
            if word in _OF_OTHERS or word in _ALWAYS or word.startswith(_OF_OTHERS_PREFIXES):
                continue
            if word in _NEVER:
                raise ConfigError(f"mount option {word!r} is refused: a mount is always no{word}")
            read = _READERS.get(key)
            if read is None:
                raise ConfigError(
                    f"mount option {key!r} is unknown{nearest(key, _READERS)}; there are {_known()}"
                )
            changes |= read(key, value if equals else None)
        return replace(self, **changes)

    def of_kernel(self) -> set[str]:
        """Return what the kernel is to be told, as mount(8) calls it."""
        said = {
            "allow_other": self.allow_other,
            "noexec": self.no_exec,
            "noatime": self.no_atime,
            "sync": self.sync,
        }
        return {"nodev", "nosuid"} | {word for word, is_said in said.items() if is_said}

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain data."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def _known() -> str:
    return ", ".join(sorted(_READERS))


def _flag(**said: bool) -> Callable[[str, str | None], Mapping[str, Any]]:
    def read(key: str, value: str | None) -> Mapping[str, Any]:
        if value is not None:
            raise ConfigError(f"mount option {key!r} takes no value, and was given {value!r}")
        return said

    return read


def _number(*names: str, base: int, most: int, what: str) -> Callable[[str, str | None], Mapping[str, Any]]:
    def read(key: str, value: str | None) -> Mapping[str, Any]:
        try:
            number = int(value or "", base)
        except ValueError:
            number = -1
        if not 0 <= number <= most:
            raise ConfigError(f"mount option {key!r}: {value!r} is no {what}")
        return dict.fromkeys(names, number)

    return read


_READERS: Final = {
    "ro": _flag(read_only=True),
    "rw": _flag(read_only=False),
    "allow_other": _flag(allow_other=True),
    "show_control": _flag(show_control=True),
    "exec": _flag(no_exec=False),
    "noexec": _flag(no_exec=True),
    "atime": _flag(no_atime=False),
    "noatime": _flag(no_atime=True),
    "async": _flag(sync=False),
    "sync": _flag(sync=True),
    "uid": _number("uid", base=10, most=_ID_MAX, what="id of a user"),
    "gid": _number("gid", base=10, most=_ID_MAX, what="id of a group"),
    "umask": _number("fmask", "dmask", base=8, most=_MODE_MAX, what="mask in octal digits, such as 022"),
    "fmask": _number("fmask", base=8, most=_MODE_MAX, what="mask in octal digits, such as 133"),
    "dmask": _number("dmask", base=8, most=_MODE_MAX, what="mask in octal digits, such as 022"),
}
