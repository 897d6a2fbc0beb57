"""LMDB files under load: random kills against a model, readers among writers, and many that make one file."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import ConfigError
from forebay.meta import environment
from forebay.meta.environment import Environment
from tests.faults._child import Child, ChildError, wait_until
from tests.faults._meta import LAST, opened, read, write

CHURN_MIN = 10


@pytest.fixture
def folder(meta_folder: Path) -> Path:
    """The file's folder, on the disk and on tmpfs."""
    return meta_folder


def apply_operation(transaction: Any, model: dict[bytes, bytes], seed: int) -> None:
    """Change a few keys in a way that goes by the operation's number, in the file and in the model."""
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 60)):
        key = b"model-%03d" % chance.randrange(150)
        if chance.random() < 0.3:
            model.pop(key, None)
            transaction.delete(key)
        else:
            model[key] = chance.randbytes(chance.randrange(900))
            transaction.put(key, model[key])
    model[b"model-count"] = str(seed).encode()
    transaction.put(b"model-count", model[b"model-count"])


def operate(link: Connection, folder: Path, model: dict[bytes, bytes], first: int) -> None:
    """Body: operation after operation, telling the number of each that has returned, until killed."""
    assert os.getpid() == 1
    with opened(folder) as env:
        number = first
        while True:
            with env.writing() as transaction:
                apply_operation(transaction, model, number)
            link.send(number)
            number += 1


def model_rows(env: Environment) -> dict[bytes, bytes]:
    with env.reading() as transaction:
        cursor = transaction.cursor()
        found = cursor.set_range(b"model-")
        return dict(cursor) if found else {}


class Nothing:
    """A transaction that keeps nothing, to run the model alone."""

    def put(self, *_: bytes) -> None:
        """Forget."""

    def delete(self, *_: bytes) -> None:
        """Forget."""


def test_random_kills_leave_what_the_model_has(folder: Path) -> None:
    """A writer is killed 40 times, as process 1 of its namespace: what had returned is there, and no part."""
    chance = random.Random(7)
    model: dict[bytes, bytes] = {}
    number = 1
    with opened(folder) as env:
        for _ in range(40):
            with Child(operate, folder, dict(model), number, first_of_namespace=True) as writer:
                returned = writer.receive()
                begun, wait_s = time.monotonic(), chance.uniform(0, 0.02)
                while time.monotonic() - begun < wait_s:
                    assert read(env) == LAST
                writer.kill()
                returned = last_received(writer, returned)
            while number <= returned:
                apply_operation(Nothing(), model, number)
                number += 1
            rows = model_rows(env)
            if rows.get(b"model-count") == str(number).encode():
                apply_operation(Nothing(), model, number)
                number += 1
            assert rows == model
        assert write(env) == LAST + 1
    assert number > 80


def last_received(writer: Child, returned: int) -> int:
    """Receive until the writer has gone, which is after its first process was killed."""
    while True:
        try:
            returned = writer.receive()
        except ChildError:
            return returned


def churn_writing(link: Connection, folder: Path) -> int:
    """Body: write until told to end, and CHURN_MIN times at least; return how often."""
    count = 0
    with opened(folder) as env:
        link.send("open")
        while count < CHURN_MIN or not link.poll(0):
            assert write(env) is not None
            count += 1
    return count


def churn_reading(link: Connection, folder: Path) -> int:
    """Body: read in two threads until told to end, and CHURN_MIN times at least each; return how often."""
    counts, failures = [0, 0], list[BaseException]()
    with opened(folder) as env:
        link.send("open")
        stop = threading.Event()

        def work(index: int) -> None:
            seen = 0
            try:
                while counts[index] < CHURN_MIN or not stop.is_set():
                    number = read(env)
                    assert number >= seen, "went back in time"
                    seen = number
                    counts[index] += 1
            except BaseException as error:  # noqa: BLE001  (raised below, whatever it is)
                failures.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        link.recv()
        stop.set()
        for thread in threads:
            thread.join()
    for failure in failures:
        raise failure
    return min(counts)


def test_readers_among_writers_see_whole_commits(folder: Path) -> None:
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child(body, folder, first_of_namespace=True))
            for body in (churn_writing, churn_writing, churn_reading, churn_reading)
        ]
        assert [child.receive() for child in children] == ["open"] * 4
        with opened(folder) as env:
            wait_until(lambda: read(env) > LAST + 300, "300 commits")
        for child in children:
            child.send("end")
        counts = [child.result() for child in children]
    # Nobody is shut out: each came that far, however the machine shared its cores.
    assert min(counts) >= CHURN_MIN, counts


def make_and_write(link: Connection, folder: Path, name: str) -> None:
    """Body: make the file, at the same time as others, and write into it."""
    link.send("there")
    link.recv()
    with opened(folder) as env, env.writing() as transaction:
        transaction.put(name.encode(), b"")


def test_many_make_one_file(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = [f"writer-{index}" for index in range(6)]
        with ExitStack() as stack:
            children = [stack.enter_context(Child(make_and_write, folder, name)) for name in names]
            assert {child.receive() for child in children} == {"there"}
            for child in children:
                child.send("go")
            for child in children:
                child.result()
        with opened(folder) as env, env.reading() as transaction:
            assert [key.decode() for key, _ in transaction.cursor()] == names
        assert [path.name for path in folder.iterdir()] == ["guarded.lmdb"]


def test_a_maker_that_was_killed_is_followed(tmp_path: Path) -> None:
    def make_and_halt(link: Connection) -> None:
        real = Path.rename

        def halting(path: Path, target: Path) -> Path:
            link.send("made")
            link.recv()
            return real(path, target)

        Path.rename = halting  # type: ignore[method-assign, assignment]
        opened(tmp_path)

    with Child(make_and_halt) as maker:
        assert maker.receive() == "made"
        assert [path.name for path in tmp_path.iterdir()] == ["guarded.lmdb.new"]
        maker.kill()
        assert maker.exit_code() == -signal.SIGKILL
        with opened(tmp_path) as env, env.writing() as transaction:
            transaction.put(b"key", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["guarded.lmdb"]


def test_a_maker_that_is_stopped_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PATIENCE_S", 0.02)
    maker = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(maker, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"guarded\.lmdb.*making it"):
            opened(tmp_path)
    finally:
        os.close(maker)
    with opened(tmp_path) as env:
        assert env.last_commit() == 0
