"""One LMDB file under the guard: what is written into it, and processes that halt at a step of the protocol.

Every commit writes all keys with its own number, so that whoever sees two numbers, or bytes that belong to
none, has been given pages of another commit. A step is a call to the kernel or to LMDB; the guard's source
has no hooks, its two ways out are replaced in the process under test.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from forebay.errors import StoreBusy
from forebay.meta import environment, guard
from forebay.meta.environment import Environment

KEY_COUNT: Final = 120
_VALUE_BYTES: Final = 600
LAST: Final = 5  # the commit that `prepare` ends with

READ: Final = ("share", "begin", "reading", "halfway", "end", "unlock")
# By a process that does not know of the last commit yet.
READ_BEHIND: Final = ("share", "begin", "abort", "unlock", "info", *READ)
WRITE: Final = (
    "exclude queue",
    "exclude writer",
    "unlock queue",
    "begin",
    "exclude above",
    "exclude below",
    "changing",
    "halfway",
    "end",
    "unlock all",
)
STEPS: Final = {"read": READ, "read behind": READ_BEHIND, "write": WRITE}


def no_step(_: str) -> None:
    """Pass every step."""


def value(number: int, key: int) -> bytes:
    """Return the value of a key in a commit."""
    return (f"{number}/{key} " * _VALUE_BYTES)[:_VALUE_BYTES].encode()


def write_all(transaction: Any, number: int, on_step: Callable[[str], None] = no_step) -> None:
    """Write all keys of a commit."""
    on_step("changing")
    for key in range(KEY_COUNT):
        if key == KEY_COUNT // 2:
            on_step("halfway")
        transaction.put(b"%04d" % key, value(number, key))


def read_all(transaction: Any, on_step: Callable[[str], None] = no_step) -> int:
    """Return the number of the one commit that all keys belong to."""
    on_step("reading")
    number = None
    for key in range(KEY_COUNT):
        if key == KEY_COUNT // 2:
            on_step("halfway")
        found = transaction.get(b"%04d" % key)
        if number is None:
            number = int(found.partition(b"/")[0])
        assert found == value(number, key), f"key {key} of commit {number}: {found[:20]!r}"
    assert number is not None
    return number


def file_in(folder: Path) -> Path:
    """Return the file's path."""
    return folder / "guarded.lmdb"


def opened(folder: Path) -> Environment:
    """Open the file, the same way everywhere."""
    return Environment(str(file_in(folder)), map_bytes=1 << 28, durable=False)


def prepare(folder: Path) -> None:
    """Make the file, with so many commits that pages are being reused."""
    with opened(folder) as env:
        for number in range(1, LAST + 1):
            with env.writing() as transaction:
                write_all(transaction, number)


def read(env: Environment, on_step: Callable[[str], None] = no_step) -> int:
    """Read everything in one transaction; return the number of the commit."""
    with env.reading() as transaction:
        return read_all(transaction, on_step)


def write(env: Environment, patience_s: float = 10.0, on_step: Callable[[str], None] = no_step) -> int | None:
    """Write everything in one transaction; return the number of the new commit, None if it was not made."""
    try:
        with env.writing(patience_s) as transaction:
            number = int(transaction.get(b"0000").partition(b"/")[0]) + 1
            write_all(transaction, number, on_step)
            return number
    except StoreBusy:
        return None


class _TransactionSteps:
    """A transaction of LMDB's that reports its end."""

    def __init__(self, inner: Any, on_step: Callable[[str], None]) -> None:
        self._inner = inner
        self._on_step = on_step
        self.id, self.get, self.put = inner.id, inner.get, inner.put

    def commit(self) -> None:
        self._on_step("end")
        self._inner.commit()

    def abort(self) -> None:
        self._on_step("abort")
        self._inner.abort()


class _EnvironmentSteps:
    """An environment of LMDB's that reports what the guard asks of it."""

    def __init__(self, inner: Any, on_step: Callable[[str], None]) -> None:
        self._inner = inner
        self._on_step = on_step

    def begin(self, write: bool = False) -> _TransactionSteps:
        self._on_step("begin")
        return _TransactionSteps(self._inner.begin(write=write), self._on_step)

    def info(self) -> Any:
        self._on_step("info")
        return self._inner.info()


def _name(kind: int, start: int, length: int) -> str:
    if kind == guard._SHARE or (length == 1 and start < guard._WRITER):
        return "share" if kind == guard._SHARE else "unlock"
    verb = "exclude" if kind == guard._EXCLUDE else "unlock"
    if length == 0:
        return f"{verb} all"
    named = {guard._QUEUE: "queue", guard._WRITER: "writer"}
    return f"{verb} {named.get(start, 'above' if start else 'below')}"


def report_steps(on_step: Callable[[str], None]) -> None:
    """Call on_step before each step of this process, whose one environment is open."""
    request = guard._request

    def reporting(descriptor: int, kind: int, start: int, length: int) -> bool:
        on_step(_name(kind, start, length))
        return request(descriptor, kind, start, length)

    guard._request = reporting
    (handle,) = environment._gate.handles.values()
    assert handle.opened is not None
    env, its_guard = handle.opened
    its_guard._env = _EnvironmentSteps(env, on_step)


def _ignore_readers() -> None:
    """Break the guard in this process: writers do not wait for readers."""
    request = guard._request

    def broken(descriptor: int, kind: int, start: int, length: int) -> bool:
        return _name(kind, start, length) == "exclude below" or request(descriptor, kind, start, length)

    guard._request = broken


def halt(link: Connection, folder: Path, work: str, halt_at: int) -> int | None:
    """Body: halt before a step until told to go on; return the commit that was read or written."""
    count = 0

    def on_step(name: str) -> None:
        nonlocal count
        if count == halt_at:
            link.send(name)
            link.recv()
        count += 1

    with opened(folder) as env:
        read(env)
        link.send("ready")
        link.recv()
        report_steps(on_step)
        return write(env, 10.0, on_step) if work == "write" else read(env, on_step)


def list_steps(_: Connection, folder: Path, work: str) -> list[str]:
    """Body: return the steps as they are."""
    names: list[str] = []
    with opened(folder) as env:
        if work != "read behind":
            read(env)
        report_steps(names.append)
        if work == "write":
            write(env, 10.0, names.append)
        else:
            read(env, names.append)
    return names


def serve(link: Connection, folder: Path, broken: bool = False) -> None:
    """Body: read, or write with a patience in seconds, as asked, until told None.

    broken: not waiting for readers.
    """
    if broken:
        _ignore_readers()
    with opened(folder) as env:
        link.send("open")
        while (asked := link.recv()) is not None:
            link.send(read(env) if asked == "read" else write(env, asked))
