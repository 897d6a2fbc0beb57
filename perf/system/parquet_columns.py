"""parquet_columns: bytes that pyarrow reads by `forebay://` for two columns of twenty.

What Arrow was given is counted at the file; what the blocks that it touched hold, and what came from the
under storage when nothing was cached, in the cache's own account. Columns are of 8 MB, one row group.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forebay.api.fsspec import ForebayFileSystem
from perf import workload
from perf.harness import Bar, Case, Outcome
from perf.places import memory_folder

ROOM_BYTES = 1 << 30
DATASET = "files"
NAME = "table.parquet"


def run(quick: bool) -> Outcome:
    """Read the two columns cold, then cached."""
    load = workload.load("fsspec", quick)
    with memory_folder(ROOM_BYTES) as folder:
        (folder / "data").mkdir()
        table = _table(load)
        pq.write_table(table, folder / "data" / NAME, compression="none", use_dictionary=False)
        names = [table.column_names[number] for number in load["wanted"]]
        wanted = table.select(names)
        wanted_bytes = _column_bytes(pq.read_metadata(folder / "data" / NAME), load["wanted"])
        fs = ForebayFileSystem(
            cache_dir=str(folder / "cache"), tiers=f"{folder}/tier:{load['quota_bytes']}:MEM"
        )
        with fs.cache as cache:
            cache.attach(DATASET, f"file://{folder}/data", max_age=None)
            _read(fs, names, wanted)
            fetched = cache.accounts()[DATASET].bytes["source"]
            cache.load(DATASET).wait()
            before = sum(cache.accounts()[DATASET].bytes.values())
            given = _read(fs, names, wanted)
            touched = sum(cache.accounts()[DATASET].bytes.values()) - before
    bars = [
        Bar("parquet, 2 of 20 columns, cached: bytes read / theirs", 1.2, [given / wanted_bytes], "at most"),
        Bar(
            "parquet, 2 of 20 columns, cached: bytes of the blocks touched / theirs",
            None,
            [touched / wanted_bytes],
            "at most",
        ),
        Bar(
            "parquet, 2 of 20 columns, cold: bytes fetched / theirs",
            None,
            [fetched / wanted_bytes],
            "at most",
        ),
    ]
    return Outcome("bytes", {}, bars, load, {"bytes of the columns": wanted_bytes})


CASE = Case(
    "parquet_columns", "two columns of twenty, by pyarrow", "the columns themselves, and the footer", run
)


class _Counted(io.BufferedIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self.given_bytes = 0
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int | None = -1, /) -> bytes:
        data: bytes = self._file.read(size)
        self.given_bytes += len(data)
        return data


def _table(load: dict[str, Any]) -> pa.Table:
    source = np.random.default_rng(load["seed"])
    return pa.table(
        {f"c{number:02}": source.random(load["row_count"]) for number in range(load["column_count"])}
    )


def _column_bytes(metadata: Any, numbers: list[int]) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(group.column(number).total_compressed_size for group in groups for number in numbers)


def _read(fs: ForebayFileSystem, names: list[str], wanted: pa.Table) -> int:
    """Read the columns and compare them; returns the bytes that Arrow was given."""
    with fs.open(f"{DATASET}/{NAME}") as file:
        counted = _Counted(file)
        read = pq.ParquetFile(counted, pre_buffer=True).read(columns=names)
    if not read.equals(wanted):
        raise RuntimeError("the columns came with other values")
    return counted.given_bytes
