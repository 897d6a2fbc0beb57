"""What the cache says that it asked of an S3 server, against what the server's own log says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import forebay
from forebay.config import KIB, MIB
from forebay.testing.s3 import S3Server
from tests.faults._child import Child, wait_until
from tests.integration._cli import Cli, program
from tests.integration._sites import write_files

KINDS = {
    "LIST BUCKET": "lists",
    "GET OBJECT": "gets",
    "HEAD OBJECT": "heads",
    "CREATE OBJECT": "puts",
    "initiate multipart upload": "puts",
    "put multipart upload": "puts",
    "complete multipart upload": "puts",
    "DELETE": "deletes",
}
LOGGED = re.compile(f"serve s3: ({'|'.join(KINDS)})")
SIZES = {"large": 3 * MIB, **{f"small/{number}": 20 * KIB for number in range(40)}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    write_files(tmp_path / "buckets/bucket", {name: os.urandom(size) for name, size in SIZES.items()})
    with S3Server(tmp_path / "buckets", live=True, verbose=True) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


def logged(server: S3Server) -> dict[str, int]:
    """Return how many requests the server has logged, by kind."""
    counts = dict.fromkeys(("gets", "heads", "lists", "puts", "deletes"), 0)
    for what in LOGGED.findall(server.log()):
        counts[KINDS[what]] += 1
    return counts


def attach(cli: Cli, server: S3Server, *options: str) -> None:
    assert cli("attach", "d", "s3://bucket", "--endpoint-url", server.endpoint_url, *options).code == 0


@pytest.mark.parametrize("client", ["auto", "boto3"])
def test_each_request_of_all_processes_is_counted(
    cli: Cli, server: S3Server, tmp_path: Path, client: str
) -> None:
    attach(cli, server, "--max-age", "0", "--option", f"client={client}")
    with forebay.open() as cache:
        for name in ("large", "small/1"):
            cache.read(f"d/{name}").release()
        assert program("cp", "d/small/2", "d/small/1", str(tmp_path)).returncode == 0
        assert program("ls", "-R", "d").returncode == 0
        assert not cache.exists("d/absent")
        assert cache.load("d").wait().ok
        assert program("sync", "d/small").returncode == 0
        for name in SIZES:
            cache.read(f"d/{name}").release()
        account = cache.accounts()["d"]
    told = logged(server)
    assert account.requests == told
    assert min(told[kind] for kind in ("gets", "heads", "lists")) > 1
    assert (account.class_a, account.class_b) == (told["lists"], told["gets"] + told["heads"])
    assert account.bytes["source"] == sum(SIZES.values())
    with forebay.open() as cache:
        assert cache.accounts()["d"] == account, "it outlives those who counted"


def test_each_request_that_writes_is_counted(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    with S3Server(tmp_path / "buckets", verbose=True) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        attach(cli, server, "--writable")
        with forebay.open() as cache:
            cache.put("d/small", b"1")
            with cache.open("d/large", "wb") as file:
                for _ in range(20):
                    file.write(os.urandom(MIB))
            cache.rename("d/small", "d/other")
            assert program("put", __file__, "d/of another process").returncode == 0
            cache.delete("d/large")
            account = cache.accounts()["d"]
        told = logged(server)
    found = account.requests
    assert account.written_bytes == 1 + 20 * MIB + Path(__file__).stat().st_size
    # The server says nothing of it when uploads are listed.
    assert {**found, "lists": 0} == {**told, "lists": 0}
    assert found["lists"] >= told["lists"]
    assert (told["puts"] > 4, told["deletes"]) == (True, 2)


def load(link: Connection) -> None:
    with forebay.open() as cache:
        link.send("open")
        cache.load("d").wait()


def test_a_killed_process_has_counted_what_it_sent(cli: Cli, server: S3Server) -> None:
    attach(cli, server)
    with forebay.open() as cache:
        with Child(load) as child:
            assert child.receive() == "open"
            wait_until(lambda: cache.status()["blocks"] > 3, "some files are cached")
            child.kill()
            child.exit_code()
        counted = sum(cache.accounts()["d"].requests.values())
        in_flight_max = cache.status()["fetch"]["in_flight_max"]
    # Counted before it is sent: what was about to be sent may never have come.
    assert counted - in_flight_max <= sum(logged(server).values()) <= counted


def test_what_is_read_again_is_saved(cli: Cli, server: S3Server, tmp_path: Path) -> None:
    attach(cli, server, "--immutable")
    with forebay.open() as cache:
        for _ in range(3):
            for name in SIZES:
                cache.read(f"d/{name}").release()
        before = cache.accounts()["d"]
        assert (before.cost, before.saved_cost) == (None, None)
        assert before.saved_bytes == 2 * sum(SIZES.values()) == sum(before.bytes.values()) // 3 * 2
        assert before.saved_requests >= 2 * len(SIZES)
        assert sum(before.misses.values()) == before.misses["cold"]
        (tmp_path / "cache/prices.toml").write_text(
            'currency = "EUR"\n[prices."s3://bucket"]\nclass_a = 1000\nclass_b = 10\nout_gb = 1e9\n'
        )
        priced = cache.accounts()["d"]
    assert priced.cost == pytest.approx(
        before.class_a + before.class_b * 0.01 + before.bytes["source"], rel=1e-9
    )
    assert priced.saved_cost == pytest.approx(before.saved_requests * 0.01 + before.saved_bytes, rel=1e-9)
    status = json.loads(cli("status", "--json").out)
    assert status["accounts"]["d"] == priced.to_json()
    assert status["datasets"]["1"]["cost"] == priced.cost
    (line,) = (line for line in cli("status").lines if "EUR" in line)
    assert line.startswith("d ")
    assert 'forebay_dataset_cost{dataset="d"}' in cli("status", "--prometheus").text
    assert f'method="GET"}} {float(before.requests["gets"])}' in cli("status", "--prometheus").text
    assert "EUR" in cli("top", "--once", "--interval", "0.1").text
    top = json.loads(cli("top", "--once", "--interval", "0.1", "--json").out)
    assert (top["accounts"]["d"], top["datasets"]["d"]["hits_per_s"]) == (priced.to_json(), 0)


def test_a_price_file_can_be_named_and_must_be_there_then(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("attach", "d", cli.uri).code == 0
    prices = tmp_path / "own.toml"
    monkeypatch.setenv("FOREBAY_PRICES", str(prices))
    refused = cli("status")
    assert refused.code == 2
    assert str(prices) in refused.err
    prices.write_text('[prices."file:///"]\nout_gb = 1\n')
    assert cli("cat", "d/a.bin").code == 0
    with forebay.open() as cache:
        account = cache.accounts()["d"]
    assert account.cost == pytest.approx(account.bytes["source"] / 1e9)
    assert not any(account.requests.values()), "a folder is asked by no requests"
