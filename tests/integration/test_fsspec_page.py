"""The session of docs/fsspec.md, replayed."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from forebay.api.fsspec import ForebayFileSystem

PAGE = (Path(__file__).parents[2] / "docs" / "fsspec.md").read_text()


def test_the_session_goes_as_the_page_says(
    tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_TIERS", f"{memory_path}:64MiB:MEM")
    (tmp_path / "tables").mkdir()
    (session,) = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    for place, here in {"/data/tables": "tables", "/var/cache/forebay": "cache"}.items():
        session = session.replace(place, f"{tmp_path}/{here}")
    test = doctest.DocTestParser().get_doctest(session, {}, "docs/fsspec.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed = runner.run(test, out=said.append, clear_globs=False).failed
    assert not failed, "".join(said)
    fs = test.globs["fs"]
    assert isinstance(fs, ForebayFileSystem)
    fs.clear_instance_cache()
    fs.cache.close()
    assert len(test.examples) == 12
