"""`make bench`: run the cases one after another, show ratios beside their targets, keep the figures.

Each case runs in a fresh process, alone on the machine as far as this program goes. A missed bar is told and
kept, and is no error of the run; a case that fails is.
"""

from __future__ import annotations

import importlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # appended: engine/, peer/ and fuse/ there must not hide installed packages

import click  # noqa: E402
from rich.console import Console  # noqa: E402

from perf import machine, report, results  # noqa: E402
from perf.harness import Case  # noqa: E402

CASES = {
    "store_get": "perf.micro.store_get",
    "store_put": "perf.micro.store_put",
    "copy_out": "perf.micro.copy_out",
    "maintainer": "perf.micro.maintainer",
    "index_size": "perf.micro.index_size",
    "open_rebuild": "perf.micro.open_rebuild",
    "import_time": "perf.micro.import_time",
    "watch": "perf.micro.watch",
    "placement": "perf.micro.placement",
    "epoch": "perf.hit_ratio.epoch",
    "skew": "perf.hit_ratio.skew",
    "whatif": "perf.hit_ratio.whatif",
    "cache_read": "perf.micro.cache_read",
    "cache_stat": "perf.micro.cache_stat",
    "cold_load": "perf.system.cold_load",
    "cold_object": "perf.system.cold_object",
    "shaped": "perf.system.shaped",
    "prefetch": "perf.system.prefetch",
    "write_through": "perf.system.write_through",
    "misses": "perf.system.misses",
    "metadata": "perf.system.metadata",
    "manifest": "perf.system.manifest",
    "demand": "perf.system.demand",
    "memory": "perf.system.memory",
    "tree": "perf.system.tree",
    "fsspec_cat": "perf.system.fsspec_cat",
    "parquet_columns": "perf.system.parquet_columns",
    "torch_batched": "perf.loaders.batched",
    "torch_cold": "perf.loaders.cold",
    "torch_resident": "perf.loaders.resident",
    "safetensors": "perf.loaders.safetensors",
    "remote_hit": "perf.group.remote_hit",
    "group_cold": "perf.group.cold",
    "transfer": "perf.group.transfer",
    "member_killed": "perf.group.killed",
    "member_stopped": "perf.group.stopped",
    "hdfs_read": "perf.hdfs.read",
    "webhdfs_open": "perf.hdfs.large",
    "webhdfs_small": "perf.hdfs.small",
    "webhdfs_list": "perf.hdfs.listing",
}
# Apart, for they need root and what `make bench-fuse` installs.
MOUNT_CASES = {
    "mount_sequential": "perf.fuse.sequential",
    "mount_small": "perf.fuse.small",
    "mount_cold": "perf.fuse.cold",
    "mount_list": "perf.fuse.listing",
    "mount_memory": "perf.fuse.memory",
    "torch_loader": "perf.loaders.loader",
}


@click.command()
@click.option(
    "--only",
    "names",
    multiple=True,
    type=click.Choice([*CASES, *MOUNT_CASES]),
    help="Run this case (repeatable).",
)
@click.option("--mounts", is_flag=True, help="Run the cases of mounts, as root, beside mounts of others.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it runs, its figures mean little.")
@click.option(
    "--readme", is_flag=True, help="Run nothing; rewrite the README's table from the newest results."
)
def main(names: tuple[str, ...], mounts: bool, quick: bool, readme: bool) -> None:
    """Measure forebay against its rivals and limits."""
    if readme:
        report.rewrite_readme(ROOT / "README.md", results.newest())
        return
    console = report.console()
    run = results.Run(machine.facts(), quick, [], {})
    for name in names or (MOUNT_CASES if mounts else CASES):
        _run_into(run, name, console)
    path = run.save()
    console.rule("all bars")
    console.print(report.bars_table([bar for case in run.cases for bar in case.bars]))
    console.print(f"figures: {path}")
    for plot in _plot(run.cases):
        console.print(f"plot: {plot}")
    for name, error in run.failures.items():
        console.print(f"[red]{name} failed[/]: {error}", markup=True)
    sys.exit(1 if run.failures else 0)


def _plot(cases: list[results.CaseResult]) -> list[Path]:
    from perf import plots  # here, for the measuring processes import this file and need no matplotlib

    return plots.plot_run(cases, ROOT / "build" / "perf")


def _run_into(run: results.Run, name: str, console: Console) -> None:
    """Run one case in a process of its own and add what came of it to the run."""
    console.rule(name)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        try:
            result = executor.submit(_run_case, (CASES | MOUNT_CASES)[name], run.quick).result()
        except BrokenProcessPool:
            run.failures[name] = "its process died"
            return
        except Exception as error:  # noqa: BLE001  # whatever a case raises, the others still run
            run.failures[name] = f"{type(error).__name__}: {error}"
            return
    run.cases.append(result)
    report.print_case(console, result)
    console.print(f"{result.seconds:.0f} s")


def _run_case(module: str, quick: bool) -> results.CaseResult:
    case: Case = importlib.import_module(module).CASE
    started = time.perf_counter()
    outcome = case.run(quick)
    return results.CaseResult.of(case, outcome, time.perf_counter() - started)


if __name__ == "__main__":
    main()
