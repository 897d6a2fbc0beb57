"""A small file system of its own for a tier, which can be made full, out of inodes, read-only or replaced.

It is mounted where the tier's directory is to be and taken away at the end, so it takes root; what mount(8)
says when it refuses is the error's text. Nothing here knows a store.
"""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

Kind = Literal["tmpfs", "ext4"]

_BALLAST: Final = "ballast"
_PIECE_BYTES: Final = 1 << 20


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class FaultyTier:
    """A mounted file system of a given size; a context manager. Threads: owner only.

    path is the mount point, made if needed. ``ext4`` lies on an image file beside it and fails the way a
    disk does; ``tmpfs`` is quicker and can be short of inodes.
    """

    def __init__(
        self, path: Path, size_bytes: int, *, kind: Kind = "tmpfs", inode_count: int | None = None
    ) -> None:
        """Take note of what to mount; `__enter__` mounts it."""
        self.path: Final = path
        self._size_bytes: Final = size_bytes
        self._kind: Final = kind
        self._inode_count: Final = inode_count
        self._images: list[Path] = []
        self._mounted = False

    def __enter__(self) -> FaultyTier:
        """Mount. Raises: RuntimeError (refused)."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount, also under whoever still has files open there, and remove the images."""
        with ExitStack() as stack:
            for image in self._images:
                stack.callback(image.unlink, missing_ok=True)
            self.unplug()

    def _mount(self) -> None:
        if self._kind == "tmpfs":
            options = f"size={self._size_bytes},mode=0700"
            if self._inode_count is not None:
                options += f",nr_inodes={self._inode_count}"
            _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path))
        else:
            image = self.path.with_name(f"{self.path.name}-{len(self._images)}.ext4")
            self._images.append(image)
            with image.open("wb") as file:
                file.truncate(self._size_bytes)
            # Without a journal the small image is nearly all data; it is thrown away after a failure.
            _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image))
            _run("mount", "-o", "loop,errors=remount-ro", str(image), str(self.path))
        self._mounted = True

    def fill(self, leave_bytes: int = 0) -> None:
        """Use up the space, down to about leave_bytes, as another program would."""
        with (self.path / _BALLAST).open("ab") as file:
            free = self._free_bytes()
            while free > leave_bytes:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), min(_PIECE_BYTES, free - leave_bytes))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return
                file.seek(0, os.SEEK_END)
                free = self._free_bytes()

    def use_up_inodes(self) -> None:
        """Make empty files until no more can be made."""
        folder = self.path / f"{_BALLAST}-files"
        folder.mkdir()
        try:
            for number in range(1 << 20):
                (folder / str(number)).touch(exist_ok=False)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def relieve(self) -> None:
        """Give back what fill and use_up_inodes took."""
        (self.path / _BALLAST).unlink(missing_ok=True)
        folder = self.path / f"{_BALLAST}-files"
        for path in folder.iterdir() if folder.is_dir() else ():
            path.unlink()
        if folder.is_dir():
            folder.rmdir()

    def fail(self) -> None:
        """Let ext4 find its disk damaged: it goes read-only at once, also for files that are open."""
        device = Path(_run("findmnt", "-n", "-o", "SOURCE", "--mountpoint", str(self.path)).strip()).name
        (Path("/sys/fs/ext4") / device / "trigger_fs_error").write_text("1")

    def unplug(self) -> None:
        """Take the file system away; files that are open live on out of reach."""
        if self._mounted:
            _run("umount", "--lazy", str(self.path))
            self._mounted = False

    def plug_in(self) -> None:
        """Mount a new, empty file system in the place of the one that was taken away."""
        self._mount()

    def _free_bytes(self) -> int:
        stats = os.statvfs(self.path)
        return stats.f_bavail * stats.f_frsize
