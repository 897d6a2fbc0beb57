"""import_forebay: seconds of `import forebay` in a fresh interpreter, and what it must not bring along."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

from perf import workload
from perf.harness import Case, Contender, Outcome, interleave, within_limit

LIMIT_S = 0.15
HEAVY = ("grpc", "boto3", "pyfuse3", "lmdb")

IMPORT = """
import json, sys, time
started = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))
"""


def run(quick: bool) -> Outcome:
    """Import in fresh interpreters, beside a module of the standard library of middling size."""
    load = workload.load("import_time", quick)
    brought = {name for name in HEAVY if name in _import("forebay")[1]}
    if brought:
        raise RuntimeError(f"import forebay also imports {sorted(brought)}")
    contenders = [
        Contender("import forebay", partial(_seconds, "forebay")),
        Contender("import asyncio", partial(_seconds, "asyncio")),
    ]
    samples = interleave(contenders, load["rounds"])
    bars = [within_limit(f"import forebay / {LIMIT_S} s", samples["import forebay"], LIMIT_S)]
    return Outcome("s", samples, bars, load)


CASE = Case(
    "import_time",
    "`import forebay` in a fresh interpreter, without gRPC, boto3, pyfuse3, LMDB",
    "reading and unmarshalling the modules that are imported",
    run,
)


def _seconds(module: str) -> float:
    return _import(module)[0]


def _import(module: str) -> tuple[float, list[str]]:
    """Import in a fresh interpreter; returns the seconds and the modules that are loaded then."""
    command = [sys.executable, "-P", "-c", IMPORT.format(module=module)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, modules = json.loads(answer)
    return seconds, modules
