"""Processes of a test: forked from it, killed, stopped and waited for, each within a deadline.

A child runs one function and never returns into pytest: it leaves by os._exit, its result or its traceback
goes through a pipe. It dies with its parent. `first_of_namespace` makes it process 1 of a PID namespace of
its own, as the main process of a container is.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, NoReturn

# No wait of these tests is meant to take long; a machine shared with others may stretch it.
DEADLINE_S: Final = 60.0

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_KILLED_FIRST: Final = 128 + signal.SIGKILL  # how the first process of a namespace ends at a failpoint

_libc: Final = ctypes.CDLL(None, use_errno=True)


class ChildError(AssertionError):
    """A child raised; its traceback is the message."""


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait for a condition of another process, looking every millisecond; return how long it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > deadline_s:
            raise TimeoutError(f"{what}: not within {deadline_s} s")
        time.sleep(0.001)
    return time.monotonic() - begun


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _die_with_parent() -> None:
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _become_first_of_namespace() -> None:
    """Fork into a new PID namespace; here the first process goes on, the one between ends as it ends."""
    user, group = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_CLONE_NEWPID if user == 0 else _CLONE_NEWPID | _CLONE_NEWUSER))
    if user != 0:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    pid = os.fork()
    if pid == 0:
        _die_with_parent()
        return
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0 or code == _KILLED_FIRST:
        os.kill(os.getpid(), -code if code < 0 else signal.SIGKILL)
    os._exit(code)


class Child:
    """One forked process running `body(link, *arguments)`; `link` is its end of a two-way pipe."""

    def __init__(
        self, body: Callable[..., object], *arguments: object, first_of_namespace: bool = False
    ) -> None:
        self.link, inner = Pipe()
        self._results, results = Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid == 0:
            self._run(inner, results, body, arguments, first_of_namespace)
        inner.close()
        results.close()
        self._pidfd = os.pidfd_open(self.pid)
        self._code: int | None = None
        self._first_of_namespace = first_of_namespace

    def _run(
        self,
        link: Connection,
        results: Connection,
        body: Callable[..., object],
        arguments: tuple[object, ...],
        first_of_namespace: bool,
    ) -> NoReturn:
        code = 1
        try:
            _die_with_parent()
            self.link.close()
            self._results.close()
            if first_of_namespace:
                _become_first_of_namespace()
            results.send((None, body(link, *arguments)))
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it was, the parent is to see it
            results.send((traceback.format_exc(), None))
        finally:
            os._exit(code)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._code is None:
            self.kill()
            self.exit_code()
        if self._first_of_namespace:
            self._wait_for_inner()
        os.close(self._pidfd)
        self.link.close()
        self._results.close()

    def _wait_for_inner(self) -> None:
        """Wait for the end of the process inside the namespace, which dies just after the one between."""
        with suppress(EOFError):
            while self._results.poll(DEADLINE_S):
                self._results.recv()

    def exit_code(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the end; negative is the signal that it died of."""
        if self._code is None:
            if not select.select([self._pidfd], [], [], deadline_s)[0]:
                raise TimeoutError(f"process {self.pid} did not end within {deadline_s} s")
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def result(self, deadline_s: float = DEADLINE_S) -> Any:
        """Wait for the end and return what the body returned. Raises: ChildError."""
        if not self._results.poll(deadline_s):
            raise TimeoutError(f"process {self.pid} gave no result within {deadline_s} s")
        try:
            trace, value = self._results.recv()
        except EOFError:
            raise ChildError(f"process {self.pid} ended with {self.exit_code()}") from None
        self.exit_code(deadline_s)
        if trace is not None:
            raise ChildError(trace)
        return value

    def has_ended(self) -> bool:
        """Tell whether it has ended, without waiting."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def send(self, message: object) -> None:
        """Send to the body's link."""
        self.link.send(message)

    def receive(self, deadline_s: float = DEADLINE_S) -> Any:
        """Receive from the body's link; a body that raised instead is reported. Raises: ChildError."""
        ready = select.select([self.link, self._results], [], [], deadline_s)[0]
        if self.link in ready:
            try:
                return self.link.recv()
            except EOFError:
                ready.append(self._results)
        if self._results in ready:
            self.result(deadline_s)
            raise ChildError(f"process {self.pid} ended without a word")
        raise TimeoutError(f"process {self.pid} said nothing within {deadline_s} s")

    def ask(self, message: object, deadline_s: float = DEADLINE_S) -> Any:
        """Send and receive."""
        self.send(message)
        return self.receive(deadline_s)

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGSTOP and wait until it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_stopped()

    def resume(self) -> None:
        """Send SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_stopped(self, deadline_s: float = DEADLINE_S) -> bool:
        """Wait until it has stopped or ended; True: it has stopped."""
        found: list[os.waitid_result] = []

        def changed() -> bool:
            state = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if state is not None:
                found.append(state)
            return state is not None

        wait_until(changed, f"process {self.pid} stops", deadline_s)
        return found[0].si_code in (os.CLD_STOPPED, os.CLD_TRAPPED)


def run(body: Callable[..., object], *arguments: object, deadline_s: float = DEADLINE_S) -> Any:
    """Run a body in a process of its own and return its result."""
    with Child(body, *arguments) as child:
        return child.result(deadline_s)
