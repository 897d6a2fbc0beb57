"""Mounts of the property tests' under storage, each served by a process that can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from forebay.cache import Cache
from forebay.fuse import Mount, MountOptions, serve
from tests.fuse._mount import TIMEOUT_S
from tests.property._cache_process import Place
from tests.property._cache_source import Source

# Children of a process that has no threads: a machine makes and kills dozens.
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.fuse._served"])


class ServedMount:
    """A mount of one dataset at a place, made when this is."""

    def __init__(self, place: Place, dataset: str, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, place, dataset, path), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(TIMEOUT_S), "it was not mounted"
        self._pipe.recv()

    def kill(self) -> None:
        """End the process in the middle of whatever it does, and take away what it leaves."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        self._pipe.close()

    def close(self) -> None:
        """Unmount it, and see that its process ends well."""
        subprocess.run(["umount", str(self.path)], check=True)
        self._process.join(TIMEOUT_S)
        assert self._process.exitcode == 0
        self._pipe.close()


def _serve(pipe: Connection, place: Place, dataset: str, path: Path) -> None:
    def begin(mount: Mount) -> None:
        threading.Thread(target=_end_with_parent, args=(pipe, mount), daemon=True).start()
        pipe.send(mount.label)

    schemes = Source(place.source, is_manual=place.is_manual).schemes()
    with Cache(place.path, place.tiers, schemes=schemes, **place.options) as cache:
        serve(cache, dataset, str(path), MountOptions(), begin)


def _end_with_parent(pipe: Connection, mount: Mount) -> None:
    """Unmount when nobody has the other end of the pipe any more: the tests were cut short."""
    with suppress(EOFError, OSError):
        pipe.recv()
    mount.stop()
