"""Measurements in a process of their own, whose memory and imports are nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

_T = TypeVar("_T")


def in_fresh_process(measure: Callable[..., _T], *args: object) -> _T:
    """Run measure(*args) in a spawned process, which ends with it, and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(measure, *args).result()
