"""The command line: datasets, listings and bytes; what is wrong usage, and how errors are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forebay import __version__
from forebay.cache import Cache
from forebay.cli.app import app
from forebay.testing.faults import Fault
from forebay.testing.proxy_process import ProxyProcess
from forebay.testing.s3 import S3Server
from tests.integration._cli import Cli


def test_attach_datasets_detach(cli: Cli) -> None:
    attached = cli("attach", "d", cli.uri, "--immutable", "--retention", "lru")
    assert (attached.code, attached.text) == (0, f"attached d: {cli.uri}\n")
    assert cli("datasets").lines == [f"d\t{cli.uri}\timmutable\tlru\tnone"]
    (dataset,) = json.loads(cli("datasets", "--json").out)
    assert (dataset["name"], dataset["max_age"], dataset["retention"]) == ("d", None, "lru")
    again = cli("attach", "d", cli.uri, "--max-age", "5", "--negative-ttl", "1.5", "--json")
    record = json.loads(again.out)
    assert (record["max_age"], record["negative_ttl"], record["id"]) == (5, 1.5, dataset["id"])
    assert cli("datasets").lines == [f"d\t{cli.uri}\t5 s\tepoch\tnone"]
    assert cli("detach", "d").text == "detached d\n"
    assert cli("datasets").out == b""
    assert cli("attach", "d", cli.uri).code == 0
    assert json.loads(cli("detach", "--json", "d").out) == {"detached": "d"}


def test_options_of_the_under_storage(cli: Cli, s3_server: S3Server) -> None:
    pairs = ("--option", "attempts=2", "--option", "timeout_s=5.5", "--option", 'region="eu-west-1"')
    attached = cli("attach", "s", "s3://bucket", "--endpoint-url", s3_server.endpoint_url, *pairs, "--json")
    assert json.loads(attached.out)["options"] == {
        "endpoint_url": s3_server.endpoint_url,
        "attempts": 2,
        "timeout_s": 5.5,
        "region": "eu-west-1",
    }
    unknown = cli("attach", "t", "s3://bucket", "--option", "attempt=2")
    assert unknown.code == 2
    assert "did you mean 'attempts'" in unknown.err
    for malformed in ("attempts", "=2", "uri=s3://x", "retention=lru"):
        assert cli("attach", "t", "s3://bucket", "--option", malformed).code == 2


def test_attach_says_what_is_kept_of_what_peers_answer_for(cli: Cli) -> None:
    assert cli("attach", "d", cli.uri, "--local-copy", "if_room").code == 0
    (dataset,) = json.loads(cli("datasets", "--json").out)
    assert dataset["local_copy"] == "if_room"
    assert cli("attach", "d", cli.uri, "--local-copy", "iff_room").code == 2
    assert cli("attach", "d", cli.uri).code == 0
    assert json.loads(cli("datasets", "--json").out)[0]["local_copy"] is None


def test_ls(attached: Cli) -> None:
    assert attached("ls").lines == ["d/"]
    assert attached("ls", "d").lines == ["d/a.bin", "d/sub/"]
    assert attached("ls", "d/sub", "d/a.bin").lines == ["d/sub/b.bin", "d/sub/c", "d/a.bin"]
    listed = json.loads(attached("--json", "ls", "d").out)
    assert [(status["path"], status["size"], status["is_dir"]) for status in listed] == [
        ("d/a.bin", 10, False),
        ("d/sub", 0, True),
    ]
    assert sorted(listed[0]) == ["is_dir", "mtime_ns", "path", "size", "version"]
    empty = attached.data / "empty"
    empty.mkdir()
    assert json.loads(attached("ls", "--json", "d/empty").out) == []


def test_ls_long(attached: Cli) -> None:
    rows = [line.split("\t") for line in attached("ls", "-l", "d").lines]
    assert [(size, path) for size, _, _, path in rows] == [("10", "d/a.bin"), ("-", "d/sub/")]
    assert rows[0][1].startswith("20")
    human = [line.split("\t")[0] for line in attached("ls", "-l", "--human", "d/sub").lines]
    assert human == ["100.0 KiB", "0 B"]


def test_ls_of_all_below(attached: Cli) -> None:
    attached.write("sub/deep/er/x", b"1")
    below = ["d/sub/b.bin", "d/sub/c", "d/sub/deep/", "d/sub/deep/er/", "d/sub/deep/er/x"]
    assert attached("ls", "-R", "d").lines == ["d/a.bin", "d/sub/", *below]
    assert attached("ls", "-R").lines == ["d/", "d/a.bin", "d/sub/", *below]
    assert attached("ls", "-lR", "d/sub/deep").lines[-1].split("\t")[0] == "1"
    listed = json.loads(attached("ls", "-R", "--json", "d/sub").out)
    assert [status["path"] for status in listed][-1] == "d/sub/deep/er/x"


def test_directories_may_lie_deep(attached: Cli, tmp_path: Path) -> None:
    deep = "a/" * 400
    attached.write(f"{deep}x", b"1")
    listed = attached("ls", "-R", "d/a").lines
    assert (len(listed), listed[-1]) == (400, f"d/{deep}x")
    assert attached("cp", "-r", "d/a", str(tmp_path / "target")).code == 0
    assert (tmp_path / "target" / deep[2:] / "x").read_bytes() == b"1"
    assert attached("du", "d/a").lines[0].startswith("1\t1\t1\t")


def test_a_directory_that_cannot_be_listed_does_not_stop_the_others(
    cli: Cli, s3_server: S3Server, tmp_path: Path
) -> None:
    for name in ("a/x", "bad/x", "c/x"):
        (tmp_path / "buckets/bucket" / name).parent.mkdir()
        (tmp_path / "buckets/bucket" / name).write_bytes(b"1")
    forbidden = Fault("status", status=403, match="prefix=bad")
    with ProxyProcess(s3_server.address, faults=[forbidden]) as proxy:
        assert cli("attach", "s", "s3://bucket", "--endpoint-url", proxy.url).code == 0
        listed = cli("ls", "-R", "s")
        assert (listed.code, listed.err.count("\n")) == (1, 1)
        assert listed.lines == ["s/a/", "s/a/x", "s/bad/", "s/c/", "s/c/x"]
        copied = cli("cp", "-r", "s", str(tmp_path / "target"))
        assert (copied.code, copied.err.splitlines()[-1]) == (1, "copied 2 files, 2 B")


def test_stat(attached: Cli) -> None:
    assert attached("stat", "d/a.bin").text.startswith("d/a.bin: 10 bytes, 20")
    assert attached("stat", "d/sub").text.startswith("d/sub: directory, ")
    (status,) = json.loads(attached("stat", "--json", "d/a.bin").out)
    assert status["size"] == 10
    both = attached("stat", "--json", "d/a.bin", "d/none")
    assert (both.code, len(json.loads(both.out))) == (1, 1)


def test_cat_gives_the_bytes(attached: Cli) -> None:
    assert attached("cat", "d/a.bin").out == b"bytes of a"
    both = attached("cat", "d/sub/b.bin", "d/sub/c", "d/a.bin")
    assert both.out == (attached.data / "sub/b.bin").read_bytes() + b"bytes of a"


def test_cat_of_more_than_one_part(attached: Cli) -> None:
    data = os.urandom(33 << 20)
    attached.write("big", data)
    assert attached("cat", "d/big").out == data
    middle = attached("cat", "d/big", "--offset", "5MiB", "--length", "10MiB").out
    assert middle == data[5 << 20 : 15 << 20]


@pytest.mark.parametrize(
    ("options", "data"),
    [
        (["--offset", "6"], b"of a"),
        (["--length", "5"], b"bytes"),
        (["--offset", "6", "--length", "2"], b"of"),
        (["--offset", "6", "--length", "1KiB"], b"of a"),
        (["--offset", "10"], b""),
        (["--offset", "1TiB"], b""),
        (["--length", "0"], b""),
    ],
)
def test_cat_of_a_range(attached: Cli, options: list[str], data: bytes) -> None:
    outcome = attached("cat", "d/a.bin", *options)
    assert (outcome.code, outcome.out) == (0, data)


def test_one_bad_path_does_not_stop_the_others(attached: Cli) -> None:
    outcome = attached("cat", "d/none", "d/a.bin", "e/x", "d/sub")
    assert outcome.code == 1
    assert outcome.out == b"bytes of a"
    absent, unattached, directory = outcome.err.splitlines()
    hint = "see what there is with `forebay ls`"
    assert absent == f"forebay: {attached.uri}/none: No such file or directory; {hint}"
    assert unattached == "forebay: no dataset 'e' is attached; see `forebay datasets`"
    assert "d/sub: " in directory


def test_a_malformed_path_is_told_of_before_anything_is_done(attached: Cli) -> None:
    outcome = attached("cat", "d/a.bin", "d/../x")
    assert (outcome.code, outcome.out) == (2, b"")


def test_errors_as_json(attached: Cli) -> None:
    outcome = attached("cat", "--json", "d/none", "e/x")
    told = [json.loads(line)["error"] for line in outcome.err.splitlines()]
    assert [error["kind"] for error in told] == ["NotFound", "NotAttached"]
    assert told[0]["path"].endswith("/data/none")
    assert told[0]["message"] == f"{told[0]['path']}: No such file or directory"
    assert "forebay ls" in told[0]["hint"]
    usage = attached("cat", "--json", "--frob")
    assert (usage.code, json.loads(usage.err)["error"]["kind"]) == (2, "NoSuchOption")
    both = attached("status", "--json", "--prometheus")
    assert (both.code, json.loads(both.err)["error"]["hint"]) == (2, "see `forebay status --help`")


def test_a_fault_of_ours_is_one_line_too(attached: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cache: Cache) -> None:
        raise RuntimeError("strange\x1b[2J")

    monkeypatch.setattr(Cache, "datasets", fail)
    outcome = attached("datasets")
    told = r"forebay: internal error: RuntimeError: strange\x1b[2J; run it again with -v for more"
    assert (outcome.code, outcome.err) == (1, f"{told}\n")
    assert "Traceback" in attached("datasets", "-v").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["attach", "d"], "Missing argument 'URI'"),
        (["attach", "d", "nowhere://x"], "unknown scheme 'nowhere'"),
        (["attach", "d", "file:///", "--immutable", "--max-age", "5"], "exclude each other"),
        (["attach", "d", "file:///", "--retention", "lro"], "did you mean 'lru'"),
        (["attach", "d", "file:///", "--max-age", "-1"], "max_age"),
        (["ls", "--tier", "/x:1GiB:TAPE"], "unknown medium 'TAPE'"),
        (["ls", "--tier", "/x"], "write PATH:QUOTA"),
        (["ls", "--set", "rows"], "write KEY=VALUE"),
        (["ls", "--set", "row=5"], "did you mean 'rows'"),
        (["ls", "--set", "rows=many"], "rows: expected a whole number"),
        (["cat", "/etc/passwd"], "is absolute"),
        (["cat", "d/../x"], "contains the part"),
        (["cat"], "Missing argument"),
        (["cat", "d/a.bin", "--length", "4 Gi"], "is no size"),
        (["cp", "d/a.bin"], "Missing argument"),
        (["free", "--everything", "d"], "No such option"),
        (["top", "--interval", "0"], "--interval"),
        (["bench", "--size", "1K"], "at least 16.0 MiB"),
        (["completion", "csh"], "'csh' is not one of"),
    ],
)
def test_wrong_usage_is_two_and_one_line(attached: Cli, arguments: list[str], words: str) -> None:
    outcome = attached(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("forebay: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["d", "nowhere://x"],
        ["d/d", "file:///tmp"],
        ["d", "/tmp"],
        ["d", "s3://b", "--option", "attempt=1"],
        ["d", "file:///tmp", "--retention", "lro"],
        ["d", "file:///tmp", "--max-age", "nan"],
        ["d", "file:///tmp", "--option", "max_age=5"],
    ],
)
def test_no_cache_is_made_for_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    assert cli("attach", *arguments).code == 2
    assert not (cli.place / "cache").exists()


def test_no_cache_is_said_and_not_made(cli: Cli) -> None:
    commands = [["ls"], ["status"], ["cat", "d/a"], ["datasets"], ["check"], ["du"], ["top", "--once"]]
    commands += [["cp", "d/a", str(cli.place)], ["free", "d"], ["sync", "d"], ["detach", "d"], ["stat", "d"]]
    for command in commands:
        outcome = cli(*command)
        assert outcome.code == 2
        assert f"{cli.place / 'cache'}: no cache lies here" in outcome.err
        assert "forebay attach" in outcome.err
    assert not (cli.place / "cache").exists()


def test_options_stand_before_or_behind(attached: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREBAY_CACHE_DIR")
    monkeypatch.delenv("FOREBAY_TIERS")
    cache_dir = str(attached.place / "cache")
    assert attached("--cache-dir", cache_dir, "ls").lines == ["d/"]
    assert attached("ls", "--cache-dir", cache_dir).lines == ["d/"]
    assert attached("ls", "--set", f"cache_dir={cache_dir}").lines == ["d/"]
    config = attached.place / "forebay.toml"
    config.write_text(f'cache_dir = "{cache_dir}"\n')
    assert attached("ls", "--config", str(config)).lines == ["d/"]


def test_flags_win_over_environment_over_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    config = cli.place / "forebay.toml"
    config.write_text('cache_dir = "/nowhere/file"\nchecksum = "raed"\n')
    monkeypatch.setenv("FOREBAY_CONFIG", str(config))
    assert "forebay.toml: checksum: 'raed' is unknown" in cli("ls").err
    config.write_text('cache_dir = "/nowhere/file"\n')
    assert f"{cli.place / 'cache'}: no cache" in cli("ls").err
    monkeypatch.delenv("FOREBAY_CACHE_DIR")
    assert "/nowhere/file: no cache" in cli("ls").err
    assert "/nowhere/flag: no cache" in cli("ls", "--cache-dir", "/nowhere/flag").err


def test_settings_reach_the_cache(attached: Cli) -> None:
    status = json.loads(attached("status", "--json", "--set", "max_held_bytes=40MiB").out)
    assert status["max_held_bytes"] == 40 << 20
    assert "max_held_bytes" in attached("ls", "--set", "max_held_bytes=much").err


def test_names_cannot_write_to_the_terminal(attached: Cli) -> None:
    for name in (b"escape\x1b[2J", b"new\nline", b"raw\xff"):
        (attached.data / os.fsdecode(name)).write_bytes(b"1")
    shown = ["d/a.bin", r"d/escape\x1b[2J", r"d/new\nline", r"d/raw\xff", "d/sub/"]
    assert attached("ls", "d").lines == shown
    assert [line.split("\t")[-1] for line in attached("ls", "-l", "d").lines] == shown
    listed = json.loads(attached("ls", "--json", "d").out)
    assert [status["path"] for status in listed][1:3] == ["d/escape\x1b[2J", "d/new\nline"]
    for command in ("cat", "stat", "ls", "du"):
        told = attached(command, "d/none\x1b[2J\n").err
        assert "\x1b" not in told
        assert told.count("\n") == 1
    assert "\x1b" not in attached("frob\x1b[2J").err


def test_help_and_version(cli: Cli) -> None:
    shown = cli("--help")
    assert shown.code == 0
    for command in app.list_commands(None):  # type: ignore[arg-type]  # it needs no context
        assert f"\n  {command}" in shown.text
        help_text = cli(command, "--help")
        assert (help_text.code, help_text.err) == (0, "")
        assert help_text.text.startswith(f"Usage: forebay {command} ")
    assert cli("--version").text == f"forebay, version {__version__}\n"
    bare = cli()
    assert (bare.code, "Usage: forebay" in bare.err + bare.text) == (2, True)


def test_s3(cli: Cli, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "buckets/bucket/a.bin").write_bytes(b"from S3")
    endpoint = ("--endpoint-url", s3_server.endpoint_url)
    assert cli("attach", "s", "s3://bucket", *endpoint).code == 0
    assert cli("ls", "s").lines == ["s/a.bin"]
    assert cli("cat", "s/a.bin").out == b"from S3"
    gone = cli("attach", "t", "s3://gone", *endpoint)
    assert (gone.code, "the bucket 'gone' does not exist; check the URI" in gone.err) == (1, True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    refused = cli("attach", "t", "s3://bucket", *endpoint)
    assert refused.code == 1
    assert "HTTP 403" in refused.err
    assert "AWS_PROFILE" in refused.err
    assert "wrong-secret" not in refused.err
