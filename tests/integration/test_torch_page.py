"""The session of docs/torch.md, replayed."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.integration._sites import write_files


def test_the_session_goes_as_the_page_says(
    repository: Path, tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_TIERS", f"{memory_path}:64MiB:MEM")
    write_files(
        tmp_path / "images", {f"train/{number:04}.bin": bytes([number]) * 100 for number in range(10)}
    )
    write_files(tmp_path / "images", {"train/readme.txt": b"no image"})
    (tmp_path / "checkpoints").mkdir()
    page = (repository / "docs/torch.md").read_text()
    (session,) = re.findall(r"```pycon\n(.*?)```", page, re.DOTALL)
    session = session.replace("/data/", f"{tmp_path}/").replace("/var/cache/forebay", f"{tmp_path}/cache")
    test = doctest.DocTestParser().get_doctest(session, {}, "docs/torch.md", None, 0)
    said: list[str] = []
    outcome = doctest.DocTestRunner().run(test, out=said.append)
    assert outcome.failed == 0, "".join(said)
    assert outcome.attempted == len(test.examples) == 16
