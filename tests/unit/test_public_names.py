"""The public list is one place; what people, tools and type checkers see of it is the same."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import forebay

PUBLIC = ["BlockStore", "Cache", "Tier", "View", "__version__", "errors", "open"]


def names_for_type_checkers(module: Path) -> dict[str, str]:
    """Read the TYPE_CHECKING block of a module: name -> module that it comes from."""
    tree = ast.parse(module.read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_the_list_is_the_one_intended() -> None:
    assert sorted(forebay.__all__) == PUBLIC


def test_dir_shows_the_list_before_first_use() -> None:
    script = "import forebay; print(*dir(forebay))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.split() == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_documented(name: str) -> None:
    value = getattr(forebay, name)
    assert value is getattr(forebay, name)
    assert value.__doc__


def test_star_import_gives_the_list() -> None:
    names: dict[str, object] = {}
    exec("from forebay import *", names)
    assert sorted(set(names) - {"__builtins__"}) == PUBLIC


def test_type_checkers_see_what_is_imported(repository: Path) -> None:
    typed = names_for_type_checkers(repository / "engine" / "__init__.py")
    assert sorted([*typed, "__version__", "errors"]) == PUBLIC
    for name, home in typed.items():
        assert getattr(importlib.import_module(home), name) is getattr(forebay, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'forebay' has no attribute 'BlokStore'"):
        forebay.__getattr__("BlokStore")
