"""The commands of schedules: what they print, where, and with which exit code."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime

import pytest

from tests.faults._child import wait_until
from tests.integration._cli import Cli, started

HINT = "forebay: nobody watches; what is due is run once `forebay load --watch` is\n"
NIGHTLY = ("--cron", "0 3 * * *", "--timezone", "Europe/Berlin")


def scheduled(cli: Cli, *arguments: str) -> str:
    done = cli("load", *arguments)
    assert (done.code, done.err) == (0, HINT)
    return done.text.strip()


def test_schedules_are_made_listed_and_removed(attached: Cli) -> None:
    assert (attached("schedules").text, attached("schedules").err) == ("", "")
    once = scheduled(attached, "d", "--at", "2099-12-01T03:00+01:00", "--glob", "*")
    nightly = scheduled(attached, "d/sub", *NIGHTLY)
    scheduled(attached, "d", "--after", nightly, "--any-end")
    assert scheduled(attached, "d/sub", *NIGHTLY) == nightly
    listed = attached("schedules")
    assert listed.err == HINT
    rows = [line.split("\t") for line in listed.lines]
    assert rows[0] == [once, "waiting", "d", "once", "2099-12-01 02:00:00+00:00", "-", "0"]
    assert rows[1][:4] == [nightly, "waiting", "d/sub", "cron 0 3 * * * Europe/Berlin"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d 03:00:00\+0[12]:00", rows[1][4])
    assert rows[2][3:5] == [f"after {nightly}, any end", f"runs after schedule {nightly}"]
    assert attached("schedules", "list").lines == listed.lines
    assert attached("schedules", "remove", nightly).text == f"removed {nightly}\n"
    assert attached("schedules").lines[1].split("\t")[1:5] == [
        "over",
        "d",
        f"after {nightly}, any end",
        f"schedule {nightly} was removed",
    ]
    assert json.loads(attached("schedules", "remove", once, "--json").out) == {"removed": once}


def test_json(attached: Cli) -> None:
    made = json.loads(attached("load", "d", *NIGHTLY, "--json").out)
    (listed,) = json.loads(attached("schedules", "--json").out)
    assert made == listed
    assert (made["cron"], made["timezone"], made["state"]) == ("0 3 * * *", "Europe/Berlin", "waiting")
    assert made["request"]["target"] == "d"


def test_a_file_list_from_standard_input(attached: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.bin\n")))
    scheduled(attached, "d", *NIGHTLY, "--files-from", "-")
    (made,) = json.loads(attached("schedules", "--json").out)
    assert made["request"]["listed"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load",), "Missing argument 'TARGET'"),
        (("load", "d", "--at", "soon"), "'soon' is no time"),
        (("load", "d", "--at", "2026-12-01T03:00", "--cron", "0 3 * * *"), "one of at, cron and after"),
        (("load", "d", "--any-end"), "one of at, cron and after"),
        (("load", "d", "--timezone", "UTC"), "one of at, cron and after"),
        (("load", "d", "--cron", "0 3 * *"), "write five fields"),
        (("load", "d", "--cron", "0 3 * * *", "--timezone", "Nowhere"), "'Nowhere' is known here"),
        (("load", "d", *NIGHTLY, "--dry-run"), "dry_run"),
        (("load", "d", *NIGHTLY, "--background"), "exclude each other"),
        (("load", "--watch", "d"), "takes nothing else"),
        (("load", "--watch", "--glob", "*"), "takes nothing else"),
        (("load", "--watch", "--at", "2026-12-01"), "takes nothing else"),
        (("load", "--watch", "--background"), "takes nothing else"),
        (("schedules", "remove"), "Missing argument"),
    ],
)
def test_wrong_usage(attached: Cli, arguments: tuple[str, ...], words: str) -> None:
    done = attached(*arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_what_fails(attached: Cli) -> None:
    for arguments, words in (
        (("load", "e", *NIGHTLY), "no dataset 'e' is attached"),
        (("load", "d", "--after", "x"), "there is no job or schedule 'x'"),
        (("load", "d", "--after", "sx"), "there is no schedule 'sx'; see `forebay schedules`"),
        (("schedules", "remove", "x"), "there is no schedule 'x'; see `forebay schedules`"),
    ):
        done = attached(*arguments)
        assert (done.code, words in done.err) == (1, True), done


def test_watching_needs_a_cache(cli: Cli) -> None:
    done = cli("load", "--watch")
    assert (done.code, "no cache lies here" in done.err) == (2, True)


@pytest.mark.parametrize("as_json", [False, True])
def test_watching(attached: Cli, as_json: bool) -> None:
    arguments = ["load", "--watch", *(["--json"] if as_json else [])]
    with started(arguments) as watching:
        try:
            done = attached("load", "d", "--at", datetime.now(UTC).isoformat())
            assert done.code == 0
            wait_until(lambda: "over" in attached("schedules").text, "the load has run")
            assert attached("schedules").err == ""
            # Whoever watches is seen.
            assert attached("load", "d", "--at", "2099-01-01T00:00").err == ""
        finally:
            watching.terminate()
        out, err = watching.communicate(timeout=60)
    assert (watching.returncode, err) == (0, "")
    one = attached("schedules").lines[0].split("\t")
    assert one[5:] == ["done", "1"]
    begun, ended = out.splitlines()
    if as_json:
        assert [json.loads(line)["event"] for line in (begun, ended)] == ["begun", "ended"]
        assert json.loads(ended)["schedule"] == done.text.strip()
    else:
        assert re.fullmatch(rf"\d{{4}}-.* {one[0]} d: begun \(\S+\)", begun)
        assert re.fullmatch(rf"\d{{4}}-.* {one[0]} d: ended done \(\S+\)", ended)
    assert attached("jobs").lines[0].split("\t")[1] == "done"


def test_names_move_no_cursor(attached: Cli) -> None:
    scheduled(attached, "d/\x1b[2J", *NIGHTLY)
    assert "\x1b" not in attached("schedules").text
    assert "d/\\x1b[2J" in attached("schedules").text
