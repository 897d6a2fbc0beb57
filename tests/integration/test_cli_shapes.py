"""What --json prints has the fields that docs/cli.md says, in that shape."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import forebay
from tests.integration._cli import Cli

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHAPES = re.compile(
    r"^## ([a-z ]+)$(?:(?!^## ).)*?^JSON: (an? [a-z ]+) with ([^.]*)\.", re.MULTILINE | re.DOTALL
)


def documented() -> dict[str, tuple[str, list[str]]]:
    """Return, by command, the documented shape and fields."""
    return {name: (shape, re.findall(r"`([a-z_]+)`", fields)) for name, shape, fields in SHAPES.findall(PAGE)}


SILENT = [sys.executable, "-c", ""]
COMMANDS = {
    "attach": ["d", "{uri}"],
    "bench": ["--size", "16MiB"],
    "cancel": ["{job}"],
    "check": [],
    "cp": ["d/a.bin", "{target}"],
    "datasets": [],
    "detach": ["d"],
    "du": ["d"],
    "free": ["d"],
    "jobs": [],
    "jobs show": ["{job}"],
    "load": ["d"],
    "locate": ["d"],
    "ls": ["-R", "d"],
    "manifest create": ["d", "v4"],
    "manifest delete": ["d", "v3"],
    "manifest import": ["d", "v5", "{text}"],
    "manifest list": ["d"],
    "manifest rollback": ["d"],
    "manifest use": ["d", "v3"],
    "mkdir": ["d/new"],
    "mv": ["d/a.bin", "d/b.bin"],
    "pin": ["d"],
    "policy clear": ["d"],
    "policy list": ["d"],
    "policy set": ["d", "--skip"],
    "policy show": ["d/a.bin"],
    "put": ["{local}", "d/new"],
    "quota": ["d", "1MiB"],
    "record": ["new", "--", *SILENT],
    "replicas": ["d", "--at-least", "2"],
    "resume": ["{job}"],
    "rm": ["d/a.bin"],
    "schedules": [],
    "schedules remove": ["{schedule}"],
    "stat": ["d/a.bin", "d/sub"],
    "status": [],
    "sync": ["d"],
    "token keygen": ["{target}/new"],
    "token make": ["--key", "{target}/key", "--dataset", "d"],
    "token show": ["{target}/token", "--keys", "{target}/key.pub"],
    "top": ["--once", "--interval", "0.1"],
    "trace delete": ["t"],
    "trace list": [],
    "trace manifests": ["t"],
    "trace show": ["t"],
    "ttl": ["d", "60"],
    "unpin": ["d"],
    "whatif": ["t"],
}

# Tried where mounts are made, in tests/fuse/test_mount.py.
OF_MOUNTS = {"mount", "umount"}
# Tried where members are started, in tests/cluster.
OF_MEMBERS = {"serve"}


def test_every_command_with_json_is_tried() -> None:
    assert documented().keys() == COMMANDS.keys() | OF_MOUNTS | OF_MEMBERS


@pytest.mark.parametrize("name", COMMANDS)
def test_fields(attached: Cli, name: str) -> None:
    attached("attach", "d", attached.uri, "--writable")
    job = json.loads(attached("load", "d", "--json").out)["id"]
    schedule = json.loads(attached("load", "d", "--cron", "0 3 * * *", "--json").out)["id"]
    assert attached("policy", "set", "d/sub", "--pin").code == 0
    text = attached.place / "text"
    text.write_text('{"path": "a", "size": 1, "version": "v"}\n')
    if name.startswith(("trace", "whatif")):
        with forebay.open() as cache, cache.record("t", manifests=False):
            cache.read("d/a.bin").release()
    if name.startswith("manifest"):
        for arguments in (["v1", "--use"], ["v2", "--use"], ["v3"]):
            assert attached("manifest", "create", "d", *arguments).code == 0
    if name.startswith("token"):
        key = f"{attached.place}/key"
        assert attached("token", "keygen", key).code == 0
        made = attached(
            "token", "make", "--key", key, "--dataset", "*", "--output", f"{attached.place}/token"
        )
        assert made.code == 0
    places = {"uri": attached.uri, "job": job, "schedule": schedule}
    places |= {"target": str(attached.place), "text": str(text)}
    places |= {"local": str(attached.data / "sub/b.bin")}
    arguments = [argument.format(**places) for argument in COMMANDS[name]]
    # Before what belongs to another program.
    printed: Any = json.loads(attached(*name.split(), "--json", *arguments).out)
    shape, fields = documented()[name]
    if shape == "an array of objects":
        assert len(printed) >= 1
        objects = printed
    else:
        assert shape in ("an object", "an object a line")
        objects = [printed]
    for each in objects:
        assert sorted(each) == sorted(fields)
