"""What a DataLoader's worker does for itself as a process.

Python's garbage collector goes through all that lives, and in a worker that is torch and the storage's
client: 100 to 160 ms, every few epochs, in which nothing of the process runs and its batches are late. What
came with modules stays until the process ends, so the collector is told to pass it by.
"""

from __future__ import annotations

import gc
import os
import sys

from torch.utils.data import get_worker_info

# How many modules there were when the collector was told last.
_modules_seen = 0


def spare_the_collector() -> None:
    """Have what lives now passed by, once after modules have come; only in a worker: that process is ours."""
    global _modules_seen
    if len(sys.modules) == _modules_seen:
        return
    _modules_seen = len(sys.modules)
    if get_worker_info() is not None:
        # What is garbage by now would stay for ever, with the views that it holds.
        gc.collect()
        gc.freeze()


def _forget() -> None:
    global _modules_seen
    _modules_seen = 0


os.register_at_fork(after_in_child=_forget)
