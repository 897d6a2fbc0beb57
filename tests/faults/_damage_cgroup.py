"""A memory cgroup of its own for a child process, version 1 or 2, whichever the host has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults._child import wait_until

_MOUNT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """One group with a limit; a process joins it by calling `join`."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self._version = version

    def limit(self, limit_bytes: int) -> None:
        """Set the limit, swap included."""
        names = (
            ["memory.max"] if self._version == 2 else ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        )
        (self.path / names[0]).write_text(str(limit_bytes))
        for name in names[1:]:
            if (self.path / name).exists():
                (self.path / name).write_text(str(limit_bytes))

    def join(self) -> None:
        """Move the calling process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def usage_bytes(self) -> int:
        """What is charged to the group now."""
        name = "memory.current" if self._version == 2 else "memory.usage_in_bytes"
        return int((self.path / name).read_text())

    def kill_count(self) -> int:
        """How often the kernel killed a process for its memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        fields = dict(line.split() for line in (self.path / name).read_text().splitlines())
        return int(fields.get("oom_kill", 0))


def _own_group(version: int) -> Path:
    """Where groups of ours can be made: below our own, or at the root of what we see of the hierarchy."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (version == 2 and not controllers) or (version == 1 and "memory" in controllers.split(",")):
            mount = _MOUNT if version == 2 else _MOUNT / "memory"
            own = mount / path.lstrip("/")
            return own if own.is_dir() else mount
    raise RuntimeError("no memory cgroup hierarchy on this host")


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make a group and remove it, with what is still charged to it, afterwards. Raises: RuntimeError."""
    version = 1 if (_MOUNT / "memory").is_dir() else 2
    parent = _own_group(version)
    path = parent / f"forebay-test-{os.getpid()}"
    try:
        if version == 2 and "memory" not in (parent / "cgroup.subtree_control").read_text():
            (parent / "cgroup.subtree_control").write_text("+memory")
        path.mkdir()
    except OSError as error:
        raise RuntimeError(
            f"no memory cgroup can be made below {parent}: {error}; these tests take root"
        ) from error
    try:
        yield MemoryGroup(path, version)
    finally:
        wait_until(lambda: _gone(path), f"{path} can be removed")


def _gone(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return not path.exists()
    return True
