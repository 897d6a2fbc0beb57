"""The commands of manifests: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO, TextIOWrapper

import pytest
from click.shell_completion import ShellComplete

from forebay.cli.app import app
from tests.integration._cli import Cli


@pytest.fixture
def shielded(cli: Cli) -> Cli:
    """The command line, with a folder attached as ``d`` that shows no more than a manifest."""
    assert cli("attach", "d", cli.uri, "--immutable", "--manifest-only").code == 0
    return cli


def test_a_session(shielded: Cli) -> None:
    run = shielded
    assert run("ls", "d").text == ""
    assert run("load", "d", "--manifest", "v1").text.endswith("; manifest v1 is in use\n")
    assert run("ls", "d").lines == ["d/a.bin", "d/sub/"]
    run.write("new", b"new")
    assert run("ls", "d").lines == ["d/a.bin", "d/sub/"]
    assert run("sync", "d").text == "d: 1 new, 0 changed, 0 gone\n"
    hidden = run("cat", "d/new")
    assert (hidden.code, hidden.err) == (
        1,
        "forebay: d/new: is not in manifest 'v1'; see what there is with `forebay ls`\n",
    )
    made = run("manifest", "create", "d", "v2", "--glob", "*")
    assert made.text == "listed 2 files, 13 B; manifest v2 is made\n"
    listed = run("manifest", "list", "d").lines
    rows = [re.sub(r"\t[0-9]{4}-\S+ \S+\t", "\t", line).split("\t") for line in listed]
    assert rows == [
        ["v1", "in use", "3", "100.0 KiB", "d"],
        ["v2", "-", "2", "13 B", "d, glob *"],
    ]
    assert run("cat", "d@v2/new").out == b"new"
    assert run("manifest", "use", "d", "v2").text == "d: v2 is in use\n"
    assert run("ls", "d").lines == ["d/a.bin", "d/new"]
    assert run("ls", "-R", "d@v1").lines == ["d@v1/a.bin", "d@v1/sub/", "d@v1/sub/b.bin", "d@v1/sub/c"]
    assert run("cp", "-r", "d@v1/sub", str(run.place)).code == 0
    assert (run.place / "sub/b.bin").stat().st_size == 100 * 1024
    assert run("du", "d@v1").lines == ["3\t102410\t102410\t100.0 %\td@v1"]
    assert run("stat", "d@v1/sub").text.startswith("d@v1/sub: directory")
    assert run("manifest", "rollback", "d").text == "d: v1 is in use\n"
    assert run("manifest", "delete", "d", "v2").text == "deleted d@v2\n"
    assert run("manifest", "use", "d", "--none").text == "d: no manifest is in use\n"
    assert run("ls", "d").text == ""
    assert json.loads(run("datasets", "--json").out)[0]["manifest_before"] == "v1"


def test_a_load_that_fails_makes_none(shielded: Cli) -> None:
    (shielded.place / "list").write_text("a.bin\nnone\n")
    failed = shielded("load", "d", "--files-from", str(shielded.place / "list"), "--manifest", "v1")
    assert failed.code == 1
    assert "manifest" not in failed.text
    assert "d/none (line 2): " in failed.err
    assert shielded("manifest", "list", "d").text == ""
    shown = json.loads(shielded("jobs", "--json").out)[-1]
    assert (shown["request"]["manifest"], shown["request"]["use_manifest"]) == ("v1", True)
    assert "for manifest v1" in shielded("jobs", "show", shown["id"]).text


def test_carried_by_a_file_and_by_a_pipe(shielded: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run, file = shielded, str(shielded.place / "list.jsonl")
    assert run("manifest", "create", "d", "v1").code == 0
    assert run("manifest", "export", "d", "v1", file).text == f"wrote 3 objects of d@v1 to {file}\n"
    text = run("manifest", "export", "d", "v1").out
    assert len(text.splitlines()) == 4
    made = run("manifest", "import", "d", "v2", file, "--ordered", "--use")
    assert made.text == "d@v2: 3 objects, 100.0 KiB, in use\n"
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text)))
    assert run("manifest", "import", "d", "v3", "-").text == "d@v3: 3 objects, 100.0 KiB\n"
    assert run("load", "d", "--order", "v2").text.startswith("loaded 2 files, 100.0 KiB")
    assert (
        run("load", "d", "--order", "v3").err
        == "forebay: manifest 'v3' of dataset 'd' has no order of access\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "d", "a/b"], 2, "manifest 'a/b': use 1 to 128 letters"),
        (["create", "d", "v1"], 2, "dataset 'd' has a manifest 'v1' already"),
        (["create", "none", "v2"], 1, "no dataset 'none' is attached"),
        (["use", "d", "v9"], 1, "dataset 'd' has no manifest 'v9'"),
        (["use", "d"], 2, "name a VERSION or give --none"),
        (["use", "d", "v1", "--none"], 2, "name a VERSION or give --none"),
        (["rollback", "d"], 2, "dataset 'd' has no earlier manifest"),
        (["delete", "d", "v1"], 2, "manifest 'v1' of dataset 'd' is in use"),
        (["export", "d", "v9"], 1, "dataset 'd' has no manifest 'v9'"),
        (["import", "d", "v2", "/none"], 1, "/none: No such file or directory"),
    ],
)
def test_errors(shielded: Cli, arguments: list[str], code: int, words: str) -> None:
    assert shielded("load", "d", "--manifest", "v1").code == 0
    failed = shielded("manifest", *arguments)
    assert (failed.code, failed.text) == (code, "")
    assert failed.err.startswith(f"forebay: {words}")
    assert failed.err.count("\n") == 1


def test_options_that_exclude_each_other(shielded: Cli) -> None:
    assert shielded("load", "d", "--manifest", "v1", "--dry-run").code == 2
    assert shielded("load", "d", "--order", "v1", "--files-from", "x").code == 2


def test_a_shell_is_offered_versions_and_what_they_list(shielded: Cli) -> None:
    def offered(incomplete: str) -> list[str]:
        completion = ShellComplete(app, {}, "forebay", "_FOREBAY_COMPLETE")
        return [item.value for item in completion.get_completions(["ls"], incomplete)]

    assert shielded("load", "d/sub", "--manifest", "v1").code == 0
    assert shielded("manifest", "create", "d", "v2").code == 0
    assert offered("d@") == ["d@v1/", "d@v2/"]
    assert offered("d@v2/") == ["d@v2/a.bin", "d@v2/sub/"]
    assert offered("d/") == ["d/sub/", "d/sub/b.bin", "d/sub/c"]
    assert offered("d@v7/") == []
    assert shielded("manifest", "use", "d", "--none").code == 0
    assert offered("d/") == []
