"""Another process that does things when it is told to, beside one that measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

READY_TIMEOUT_S = 60.0
END = "end"


@contextmanager
def errand(body: Callable[..., None], *arguments: Any, first: str = "ready") -> Iterator[Connection]:
    """Start body(*arguments, pipe) in a fresh process; gives the pipe once its first order was answered.

    body receives orders, and answers each with the order itself, until it receives END.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=body, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        tell(ours, first)
        yield ours
    finally:
        if process.is_alive():
            ours.send(END)
        process.join()
        ours.close()


def tell(pipe: Connection, order: str) -> None:
    """Give an order and wait until it is answered."""
    pipe.send(order)
    if not pipe.poll(READY_TIMEOUT_S):
        raise TimeoutError(f"the other process did not answer {order!r} in time")
    pipe.recv()
