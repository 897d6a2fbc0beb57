"""System calls of a process that fail, or that kill it: strace, attached for as long as the fault lasts."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults._child import wait_until


def _threads_traced(pid: int) -> bool:
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        if "TracerPid:\t0\n" in status.read_text():
            return False
    return True


@contextmanager
def failing(pid: int, calls: str, error: str, paths: Iterable[Path]) -> Iterator[None]:
    """Let these calls (``pwrite64,pwritev``) of a process fail where they go to one of these files.

    A file may be made later. Raises: RuntimeError (strace is missing or may not attach).
    """
    with _injected(pid, calls, f"error={error}", paths):
        yield


@contextmanager
def killing(pid: int, calls: str, nth: int, paths: Iterable[Path]) -> Iterator[None]:
    """Kill a process as it begins the nth of these calls, counted from here, that go to one of these files.

    Raises: RuntimeError (strace is missing or may not attach).
    """
    with _injected(pid, calls, f"signal=SIGKILL:when={nth}", paths):
        yield


@contextmanager
def _injected(pid: int, calls: str, fault: str, paths: Iterable[Path]) -> Iterator[None]:
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
    for path in paths:
        command += ["-P", str(path)]
    command += ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    try:
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise RuntimeError("strace is not installed; it is in the Makefile's list of packages") from None
    try:
        wait_until(lambda: tracer.poll() is not None or _threads_traced(pid), "strace attaches")
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            raise RuntimeError(f"strace: {tracer.stderr.read().strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
