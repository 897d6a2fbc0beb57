"""The command line: status, top, check and bench."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay.cli import bench
from forebay.config import MIB
from forebay.store import BlockStore
from tests.integration._cli import Cli


def test_status(attached: Cli) -> None:
    attached("cat", "d/a.bin")
    attached("cat", "d/a.bin", "d/sub/b.bin")
    shown = attached("status").text
    assert "cached     2 blocks, 100.0 KiB" in shown
    assert "hit ratio  " in shown
    assert "limit" in shown
    status = json.loads(attached("status", "--json").out)
    assert status["counters"]["admitted_bytes"] == 10 + (100 << 10)
    assert status["attached"][0]["name"] == "d"
    (tier,) = status["tiers"]
    assert f"{tier['path']}  MEM" in shown


def test_status_for_prometheus(attached: Cli) -> None:
    attached("cat", "d/a.bin")
    families = {
        family.name: family
        for family in text_string_to_metric_families(attached("status", "--prometheus").text)
    }
    admitted = {
        sample.labels["dataset"]: sample.value for sample in families["forebay_admitted_bytes"].samples
    }
    assert admitted == {"d": 10, "#0": 0}
    assert families["forebay_tier_quota_bytes"].samples[0].value == 64 * MIB


def test_top_once(attached: Cli) -> None:
    rates = json.loads(attached("top", "--once", "--json", "--interval", "0.1").out)
    assert rates["interval_s"] >= 0.1
    assert (rates["hits_per_s"], rates["misses_per_s"], rates["hit_ratio"]) == (0, 0, None)
    shown = attached("top", "--once", "--interval", "0.1").text
    assert "a second" in shown
    assert "hits" in shown
    assert "limit" in shown


def test_check(attached: Cli) -> None:
    attached("cat", "d/sub/b.bin")
    checked = attached("check")
    assert (checked.code, checked.text) == (0, "1 blocks in 1 segments, 100.0 KiB verified\n")
    assert json.loads(attached("check", "--json").out)["ok"] is True


def test_check_finds_and_repairs_damage(attached: Cli, memory_path: Path) -> None:
    attached("cat", "d/sub/b.bin")
    data = (attached.data / "sub/b.bin").read_bytes()
    damaged = 0
    for path in memory_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if (found := content.find(data[:64])) >= 0:
            with path.open("r+b") as file:
                file.seek(found)
                file.write(bytes(64))
            damaged += 1
    assert damaged == 1
    told = attached("check")
    assert told.code == 1
    assert "forebay check --repair" in told.err
    assert attached("check", "--repair").code == 0
    assert attached("check").code == 0
    assert attached("cat", "d/sub/b.bin").out == data


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_bench(
    cli: Cli, tmp_path: Path, memory_path: Path, medium: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives: list[Path] = []

    def status(store: BlockStore) -> dict[str, Any]:
        found = BlockStore.status(store)
        lives.append(Path(found["index"]["live_path"]))
        return found

    observed = type("Observed", (BlockStore,), {"status": status})
    monkeypatch.setattr(bench, "BlockStore", observed)
    folder = memory_path if medium == "MEM" else tmp_path / "disk"
    found = json.loads(cli("bench", "--json", "--size", "16MiB", "--tier", f"{folder}:64MiB:{medium}").out)
    assert [(each["operation"], each["medium"]) for each in found] == [
        (operation, medium) for operation in ("put", "get", "readinto")
    ]
    for each in found:
        assert (each["tier"], each["blocks"], each["bytes"]) == (str(folder), 16, 16 * MIB)
        assert each["ratio"] == pytest.approx(each["limit_s"] / each["seconds"])
    assert os.listdir(tmp_path) == ["data"]
    assert os.listdir(memory_path) == []
    assert len(lives) == 1
    assert not lives[0].exists()


def test_bench_of_the_tiers_that_a_cache_remembers(
    attached: Cli, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached("cat", "d/a.bin")
    monkeypatch.delenv("FOREBAY_TIERS")
    shown = attached("bench", "--size", "16MiB")
    assert [line.split()[:3] for line in shown.lines[1:4]] == [
        [str(memory_path), "MEM", operation] for operation in ("put", "get", "readinto")
    ]
    assert "ratio: 1 is as fast as the limit" in shown.lines[-1]
    status = json.loads(attached("status", "--json").out)
    assert status["blocks"] == 1


def test_bench_without_room(cli: Cli) -> None:
    outcome = cli("bench", "--size", "100TiB")
    assert (outcome.code, "give a smaller --size" in outcome.err) == (1, True)
