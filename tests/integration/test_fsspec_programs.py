"""Programs that speak fsspec, each reading through ``forebay://`` what it, or another, has written there."""

from __future__ import annotations

# Each test imports its program itself: they are large, and every worker of a run collects this file.
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.integration._fsspec import Site, site

__all__ = ["site"]

ROWS = 2_000

if TYPE_CHECKING:
    import pandas as pd


def frame() -> pd.DataFrame:
    import pandas as pd

    rng = np.random.default_rng(7)
    return pd.DataFrame({f"c{number:02}": rng.random(ROWS) for number in range(20)})


def test_pandas_writes_and_reads_parquet_and_text(site: Site) -> None:
    import pandas as pd

    wanted, options = frame(), site.options
    wanted.to_parquet("forebay://d/x/frame.parquet", storage_options=options)
    wanted.to_csv("forebay://d/x/frame.csv", index=False, storage_options=options)
    assert pd.read_parquet("forebay://d/x/frame.parquet", storage_options=options).equals(wanted)
    assert pd.read_parquet(site.folder / "x/frame.parquet").equals(wanted)
    columns = pd.read_parquet("forebay://d/x/frame.parquet", columns=["c03"], storage_options=options)
    assert columns.equals(wanted[["c03"]])
    text = pd.read_csv("forebay://d/x/frame.csv", storage_options=options)
    pd.testing.assert_frame_equal(text, wanted)


def test_pyarrow_reads_columns_of_a_dataset_of_files(site: Site) -> None:
    import pyarrow as pa
    import pyarrow.dataset
    import pyarrow.fs
    import pyarrow.parquet as pq

    system = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(site.fs))
    table = pa.Table.from_pandas(frame())
    for number in range(3):
        pq.write_table(table, f"d/parts/{number}.parquet", filesystem=system, row_group_size=500)
    found = pyarrow.dataset.dataset("d/parts", filesystem=system, format="parquet")
    assert found.count_rows() == 3 * ROWS
    read = found.to_table(columns=["c01", "c19"])
    assert read.column("c19").to_pylist() == table.column("c19").to_pylist() * 3
    with site.fs.open("d/parts/0.parquet") as file:
        columns = pq.ParquetFile(file, pre_buffer=True).read(columns=["c05"])
    assert columns.equals(table.select(["c05"]))


def test_columns_come_by_cat_ranges(site: Site) -> None:
    import pandas as pd
    from fsspec.parquet import open_parquet_file

    frame().to_parquet(site.folder / "frame.parquet", row_group_size=500)
    with open_parquet_file("d/frame.parquet", columns=["c07", "c08"], fs=site.fs, engine="pyarrow") as file:
        read = pd.read_parquet(file, columns=["c07", "c08"])
    assert read.equals(frame()[["c07", "c08"]])


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # dask, of pandas 3.1
def test_dask_reads_frames_and_bags_in_threads_and_processes(site: Site) -> None:
    import dask
    import dask.bag
    import dask.dataframe

    wanted = frame()
    parts = dask.dataframe.from_pandas(wanted, npartitions=3)
    parts.to_parquet("forebay://d/dask", storage_options=site.options)
    read = dask.dataframe.read_parquet("forebay://d/dask", columns=["c02"], storage_options=site.options)
    with dask.config.set(scheduler="threads"):
        assert np.isclose(read["c02"].sum().compute(), wanted["c02"].sum())
    for number in range(3):
        site.write(f"lines/{number}.jsonl", json.dumps({"number": number}).encode() + b"\n")
    lines = dask.bag.read_text("forebay://d/lines/*.jsonl", storage_options=site.options)
    assert lines.map(json.loads).pluck("number").sum().compute(scheduler="processes", num_workers=2) == 3


def test_hugging_face_datasets_load_files(site: Site, tmp_path: Path) -> None:
    import datasets

    frame().to_parquet(site.folder / "train.parquet")
    site.write("train.jsonl", b"".join(json.dumps({"text": f"line {n}"}).encode() + b"\n" for n in range(50)))
    loaded = datasets.load_dataset(
        "parquet",
        data_files={"train": "forebay://d/train.parquet"},
        storage_options=site.options,
        cache_dir=str(tmp_path / "hf"),
        split="train",
    )
    assert loaded.num_rows == ROWS
    assert loaded[5]["c03"] == frame()["c03"][5]
    streamed = datasets.load_dataset(
        "json",
        data_files="forebay://d/train.jsonl",
        storage_options=site.options,
        cache_dir=str(tmp_path / "hf"),
        split="train",
        streaming=True,
    )
    assert [each["text"] for each in streamed] == [f"line {n}" for n in range(50)]


def test_hugging_face_datasets_are_saved_and_loaded(site: Site) -> None:
    import datasets

    made = datasets.Dataset.from_dict({"a": [1, 2, 3]})
    made.save_to_disk("forebay://d/saved", storage_options=site.options)
    loaded = datasets.load_from_disk("forebay://d/saved", storage_options=site.options)
    assert loaded["a"][:] == [1, 2, 3]


def test_zarr_writes_and_reads_chunks(site: Site) -> None:
    import zarr
    import zarr.storage

    wanted = np.arange(10_000, dtype="i4").reshape(100, 100)
    store = zarr.storage.FsspecStore.from_url("forebay://d/array.zarr", storage_options=dict(site.options))
    array = zarr.create_array(store, shape=wanted.shape, chunks=(10, 100), dtype=wanted.dtype)
    array[:] = wanted
    read: Any = zarr.open_array("forebay://d/array.zarr", mode="r", storage_options=dict(site.options))
    assert np.array_equal(read[20:40], wanted[20:40])
    assert np.array_equal(read[:], wanted)


def test_universal_pathlib_walks_and_writes(site: Site) -> None:
    from upath import UPath

    root = UPath("forebay://d", **site.options)
    (root / "sub").mkdir(exist_ok=True)
    (root / "sub" / "a.txt").write_text("text of a")
    assert (root / "sub/a.txt").read_text() == "text of a"
    assert [path.name for path in root.rglob("*.txt")] == ["a.txt"]
    assert (root / "sub/a.txt").stat().st_size == 9
    assert not (root / "sub/b.txt").exists()
    assert (root / "sub").is_dir()
    (root / "sub/a.txt").unlink()
    assert os.listdir(site.folder / "sub") == []
