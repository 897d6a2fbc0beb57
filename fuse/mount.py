"""Mounting a dataset: what has to be there, what is served and how, and the end of it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from forebay.cache import Cache, Nodes
from forebay.errors import ConfigError
from forebay.fuse.mounts import FILE_SYSTEM, SUBTYPE, mount_at
from forebay.fuse.operations import Operations
from forebay.fuse.options import MountOptions
from forebay.fuse.writing import Writing

_DEVICE: Final = "/dev/fuse"
_CONFIGURATION: Final = "/etc/fuse.conf"


@dataclass(frozen=True)
class Mount:
    """A mount that is being served: of what, where, and how to end it from any thread.

    operations says what was asked of it so far, as JSON has it.
    """

    label: str
    uri: str
    mountpoint: str
    is_immutable: bool
    read_only: bool
    stop: Callable[[], None]
    operations: Callable[[], dict[str, Any]]


def serve(
    cache: Cache,
    label: str,
    mountpoint: str,
    options: MountOptions,
    on_mounted: Callable[[Mount], None],
) -> None:
    """Mount a dataset, or ``name@version`` of it, and serve it until it is unmounted or stopped.

    on_mounted is called once it can be used. One mount a process. Blocking: until its end.
    Raises: ConfigError (pyfuse3 or the kernel's FUSE is missing; says what to install); NotAttached; OSError
    (the mount point will not do, or mounting failed).
    """
    _check_machine(options)
    place = _checked_place(mountpoint)
    nodes = cache.nodes(label)
    attached = nodes.attached()
    read_only = options.read_only or not _is_writable(nodes)
    operations = (
        Operations(nodes, options, read_only=True, status=cache.status)
        if read_only
        else Writing(nodes, options, status=cache.status)
    )

    from forebay.fuse.session import Session

    session = Session(operations)
    mount = Mount(
        label,
        attached.record.uri,
        place,
        attached.max_age("") is None,
        read_only=read_only,
        stop=session.stop,
        operations=operations.counters.to_json,
    )
    wanted = _kernel_options(label, options, read_only=read_only)
    try:
        session.run(place, wanted, lambda: on_mounted(mount))
    finally:
        operations.close()


def _is_writable(nodes: Nodes) -> bool:
    """Say whether what is mounted can be written to; the storage's client is made by that."""
    try:
        nodes.writer().check()
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False
    return True


def _check_machine(options: MountOptions) -> None:
    """See that what a mount needs is there. Raises: ConfigError."""
    if find_spec("pyfuse3") is None:
        raise ConfigError(
            "a mount needs pyfuse3: pip install 'forebay[fuse]' (to build it: the Debian packages "
            "libfuse3-dev, pkg-config and gcc)"
        )
    if not os.path.exists(_DEVICE):
        raise ConfigError(
            f"{_DEVICE} is not there: load the kernel's module (modprobe fuse), or give the container the "
            "device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
        )
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise ConfigError("mounting without being root needs fusermount3: install the package fuse3")
    if options.allow_other and not _others_are_allowed():
        raise ConfigError(f"allow_other: only root may say so, unless {_CONFIGURATION} has user_allow_other")


def _others_are_allowed() -> bool:
    try:
        with open(_CONFIGURATION, encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def _checked_place(mountpoint: str) -> str:
    """Return the mount point's real path. Raises: OSError; ConfigError."""
    found = mount_at(mountpoint)
    if found is not None and found.file_system == FILE_SYSTEM:
        raise ConfigError(f"{mountpoint}: forebay has {found.source} mounted there; unmount it first")
    place = os.path.realpath(mountpoint)
    if not os.path.isdir(place):
        code = errno.ENOTDIR if os.path.exists(place) else errno.ENOENT
        raise OSError(code, f"is no mount point: {os.strerror(code)}", mountpoint)
    return place


def _kernel_options(label: str, options: MountOptions, *, read_only: bool) -> set[str]:
    wanted = {
        f"fsname={SUBTYPE}:{label}",
        f"subtype={SUBTYPE}",
        "default_permissions",
        "ro" if read_only else "rw",
    }
    return wanted | options.of_kernel()
