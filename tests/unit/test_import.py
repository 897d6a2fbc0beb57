"""What ``import forebay`` does not do: import a heavy or optional package, or a folder under its own name.

Counting modules is the budget of import time that holds on any machine; perf/ measures the seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = {"boto3", "botocore", "click", "grpc", "lmdb", "numpy", "prometheus_client", "pyfuse3", "rich"}
FOLDERS = {"engine", "peer", "fuse"}


def modules_after(statement: str, folder: Path) -> set[str]:
    """Run a statement in a fresh interpreter, in a folder, and return the names in its sys.modules."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_import_takes_no_heavy_package(tmp_path: Path) -> None:
    loaded = modules_after("import forebay", tmp_path)
    assert "forebay" in loaded
    assert loaded & HEAVY == set()


def test_import_takes_little_of_our_own(tmp_path: Path) -> None:
    loaded = modules_after("import forebay", tmp_path)
    assert {name for name in loaded if name.partition(".")[0] == "forebay"} == {"forebay", "forebay.errors"}


def test_the_bare_store_takes_no_heavy_package(tmp_path: Path) -> None:
    loaded = modules_after("import forebay; forebay.BlockStore", tmp_path)
    assert "forebay.store" in loaded
    assert loaded & HEAVY == set()


def test_what_schedules_take_comes_with_the_first_of_them(tmp_path: Path) -> None:
    loaded = modules_after("import forebay; forebay.Cache", tmp_path)
    assert "forebay.cache.schedules.watch" in loaded
    assert loaded & {"cronsim", "tzlocal"} == set()


def test_no_second_copy_even_from_the_checkout(repository: Path) -> None:
    # The interpreter puts the current folder in front, so `engine` could be imported from here.
    loaded = modules_after("import forebay; forebay.BlockStore; forebay.Cache", repository)
    assert loaded & FOLDERS == set()


def test_what_a_worker_shows_to_a_data_port_takes_no_grpc(tmp_path: Path) -> None:
    loaded = modules_after("from forebay.peer.security.options import SecurityOptions", tmp_path)
    assert "forebay.peer.security.credentials" in loaded
    assert "grpc" not in loaded
