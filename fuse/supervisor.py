"""Keeping a mount alive: a process that serves it, and one that starts the next when that one has died.

When the process that serves a mount dies, the mount stays, and whoever touches it gets ENOTCONN ("Transport
endpoint is not connected"). Here it is taken away at once and made anew; files that were open are lost to
those who have them, all else goes on.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from forebay.fuse.mounts import FILE_SYSTEM, mount_at
from forebay.fuse.readiness import wait_ready
from forebay.fuse.unmount import unmount

_log: Final = logging.getLogger(__name__)

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 10.0
# Who served for so long did not die of what killed the one before.
_SOUND_S: Final = 60.0


class Supervisor:
    """Runs the command that serves a mount, again and again until one ends by itself. Threads: any."""

    def __init__(
        self, command: Callable[[int], Sequence[str]], mountpoint: str, on_ready: Callable[[], None]
    ) -> None:
        """Use a command that serves the mountpoint in the foreground, and tells a descriptor when it does.

        on_ready is called when the first of them serves.
        """
        self._command: Final = command
        self._mountpoint: Final = mountpoint
        self._on_ready: Final = on_ready
        self._stopping: Final = threading.Event()
        self._serving: subprocess.Popen[bytes] | None = None
        self._lock: Final = threading.Lock()

    def stop(self) -> None:
        """Have the process that serves unmount and end, and start no other."""
        with self._lock:
            self._stopping.set()
            if self._serving is not None and self._serving.poll() is None:
                self._serving.terminate()

    def run(self) -> int:
        """Serve until a process ends by itself, as after an unmount; return the exit code.

        One that ends before it ever served is not tried again, for it would fail again.
        """
        has_served = False
        pause_s = _PAUSE_S_MIN
        while True:
            started_s = time.monotonic()
            code, is_ready = self._serve_once(is_first=not has_served)
            has_served = has_served or is_ready
            if self._stopping.is_set() or not has_served or (is_ready and code == 0):
                return max(code, 0) if self._stopping.is_set() else _exit_code(code)
            self._take_away()
            if time.monotonic() - started_s > _SOUND_S:
                pause_s = _PAUSE_S_MIN
            _log.warning(
                "%s: its process ended with %s; mounting anew in %.1f s", self._mountpoint, code, pause_s
            )
            if self._stopping.wait(pause_s):
                return 0
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    def _serve_once(self, *, is_first: bool) -> tuple[int, bool]:
        """Run one process to its end; return its code, and whether it served."""
        ours, theirs = os.pipe()
        try:
            with self._lock:
                if self._stopping.is_set():
                    os.close(ours)
                    return 0, False
                # systemd is told by the supervisor, once, and not by each that serves.
                environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
                self._serving = serving = subprocess.Popen(
                    self._command(theirs), pass_fds=[theirs], env=environment
                )
        finally:
            os.close(theirs)
        is_ready = wait_ready(ours)
        if is_ready and is_first:
            self._on_ready()
        return serving.wait(), is_ready

    def _take_away(self) -> None:
        """Unmount what the dead process has left, as often as it is there."""
        while (found := mount_at(self._mountpoint)) is not None and found.file_system == FILE_SYSTEM:
            with suppress(OSError):
                unmount(self._mountpoint, lazy=True)
                continue
            return


def _exit_code(code: int) -> int:
    """Return what a shell would say of a process that ended so."""
    return 128 - code if code < 0 else code
